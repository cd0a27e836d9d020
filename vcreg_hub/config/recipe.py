"""Recipe dataclasses: everything a run depends on, frozen, each value checked as it is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ..errors import ConfigError
from ..regularizer.ranges import COUNT, LARGEST_SEED, check_ranges, number
from ..regularizer.vcreg import Regularizer
from .tagged import default_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.module import DataModule
    from ..evals.context import Context
    from ..tasks.task import TaskModule

# Slips beyond what any training has: epochs, samples a step, pixels a side.
_EPOCHS = 1_000_000
_BATCH = 100_000_000
_PIXELS = 16_384
# A slip of the exponent beyond which float32 weights overflow within a few steps.
_LARGEST_LR = 1_000_000
# Names of Nesterov's momentum in timm.
_NESTEROV = ("nesterov", "sgd", "sgdw")
# Of a network's arguments only widths and counts are large.
_LARGEST_ARGUMENT = 1e12
# Bytes of a run's name: its folder's name has a date too, and file systems take 255.
_NAME = 200


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

    def __post_init__(self) -> None:
        for name, value in self.kwargs.items():
            _check_argument(name, value)


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
        together: another image of its class takes the place of one, results.json lists them, and a test image that
        fails counts as wrong, however many there are. With 0 the first image that fails ends the run, a test image too.
        Of clips see `video.max_failed`; a stream skips what does not decode, uncounted.
    """

    name: str
    root: str | None = None
    labels: str = "class"
    hierarchy: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    val_fraction: float = number(0.0, at_least=0, below=1)
    split_seed: int = number(0, at_least=0, at_most=LARGEST_SEED)
    train_images: int | None = number(None, at_least=1, at_most=COUNT)
    imbalance: float | None = number(None, at_least=1, at_most=COUNT)
    image_size: int = number(224, at_least=1, at_most=_PIXELS)
    train_size: int | None = number(None, at_least=1, at_most=_PIXELS)
    resize: int | None = number(None, at_least=1, at_most=_PIXELS)
    interpolation: Literal["bilinear", "bicubic", "nearest", "model"] = "bilinear"
    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    scale: tuple[float, float] = number((0.08, 1.0), above=0, at_most=1)
    ratio: tuple[float, float] = number((3 / 4, 4 / 3), above=0, at_most=1000)
    hflip: float = number(0.5, at_least=0, at_most=1)
    augment: str = "none"
    random_erase: float = number(0.0, at_least=0, at_most=1)
    repeats: int = number(1, at_least=1, at_most=1000)
    mean: tuple[float, ...] | None = number(None, at_least=-1e6, at_most=1e6)
    std: tuple[float, ...] | None = number(None, above=0, at_most=1e6)
    workers: int = number(4, at_least=0, at_most=1024)
    channels: Literal[1, 3] | None = None
    fit: Literal["crop", "squash"] = "crop"
    preprocessing: Literal["data", "model"] = "data"
    max_failed: int = number(0, at_least=0, at_most=COUNT)

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
        check_ranges(self)
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} is two numbers, the smaller first, got {[low, high]}")
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
    antialias: whether training crops and test frames are resized with antialiasing, as by the video processors of
        transformers; VideoMAE's own code has none. It matters where frames shrink.
    """

    split: int = number(1, at_least=1, at_most=1000)
    frames: int = number(16, at_least=1, at_most=4096)
    stride: int = number(2, at_least=1, at_most=COUNT)
    clips: int = number(10, at_least=1, at_most=1000)
    crops: int = number(3, at_least=1, at_most=1000)
    merge: Literal["probability", "score"] = "probability"
    repeats: int = number(1, at_least=1, at_most=1000)
    noise: float = number(0.0, at_least=0, at_most=1000)
    noise_place: Literal["normalised", "pixels"] = "normalised"
    noise_seed: int = number(0, at_least=0, at_most=LARGEST_SEED)
    max_failed: int = number(10, at_least=0, at_most=COUNT)
    decoder: Literal["pyav", "torchcodec", "decord"] = "pyav"
    antialias: bool = True

    def __post_init__(self) -> None:
        check_ranges(self)


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
    lr: float = number(1e-3, at_least=0, at_most=_LARGEST_LR)
    lr_base_batch: int | None = number(None, at_least=1, at_most=COUNT)
    momentum: float = number(0.9, at_least=0, below=1)
    betas: tuple[float, float] = number((0.9, 0.999), at_least=0, below=1)
    eps: float = number(1e-8, above=0, at_most=1)
    weight_decay: float = number(0.05, at_least=0, at_most=1000)
    norm_weight_decay: float | None = number(None, at_least=0, at_most=1000)
    bias_weight_decay: float | None = number(None, at_least=0, at_most=1000)
    layer_decay: float | None = number(None, above=0, at_most=1)
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    schedule_per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: int = number(0, at_least=0, at_most=_EPOCHS)
    warmup_start: float = number(0.01, at_least=0, at_most=1)
    min_lr: float = number(0.0, at_least=0, at_most=_LARGEST_LR)
    step_epochs: int = number(30, at_least=1, at_most=_EPOCHS)
    step_gamma: float = number(0.1, above=0, at_most=1)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Train:
    """The loop.

    epochs: passes over the training samples. 0 trains nothing: the network is evaluated as it starts.
    batch_size: samples per optimizer step over all processes and accumulation steps together.
    min_steps: fewest optimizer steps of the whole run: with fewer, as small data sets have, the batch is halved, again
        and again, but not below 8 samples; None leaves it.
    accumulation: micro-batches per optimizer step.
    precision: `no` is float32; `bf16` and `fp16` are mixed precision.
    on_nan: at a loss or gradient that is not finite the run ends (`stop`), leaves the step out (`skip`), or goes back
        to the weights last saved and on with the next batches (`rollback`).
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
    collective_timeout: minutes that processes wait for one another before the run ends and names the one that hangs.
    class_groups: in how many groups the classes are shown one after another, by their ids, each for an equal share of
        the epochs and with a learning-rate schedule of its own (class-incremental learning); 1 shows all of them.
    """

    epochs: int = number(1, at_least=0, at_most=_EPOCHS)
    batch_size: int = number(128, at_least=1, at_most=_BATCH)
    accumulation: int = number(1, at_least=1, at_most=_BATCH)
    precision: Literal["no", "bf16", "fp16"] = "no"
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    clip_norm: float | None = number(None, above=0, at_most=COUNT)
    label_smoothing: float = number(0.0, at_least=0, below=1)
    mixup: float = number(0.0, at_least=0, at_most=1000)
    cutmix: float = number(0.0, at_least=0, at_most=1000)
    ema_decay: float | None = number(None, at_least=0, below=1)
    ema_every: int = number(1, at_least=1, at_most=COUNT)
    ema_rule: Literal["plain", "torchvision"] = "plain"
    keep: Literal["last", "best"] = "last"
    seed: int = number(0, at_least=0, at_most=LARGEST_SEED)
    channels_last: bool = False
    compile: bool = False
    gradient_checkpointing: bool = False
    max_steps: int | None = number(None, at_least=1, at_most=COUNT)
    min_steps: int | None = number(None, at_least=1, at_most=COUNT)
    save_every: int | str | None = field(default="10m", compare=False)
    sync_batchnorm: bool = False
    collective_timeout: float = number(10.0, above=0, at_most=10_000, compare=False)
    class_groups: int = number(1, at_least=1, at_most=COUNT)

    def __post_init__(self) -> None:
        check_ranges(self)
        every, (steps, seconds) = self.save_every, self.save_interval
        if (steps is not None and not 1 <= steps <= COUNT) or (seconds is not None and not 0 < seconds <= COUNT):
            raise ConfigError(
                f"save_every is steps from 1 to {COUNT:,}, minutes above 0 such as 10m, or null, got {every!r}"
            )

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
    batch_size: int = number(256, at_least=1, at_most=_BATCH)

    def __post_init__(self) -> None:
        check_ranges(self)
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

    def __post_init__(self) -> None:
        check_ranges(self)

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

    def check_training(self, train: Train) -> None:
        """Raises ConfigError for a training that is not what the evaluation is told of it."""

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

    def __post_init__(self) -> None:
        check_ranges(self)

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
        if {"/", "\\"} & set(self.name) or self.name in (".", "..") or not self.name.isprintable():
            raise ConfigError(f"name becomes a folder's name, without a slash or control character, got {self.name!r}")
        if not 0 < len(self.name.encode(errors="replace")) <= _NAME:
            raise ConfigError(f"name becomes a folder's name of 1 to {_NAME} bytes, got {self.name[:40]!r}")

    def check(self) -> None:
        """Raises ConfigError for values that do not go together: asked of a whole recipe before it is trained."""
        if self.optim.min_lr > self.optim.lr:
            raise ConfigError(
                f"optim.min_lr is from 0 to optim.lr={self.optim.lr:g}, the peak, got {self.optim.min_lr:g}"
            )
        if self.optim.name in _NESTEROV and not self.optim.momentum:
            raise ConfigError(
                f"optim.momentum is a number above 0 and below 1 for optim.name={self.optim.name}, Nesterov's, got "
                f"{self.optim.momentum:g}: plain SGD is optim.name=momentum"
            )
        for one in self.evals:
            one.check_training(self.train)


def _check_argument(name: str, value: Any) -> None:
    """Refuses an argument of a network's constructor that no constructor takes: a number that is not finite, and a
    rate of dropout that is none. Errors: ConfigError."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        _check_argument(name, part)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not abs(value) <= _LARGEST_ARGUMENT:
        limit = f"{_LARGEST_ARGUMENT:g}"
        raise ConfigError(f"kwargs.{name} is a number from -{limit} to {limit}, got {value!r}")
    if ("drop" in name or name.endswith("_prob")) and not 0 <= value < 1:
        raise ConfigError(f"kwargs.{name} is a probability from 0 to below 1, got {value!r}")
