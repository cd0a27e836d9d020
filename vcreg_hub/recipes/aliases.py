"""A table of recipes made of another one and a few settings: those with VCReg, and those on noisy clips.

A row says of which recipe, what `--set` would change, and what `vcreg recipes` prints. Its command is that of the other
recipe, with this address in it. The recipe is named after its address: `fashion_mnist:superclass_vcreg` is
`fashion_mnist_superclass` with `_vcreg` behind it, `noise:videomae_small` is `hmdb51_videomae_small` with `noise_`
before it.

Coefficients: the paper gives the grids that it searched and not the values that it chose. Where nothing was picked by a
run of ours, a row takes the middle of the grid: 0.64 and 0.08 for ImageNet, 3 and 0.3 for HMDB51.

Noise: Figures 3 and 4 of the paper corrupt training, validation and test clips with Gaussian noise of a standard
deviation of 1, 1.5 or 2 (`--set video.noise=1.5`). The paper does not say on which scale. Here the noise is added to
the normalised values, the only scale on which such deviations leave a signal; `--set video.noise_place=pixels` adds it
to pixels in [0, 1] before. The paper draws its results and prints no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alias:
    """of: address of the changed recipe, itself perhaps an alias. settings: for `override` to apply to it.
    about: one line. facts: cost, the paper's numbers and ours. assumed: what goes to the end of `Recipe.assumed`."""

    of: str
    settings: tuple[str, ...]
    about: str
    facts: str = ""
    assumed: tuple[str, ...] = ()

    def name(self, address: str, name: str) -> str:
        """The recipe's name, for an alias at `address` of a recipe with the name `name`.

        >>> Alias("digits:mlp", (), "").name("digits:mlp_vcreg", "digits_mlp")
        'digits_mlp_vcreg'
        """
        module = address.partition(":")[0]
        if self.of.startswith(f"{module}:"):
            return name + address.removeprefix(self.of)
        return f"{module}_{name}"


def _vcreg(alpha: float, beta: float) -> tuple[str, ...]:
    return f"vcreg.alpha={alpha}", f"vcreg.beta={beta}"


# What the paper says of no model.
_UNSAID = ("vcreg.alpha", "vcreg.beta", "vcreg.delta", "vcreg.eps")
_ON_CLASSIFIER = "with VCReg on the vector that feeds the classifier"
# Of the recipes on noisy clips: what is added to a recipe on clean ones.
_NOISE, _NOISE_ASSUMED = ("video.noise=1.0",), ("video.noise_place",)
_PICKED = "alpha and beta from 4 points on held-out images."
_NOT_RUN = "Ours: not yet run."

