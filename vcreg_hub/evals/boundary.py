"""How well a decision boundary follows the two moons: its distance to them, and its accuracy when they overlap.

Between moons with a gap any straight line has an accuracy of 100%. A boundary that follows their curves keeps away from
their points, and stays right when they are pushed into one another (Pezeshki et al., 2021; the paper's Figures 2, 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..config import Evaluation, Metric, number
from ..errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..data.module import DataModule
    from ..data.points import PointModule
    from .context import Context


@dataclass(frozen=True)
class Boundary(Evaluation):
    """The boundary of a network that was trained on `moons`.

    overlap: how far each moon of the second test is pushed over the middle line; a straight boundary is wrong there.
    """

    tag = "boundary"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "overlap_top1": Metric("%", True, "accuracy on moons that overlap"),
        "margin": Metric("", True, "mean distance of the points to the boundary, negative where it is wrong"),
        "margin_p1": Metric("", True, "distance that 99% of the points keep from the boundary"),
    }
    uses_classifier = True

    overlap: float = number(0.4, at_least=0, at_most=1)

    def run(self, context: Context) -> Iterator[tuple[str, float]]:
        import torch

        from ..analysis.boundary import margins, zero_points

        data, split = _points(context.data(self)), context.settings.split
        network, device = context.network, context.accelerator.device
        was_training = network.training
        network.eval()

        def score(points: Tensor) -> Tensor:
            return _difference_of_logits(network, points.to(device)).cpu()

        def part(of: PointModule) -> tuple[Tensor, Tensor]:
            rows = getattr(of.sets, split)
            return torch.from_numpy(rows.points), torch.from_numpy(rows.labels) == 1

        with torch.no_grad():
            points, right = part(_points(context.load(data.moved(-self.overlap))))
            yield "overlap_top1", 100 * ((score(points) > 0) == right).double().mean().item()
            points, right = part(data)
            found = margins(points, (score(points) > 0) == right, zero_points(scores_around(network, device)))
        network.train(was_training)
        yield "margin", found.double().mean().item()
        yield "margin_p1", found.double().quantile(0.01).item()

    def check(self, data: DataModule) -> None:
        _points(data)


def scores_around(network: nn.Module, device: torch.device | str = "cpu", **grid: Any) -> Tensor:
    """(count, count) the second class's logit minus the first's on even points of a square, of a network in evaluation
    mode. grid: `half_width` and `count` of `analysis.boundary.grid_scores`."""
    from ..analysis.boundary import grid_scores

    return grid_scores(lambda points: _difference_of_logits(network, points.to(device)).cpu(), **grid)


def _difference_of_logits(network: nn.Module, points: Tensor) -> Tensor:
    """(n,) the logit of the second class minus that of the first, of points (n, 2)."""
    from ..models.outputs import logits

    scores = logits(network(points)).float()
    return scores[:, 1] - scores[:, 0]


def _points(data: DataModule) -> PointModule:
    from ..data.points import PointModule

    if not isinstance(data, PointModule):
        raise ConfigError(f"boundary is of points in the plane, but the recipe has {data}: --set data.name=moons:0.1")
    return data
