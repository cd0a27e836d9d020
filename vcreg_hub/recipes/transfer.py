"""Transfer of existing networks: a backbone pretrained on ImageNet, weights of this package, random ones.

The backbone is EfficientNet-Lite0, a real one and small enough for a CPU: `bash scripts/imagenet_backbone` fetches it
into `weights/tf_efficientnet_lite0.in1k`, where these recipes look for it, below the folder they are started in. Images
are shown at 48 x 48, not at the 224 x 224 of its training, so that a run takes about a minute of one CPU core.

Nothing is trained in the `frozen` recipes (`train.epochs=0`): they measure the features as they come.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import Data, Model, Optim, Recipe, Train
from ..evals.classification import Classification
from ..evals.logreg import LogReg

# Its running statistics follow a tenth of each batch, as everywhere else: a hundred steps move TensorFlow's hundredth
# too little.
_BACKBONE = Model(
    "tf_efficientnet_lite0", pretrained="./weights/tf_efficientnet_lite0.in1k", kwargs={"bn_momentum": 0.1}
)
# As the backbone was trained: pixels to [-1, 1]. One channel: its first convolution is summed over the three colours.
_IMAGES = Data(
    "digits", image_size=48, interpolation="bicubic", crop="pad", hflip=0.0, mean=(0.5,), std=(0.5,), workers=0
)
_FROZEN = Train(epochs=0)


def digits() -> Recipe:
    """The ImageNet backbone fine-tuned on 300 handwritten digits; the baseline.

    Command: vcreg train transfer:digits
    Cost: half a minute of one CPU core. A quarter of the training images is held out; weights of the last epoch. The
    learning rate: the better of 1e-3 and 3e-3 on held-out images, without VCReg.
    """
    return Recipe(
        name="transfer_digits",
        model=_BACKBONE,
        data=replace(_IMAGES, val_fraction=0.25, train_images=300),
        optim=Optim("adamw", lr=3e-3, weight_decay=0.05, norm_weight_decay=0.0, bias_weight_decay=0.0, warmup_epochs=1,
                    schedule_per="step"),
        train=Train(epochs=10, batch_size=32, channels_last=True),
        evals=(Classification(),),
        where="final",
    )  # fmt: skip


def fashion_mnist() -> Recipe:
    """The ImageNet backbone fine-tuned on 300 images of clothes; the baseline.

    Command: vcreg train transfer:fashion_mnist
    Cost: a minute of one CPU core. A fiftieth of the training images is held out; weights of the last epoch.
    """
    found = digits()
    data = replace(found.data, name="fashion_mnist", val_fraction=0.02, hflip=0.5)
    return replace(found, name="transfer_fashion_mnist", data=data)


def frozen() -> Recipe:
    """The ImageNet backbone as it comes, probed on digits and on clothes.

    Command: vcreg train transfer:frozen
    Cost: about a minute of one CPU core. Logistic regression, penalty searched on held-out training images; 2,000
    training images of clothes.
    """
    clothes = replace(_IMAGES, name="fashion_mnist", val_fraction=0.02, train_images=2000)
    return Recipe(
        name="transfer_frozen",
        model=_BACKBONE,
        data=replace(_IMAGES, val_fraction=0.2),
        optim=Optim(warmup_epochs=0),
        train=_FROZEN,
        evals=(LogReg(), LogReg(data=clothes)),
    )


def frozen_resnet32() -> Recipe:
    """The ResNet-32 of this package as it comes, trained on clothes with VCReg, probed on digits.

    Command: vcreg train transfer:frozen_resnet32
    """
    data = replace(_IMAGES, image_size=32, interpolation="bilinear", val_fraction=0.2, mean=(0.2860,), std=(0.3530,))
    return replace(
        frozen(),
        name="transfer_frozen_resnet32",
        model=Model("resnet32_cifar", pretrained="resnet32_cifar_vcreg.fashion_mnist"),
        data=data,
        evals=(LogReg(),),
    )


def hierarchy() -> Recipe:
    """As `fashion_mnist:hierarchy_convnext`, and then its features probed on digits, which it never saw; the baseline.

    Command: vcreg train transfer:hierarchy
    """
    from .fashion_mnist import hierarchy_convnext

    found = hierarchy_convnext()
    digits_data = Data("digits", val_fraction=0.2, image_size=32, crop="none", hflip=0.0, workers=0)
    probe = LogReg(data=replace(digits_data, mean=(0.2860,), std=(0.3530,)))
    return replace(found, name="transfer_hierarchy", evals=(found.evals[0], probe))
