"""transformers' networks: any image or video classifier by `hf:`, the video networks by name, three image networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...checkpoints.find import Weights, find_weights
from ...config import Model
from ...errors import ConfigError, IntegrityError, UsageError, WeightsNotFoundError, first_line, unknown_name
from ...files import JSON
from ...regularizer.attachment import attach
from ...regularizer.vcreg import VCReg, checked_vcreg
from .. import native
from ..head import classes_in_config, classes_in_folder, remember_classes
from ..video import build_video_model, finish_classifier
from ..video_networks import NETWORKS, NORMALISATION, OPTIONS, check_geometry, classifier_of, video_processor
from ..zoo import SUFFIX
from .library import (
    FEATURES,
    LOAD,
    PICTURE,
    PIPELINE,
    TOP_3,
    Library,
    Loader,
    Preprocessing,
    Sizes,
    SnippetSource,
    construct,
    embeddings_of,
    input_of,
    numbered_classes,
)

# Name -> transformers model type, and how its configuration differs from that type's default. The three networks of
# the paper's Table 1: the defaults are ResNet-50, ConvNeXt-T and ViT-B with patches of 16.
IMAGE_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "convnext_tiny": ("convnext", {}),
    "resnet50": ("resnet", {}),
    "vit_base_patch32_224": ("vit", {"patch_size": 32}),
}
# Bigger networks are saved in several files, as the Hub asks for.
_LARGEST_FILE = "50GB"
_PIL_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}


class Transformers(Library):
    name, prefix, takes_clips = "transformers", "hf", True

    def weights(self, cfg: Model, sizes: Sizes) -> Weights | None:
        if cfg.name in NETWORKS or sizes.frames is not None or (cfg.pretrained and _is_native(str(cfg.pretrained))):
            return None
        return super().weights(cfg, sizes)

    def build(self, cfg: Model, sizes: Sizes) -> nn.Module:
        if cfg.name in NETWORKS:
            options = {"image_size": sizes.image_size, "num_channels": sizes.in_chans, **cfg.kwargs}
            if sizes.frames is not None:
                options["num_frames"] = _agreed_frames(cfg, sizes.frames)
            return build_video_model(cfg.name, sizes.num_classes, cfg.pretrained, **options)
        source = self.bare(cfg.name)
        return _images(source, cfg, sizes) if sizes.frames is None else _clips(source, cfg, sizes, sizes.frames)

    def base_model(self, cfg: Model) -> str | None:
        if cfg.pretrained is not True:
            return super().base_model(cfg)
        if cfg.name in NETWORKS:
            return NETWORKS[cfg.name].kinetics
        return super().base_model(replace(cfg, pretrained=self.bare(cfg.name)))

    def build_on_meta(self, model: str, **kwargs: Any) -> nn.Module:
        import transformers
        from transformers.models.auto import modeling_auto

        if model in NETWORKS:
            with torch.device("meta"):
                return build_video_model(model, **kwargs)
        source = self.bare(model)
        if Path(source).name == "config.json":
            source = str(Path(source).parent)
        try:
            config = transformers.AutoConfig.from_pretrained(native.local_copy(source, "config"), **kwargs)
        except (OSError, WeightsNotFoundError) as error:
            raise UsageError(f"no transformers config at {source!r}: {first_line(error)}") from error
        stated: Any = getattr(transformers, str((config.architectures or [""])[0]), None)
        with torch.device("meta"):
            # A name in a file that anybody may have written: transformers has more than networks by name.
            if isinstance(stated, type) and issubclass(stated, transformers.PreTrainedModel):
                return stated(config)
            for auto, mapping in (
                (transformers.AutoModelForImageClassification, modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING),
                (transformers.AutoModelForVideoClassification, modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING),
            ):
                if type(config) in mapping:
                    return auto.from_config(config)
        raise UsageError(f"{source}: transformers has no image or video classifier of type {config.model_type!r}")

    def save(self, folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> nn.Module:
        network: Any = model
        native.set_classes(network.config, len(view.classes), view.classes)
        network.config._name_or_path = ""  # a folder of this machine, where the run started from one
        network.save_pretrained(folder, max_shard_size=_LARGEST_FILE)
        if view.frames is not None or cfg.name in NETWORKS:
            video_processor(model, tuple(view.mean), tuple(view.std)).save_pretrained(folder)
        else:
            _image_processor(view).save_pretrained(folder)
        return model

    def load(self, folder: Path, config: JSON) -> nn.Module:
        import transformers

        video = any("Video" in str(name) for name in config.get("architectures") or ())
        model, report = getattr(transformers, _auto_class(video)).from_pretrained(
            folder, trust_remote_code=False, output_loading_info=True
        )
        _refuse_strangers(report, f"transformers {transformers.__version__}", folder)
        return model.eval()

    def preprocessing(self, model: nn.Module, source: Path | str | None = None) -> Preprocessing:
        network: Any = model
        *clip, channels, size, _ = input_of(model)
        classes = classes_in_config(network.config.to_dict())
        about: JSON = {
            "classes": numbered_classes(classes, int(network.config.num_labels)),
            "in_chans": channels,
            "frames": clip[0] if clip else None,
        }
        if source in NETWORKS:
            mean, std = NORMALISATION[NETWORKS[str(source)].normalisation]
            view: JSON = {"resize": size, "interpolation": "bilinear", "mean": mean, "std": std}
            return Preprocessing(image_size=size, **about, **view)
        return Preprocessing(**about, **_seen_by(_processor(str(source or network.name_or_path), bool(clip)), size))

    def loader(self, config: Mapping[str, Any] | None, model: str, *, video: bool) -> Loader:
        video = video or model in NETWORKS
        architecture = model if model in NETWORKS else str((config or {}).get("model_type") or self.bare(model))
        return Loader(self.name, architecture, _auto_class(video), video)

    def snippets(self, source: SnippetSource) -> dict[str, str]:
        kind, place = source.loader.auto_class, f'"{source.repo_id or "."}"'
        processor = "AutoVideoProcessor" if source.loader.video else "AutoImageProcessor"
        names = sorted([processor, kind] if source.processor else [kind])
        lines = ["import torch", f"from transformers import {', '.join(names)}"]
        if source.packaged:
            place = "folder"
            lines += ["from vcreg_hub.checkpoints.find import find_weights", ""]
            lines += [f'folder = find_weights("{source.name}").folder']
        else:
            lines += [""]
        if source.processor:
            use = "list of frames" if source.loader.video else "PIL image"
            lines += [f'processor = {processor}.from_pretrained({place})  # processor(a {use}, return_tensors="pt")']
        lines += [f"model = {kind}.from_pretrained({place}).eval()", "config = model.config"]
        if source.loader.video:
            lines += ["pixels = torch.rand(1, config.num_frames, 3, config.image_size, config.image_size)"]
        else:
            lines += [f"pixels = torch.rand(1, config.num_channels, {source.image_size}, {source.image_size})"]
        lines += ["with torch.no_grad():", "    logits = model(pixel_values=pixels).logits  # (1, classes)"]
        found = {LOAD: "\n".join(lines)}
        if source.processor:
            found[PICTURE] = "\n".join(_sample(source))
        features = [
            "with torch.no_grad():",
            "    states = model(pixel_values=pixels, output_hidden_states=True).hidden_states",
            "features = states[-1]  # at every position of the last block",
            "last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]  # the classifier",
            *embeddings_of("last", "model(pixel_values=pixels)"),
        ]
        found[FEATURES] = "\n".join(features)
        if source.processor and not source.loader.video:
            found[PIPELINE] = source.in_pipeline()
        return found

    def recipe_name(self, config: Mapping[str, Any]) -> str:
        return "hf:<the same folder or id>"


def create_image_model(
    name: str,
    num_classes: int | None = None,
    pretrained: bool | str = False,
    vcreg: VCReg | bool | None = None,
    where: str = "blocks",
) -> nn.Module:
    """A native transformers image classifier with VCReg attached at `where`; `model.vcreg` is the attachment.

    name: `resnet50`, `convnext_tiny` or `vit_base_patch32_224`. num_classes: None takes that of the weights, 1000
    without weights. pretrained: True for the release `<name>_vcreg` in transformers' format (`checkpoints/find.py` says
    where those are looked for), or a folder or Hub id of any checkpoint of that model type. vcreg: None means
    `VCReg()`, False the plain model.

    Errors: UnknownNameError; WeightsNotFoundError; UsageError for weights of another kind of model or that do not fit.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    if name not in IMAGE_NETWORKS:
        raise unknown_name("image model", name, IMAGE_NETWORKS)
    regularizer = checked_vcreg(vcreg)
    model_type, settings = IMAGE_NETWORKS[name]
    if pretrained:
        source = _release(name) if pretrained is True else str(pretrained)
        config = native.load_config(source)
        if config.model_type != model_type:
            raise UsageError(f"{source} is a {config.model_type!r}, but {name} is a {model_type!r}")
        if num_classes is not None and num_classes != config.num_labels:
            native.set_classes(config, num_classes)
        model = native.load_classifier(AutoModelForImageClassification, source, config)
    else:
        config = AutoConfig.for_model(model_type, **settings)
        native.set_classes(config, 1000 if num_classes is None else num_classes)
        model = native.build_classifier(AutoModelForImageClassification, config, model_type)
    if regularizer is not None:
        size = getattr(config, "image_size", 224)  # any will do for a network without a size of its own
        attach(model, regularizer, where, example_input=torch.zeros(1, config.num_channels, size, size))
    return model


