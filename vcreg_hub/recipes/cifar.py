"""CIFAR-10 and CIFAR-100, the paper's small data: classes with a long tail (Table 3), and superclasses (Table 5).

`--set data.root=DIR` says where the Python batches of the authors lie; without it the copy on the Hub is read. None of
these has been run by us yet.
"""

from __future__ import annotations

from ..config import Data, Model, Optim, Recipe, Train
from ..evals.classification import Classification
from ..evals.linear_probe import LinearProbe


def long_tail() -> Recipe:
    """ResNet-32 on CIFAR10-LT of ratio 100, 12,406 training images (Table 3, Appendix C.4); the baseline.

    Command: vcreg train cifar:long_tail --set data.root=DIR; CIFAR100-LT with --set data.name=cifar100
    Cost: 100 epochs at batch 256. The paper: 69.6% on CIFAR10-LT, 37.4% on CIFAR100-LT. Ours: not yet run.

    The paper says "Adam" with a weight decay of 0.05, which makes sense as AdamW alone, and tries lr 0.016 and 0.008.
    Views and statistics are those of Cao et al. (2019), as are the images.
    """
    return Recipe(
        name="cifar_long_tail",
        model=Model("resnet32_cifar"),
        data=Data(
            "cifar10", imbalance=100, image_size=32, crop="pad", mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
        ),
        optim=Optim("adamw", lr=0.016, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=10),
        train=Train(epochs=100, batch_size=256),
        assumed=("optim.name", "optim.lr", "optim.warmup_start", "data.crop", "data.hflip", "data.mean", "data.std"),
    )  # fmt: skip


def superclass() -> Recipe:
    """ConvNeXt-Atto on CIFAR-100's 20 superclasses, probed on its 100 classes (Table 5, Appendix C.3); the baseline.

    Command: vcreg train cifar:superclass --set data.root=DIR
    Cost: 200 epochs at batch 4096. The paper: 60.7% of the classes. Ours: not yet run.

    Appendix A's settings at 200 epochs. The paper does not say the size of the images nor what of ImageNet's views is
    kept at 32 x 32. Its probe learns by AdamW for 100 epochs; this one is a logistic regression.
    """
    return Recipe(
        name="cifar_superclass",
        model=Model("convnext_atto", kwargs={"drop_path_rate": 0.1}),
        data=Data(
            "cifar100", labels="superclass", image_size=32, crop="pad", augment="ta_wide", random_erase=0.1, repeats=4
        ),
        optim=Optim("adamw", lr=0.016, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=5),
        train=Train(
            epochs=200, batch_size=4096, label_smoothing=0.1, mixup=0.2, cutmix=1.0, ema_decay=0.99998, ema_every=32,
            ema_rule="torchvision",
        ),
        evals=(Classification(), LinearProbe(labels="class")),
        assumed=("data.image_size", "data.crop", "optim.lr", "model.kwargs", "evals.linear_probe"),
    )  # fmt: skip
