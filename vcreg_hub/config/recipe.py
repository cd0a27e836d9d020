"""Recipe dataclasses: everything a run depends on, frozen, each value checked as it is made."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ..errors import ConfigError
from ..regularizer.vcreg import Regularizer
from .tagged import default_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.module import DataModule
    from ..evals.context import Context
    from ..tasks.task import TaskModule


@dataclass(frozen=True)
class Model:
    """The network. The class count, input channels and image size come from the data.

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
    """The images and how they are shown to the network.

    name: a row of `vcreg_hub.data.datasets` (`digits`, `fashion_mnist`, `imagenet`, `synthetic`), `folder` for class
        folders at `root`, `csv` for a table of paths and labels there, or `hf:<id>` for a data set of the `datasets`
        library.
    labels: the label set: `class`, `superclass` where the data has one, as folders in folders do; a column of `csv` or
        `hf:`; or one of several folders of the same files, each sorted in another way.
    hierarchy: a JSON file of superclasses and their classes, {"dog": ["beagle", "pug"], ...}, or one of the package's
        own: `cifar100`, and over ImageNet `living_9`, `mixed_10`, `mixed_13`, `geirhos_16` and `big_12`. The data is
        what it lists, under the labels `superclass` or `class`. None for the data as it is.
    train_split / test_split: splits of an `hf:` data set or sub-folders of `root`, under their usual names too (`val`,
        `valid`, `validation`). Without test images the validation images are the test split; without either, a fifth of
        the training images.
    root: folder of the data set; None for its usual places.
    val_fraction: share of the training images held out, stratified by class and drawn with `split_seed`; 0 keeps all.
        Where the data set has a validation split besides its test split, that one is used whole instead.
    split_seed: of the draws of `val_fraction` and `train_images`.
    train_images: cap on the training images after the hold-out, stratified and drawn with `split_seed`; None for all.
    imbalance: of the training images after the hold-out, the largest long tail within `train_images` is kept in which
        the first class has this many times the images of the last, and the classes between fall off exponentially (Cao
        et al. 2019); drawn with `split_seed`, as theirs are with 0. None for the classes as they are.
    image_size / train_size: pixels a side at test / in training (None: the same).
    resize: short side before the test-time centre crop; None means no resize beyond `image_size` itself.
    interpolation: of every resize.
    crop: training view: `random_resized` (scale, ratio), `pad` (random crop after padding by an eighth) or `none`.
    scale / ratio: smallest and largest share of the area, and width over height, of a `random_resized` crop.
    hflip: probability of a mirrored training view.
    augment: `none`, `ta_wide` (TrivialAugmentWide), `aa_imagenet` (AutoAugment), `ra-<ops>-<magnitude>`
        (RandAugment), and for two views `simclr-<strength>` (1.0 in its paper) or `vicreg`, whose two views differ.
    random_erase: probability that a rectangle of a training view is erased.
    repeats: repeated augmentation: how often an image is drawn within an epoch of unchanged length.
    mean / std: per channel; None takes the data set's own.
    channels: 1 shows colour as grey, 3 shows grey as colour; None leaves the images as they are.
    fit: how the test view becomes square: `crop` cuts the sides off, `squash` changes the proportions.
    preprocessing: `model` takes mean, std, resize and channels of None, an interpolation of `model`, and fit from the
        pretrained weights; results.json of the run says what they were. `data` takes none of them from there.
    workers: processes that load; 0 loads in the training's own.
    max_failed: how many training and validation images may fail to decode before a run stops, over all its processes
        together: another image takes the place of one, results.json lists them, and a test image that fails counts as
        wrong, however many there are. With 0 the first image that fails ends the run, a test image too. Of clips see
        `video.max_failed`; a stream skips what does not decode, uncounted.
    """

    name: str
    root: str | None = None
    labels: str = "class"
    hierarchy: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    val_fraction: float = 0.0
    split_seed: int = 0
    train_images: int | None = None
    imbalance: float | None = None
    image_size: int = 224
    train_size: int | None = None
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest", "model"] = "bilinear"
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
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "squash"] = "crop"
    preprocessing: Literal["data", "model"] = "data"
    max_failed: int = 0

    @property
    def title(self) -> str:
        """The name for people: a folder of one's own is called by the folder's name."""
        own = self.name in ("csv", "folder", "video_folder", "video_list")
        return os.path.basename(os.path.abspath(self.root)) if own and self.root else self.name

    def __post_init__(self) -> None:
        if self.interpolation == "model" and self.preprocessing != "model":
            raise ConfigError("interpolation is bilinear, bicubic or nearest; model is for preprocessing=model")
        if self.channels not in (None, 1, 3):
            raise ConfigError(f"channels is 1 for grey, 3 for colour, or null, got {self.channels!r}")
        _at_least(self, 1, "image_size", "train_size", "resize", "train_images", "imbalance", "repeats")
        _at_least(self, 0, "workers", "random_erase", "hflip", "val_fraction", "max_failed")
        _below(self, 1, "val_fraction")
        _at_most(self, _SEEDS, "split_seed")
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ConfigError(f"{name} is two numbers above 0, the smaller first, got {[low, high]}")
        if self.mean is not None and not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"mean is finite numbers, got {list(self.mean)}")
        if self.std is not None and not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"std is numbers above 0, got {list(self.std)}")
        for name in ("mean", "std"):
            if (values := getattr(self, name)) is not None and len(values) not in (1, 3):
                raise ConfigError(f"{name} has a value for each channel, 1 or 3, got {len(values)}")


