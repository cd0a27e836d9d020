"""The image experiments at the paper's own scale, a row each. They need GPUs and data sets that are not at hand.

The paper gives the grid that it searched and not what it chose. Its baselines are downloaded weights; here they are
trained like the others, so that a difference is between runs that start alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from ..config import Evaluation, to_dict
from ..evals.classification import Classification
from ..evals.collapse import Collapse
from ..evals.information import Information
from ..evals.suites import SUITES, seen_by
from ..recipes import load_recipe
from .experiment import IMAGE_GRID, Experiment, plain_and_vcreg
from .images import IMAGES

# Column of Tables 1, 4 and 7 -> our metric and data set (Appendix C.1, C.5).
PROBES: Mapping[str, tuple[str, str]] = {
    "iNat18": ("linear_top1", "inaturalist18"),
    "Places": ("linear_top1", "places205"),
    "Food": ("logreg_top1", "food101"),
    "Cars": ("logreg_top1", "stanford_cars"),
    "Aircraft": ("logreg_mean_per_class", "fgvc_aircraft"),
    "Pets": ("logreg_mean_per_class", "oxford_pets"),
    "Flowers": ("logreg_mean_per_class", "flowers102"),
    "DTD": ("logreg_top1", "dtd"),
}
# The paper looks at the validation images while it chooses; a fiftieth of the training images is held out instead.
_HELD_OUT = ("data.val_fraction=0.02", "evals=classification")


def _probed(address: str, *looks: Evaluation) -> tuple[str]:
    """The setting that probes a recipe's network as the paper does, on images normalised as in its training. looks:
    evaluations beside the probes."""
    recipe = load_recipe(address)
    suite: tuple[Evaluation, ...] = SUITES["table1"]
    if recipe.data.mean is not None and recipe.data.std is not None:
        suite = seen_by(suite, recipe.data.image_size, recipe.data.mean, recipe.data.std)
    evals = to_dict(replace(recipe, evals=(Classification(), Collapse(), *looks, *suite)))["evals"]
    return (f"evals={json.dumps(evals)}",)


def _imagenet(recipe: str, *looks: Evaluation) -> Experiment:
    return Experiment(
        variants=plain_and_vcreg(f"imagenet:{recipe}", IMAGE_GRID),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        holding_out=_HELD_OUT,
        settings=_probed(f"imagenet:{recipe}", *looks),
    )


FULL_SCALE: dict[str, Experiment] = {
    "imagenet_resnet50": _imagenet("resnet50"),
    # Table 6's too.
    "imagenet_convnext_tiny": _imagenet("convnext_tiny", Information(where="final")),
    "imagenet_vit_base_patch32_224": _imagenet("vit_base_patch32"),
    "imagenet_simclr": _imagenet("resnet50_simclr"),
    "imagenet_vicreg": _imagenet("resnet50_vicreg"),
    # Table 7's, probed like Table 1.
    "placement_imagenet": replace(
        IMAGES["placement_imagenet"], holding_out=_HELD_OUT, settings=_probed("imagenet:convnext_atto")
    ),
}
