"""Robustness to noise: the recipes of HMDB51 with Gaussian noise on every clip, Figures 3 and 4 of the paper.

Training, validation and test clips are corrupted, with a standard deviation of 1, 1.5 or 2 (`--set video.noise=1.5`; 0
is the recipe of `hmdb51`). The paper does not say on which scale: here the noise is added to the normalised values, the
only scale on which such deviations leave a signal; `--set video.noise_place=pixels` adds it to pixels in [0, 1] before.
The paper draws its results and prints no numbers. None of these has been run by us on HMDB51 yet.
"""

from __future__ import annotations

from dataclasses import replace

from ..config import Recipe, Video
from . import action_shapes as shapes
from . import hmdb51


def videomae_small(sigma: float = 1.0) -> Recipe:
    """VideoMAE-S on noisy HMDB51 (Figure 3); the plain twin.

    Command: accelerate launch -m vcreg_hub train noise:videomae_small --set data.root=DIR --set video.noise=1.5
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomae_small(), sigma)


def videomae_small_vcreg(sigma: float = 1.0) -> Recipe:
    """VideoMAE-S on noisy HMDB51 with VCReg (Figure 3).

    Command: accelerate launch -m vcreg_hub train noise:videomae_small_vcreg --set data.root=DIR --set video.noise=1.5
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomae_small_vcreg(), sigma)


def videomaev2_small(sigma: float = 1.0) -> Recipe:
    """VideoMAEv2-S on noisy HMDB51 (Figure 3); the plain twin.

    Command: accelerate launch -m vcreg_hub train noise:videomaev2_small --set data.root=DIR --set video.noise=1.5
    --set model.pretrained=vit_s_k710_dl_from_giant.pth
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomaev2_small(), sigma)


def videomaev2_small_vcreg(sigma: float = 1.0) -> Recipe:
    """VideoMAEv2-S on noisy HMDB51 with VCReg (Figure 3).

    Command: accelerate launch -m vcreg_hub train noise:videomaev2_small_vcreg --set data.root=DIR
    --set video.noise=1.5 --set model.pretrained=vit_s_k710_dl_from_giant.pth
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomaev2_small_vcreg(), sigma)


def videomae_base(sigma: float = 1.0) -> Recipe:
    """VideoMAE-B on noisy HMDB51 (Figure 4); the plain twin.

    Command: accelerate launch -m vcreg_hub train noise:videomae_base --set data.root=DIR --set video.noise=1.5
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomae_base(), sigma)


def videomae_base_vcreg(sigma: float = 1.0) -> Recipe:
    """VideoMAE-B on noisy HMDB51 with VCReg (Figure 4).

    Command: accelerate launch -m vcreg_hub train noise:videomae_base_vcreg --set data.root=DIR --set video.noise=1.5
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomae_base_vcreg(), sigma)


def videomaev2_base(sigma: float = 1.0) -> Recipe:
    """VideoMAEv2-B on noisy HMDB51 (Figure 4); the plain twin.

    Command: accelerate launch -m vcreg_hub train noise:videomaev2_base --set data.root=DIR --set video.noise=1.5
    --set model.pretrained=vit_b_k710_dl_from_giant.pth
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomaev2_base(), sigma)


def videomaev2_base_vcreg(sigma: float = 1.0) -> Recipe:
    """VideoMAEv2-B on noisy HMDB51 with VCReg (Figure 4).

    Command: accelerate launch -m vcreg_hub train noise:videomaev2_base_vcreg --set data.root=DIR
    --set video.noise=1.5 --set model.pretrained=vit_b_k710_dl_from_giant.pth
    Ours: not yet run.
    """
    return _noisy(hmdb51.videomaev2_base_vcreg(), sigma)


def action_shapes(sigma: float = 1.0) -> Recipe:
    """The tiny VideoMAE on noisy action_shapes; the plain twin.

    Command: vcreg train noise:action_shapes --set video.noise=1.5
    """
    return _noisy(shapes.videomae_tiny(), sigma)


def action_shapes_vcreg(sigma: float = 1.0) -> Recipe:
    """The tiny VideoMAE on noisy action_shapes with VCReg.

    Command: vcreg train noise:action_shapes_vcreg --set video.noise=1.5
    """
    return _noisy(shapes.videomae_tiny_vcreg(), sigma)


def action_shapes_finetuned(sigma: float = 1.0) -> Recipe:
    """The tiny VideoMAE, pretrained on clean clips of other motions, on noisy action_shapes; the plain twin.

    Command: vcreg train noise:action_shapes_finetuned --set video.noise=1.5
    """
    return _noisy(shapes.videomae_tiny_finetuned(), sigma)


def action_shapes_finetuned_vcreg(sigma: float = 1.0) -> Recipe:
    """The tiny VideoMAE, pretrained on clean clips of other motions, on noisy action_shapes with VCReg.

    Command: vcreg train noise:action_shapes_finetuned_vcreg --set video.noise=1.5
    """
    return _noisy(shapes.videomae_tiny_finetuned_vcreg(), sigma)


def _noisy(recipe: Recipe, sigma: float) -> Recipe:
    return replace(
        recipe,
        name=f"noise_{recipe.name}",
        video=replace(recipe.video or Video(), noise=sigma),
        assumed=(*recipe.assumed, "video.noise_place"),
    )