@dataclass(frozen=True)
class Video:
    """Clips instead of images. `Data` keeps its meaning for pixels, augmentation and splits, with two exceptions:
    `data.augment` may be timm's RandAugment, such as `rand-m7-n4-mstd0.5-inc1`, and `data.repeats` stays 1.

    split: which of the data set's train and test splits, from 1.
    frames / stride: a clip has `frames` frames, `stride` frames of the file apart.
    clips / crops: the test views of a file, 10 x 3 in the paper; the scores of all of them are averaged.
    merge: what is averaged, class probabilities or raw scores.
    repeats: how many augmented views of a drawn clip a batch holds; it multiplies the tensor batch, not
        `train.batch_size`, and an epoch still shows every clip.
    noise: standard deviation of Gaussian noise on training, validation and test clips; 0 for none.
    noise_seed: the noise of a test clip depends on it and on the clip alone.
    noise_place: `normalised`, on what the network is given, or `pixels`, on values in [0, 1], which clips them there.
    max_failed: how many training and validation clips may fail to decode before a run stops, over all its processes
        together. A test clip that fails counts as wrong, however many there are.
    decoder: `pyav`, or another library, which is used for the files on which it agrees with PyAV.
    """

    split: int = 1
    frames: int = 16
    stride: int = 2
    clips: int = 10
    crops: int = 3
    merge: Literal["probability", "score"] = "probability"
    repeats: int = 1
    noise: float = 0.0
    noise_place: Literal["normalised", "pixels"] = "normalised"
    noise_seed: int = 0
    max_failed: int = 10
    decoder: Literal["pyav", "torchcodec", "decord"] = "pyav"

    def __post_init__(self) -> None:
        _at_least(self, 1, "split", "frames", "stride", "clips", "crops", "repeats")
        _at_least(self, 0, "noise", "max_failed")