def _release(name: str) -> str:
    """The folder of the release `<name>_vcreg`. Errors: UsageError for one in timm's format."""
    weights = find_weights(f"{name}{SUFFIX}")
    if weights.library != "transformers":
        raise UsageError(
            f"{weights.origin} is in timm's format: timm.create_model('{name}_vcreg', pretrained=True) loads it, "
            "and so does transformers' AutoModelForImageClassification, as a timm network"
        )
    return str(weights.folder)


def _images(source: str, cfg: Model, sizes: Sizes) -> nn.Module:
    """Any image classifier. source: its Hub id, folder or config.json."""
    from transformers import AutoModelForImageClassification as Auto

    config = native.load_config(source)
    trained = _trained_classes(source, config) if cfg.pretrained is True else None
    _configure(config, cfg.kwargs, num_channels=sizes.in_chans, image_size=sizes.image_size)
    native.set_classes(config, sizes.num_classes)
    if cfg.pretrained is True:
        if source.endswith(".json"):
            raise WeightsNotFoundError(
                f"{source} is a configuration without weights: give pretrained a folder or Hub id"
            )
        model = native.load_classifier(Auto, source, config)
        remember_classes(model, trained)
        return model
    if cfg.pretrained and _is_native(cfg.pretrained):
        model = native.load_classifier(Auto, cfg.pretrained, config)
        remember_classes(model, _trained_classes(cfg.pretrained))
        return model
    return construct(source, cfg.kwargs, lambda: native.build_classifier(Auto, config, source))


