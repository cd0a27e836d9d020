"""The experiments that start from trained weights, or that probe on other images than those of the training."""

from __future__ import annotations

from .experiment import Experiment, Variant

# The ResNet-32 that ships with this package as a start, shown images of the size it was trained on.
_CLOTHES = (
    "model.name=resnet32_cifar",
    "model.pretrained=resnet32_cifar_vcreg.fashion_mnist",
    "model.kwargs={}",
    "data.image_size=32",
)
_UNTRAINED = ("model.pretrained=false",)


def _transfer(data: str) -> Experiment:
    """An ImageNet backbone fine-tuned on a few hundred images, beside the same network from random weights, and on
    other images than its own the ResNet-32 of this package."""
    recipe = f"transfer:{data}"
    # The weak end of the paper's grid for fine-tuning, and below it.
    grid = {"vcreg.alpha": ("0.1", "1"), "vcreg.beta": ("0.01", "0.1")}
    starts = {"random": _UNTRAINED} | ({} if data == "fashion_mnist" else {"clothes": _CLOTHES})
    return Experiment(
        variants=(
            Variant("plain", recipe, baseline=True),
            Variant("vcreg", recipe, grid, settings=("vcreg.alpha=1",)),
            *(Variant(name, recipe, settings=settings) for name, settings in starts.items()),
        ),
        metric="top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
        paper="Table 2 fine-tunes networks that are pretrained without VCReg, on videos",
    )


def _probed_on_digits(*settings: str) -> Experiment:
    return Experiment(
        variants=(
            Variant("plain", "transfer:hierarchy", baseline=True),
            # As `hierarchy_convnext` picked them on clothes: no digit chose them.
            Variant("vcreg", "transfer:hierarchy", settings=("vcreg.alpha=0.64", "vcreg.beta=0.04")),
        ),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2, 3, 4),
        settings=settings,
    )


def _frozen(recipe: str, start: str) -> Experiment:
    return Experiment(
        variants=(Variant("random", recipe, baseline=True, settings=_UNTRAINED), Variant(start, recipe)),
        metric="logreg_top1",
        selection_seeds=(100,),
        seeds=(0, 1, 2),
    )


TRANSFER: dict[str, Experiment] = {
    "transfer_digits": _transfer("digits"),
    "transfer_fashion_mnist": _transfer("fashion_mnist"),
    "transfer_hierarchy": _probed_on_digits(),
    "transfer_classes": _probed_on_digits("data.labels=class"),
    "transfer_frozen": _frozen("transfer:frozen", "imagenet"),
    "transfer_frozen_resnet32": _frozen("transfer:frozen_resnet32", "clothes"),
}
