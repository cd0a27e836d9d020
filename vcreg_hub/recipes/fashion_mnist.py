"""Fashion-MNIST: 60,000 + 10,000 real images of clothes, 28 x 28.

The main experiment trains on four superclasses (tops, trousers, footwear, bag) and probes the ten classes: what a
network keeps of its input beyond what its labels ask for is what transfers. Budget: 12,000 training images and six
epochs, so that a run takes a minute on two CPU cores.

The images of the main experiment are shown as they are. Enlarged to 32 x 32 (the `_resized` recipes), and more so under
random shifts and flips (the `_augmented` ones), the same network keeps more by itself, and VCReg adds less.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import Data, Model, Optim, Recipe, Task, Train
from ..evals.classification import Classification
from ..evals.incremental import Incremental
from ..evals.linear_probe import LinearProbe
from ..evals.logreg import LogReg
from ..tasks.incremental import Incremental as IncrementalTask
from ..tasks.simclr import SimCLR
from ..tasks.vicreg import VICReg

_IMAGES = Data("fashion_mnist", val_fraction=0.1, train_images=12_000, image_size=32, crop="pad", workers=0)
_OPTIM = Optim("adamw", lr=2e-3, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=1, schedule_per="step")
_TRAIN = Train(epochs=6, batch_size=128)


def superclass() -> Recipe:
    """timm's smallest ResNet, trained on the four superclasses and probed on the ten classes; the baseline.

    Command: vcreg train fashion_mnist:superclass
    """
    return Recipe(
        name="fashion_mnist_superclass",
        model=Model("test_resnet"),
        data=replace(_IMAGES, labels="superclass", image_size=28, crop="none", hflip=0.0),
        optim=_OPTIM,
        train=_TRAIN,
        evals=(Classification(), LinearProbe()),
    )


def hierarchy_convnext() -> Recipe:
    """timm's smallest ConvNeXt on the four superclasses until its features collapse; the baseline.

    Command: vcreg train fashion_mnist:hierarchy_convnext
    Cost: about a minute on one CPU core. 4,000 images, 30 epochs, no augmentation; the ten classes are probed on 12,000
    training images, those 4,000 among them.
    """
    data = Data(
        "fashion_mnist", labels="superclass", val_fraction=0.1, train_images=4000, image_size=32, crop="none",
        hflip=0.0, workers=0,
    )  # fmt: skip
    return Recipe(
        name="fashion_mnist_hierarchy_convnext",
        model=Model("test_convnext"),
        data=data,
        optim=replace(_OPTIM, bias_weight_decay=0.0),
        train=Train(epochs=30, batch_size=128),
        evals=(Classification(), LogReg(data=replace(data, labels="class", train_images=12_000))),
    )


def hierarchy_resnet() -> Recipe:
    """As `fashion_mnist:hierarchy_convnext`, with timm's smallest ResNet on images of their own size; the baseline.

    Command: vcreg train fashion_mnist:hierarchy_resnet
    """
    recipe = hierarchy_convnext()
    probe = recipe.evals[1]
    assert probe.data is not None
    return replace(
        recipe,
        name="fashion_mnist_hierarchy_resnet",
        model=Model("test_resnet"),
        data=replace(recipe.data, image_size=28),
        evals=(recipe.evals[0], replace(probe, data=replace(probe.data, image_size=28))),
    )


def class_incremental() -> Recipe:
    """timm's smallest ConvNeXt on two classes after another, none of them seen again; the baseline, plain fine-tuning.

    Command: vcreg train fashion_mnist:class_incremental
    Cost: half a minute on one CPU core. Five groups of two classes, 600 images a class, 12 epochs a group, no replay.
    `--set task.lwf=1` and `--set task.ewc=1000` are two methods that forget less.
    """
    recipe = hierarchy_convnext()
    return replace(
        recipe,
        name="fashion_mnist_class_incremental",
        data=replace(recipe.data, labels="class", val_fraction=0.05, train_images=6000),
        train=Train(epochs=60, batch_size=128, class_groups=5),
        task=IncrementalTask(),
        evals=(Incremental(groups=5),),
    )


def long_tail_convnext() -> Recipe:
    """timm's smallest ConvNeXt on ten classes that fall off from 889 images to 8; the baseline.

    Command: vcreg train fashion_mnist:long_tail_convnext
    The counts are those of Cao et al. (2019) at ratio 100, 2,200 images in all; test and validation stay balanced.
    """
    data = Data(
        "fashion_mnist", val_fraction=0.1, train_images=2200, imbalance=100, image_size=32, crop="pad", workers=0
    )
    return Recipe(
        name="fashion_mnist_long_tail_convnext",
        model=Model("test_convnext"),
        data=data,
        optim=replace(_OPTIM, bias_weight_decay=0.0),
        train=Train(epochs=60, batch_size=128),
    )


def long_tail_resnet() -> Recipe:
    """As `fashion_mnist:long_tail_convnext`, with timm's smallest ResNet on images of their own size; the baseline.

    Command: vcreg train fashion_mnist:long_tail_resnet
    """
    recipe = long_tail_convnext()
    return replace(
        recipe,
        name="fashion_mnist_long_tail_resnet",
        model=Model("test_resnet"),
        data=replace(recipe.data, image_size=28),
    )


def superclass_augmented() -> Recipe:
    """As `fashion_mnist:superclass_resized`, under random shifts and horizontal flips; the baseline.

    Command: vcreg train fashion_mnist:superclass_augmented
    """
    return replace(superclass(), name="fashion_mnist_superclass_augmented", data=replace(_IMAGES, labels="superclass"))


def simclr() -> Recipe:
    """timm's smallest ResNet by SimCLR, without labels, the ten classes probed; the baseline.

    Command: vcreg train fashion_mnist:simclr
    Cost: 15 epochs of about nine seconds of one CPU core each, more than half of it for making the views.
    """
    return _two_views("simclr", SimCLR(projector=(256, 128), temperature=0.2))


def vicreg() -> Recipe:
    """timm's smallest ResNet by VICReg, without labels, the ten classes probed; the baseline.

    Command: vcreg train fashion_mnist:vicreg
    Cost: 15 epochs of about nine seconds of one CPU core each, more than half of it for making the views.
    """
    return _two_views("vicreg", VICReg(projector=(512, 512), projector_norm="hidden"))


def _two_views(method: str, task: Task) -> Recipe:
    """6,000 images in two views each: crops of 20% to all of an image, flips, SimCLR's brightness, contrast and blur
    at half strength. Clothes have no colours that would have to be hidden. The probe sees 12,000 images, those 6,000
    among them."""
    return Recipe(
        name=f"fashion_mnist_{method}",
        model=Model("test_resnet"),
        data=replace(_IMAGES, train_images=6000, image_size=28, crop="random_resized", scale=(0.2, 1.0),
                     augment="simclr-0.5"),
        optim=replace(_OPTIM, warmup_epochs=2, bias_weight_decay=0.0),
        train=Train(epochs=15, batch_size=128),
        task=task,
        evals=(Classification(), LogReg(data=replace(_IMAGES, image_size=28, crop="none", hflip=0.0))),
    )  # fmt: skip


def convnext_atto() -> Recipe:
    """ConvNeXt-Atto on the ten classes; the baseline.

    Command: vcreg train fashion_mnist:convnext_atto
    """
    return _ten_classes("convnext_atto")


def resnet32_cifar() -> Recipe:
    """The CIFAR ResNet-32 on the ten classes; the baseline. bf16 and channels-last halve its time on a CPU.

    Command: vcreg train fashion_mnist:resnet32_cifar
    """
    found = _ten_classes("resnet32_cifar")
    return replace(found, train=replace(found.train, precision="bf16", channels_last=True))


def convnext_zepto_rms() -> Recipe:
    """ConvNeXt-Zepto with RMSNorm on the ten classes; the baseline. Channels-last halves its time on a CPU.

    Command: vcreg train fashion_mnist:convnext_zepto_rms
    """
    found = _ten_classes("convnext_zepto_rms")
    return replace(found, train=replace(found.train, channels_last=True))


def _ten_classes(architecture: str) -> Recipe:
    return Recipe(
        name=f"fashion_mnist_{architecture}",
        model=Model(architecture),
        data=_IMAGES,
        optim=_OPTIM,
        train=_TRAIN,
        evals=(Classification(), LinearProbe()),
    )
