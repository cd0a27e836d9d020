"""Extracts a frozen network's outputs: on any number of processes, each sample once, kept on disk.

A part of the samples at a time is extracted and, where a folder is given, written there. What broke off goes on with
the next part, and the same network, data and view are never extracted again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.batches import in_order
from ..errors import DataError, RunFolderError, UsageError
from ..files import read_tensors, tensors_sha256, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

VARIABLE = "VCREG_FEATURES_DIR"
# Samples of a file, a matter of minutes at most; of the kinds of output see `models.outputs.outputs`.
_PART = 4096
_LABELS = "labels"


@dataclass(frozen=True)
class Extracted:
    """Arrays in the order of the samples. arrays: name -> (n, ...) float32. labels: (n,) int64, as the batches had
    them: negative for a sample that could not be read."""

    arrays: dict[str, np.ndarray]
    labels: np.ndarray


def features_folder() -> Path:
    """Where features are kept: the folder that VCREG_FEATURES_DIR names, else one in the user's cache."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vcreg_hub" / "features"


def extract(
    network: nn.Module,
    loader: DataLoader[Any],
    accelerator: Any,
    *,
    outputs: Sequence[str] = ("pooled",),
    data: str | None = None,
    cache: Path | None = None,
    expected: np.ndarray | None = None,
) -> Extracted:
    """What the network makes of every sample of a loader, the same on every process, which must all call it.

    loader: (samples, labels, numbers) in order, not shared out among processes. outputs: see `models.outputs.outputs`.
    data: names samples and view, such as `DataModule.fingerprint`; with it, parts are kept in `cache` under a name made
    of it, the weights, the outputs and the precision. None, or a stream: nothing is kept. expected: (n,) labels that
    the batches must have, up to the sign of those that could not be read.
    Errors: DataError for no sample, batches in another order, or a sample that is lost or doubled.
    """
    from torch.utils.data import IterableDataset, Subset

    network.to(accelerator.device)
    samples: Any = loader.dataset
    if isinstance(samples, IterableDataset):
        return Extracted(*_part(network, loader, accelerator, outputs, None))
    total = len(samples)
    if not total:
        raise DataError("there is no sample to extract features from: the split is empty")
    folder = None if data is None or cache is None else cache / _key(network, data, outputs, accelerator)
    parts = []
    with progress_bar(total, accelerator) as bar:
        for start in range(0, total, _PART):
            stop = min(start + _PART, total)
            path = None if folder is None else folder / f"{start:08}-{stop:08}.safetensors"
            found = _kept(path, accelerator)
            if found is None:
                share = in_order(Subset(samples, range(start, stop)), loader.batch_size, loader.num_workers)
                found = _part(network, share, accelerator, outputs, stop - start)
                if expected is not None and not np.array_equal(_true(found[1]), expected[start:stop]):
                    raise DataError("batches came in another order than the data set's")
                _keep(path, found, accelerator)
            parts.append(found)
            bar.update(stop - start)
    arrays = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return Extracted(arrays, np.concatenate([labels for _, labels in parts]))


_Part = tuple[dict[str, np.ndarray], np.ndarray]


def _part(
    network: nn.Module, loader: DataLoader[Any], accelerator: Any, kinds: Sequence[str], count: int | None
) -> _Part:
    """Outputs and labels of a loader. count: of its samples, None where it is not known.

    The network is put into evaluation mode and back.
    """
    import torch

    from ..models.outputs import outputs

    was_training = network.training
    network.eval()
    rows: list[dict[str, np.ndarray]] = []
    labels, numbers = [], []
    with torch.no_grad():
        for shown, truth, number, *_ in accelerator.prepare(loader):
            with accelerator.autocast():
                found = outputs(network, shown, kinds)
            found = {name: value.float() for name, value in found.items()}
            # What padding repeats, so that every process has as many, is dropped here.
            found, truth, number = accelerator.gather_for_metrics((found, truth, number))
            rows.append({name: value.cpu().numpy() for name, value in found.items()})
            labels.append(truth.cpu().numpy())
            numbers.append(number.cpu().numpy())
    network.train(was_training)
    if not rows:
        raise DataError("there is no sample to extract features from: the split is empty")
    seen = np.concatenate(numbers)
    if count is not None and not len(np.unique(seen)) == len(seen) == count:
        raise DataError(f"{count} samples gave {len(seen)} features, of {len(np.unique(seen))} samples: one was lost")
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return arrays, np.concatenate(labels).astype(np.int64)


def _true(labels: np.ndarray) -> np.ndarray:
    return np.where(labels < 0, -1 - labels, labels)


def _key(network: nn.Module, data: str, outputs: Sequence[str], accelerator: Any) -> str:
    # Two networks of one state dict may differ in what has no weights, such as an activation.
    named = [tensors_sha256(network.state_dict()), repr(network), data, sorted(outputs), accelerator.mixed_precision]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]


def _kept(path: Path | None, accelerator: Any) -> _Part | None:
    """A part that an earlier extraction left, where every process sees it whole."""
    import torch

    if path is None:
        return None
    tensors: dict[str, Tensor] | None = None
    try:
        tensors = read_tensors(path)
    except RunFolderError:  # not there, or damaged: it is made again
        pass
    if accelerator.num_processes > 1:
        have = torch.tensor(int(tensors is not None), device=accelerator.device)
        if int(accelerator.reduce(have, "sum")) < accelerator.num_processes:
            return None
    if tensors is None:
        return None
    labels = tensors.pop(_LABELS).numpy()
    return {name: tensor.numpy() for name, tensor in tensors.items()}, labels


def _keep(path: Path | None, part: _Part, accelerator: Any) -> None:
    import torch

    if path is None or not accelerator.is_main_process:
        return
    arrays, labels = part
    tensors = {name: torch.from_numpy(array) for name, array in (*arrays.items(), (_LABELS, labels))}
    try:
        write_tensors(path, tensors)
    except OSError as error:
        raise UsageError(
            f"features cannot be kept in {path.parent} ({error.strerror}): set {VARIABLE} to a folder with room, or "
            "leave the cache out"
        ) from error


def progress_bar(total: int | None, accelerator: Any, title: str = "features", unit: str = "sample") -> Any:
    """A progress bar on the main process's terminal; nothing without a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc=title, unit=unit, leave=False,
                disable=None if accelerator.is_main_process else True)  # fmt: skip
