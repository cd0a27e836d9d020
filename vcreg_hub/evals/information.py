"""How much of its input a block's features still tell: mutual information by MINE, on training and test samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..config import COUNT, Evaluation, Metric, Place, number

if TYPE_CHECKING:
    from .context import Context


@dataclass(frozen=True)
class Information(Evaluation):
    """A lower bound in nats on the information between the input, in 8 x 8 pixels, and the features of each block.

    where: the blocks, as for the regularizer. samples: how many of each split.

    The value depends on the samples and the steps as well, and is compared with values of the same settings alone: of a
    deterministic network the true one is infinite, and no estimate lies much above log(samples / 2). steps: of the
    small network that tells true pairs from shuffled ones; it is scored on samples that it has not seen.
    """

    tag = "information"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "block_mutual_information": Metric("nats", True, "mutual information of the input and a block's features, MINE")
    }

    where: str = "blocks"
    samples: int = number(2000, at_least=4, at_most=COUNT)
    steps: int = number(1000, at_least=1, at_most=COUNT)

    def run(self, context: Context) -> Iterator[tuple[str, float, Place]]:
        from ..analysis.information import mutual_information

        for split in ("train", context.settings.split):
            rows = context.at_blocks(self, split, self.where, self.samples)
            for block, features in rows.features.items():
                found = mutual_information(rows.inputs, features, steps=self.steps)
                yield "block_mutual_information", found, Place(block, None, split)