def _clips(source: str, cfg: Model, sizes: Sizes, frames: int) -> nn.Module:
    """Any video classifier. source: its Hub id, folder or config.json.

    cfg.pretrained: True for the weights there, or a folder or Hub id of other weights. cfg.kwargs: `drop_path`,
    `head_dropout` and `head_init_scale` as in `build_video_model`, else fields of the configuration. Errors: those of
    `native`'s functions, UsageError for weights that do not fit.
    """
    from transformers import AutoModelForVideoClassification as Auto

    settings = dict(cfg.kwargs)
    options = {name: settings.pop(name) for name in OPTIONS if name in settings}
    config = native.load_config(source)
    trained = _trained_classes(source, config) if cfg.pretrained is True else None
    given = {"num_channels": sizes.in_chans, "image_size": sizes.image_size, "num_frames": _agreed_frames(cfg, frames)}
    _configure(config, settings, **given)
    check_geometry(config)
    fresh_head = not cfg.pretrained or sizes.num_classes != config.num_labels
    native.set_classes(config, sizes.num_classes)
    if not cfg.pretrained:
        model = classifier_of(config, source)
    elif cfg.pretrained is True:
        model = native.load_classifier(Auto, source, config)
        remember_classes(model, trained)
    else:
        model = native.load_classifier(Auto, cfg.pretrained, config)
        remember_classes(model, _trained_classes(cfg.pretrained))
    return finish_classifier(model, fresh_head, **options)


def _configure(config: Any, settings: Mapping[str, Any], **sizes: int) -> None:
    """Change a configuration to the sizes of the data, as far as it has such fields, and to a recipe's settings."""
    native.change_config(config, {name: value for name, value in sizes.items() if hasattr(config, name)})
    native.change_config(config, settings)


def _trained_classes(source: str, config: Any = None) -> tuple[str, ...] | None:
    """Those of the weights in a folder or Hub id that transformers reads. config: of `source`, where it is at hand."""
    path = Path(source).expanduser()
    if path.exists():
        return classes_in_folder(path if path.is_dir() else path.parent)
    return classes_in_config((config or native.load_config(source)).to_dict())


