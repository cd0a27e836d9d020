"""What a training says while it runs: a bar, a line for each epoch, the regularizer's columns, warnings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import counted
from ..regularizer.attachment import Attachment
from ..rundir import RunDir
from ..training.loop import Step
from ..training.snapshots import Resumed, Row

# The columns of each site's share of the gradient.
_SHARES = "vcreg_gradient_share/"
# Characters of the line that tells an epoch.
_LINE = 100


def say_resumed(event: Resumed, batches: Any, folder: RunDir, log: Callable[[str], None]) -> None:
    for reason in event.unusable:
        log(f"not usable: {reason}")
    place = (
        f", {event.place} steps into epoch {event.epoch + 1}" if event.place else f", the end of epoch {event.epoch}"
    )
    log(f"resumed at step {event.step}{place}, from {folder.path / event.state}")
    if event.place and batches.rereads:
        log(f"the training data are a stream: what the {event.place} steps saw is read once more, and left out")


def report_epoch(row: Row, epochs: int, accelerator: Any, log: Callable[[str], None]) -> None:
    log(_epoch_line(row, epochs))
    if accelerator.trackers:
        accelerator.log({name: value for name, value in row.items() if name not in ("epoch", "step")}, step=row["step"])


def _epoch_line(row: Row, epochs: int) -> str:
    """An epoch's row in at most `_LINE` characters, losses and scores first. All of it is in metrics.csv, and what is
    told of blocks one by one is there alone."""
    names = [name for name in row if name not in ("epoch", "step") and "/" not in name]
    line = f"epoch {row['epoch']}/{epochs}"
    for name in sorted(names, key=lambda name: not name.startswith(("train_", "val_"))):
        part = f"  {name} {_short(row[name])}"
        line += part if len(line + part) <= _LINE else ""
    return line


class Bar:
    """A progress bar for each epoch, where it is asked for."""

    def __init__(self, show: bool) -> None:
        self.show = show
        self.bar: Any = None

    def step(self, event: Step, epochs: int) -> None:
        if not self.show:
            return
        if self.bar is None:
            from tqdm import tqdm

            title = f"epoch {event.epoch}/{epochs}"
            self.bar = tqdm(total=event.count, desc=title, leave=False, unit="step", dynamic_ncols=True)
        self.bar.update()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def regularizer_row(attachment: Attachment | None) -> Row:
    """The statistics of the regularizer for an epoch's row: means over the sites, and each site's in columns of its own
    ("vcreg_gradient_share/<site>"). A site that saw fewer than two rows has none, and is left out."""
    if attachment is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    for site in attachment.statistics():
        for name, value in site.items():
            if isinstance(value, float):
                found.setdefault(name, {})[site["site"]] = value
    means = {f"vcreg_{name}": round(sum(of.values()) / len(of), 6) for name, of in found.items()}
    each = {f"vcreg_{name}/{site}": float(f"{value:.6g}") for name, of in found.items() for site, value in of.items()}
    return means | each


def warn_of_strength(row: Row, log: Callable[[str], None]) -> None:
    """Say it once where the regularizer's gradient is longer than the task's from the start: late in a training, when
    the task's is short, that is normal."""
    strong = {name.partition("/")[2]: share for name, share in row.items() if name.startswith(_SHARES) and share > 1}
    if strong:
        most = max(strong, key=lambda site: strong[site])
        log(
            f"warning: in the first epoch the regularizer's gradient is longer than the task's at "
            f"{counted(len(strong), 'site')}, {strong[most]:.3g} times at {most or 'the model'}: lower its alpha "
            "and beta"
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
