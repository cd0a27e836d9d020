"""Suites: evaluations that are measured together, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from ..config import Data, Evaluation
from ..config.tagged import tagged_class
from ..data.datasets import IMAGE_SETS
from ..errors import UnknownNameError, unknown_name
from .few_shot import FewShot
from .knn import KNN
from .linear import Linear
from .logreg import LogReg

# Short side to 224 by bicubic interpolation and its centre, as Kornblith et al. (2019) and SimCLR show images; a fifth
# of the training images chooses the penalty where the authors give no validation part.
_KORNBLITH = {"image_size": 224, "interpolation": "bicubic", "val_fraction": 0.2}
# Short side to 256 and the centre 224 of it, as VISSL shows them. The held-out images choose the rate.
_VISSL = {"image_size": 224, "resize": 256, "val_fraction": 0.01}


def _of(name: str, view: Mapping[str, object]) -> Data:
    # Where the authors give a validation part, it is used whole.
    return Data(name, **{**view, **({"val_fraction": 0.0} if IMAGE_SETS[name].val else {})})  # type: ignore[arg-type]


_FINE = ("food101", "stanford_cars", "fgvc_aircraft", "oxford_pets", "flowers102", "dtd")
_TABLE1 = (
    Linear(data=_of("inaturalist18", _VISSL)),
    Linear(data=_of("places205", _VISSL), epochs=14, milestones=(4, 8, 12)),
    *(LogReg(data=_of(name, _KORNBLITH)) for name in _FINE),
)
_SMALL = ("digits", "fashion_mnist")
SUITES: dict[str, tuple[Evaluation, ...]] = {
    # The eight data sets of the paper's Table 1, in its order.
    "table1": _TABLE1,
    # The six of them that logistic regression reads.
    "fine_grained": _TABLE1[2:],
    "few_shot": tuple(FewShot(data=_of(name, _KORNBLITH)) for name in _FINE),
    "cifar": tuple(LogReg(data=_of(name, _KORNBLITH)) for name in ("cifar10", "cifar100")),
    # What needs no download, or one small one.
    "small": tuple(kind(data=_of(name, _KORNBLITH)) for name in _SMALL for kind in (LogReg, KNN)),
}


Suite = str | Evaluation | Iterable[str | Evaluation]


def evaluations(suite: Suite) -> tuple[Evaluation, ...]:
    """The evaluations of a suite: by its name, by their tags ("logreg,knn"), or as they are.

    Errors: UnknownNameError for what is neither suite nor tag.
    """
    if isinstance(suite, Evaluation):
        return (suite,)
    if not isinstance(suite, str):
        return tuple(one for part in suite for one in evaluations(part))
    return SUITES[suite] if suite in SUITES else tuple(_tagged(tag.strip()) for tag in suite.split(","))


def is_named(suite: Suite | None) -> bool:
    """Tells whether a suite is a name of `SUITES`."""
    return isinstance(suite, str) and suite in SUITES


def _tagged(tag: str) -> Evaluation:
    try:
        made: Evaluation = tagged_class(Evaluation, tag)()
    except UnknownNameError as error:
        if get_close_matches(tag, SUITES, n=1, cutoff=0.5):
            raise unknown_name("suite", tag, SUITES) from None
        raise UnknownNameError(f"{error} Suites: {', '.join(SUITES)}") from None
    return made


def seen_by(
    suite: Sequence[Evaluation], image_size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Evaluation, ...]:
    """A suite as a network sees it that takes images of another size, or normalised otherwise.

    image_size: pixels a side. mean, std: per channel, of pixels in [0, 1]. The crop keeps its share of the image.
    """
    fitted = []
    for one in suite:
        data = one.data
        if data is not None:
            resize = None if data.resize is None else round(data.resize * image_size / data.image_size)
            seen = replace(data, image_size=image_size, resize=resize, mean=tuple(mean), std=tuple(std))
            data = replace(seen, channels=1 if len(mean) == 1 else 3)
        fitted.append(replace(one, data=data))
    return tuple(fitted)