ALIASES: dict[str, Alias] = {
    "fashion_mnist:class_incremental_vcreg": Alias(
        "fashion_mnist:class_incremental",
        _vcreg(0.64, 0.16),
        "The five groups of classes with VCReg after each block, otherwise as `fashion_mnist:class_incremental`.",
        "Cost: a minute. The paper has no such experiment.",
    ),
    # ---- points --------------------------------------------------------------------------------------------------
    "moons:mlp_vcreg": Alias(
        "moons:mlp",
        (*_vcreg(5.0, 50.0), "vcreg.delta=null"),
        "The two moons with VCReg after both hidden layers, otherwise as `moons:mlp`.",
        "Cost: twice that of mlp. The paper does not say its coefficients.",
        ("vcreg.alpha", "vcreg.beta", "vcreg.delta", "where"),
    ),
    # ---- images --------------------------------------------------------------------------------------------------
    "digits:convnext_atto_vcreg": Alias(
        "digits:convnext_atto",
        _vcreg(0.64, 0.08),
        "ConvNeXt-Atto on digits with VCReg after its 12 blocks, otherwise as `digits:convnext_atto`.",
    ),
    "fashion_mnist:superclass_vcreg": Alias(
        "fashion_mnist:superclass",
        _vcreg(0.16, 0.16),
        "As `fashion_mnist:superclass`, with VCReg after every residual block, alpha and beta as picked there.",
        "Ours: 77.68 ± 0.56% probe against 77.11 ± 0.69% plain, five seeds.",
    ),
    "fashion_mnist:superclass_resized": Alias(
        "fashion_mnist:superclass",
        ("data.image_size=32",),
        "As `fashion_mnist:superclass`, on images enlarged to 32 x 32; the baseline.",
    ),
    "fashion_mnist:superclass_resized_vcreg": Alias(
        "fashion_mnist:superclass_resized",
        _vcreg(0.16, 0.16),
        "As `fashion_mnist:superclass_resized`, with VCReg after every block, alpha and beta as picked there.",
        "Ours: 78.99 ± 0.63% probe against 78.50 ± 0.68% plain, five seeds.",
    ),
    "fashion_mnist:superclass_augmented_vcreg": Alias(
        "fashion_mnist:superclass_augmented",
        _vcreg(0.32, 0.16),
        "As `fashion_mnist:superclass_augmented`, with VCReg after every block, alpha and beta as picked there.",
        "Ours: 79.46 ± 0.71% probe against 79.57 ± 0.37% plain, five seeds: no difference in this setting.",
    ),
    "fashion_mnist:hierarchy_convnext_vcreg": Alias(
        "fashion_mnist:hierarchy_convnext",
        _vcreg(0.64, 0.04),
        "As `fashion_mnist:hierarchy_convnext`, with VCReg after every block, alpha and beta as picked there.",
        "Ours: 82.02 ± 0.37% probe against 80.49 ± 0.20% plain, five seeds.",
    ),
    "fashion_mnist:hierarchy_resnet_vcreg": Alias(
        "fashion_mnist:hierarchy_resnet",
        _vcreg(2.5, 2.5),
        "As `fashion_mnist:hierarchy_resnet`, with VCReg after every block, alpha and beta as picked there.",
        "Ours: 79.16 ± 0.74% probe against 76.30 ± 0.95% plain, five seeds.",
    ),
    "fashion_mnist:simclr_vcreg": Alias(
        "fashion_mnist:simclr",
        _vcreg(0.64, 0.08),
        "As `fashion_mnist:simclr`, with VCReg after every residual block.",
        _NOT_RUN,
    ),
    "fashion_mnist:vicreg_vcreg": Alias(
        "fashion_mnist:vicreg",
        _vcreg(0.64, 0.08),
        "As `fashion_mnist:vicreg`, with VCReg after every residual block.",
        _NOT_RUN,
    ),
    "fashion_mnist:long_tail_convnext_vcreg": Alias(
        "fashion_mnist:long_tail_convnext",
        _vcreg(0.16, 0.01),
        "As `fashion_mnist:long_tail_convnext`, with VCReg after every block.",
        _NOT_RUN,
    ),
    "fashion_mnist:long_tail_resnet_vcreg": Alias(
        "fashion_mnist:long_tail_resnet",
        _vcreg(0.16, 0.01),
        "As `fashion_mnist:long_tail_resnet`, with VCReg after every block.",
        _NOT_RUN,
    ),
    "cifar:long_tail_vcreg": Alias(
        "cifar:long_tail",
        _vcreg(0.64, 0.08),
        "ResNet-32 on CIFAR10-LT with VCReg after its 15 blocks (Table 3).",
        "Cost: that of long_tail and a few percent. The paper: 71.2% on CIFAR10-LT, 40.4% on CIFAR100-LT. " + _NOT_RUN,
        (*_UNSAID, "where"),
    ),
    "cifar:superclass_vcreg": Alias(
        "cifar:superclass",
        _vcreg(0.64, 0.08),
        "ConvNeXt-Atto on CIFAR-100's superclasses with VCReg after its 12 blocks (Table 5).",
        "Cost: that of superclass and a few percent. The paper: 72.9% of the classes. " + _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:superclass_vcreg": Alias(
        "imagenet:superclass",
        _vcreg(0.64, 0.08),
        "ConvNeXt-Atto on superclasses of ImageNet with VCReg after its 12 blocks (Table 5).",
        "Cost: that of superclass and a few percent. " + _NOT_RUN,
        _UNSAID,
    ),
    "fashion_mnist:resnet32_cifar_vcreg": Alias(
        "fashion_mnist:resnet32_cifar",
        _vcreg(0.32, 0.02),
        "The CIFAR ResNet-32 on the ten classes with VCReg after its 15 blocks.",
        "Ours: 88.22 ± 0.38% against 88.14 ± 0.43% plain, three seeds; " + _PICKED,
    ),
    "fashion_mnist:convnext_zepto_rms_vcreg": Alias(
        "fashion_mnist:convnext_zepto_rms",
        _vcreg(0.32, 0.02),
        "ConvNeXt-Zepto with RMSNorm on the ten classes with VCReg after its blocks.",
        "Ours: 80.92 ± 0.40% against 80.74 ± 0.22% plain, three seeds; " + _PICKED,
    ),
    "fashion_mnist:convnext_atto_vcreg": Alias(
        "fashion_mnist:convnext_atto",
        _vcreg(0.64, 0.08),
        "ConvNeXt-Atto on the ten classes with VCReg after its 12 blocks.",
    ),
    "folder:classification_vcreg": Alias(
        "folder:classification",
        _vcreg(0.64, 0.08),
        "As `folder:classification`, with VCReg after its 8 blocks; alpha and beta are those of ImageNet's recipes.",
    ),
    "finetune:image_plain": Alias(
        "finetune:image", ("vcreg=null",), "The baseline of `finetune:image`: the same run without VCReg."
    ),
    "imagenet:resnet50_vcreg": Alias(
        "imagenet:resnet50",
        _vcreg(0.64, 0.08),
        "ResNet-50 with VCReg after its 16 blocks (Table 1).",
        "Cost: that of resnet50 and a few percent. The paper: 67.96% mean of eight linear probes against 62.33% plain. "
        + _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:resnet50_v1_vcreg": Alias(
        "imagenet:resnet50_v1",
        _vcreg(0.64, 0.08),
        "ResNet-50, torchvision's first recipe, with VCReg after its 16 blocks.",
        _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:convnext_tiny_vcreg": Alias(
        "imagenet:convnext_tiny",
        _vcreg(0.64, 0.08),
        "ConvNeXt-T with VCReg after its 18 blocks (Table 1).",
        "Cost: that of convnext_tiny and a few percent. The paper: 73.40% mean of eight linear probes against 72.44% "
        "plain. " + _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:vit_base_patch32_vcreg": Alias(
        "imagenet:vit_base_patch32",
        _vcreg(0.64, 0.08),
        "ViT-B/32 with VCReg after its 12 blocks (Table 1).",
        "Cost: that of vit_base_patch32 and a few percent. The paper: 65.19% mean of eight linear probes against "
        "64.20% plain. " + _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:resnet50_simclr_vcreg": Alias(
        "imagenet:resnet50_simclr",
        _vcreg(0.64, 0.08),
        "ResNet-50 by SimCLR with VCReg after its 16 blocks (Table 4).",
        "Cost: that of resnet50_simclr and a few percent. The paper: 83.6% linear probe on Flowers, 82.6% plain. "
        + _NOT_RUN,
        _UNSAID,
    ),
    "imagenet:resnet50_vicreg_vcreg": Alias(
        "imagenet:resnet50_vicreg",
        _vcreg(0.64, 0.08),
        "ResNet-50 by VICReg with VCReg after its 16 blocks (Table 4).",
        "Cost: that of resnet50_vicreg and a few percent. The paper: 66.3% linear probe on ImageNet, 65.2% plain. "
        + _NOT_RUN,
        _UNSAID,
    ),
    # The other placements of Table 7: --set where=final, --set where=downsample, --set where=blocks+downsample.
    "imagenet:convnext_atto_vcreg": Alias(
        "imagenet:convnext_atto",
        _vcreg(0.64, 0.08),
        "ConvNeXt-Atto with VCReg after its 12 blocks: the second placement of Table 7.",
        "Cost: that of convnext_atto and a few percent. The paper: 66.8 / 48.1 / 60.4 / 91.1 / 86.4 / 66.4% linear "
        "probes on Food, Cars, Aircraft, Pets, Flowers, DTD. " + _NOT_RUN,
        _UNSAID,
    ),
    # ---- videos --------------------------------------------------------------------------------------------------
    "action_shapes:videomae_tiny_vcreg": Alias(
        "action_shapes:videomae_tiny", _vcreg(0.16, 0.1), f"As `action_shapes:videomae_tiny`, {_ON_CLASSIFIER}."
    ),
    "action_shapes:videomae_tiny_finetuned_vcreg": Alias(
        "action_shapes:videomae_tiny_finetuned",
        _vcreg(3.0, 0.1),
        f"As `action_shapes:videomae_tiny_finetuned`, {_ON_CLASSIFIER}.",
        "alpha and beta: picked by `vcreg reproduce action_shapes_finetuned` on held-out clips from the paper's grid.",
    ),
    "action_shapes:vivit_tiny_vcreg": Alias(
        "action_shapes:vivit_tiny",
        _vcreg(0.16, 0.1),
        "As `action_shapes:vivit_tiny`, with VCReg on the class token that feeds the classifier.",
    ),
    "finetune:video_plain": Alias(
        "finetune:video", ("vcreg=null",), "The baseline of `finetune:video`: the same run without VCReg."
    ),
    "hmdb51:videomae_small_vcreg": Alias(
        "hmdb51:videomae_small",
        _vcreg(3.0, 0.3),
        f"VideoMAE-S {_ON_CLASSIFIER} (Table 2).",
        "Cost: that of videomae_small. The paper: 80.6%, mean of three splits. " + _NOT_RUN,
        _UNSAID,
    ),
    "hmdb51:videomae_base_vcreg": Alias(
        "hmdb51:videomae_base",
        _vcreg(3.0, 0.3),
        f"VideoMAE-B {_ON_CLASSIFIER} (Table 2).",
        "Cost: that of videomae_base. The paper: 83.0%, mean of three splits. " + _NOT_RUN,
        _UNSAID,
    ),
    "hmdb51:videomaev2_small_vcreg": Alias(
        "hmdb51:videomaev2_small",
        _vcreg(3.0, 0.3),
        f"VideoMAEv2-S {_ON_CLASSIFIER} (Table 2).",
        "Cost: that of videomaev2_small. The paper: 83.9%, mean of three splits. " + _NOT_RUN,
        _UNSAID,
    ),
    "hmdb51:videomaev2_base_vcreg": Alias(
        "hmdb51:videomaev2_base",
        _vcreg(3.0, 0.3),
        f"VideoMAEv2-B {_ON_CLASSIFIER} (Table 2).",
        "Cost: that of videomaev2_base. The paper: 86.9%, mean of three splits. " + _NOT_RUN,
        _UNSAID,
    ),
    "hmdb51:vivit_base_vcreg": Alias(
        "hmdb51:vivit_base",
        _vcreg(3.0, 0.3),
        "ViViT-B with VCReg on the class token that feeds the classifier (Table 2).",
        "Cost: that of vivit_base. The paper: 71.6%, mean of three splits. " + _NOT_RUN,
        _UNSAID,
    ),
}