@dataclass(frozen=True)
class Optim:
    """Optimizer and learning-rate schedule.

    name: timm's: `adamw` is torch's; `momentum` is SGD with classical momentum, `sgd` with Nesterov's.
    lr: at the peak, for the whole batch.
    lr_base_batch: with a number here `lr` is per that many samples, and scaled linearly; None leaves it as it is.
    momentum: of SGD.
    betas / eps: of the Adam family.
    weight_decay / norm_weight_decay / bias_weight_decay: the latter two default to `weight_decay`; norm means the
        parameters of normalisation layers, bias every other parameter of one dimension or fewer.
    layer_decay: learning rate of a layer is multiplied by layer_decay ** (layers above it); None for none.
    schedule: `cosine`, `step` (times `step_gamma` every `step_epochs`) or `constant`, after a linear warmup.
    schedule_per: the rate advances per `epoch` or per optimizer `step`.
    warmup_epochs / warmup_start: length of the warmup, and the share of `lr` it begins with.
    min_lr: where `cosine` ends.
    step_epochs / step_gamma: of the schedule `step`.
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

    def __post_init__(self) -> None:
        _at_least(self, 1, "step_epochs", "lr_base_batch")
        _at_least(self, 0, "lr", "weight_decay", "warmup_epochs", "min_lr")
        _at_most(self, _LARGEST_LR, "lr", "min_lr")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay is above 0 and at most 1, or null for none, got {self.layer_decay}")


@dataclass(frozen=True)
class Train:
    """The loop.

    epochs: passes over the training samples. 0 trains nothing: the network is evaluated as it starts.
    batch_size: samples per optimizer step over all processes and accumulation steps together.
    min_steps: fewest optimizer steps of the whole run: with fewer, as small data sets have, the batch is halved, again
        and again, but not below 8 samples; None leaves it.
    accumulation: micro-batches per optimizer step.
    precision: `no` is float32; `bf16` and `fp16` are mixed precision.
    clip_norm: the gradient's largest length; None for no limit.
    label_smoothing: share of a target that is spread over all classes.
    ema_decay: decay of the exponential moving average of the weights, None for none.
    ema_every: optimizer steps from one averaging to the next.
    ema_rule: `plain`, or `torchvision`, which rescales the decay by batch size and epochs and lets the average follow
        the weights during warmup.
    keep: which weights become model.safetensors: `last`, or `best` on the held-out validation images.
    mixup / cutmix: Beta parameters; with both set one of the two is drawn for each batch.
    seed: of the weights, the order of the samples, augmentation and dropout.
    channels_last: memory layout of images, often faster.
    compile: run the network through torch.compile.
    gradient_checkpointing: compute activations again in the backward pass: less memory, more time.
    max_steps: stop after that many optimizer steps; None for all epochs.
    save_every: when a state to resume from is saved, beside the end of every epoch: a number of optimizer steps, or of
        minutes such as `10m`; None for the ends of epochs alone. No result depends on it.
    sync_batchnorm: batch normalisation by the statistics of all processes' samples, on GPUs.
    class_groups: in how many groups the classes are shown one after another, by their ids, each for an equal share of
        the epochs and with a learning-rate schedule of its own (class-incremental learning); 1 shows all of them.
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
    min_steps: int | None = None
    save_every: int | str | None = field(default="10m", compare=False)
    sync_batchnorm: bool = False
    class_groups: int = 1

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch_size", "accumulation", "ema_every", "max_steps", "min_steps", "class_groups")
        _at_least(self, 0, "epochs", "label_smoothing", "mixup", "cutmix", "clip_norm", "ema_decay")
        _below(self, 1, "label_smoothing", "ema_decay")
        _at_most(self, _SEEDS, "seed")
        steps, seconds = self.save_interval
        if (steps is not None and steps < 1) or (seconds is not None and not 0 < seconds < math.inf):
            raise ConfigError(f"save_every is 1 step or more, or minutes above 0 such as 10m, got {self.save_every!r}")

    @property
    def save_interval(self) -> tuple[int | None, float | None]:
        """(steps, seconds) of `save_every`, one of them None, or both. Errors: ConfigError for other text."""
        every = self.save_every
        if not isinstance(every, str):
            return every, None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*m(?:in(?:utes?)?)?\s*", every)
        if found is None:
            raise ConfigError(f"save_every is a number of steps, minutes such as 10m, or null, got {every!r}")
        return None, 60 * float(found[1])


@dataclass(frozen=True)
class Eval:
    """The settings shared by all evaluations.

    split: `test`, or `val` while coefficients are still being chosen.
    batch_size: samples at a time, of clips under many views the views.
    """

    split: Literal["test", "val"] = "test"
    batch_size: int = 256

    def __post_init__(self) -> None:
        _at_least(self, 1, "batch_size")
        if self.split not in ("test", "val"):
            raise ConfigError(f"split is 'test' or 'val', got {self.split!r}")


class Metric(NamedTuple):
    """How a metric is read: its unit, its direction, and one line on its meaning. `{views}` in the line stands for the
    way of looking at a sample."""

    unit: str
    higher_is_better: bool
    meaning: str


