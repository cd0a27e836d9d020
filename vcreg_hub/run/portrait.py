"""What the networks of finished runs look like from within, for a report: blocks, features in two dimensions,
neighbours and mistakes, all on the same test samples."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..analysis.similarity import linear_cka
from ..analysis.spectrum import singular_values
from ..data.module import DataModule
from ..errors import VCRegError
from ..evals.blocks import Blocks
from ..evals.context import BlockRows, Context
from ..results.aggregate import recipe_id
from ..results.gallery import Gallery, Portrait, Reading, Similarity, Sprite
from ..rundir import RunDir
from .accelerator import make_accelerator
from .build import load_run, recipe_data

_TILE, _COLUMNS = 32, 20
_QUERIES, _NEIGHBOURS, _MISTAKES = 8, 5, 12


@dataclass(frozen=True)
class _Seen:
    """One run's network and what it makes of the shared samples."""

    run: RunDir
    context: Context
    rows: BlockRows


def portray(runs: Sequence[RunDir], samples: int = 400) -> Gallery:
    """Looks at the networks of runs of one comparison on the same samples of their test split.

    samples: how many are shown, a fair share of every class; blocks are measured on five times as many. A run whose
    data are not here, or whose network has no blocks, is named in the notes with the reason.
    """
    seen, notes = [], []
    for run in runs:
        try:
            context = _context(run)
            rows = context.at_blocks(_evaluation(context, samples), context.settings.split, "blocks", samples)
            seen.append(_Seen(run, context, rows))
        except VCRegError as error:
            notes.append(f"{run.path.name}: its network is not shown. {error}")
    if not seen:
        return Gallery(notes=tuple(notes))
    first = seen[0].context
    split = first.settings.split
    data = first.trained_on
    return Gallery(
        tuple(data.class_names), split, _sprite(data, split, seen[0].rows.places),
        tuple(_portrait(one, samples) for one in seen), tuple(_similarities(seen)), tuple(notes),
    )  # fmt: skip


def _context(run: RunDir) -> Context:
    recipe, data, network = load_run(run.path)
    accelerator = make_accelerator(recipe)
    network.to(accelerator.device)
    return Context(network, data, recipe.eval, accelerator, load=lambda cfg: recipe_data(recipe, cfg))


def _evaluation(context: Context, samples: int) -> Blocks:
    """The measurement of the blocks, by every label set that the data have."""
    own = context.trained_on.cfg.labels
    kinds = [own]
    for kind in ("superclass", "class"):
        try:
            context.data(Blocks(labels=kind))
        except VCRegError:
            continue  # such as a folder of images, which has one label set
        kinds += [kind] if kind != own else []
    return Blocks(label_sets=tuple(kinds), samples=5 * samples)


def _portrait(one: _Seen, samples: int) -> Portrait:
    rows, split = one.rows, one.context.settings.split
    labels = one.context.trained_on.labels(split)
    assert labels is not None, "samples were chosen by labels"
    targets = torch.from_numpy(labels[rows.places])
    features = _final(rows)
    answers = rows.scores.argmax(1)
    sure = rows.scores.softmax(1).amax(1)
    wrong = torch.nonzero(answers != targets).flatten()
    worst = wrong[sure[wrong].argsort(descending=True)][:_MISTAKES]
    readings = (
        Reading(name, place.block, place.labels or "", place.split or split, float(value))
        for name, value, place in _evaluation(one.context, samples).run(one.context)
    )
    return Portrait(
        group=recipe_id(one.run.recipe()),
        readings=tuple(reading for reading in readings if np.isfinite(reading.value)),
        spectrum=tuple(float(f"{value:.5g}") for value in singular_values(features)),
        points=_points(features),
        labels=tuple(targets.tolist()),
        answers=tuple(answers.tolist()),
        neighbours=_neighbours(features, targets),
        mistakes=tuple(worst.tolist()),
    )


def _final(rows: BlockRows) -> Tensor:
    """What enters the classifier: (n, d)."""
    return torch.cat([found for name, found in rows.features.items() if name.endswith(" (input)")], dim=1)


def _points(features: Tensor) -> tuple[tuple[float, float], ...]:
    """The rows in two dimensions, by t-SNE from their principal components; the same for the same rows."""
    from sklearn.manifold import TSNE

    few = min(30.0, (len(features) - 1) / 3)
    placed = TSNE(perplexity=few, init="pca", random_state=0).fit_transform(features.double().numpy())
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in placed)


def _neighbours(features: Tensor, labels: Tensor) -> tuple[tuple[int, ...], ...]:
    """A few samples, of different classes as far as there are, each with those nearest to it by cosine."""
    unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    firsts = [int(torch.nonzero(labels == label)[0]) for label in labels.unique()]
    spread = torch.linspace(0, len(labels) - 1, _QUERIES).round().long().tolist()
    queries = list(dict.fromkeys([*firsts, *spread]))[:_QUERIES]
    nearest = (unit[queries] @ unit.T).topk(min(_NEIGHBOURS + 1, len(unit)), dim=1).indices.tolist()
    return tuple((query, *[i for i in found if i != query][:_NEIGHBOURS]) for query, found in zip(queries, nearest))


def _similarities(seen: Sequence[_Seen]) -> Iterator[Similarity]:
    """CKA of the first network, the baseline where there is one, with each of the others."""
    first, *others = sorted(seen, key=lambda one: one.run.recipe().vcreg is not None)
    for other in others:
        names = tuple(first.rows.features), tuple(other.rows.features)
        values = tuple(
            tuple(round(_cka(one, two), 4) for two in other.rows.features.values())
            for one in first.rows.features.values()
        )
        ids = [recipe_id(one.run.recipe()) for one in (first, other)]
        yield Similarity(ids[0], ids[1], names[0], names[1], values)


def _cka(one: Tensor, other: Tensor) -> float:
    try:
        return linear_cka(one, other)
    except VCRegError:
        return 0.0  # a block whose features do not vary is like no other


def _sprite(data: DataModule, split: str, places: np.ndarray[Any, Any]) -> Sprite:
    """The samples as the network saw them, small, in one PNG; of a clip its middle frame."""
    from PIL import Image

    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    tiles = []
    for batch, *_ in data.take(split, places.tolist(), 64):
        still = batch[:, batch.shape[1] // 2] if batch.ndim == 5 else batch
        pixels = (still.float() * std + mean).clamp(0, 1)
        small = torch.nn.functional.interpolate(pixels, (_TILE, _TILE), mode="bilinear", antialias=True)
        tiles.append((255 * small).round().byte())
    every = torch.cat(tiles).expand(-1, 3, -1, -1) if data.in_chans == 1 else torch.cat(tiles)[:, :3]
    down = -(-len(every) // _COLUMNS)
    sheet = np.zeros((down * _TILE, _COLUMNS * _TILE, 3), np.uint8)
    for i, tile in enumerate(every.permute(0, 2, 3, 1).numpy()):
        y, x = _TILE * (i // _COLUMNS), _TILE * (i % _COLUMNS)
        sheet[y : y + _TILE, x : x + _TILE] = tile
    grey = data.in_chans == 1
    file = io.BytesIO()
    Image.fromarray(sheet[..., 0] if grey else sheet).save(file, "PNG", optimize=True)
    return Sprite(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", _TILE, _COLUMNS)