# Address below `noise:` without and with `_vcreg` -> the recipe on clean clips, and what it is.
_NOISY = {
    "videomae_small": ("hmdb51:videomae_small", "VideoMAE-S on noisy HMDB51{} (Figure 3)", _NOT_RUN),
    "videomaev2_small": ("hmdb51:videomaev2_small", "VideoMAEv2-S on noisy HMDB51{} (Figure 3)", _NOT_RUN),
    "videomae_base": ("hmdb51:videomae_base", "VideoMAE-B on noisy HMDB51{} (Figure 4)", _NOT_RUN),
    "videomaev2_base": ("hmdb51:videomaev2_base", "VideoMAEv2-B on noisy HMDB51{} (Figure 4)", _NOT_RUN),
    "action_shapes": ("action_shapes:videomae_tiny", "The tiny VideoMAE on noisy action_shapes{}", ""),
    "action_shapes_finetuned": (
        "action_shapes:videomae_tiny_finetuned",
        "The tiny VideoMAE, pretrained on clean clips of other motions, on noisy action_shapes{}",
        "",
    ),
}
for _name, (_of, _about, _facts) in _NOISY.items():
    ALIASES[f"noise:{_name}"] = Alias(_of, _NOISE, _about.format("") + "; the baseline.", _facts, _NOISE_ASSUMED)
    ALIASES[f"noise:{_name}_vcreg"] = Alias(
        f"{_of}_vcreg", _NOISE, _about.format(" with VCReg") + ".", _facts, _NOISE_ASSUMED
    )