class Place(NamedTuple):
    """Where in a network and on what a value was measured, where that is not the evaluation's own data set and split.

    block: a site's name, "" for the whole network. labels: a label set. split: "train", "val" or "test".
    """

    block: str = ""
    labels: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """A measurement of a trained network: a file of `vcreg_hub.evals`, or a class of one's own (`module:Class`).

    data: the data set; None for the one trained on. labels: its label set; None for the data's own `labels`.

    metrics: how what it yields is read. uses_classifier: whether it asks the network's own classifier, which knows the
    classes of its training alone.
    """

    tag: ClassVar[str] = ""
    room: ClassVar[str] = "vcreg_hub.evals"
    default_tag: ClassVar[str] = "classification"
    metrics: ClassVar[Mapping[str, Metric]] = {}
    uses_classifier: ClassVar[bool] = False

    data: Data | None = None
    labels: str | None = None

    def run(self, context: Context) -> Iterator[tuple[str, float] | tuple[str, float, Place]]:
        """Yields (name in `metrics`, value), with a Place where one is measured at several."""
        raise NotImplementedError

    def settings(self, data: DataModule) -> Mapping[str, Any]:
        """The fields besides `data` and `labels` that are not their defaults: what makes its numbers others."""
        own = {one.name: (getattr(self, one.name), one.default) for one in fields(self)}
        return {
            name: value for name, (value, usual) in own.items() if value != usual and name not in ("data", "labels")
        }

    def check(self, data: DataModule) -> None:
        """Raises ConfigError for data unfit for the evaluation; asked before the training."""

    def views(self, data: DataModule) -> str:
        """How a sample is looked at, in words."""
        return data.single_view


@dataclass(frozen=True)
class Task:
    """The goal of a training: a file of `vcreg_hub.tasks`, or a class of one's own (`module:Class`).

    views: how many augmented views of a sample a batch holds: with more than one it is (b, views, ...).
    monitor: the column of metrics.csv that says which epoch is best; its smallest value where `lower_is_better`.
    """

    tag: ClassVar[str] = ""
    room: ClassVar[str] = "vcreg_hub.tasks"
    default_tag: ClassVar[str] = "classification"
    views: ClassVar[int] = 1
    monitor: ClassVar[str] = "val_top1"
    lower_is_better: ClassVar[bool] = False

    def heads(self, network: nn.Module, example_input: Tensor) -> Mapping[str, nn.Module]:
        """Modules trained beside the network and left out of the export, such as a projector."""
        return {}

    def loss(self, module: TaskModule, batch: Sequence[Any], train: Train) -> dict[str, Tensor]:
        """{"loss": the minimised value, further names: values to show}, from `module.network` and `module.heads`."""
        raise NotImplementedError

    def end_epoch(self, module: TaskModule, final: nn.Module, batches: Any) -> None:
        """Runs after each epoch, before its evaluation and before its state is saved.

        final: the network to be evaluated, the average where there is one. batches: this process's batches of the
        epoch, once more, not on its device.
        """


@dataclass(frozen=True)
class Recipe:
    """A whole run. `vcreg=None` is the baseline of the same recipe; `video=None` means images.

    name: becomes part of a folder's name.
    model: the network.
    data: the images, or clips, and how they are shown.
    optim: optimizer and schedule.
    train: the loop.
    eval: what all evaluations have in common.
    evals: what is measured afterwards.
    vcreg: the regularizer; null for none.
    where: places of the regularizer: `final`, `blocks`, `downsample`, `blocks+downsample`, or a glob over module names.
    task: what is learned.
    video: of clips; null for images.
    assumed: fields whose values the sources that a recipe follows do not confirm; for whoever reads it, and the card.
    """

    name: str
    model: Model
    data: Data
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    evals: tuple[Evaluation, ...] = field(default_factory=lambda: (default_of(Evaluation),))
    vcreg: Regularizer | None = None
    where: str = "blocks"
    task: Task = field(default_factory=lambda: default_of(Task))
    video: Video | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if {"/", "\\", "\0"} & set(self.name) or self.name in (".", ".."):
            raise ConfigError(f"name becomes a folder's name, without a slash, got {self.name!r}")


# NumPy's legacy generators take no larger seed.
_SEEDS = 2**32 - 1
# A slip of the exponent beyond which float32 weights overflow within a few steps.
_LARGEST_LR = 1e6


def _at_least(config: Any, lowest: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not lowest <= value < math.inf:
            raise ConfigError(f"{name} is {lowest} or more, got {value}")


def _at_most(config: Any, highest: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value <= highest:
            raise ConfigError(f"{name} is from 0 to {highest:.10g}, got {value}")


def _below(config: Any, limit: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value < limit:
            raise ConfigError(f"{name} is below {limit}, got {value}")
