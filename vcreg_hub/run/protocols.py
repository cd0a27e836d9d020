"""The evaluation protocols a recipe may name, and their metrics as rows of results.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ..errors import DivergedError
from ..evals import METRICS
from .material import Material

Pairs = Iterator[tuple[str, float]]


def evaluate(material: Material, model: nn.Module, accelerator: Any, selected: str) -> list[dict[str, Any]]:
    """Every metric of the recipe's protocols, as rows of results.json. selected: which weights these are.

    Errors: DivergedError for a value that is not finite; nothing is written then.
    """
    recipe = material.recipe
    rows = []
    model = model.to(accelerator.device)
    for name in recipe.eval.protocols:
        labels, pairs = PROTOCOLS[name](material, model, accelerator)
        rows += [
            {
                "metric": metric,
                "value": round(float(value), 6),
                "unit": METRICS[metric].unit,
                "higher_is_better": METRICS[metric].higher_is_better,
                "dataset": recipe.data.name,
                "dataset_config": labels,
                "split": recipe.eval.split,
                "protocol": f"{METRICS[metric].meaning.format(views=material.views)}; {selected}",
                "seed": recipe.train.seed,
                **material.row_fields(),
            }
            for metric, value in pairs
        ]
    broken = [f"{row['metric']} on {row['split']}" for row in rows if not math.isfinite(row["value"])]
    if broken:
        raise DivergedError(
            f"not finite: {', '.join(broken)}. The network gives no usable numbers; lower optim.lr or the "
            "regularizer's alpha and beta, or set train.clip_norm, and train again"
        )
    return rows


def _classification(material: Material, model: nn.Module, accelerator: Any) -> tuple[str, Pairs]:
    recipe = material.recipe
    return recipe.data.labels, material.classify(model, recipe.eval.split, accelerator)


def _probe(material: Material, model: nn.Module, accelerator: Any) -> tuple[str, Pairs]:
    from ..evals import linear_probe as probe
    from ..evals.features import extract

    settings = material.recipe.eval
    probed = material.relabelled(settings.probe_labels)
    fit_on = extract(model, probed.batches("train", accelerator), accelerator)
    test_on = extract(model, probed.batches(settings.split, accelerator), accelerator)
    return settings.probe_labels, probe.evaluate(fit_on, test_on, settings.probe_lambda)


PROTOCOLS: dict[str, Callable[[Material, nn.Module, Any], tuple[str, Pairs]]] = {
    "classification": _classification,
    "probe": _probe,
}
