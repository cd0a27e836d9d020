"""ImageNet-1k pretraining: the three networks of Table 1, the ConvNeXt-Atto of Appendix A, and Table 4 without labels.

The plain recipes are torchvision's reference recipes (the paper trains with them unchanged); the `_vcreg` ones add the
regularizer after each residual block and change nothing else. The paper gives the grid it searched
(alpha in 1.28, 0.64, 0.32, 0.16; beta in 0.16, 0.08, 0.04, 0.02, 0.01) and not the values it chose: alpha 0.64 and beta
0.08 here are the middle of that grid, not the paper's choice.

`--set data.root=DIR` says where ImageNet is (`vcreg_hub.data.image.imagenet` lists the layouts). None of these has been
run by us yet: they take days on eight GPUs.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import Data, Model, Optim, Recipe, Task, Train
from ..evals.classification import Classification
from ..evals.linear_probe import LinearProbe
from ..tasks.simclr import SimCLR
from ..tasks.vicreg import VICReg

# Train crop 176, test 232 -> 224, TrivialAugmentWide, erasing 0.1, four repeats: torchvision's second-generation views.
_SECOND_GENERATION = Data(
    "imagenet", train_size=176, image_size=224, resize=232, augment="ta_wide", random_erase=0.1, repeats=4, workers=16
)
# Label smoothing, mixing and averaging of the same recipes.
_MIXED = Train(label_smoothing=0.1, mixup=0.2, cutmix=1.0, ema_decay=0.99998, ema_every=32, ema_rule="torchvision")


def resnet50() -> Recipe:
    """ResNet-50, torchvision's second recipe (IMAGENET1K_V2), 600 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:resnet50 --set data.root=DIR
    Cost: 600 epochs at batch 1024. torchvision's weights: 80.858% top-1. Ours: not yet run.
    """
    return Recipe(
        name="resnet50",
        model=Model("resnet50", kwargs={"zero_init_last": False}),
        data=_SECOND_GENERATION,
        optim=Optim("momentum", lr=0.5, weight_decay=2e-5, norm_weight_decay=0.0, warmup_epochs=5),
        train=replace(_MIXED, epochs=600, batch_size=1024),
    )


def resnet50_v1() -> Recipe:
    """ResNet-50, torchvision's first recipe (IMAGENET1K_V1), 90 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:resnet50_v1 --set data.root=DIR
    Cost: 90 epochs at batch 256. torchvision's weights: 76.130% top-1; the command is reported to give 75.4 to 75.9
    (pytorch/vision issue 5593). Ours: not yet run.
    """
    return Recipe(
        name="resnet50_v1",
        model=Model("resnet50", kwargs={"zero_init_last": False}),
        data=Data("imagenet", image_size=224, resize=256, workers=16),
        optim=Optim("momentum", lr=0.1, weight_decay=1e-4, schedule="step", step_epochs=30, step_gamma=0.1),
        train=Train(90, 256),
    )


def convnext_tiny() -> Recipe:
    """ConvNeXt-T, torchvision's recipe, 600 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:convnext_tiny --set data.root=DIR
    Cost: 600 epochs at batch 1024; the paper reports about 48 hours on 16 MI50. torchvision's weights: 82.520% top-1,
    evaluated at resize 236. Ours: not yet run.
    """
    return Recipe(
        name="convnext_tiny",
        model=Model("convnext_tiny", kwargs={"drop_path_rate": 0.1}),
        data=_SECOND_GENERATION,
        optim=Optim("adamw", lr=1e-3, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=5),
        train=replace(_MIXED, epochs=600, batch_size=1024),
    )


def vit_base_patch32() -> Recipe:
    """ViT-B/32, torchvision's recipe, 300 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:vit_base_patch32 --set data.root=DIR
    Cost: 300 epochs at batch 4096, mixed precision. torchvision's weights: 75.912% top-1. Ours: not yet run.
    """
    return Recipe(
        name="vit_base_patch32",
        # Of timm's initialisations "jax" is the one nearest to torchvision's: Xavier matrices, MLP biases of std 1e-6.
        model=Model("vit_base_patch32_224", kwargs={"weight_init": "jax"}),
        data=Data("imagenet", image_size=224, resize=256, augment="aa_imagenet", repeats=3, workers=16),
        optim=Optim("adamw", lr=3e-3, weight_decay=0.3, warmup_epochs=30, warmup_start=0.033),
        train=replace(_MIXED, epochs=300, batch_size=4096, precision="fp16", clip_norm=1.0, label_smoothing=0.11),
    )


def convnext_atto(lr: float = 0.016) -> Recipe:
    """ConvNeXt-Atto as in Appendix A (Table 7), 90 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:convnext_atto --set data.root=DIR
    Cost: 90 epochs at batch 4096. The paper tries lr 0.016 and 0.008 and says nothing of top-1. Ours: not yet run.
    """
    return Recipe(
        name="convnext_atto",
        model=Model("convnext_atto", kwargs={"drop_path_rate": 0.1}),
        data=_SECOND_GENERATION,
        optim=Optim("adamw", lr=lr, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=5),
        train=replace(_MIXED, epochs=90, batch_size=4096),
        assumed=("optim.lr", "model.kwargs"),
    )


def superclass() -> Recipe:
    """ConvNeXt-Atto on nine superclasses of ImageNet, probed on their 72 classes (Table 5, Appendix C.3); the baseline.

    Command: accelerate launch -m vcreg_hub train imagenet:superclass --set data.root=DIR
    The other subsets: --set data.hierarchy=mixed_10, mixed_13, geirhos_16 or big_12.
    Cost: 200 epochs at batch 4096. Ours: not yet run.

    Appendix A's settings at 200 epochs. The paper's probe learns by AdamW for 100 epochs; this one is a logistic
    regression.
    """
    recipe = convnext_atto()
    return replace(
        recipe,
        name="superclass",
        data=replace(recipe.data, hierarchy="living_9", labels="superclass"),
        train=replace(recipe.train, epochs=200),
        evals=(Classification(), LinearProbe(labels="class")),
        assumed=(*recipe.assumed, "evals.linear_probe"),
    )


def resnet50_simclr() -> Recipe:
    """ResNet-50 by SimCLR, without labels (Table 4, Appendix C.5), 100 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:resnet50_simclr --set data.root=DIR
    Cost: 100 epochs at batch 4096, two views an image. Ours: not yet run.
    """
    return _two_views("simclr", SimCLR(), lr=0.3, weight_decay=1e-6, mean=(0.0,) * 3, std=(1.0,) * 3)


def resnet50_vicreg() -> Recipe:
    """ResNet-50 by VICReg, without labels (Table 4, Appendix C.5), 100 epochs.

    Command: accelerate launch -m vcreg_hub train imagenet:resnet50_vicreg --set data.root=DIR
    Cost: 100 epochs at batch 4096, two views an image. The paper: 65.2% linear probe on ImageNet. Ours: not yet run.
    """
    return _two_views("vicreg", VICReg(), lr=0.2, weight_decay=1e-6, mean=None, std=None)


def _two_views(
    method: str, task: Task, lr: float, weight_decay: float,
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None,
) -> Recipe:  # fmt: skip
    """The paper takes one symmetric set of augmentations for both methods and gives no strengths: SimCLR's are taken.
    LARS leaves alone what is not decayed: biases and normalisation layers, as both authors' codes do. Both views are
    one batch to VCReg (`task.views`), of which the paper says nothing."""
    return Recipe(
        name=f"resnet50_{method}",
        model=Model("resnet50", kwargs={"zero_init_last": False}),
        data=Data("imagenet", image_size=224, resize=256, interpolation="bicubic", augment="simclr-1.0", mean=mean,
                  std=std, workers=16),
        optim=Optim("lars", lr=lr, lr_base_batch=256, weight_decay=weight_decay, norm_weight_decay=0.0,
                    bias_weight_decay=0.0, warmup_epochs=5, warmup_start=0.0, schedule_per="step"),
        train=Train(epochs=100, batch_size=4096, sync_batchnorm=True, precision="bf16"),
        task=task,
        assumed=("data.augment", "data.scale", "data.mean", "optim.weight_decay", "optim.warmup_start",
                 "train.precision", "task.views"),
    )  # fmt: skip