def _agreed_frames(cfg: Model, frames: int) -> int:
    if cfg.kwargs.get("num_frames", frames) != frames:
        raise ConfigError(
            f"model.kwargs.num_frames={cfg.kwargs['num_frames']} and video.frames={frames} differ; leave the first out"
        )
    return frames


def _is_native(source: str) -> bool:
    """Whether transformers itself should read `source`: a folder it wrote, or a Hub id, not a run folder or file."""
    path = Path(source).expanduser()
    if path.exists():
        return path.is_dir() and (path / "config.json").is_file()
    return not source.partition(".")[0].endswith(SUFFIX) and path.suffix != ".safetensors"


def _sample(source: SnippetSource) -> list[str]:
    """Lines of Python that classify a picture or a clip from its file."""
    clip = [
        "import av",
        "",
        'with av.open("clip.mp4") as video:  # a file of yours',
        '    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]',
        f"frames = frames[::{source.stride}][: config.num_frames]  # of the video's beginning",
        'prepared = processor(frames, return_tensors="pt")',
    ]
    picture = [
        "from PIL import Image",
        "",
        f'picture = Image.open("picture.png").convert("{source.mode}")  # a file of yours',
        'prepared = processor(picture, return_tensors="pt")',
    ]
    return [
        *(clip if source.loader.video else picture),
        "with torch.no_grad():",
        "    shares = model(**prepared).logits.softmax(-1)[0]",
        "names = config.id2label",
        TOP_3,
    ]


def _image_processor(view: Preprocessing) -> Any:
    from transformers import BitImageProcessor

    # Bit's processor is the general one: any short side, centre crop, mean and std. A model type's own may not crop.
    return BitImageProcessor(
        size={"shortest_edge": view.resize},
        resample=_PIL_FILTERS[view.interpolation],
        crop_size={"height": view.image_size, "width": view.image_size},
        image_mean=view.mean,
        image_std=view.std,
        do_convert_rgb=view.in_chans == 3,
    )


def _processor(source: str, video: bool) -> Any:
    """What prepares pixels for the network at `source`. Errors: UsageError where nothing there says how."""
    import transformers

    if not source:
        raise UsageError("a network of transformers does not say itself how its pixels are prepared")
    auto = transformers.AutoVideoProcessor if video else transformers.AutoImageProcessor
    try:
        return auto.from_pretrained(native.local_copy(source, "config"), trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(
            f"nothing at {source!r} says how its pixels are prepared ({first_line(error)}): expected "
            f"{'video_' if video else ''}preprocessor_config.json there; or give the network a preprocessing"
        ) from None


def _seen_by(processor: Any, size: int) -> JSON:
    """A processor's settings as fields of `Preprocessing`. size: pixels a side that the network itself takes."""
    stated = {key: value for key, value in dict(processor.size or {}).items() if value}
    crop = dict(getattr(processor, "crop_size", None) or {}) if getattr(processor, "do_center_crop", False) else {}
    short = stated.get("shortest_edge")
    share = getattr(processor, "crop_pct", None)
    if short and share and not crop:  # ConvNeXt's: a crop of the short side below 384 pixels, squashed above
        image, resize, squash = short, int(short / share) if short < 384 else short, short >= 384
    else:
        image = crop.get("height") or stated.get("height") or short or size
        resize, squash = short or image, not short
    if not getattr(processor, "do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    else:
        mean, std = list(processor.image_mean), list(processor.image_std)
    if getattr(processor, "offset", False):  # ViViT's values run from -1 to 1 before they are normalised
        mean, std = [(value + 1) / 2 for value in mean], [value / 2 for value in std]
    filters = {number: name for name, number in _PIL_FILTERS.items()}
    return {
        "image_size": int(image),
        "resize": int(resize),
        "interpolation": filters.get(int(processor.resample if processor.resample is not None else 2), "bicubic"),
        "mean": mean,
        "std": std,
        "fit": "squash" if squash else "crop",
    }


def _auto_class(video: bool) -> str:
    return "AutoModelForVideoClassification" if video else "AutoModelForImageClassification"


def _refuse_strangers(report: dict[str, Any], library: str, folder: Path) -> None:
    """IntegrityError where a library fills a tensor with noise or leaves one out, which transformers only logs."""
    lines = [
        f"{kind.partition('_')[0]}: {', '.join(sorted(map(str, keys))[:3])}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if (keys := report.get(kind))
    ]
    if lines:
        raise IntegrityError(
            f"{library} does not load {folder} as it was trained ({'; '.join(lines)}); take a newer one"
        )
