"""What a run is made of: frozen dataclasses, their JSON form, and the one way to change a value.

A recipe is a function that returns a `Recipe`; "the same with another value" is `dataclasses.replace`. From the
command line it is `--set path.to.field=value`, which `override` checks against the dataclasses.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .core import VCReg
from .errors import ConfigError, unknown_name


@dataclass(frozen=True)
class Model:
    """Which network. The class count, input channels and image size come from the data.

    name: a timm architecture, `hf:<id, folder or config.json>` (a transformers image or video classifier), or
        `torchvision:<name>`.
    pretrained: False for a random start, True for the library's default weights, or a folder, file or Hub id.
    kwargs: handed to the library's own constructor, such as {"drop_path_rate": 0.1}.
    """

    name: str
    pretrained: bool | str = False
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Data:
    """Which images and how they are shown to the network.

    name: a row of `vcreg_hub.data.images` (`digits`, `fashion_mnist`, `imagenet`, `synthetic`), `folder` for an
        ImageFolder at `root`, or `hf:<id>` for a data set of the `datasets` library.
    labels: the label set (`class`, or `superclass` where the data has one), or a column of an `hf:` data set.
    val_fraction: share of the training images held out, stratified by class and drawn with `split_seed`; 0 keeps all.
    train_images: cap on the training images after the hold-out, stratified and drawn with `split_seed`; None for all.
    image_size / train_size: pixels a side at test / in training (None: the same).
    resize: short side before the test-time centre crop; None means no resize beyond `image_size` itself.
    crop: training view: `random_resized` (scale, ratio), `pad` (random crop after padding by an eighth) or `none`.
    augment: `none`, `ta_wide` (TrivialAugmentWide), `aa_imagenet` (AutoAugment) or `ra-<ops>-<magnitude>` (RandAugment).
    repeats: repeated augmentation: how often an image is drawn within an epoch of unchanged length.
    mean / std: per channel; None takes the data set's own.
    """

    name: str
    root: str | None = None
    labels: str = "class"
    train_split: str = "train"
    test_split: str = "test"
    val_fraction: float = 0.0
    split_seed: int = 0
    train_images: int | None = None
    image_size: int = 224
    train_size: int | None = None
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    augment: str = "none"
    random_erase: float = 0.0
    repeats: int = 1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    workers: int = 4


@dataclass(frozen=True)
class Optim:
    """Optimizer and learning-rate schedule.

    lr: at the peak, for the whole batch; with `lr_base_batch` set it is per that many samples and scaled linearly.
    weight_decay / norm_weight_decay / bias_weight_decay: the latter two default to `weight_decay`; norm means the
        parameters of normalisation layers, bias every other parameter of one dimension or fewer.
    layer_decay: learning rate of a layer is multiplied by layer_decay ** (layers above it); None for none.
    schedule: `cosine`, `step` (times `step_gamma` every `step_epochs`) or `constant`, after a linear warmup from
        lr * warmup_start; advanced per `epoch` or per optimizer `step`.
    """

    name: str = "adamw"
    lr: float = 1e-3
    lr_base_batch: int | None = None
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    norm_weight_decay: float | None = None
    bias_weight_decay: float | None = None
    layer_decay: float | None = None
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    schedule_per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: int = 0
    warmup_start: float = 0.01
    min_lr: float = 0.0
    step_epochs: int = 30
    step_gamma: float = 0.1


@dataclass(frozen=True)
class Train:
    """The loop.

    batch_size: samples per optimizer step over all processes and accumulation steps together.
    ema_decay: decay of the exponential moving average of the weights, None for none; `ema_every` optimizer steps a
        time; `ema_rule`: `plain`, or `torchvision`, which rescales the decay by batch size and epochs and lets the
        average follow the weights during warmup.
    keep: which weights become model.safetensors: `last`, or `best` on the held-out validation images.
    mixup / cutmix: Beta parameters; with both set one of the two is drawn for each batch.
    """

    epochs: int = 1
    batch_size: int = 128
    accumulation: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema_decay: float | None = None
    ema_every: int = 1
    ema_rule: Literal["plain", "torchvision"] = "plain"
    keep: Literal["last", "best"] = "last"
    seed: int = 0
    channels_last: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False
    max_steps: int | None = None


@dataclass(frozen=True)
class Eval:
    """What is measured at the end.

    protocols: names of `vcreg_hub.evals`, such as ("classification", "probe").
    split: `test`, or `val` while coefficients are still being chosen.
    probe_labels: label set that the linear probe learns (`class` while training saw `superclass`).
    probe_lambda: the probe's L2 penalty, lambda / 2 * ||W||^2 on top of the summed cross-entropy.
    """

    protocols: tuple[str, ...] = ("classification",)
    split: Literal["test", "val"] = "test"
    batch_size: int = 256
    probe_labels: str = "class"
    probe_lambda: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """A whole run. `vcreg=None` is the plain twin of the same recipe."""

    name: str
    model: Model
    data: Data
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    vcreg: VCReg | None = None
    where: str = "blocks"
    task: str = "classification"
