"""torchvision's networks, and their equals in timm.

An export prefers timm's: plain timm then loads it. The pairs are a table; which tensor is which is found, not listed:
timm's tensors take, in order, the first unused of torchvision's with their shape. A pairing is used only after both
networks gave the same logits, in float64 and with random values in every tensor, so that a wrong one cannot pass.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.find import Weights
from ...config import Model
from ...errors import UsageError, unknown_name
from ...files import JSON, read_tensors, write_json, write_tensors
from .library import (
    FEATURES,
    LOAD,
    PICTURE,
    TOP_3,
    Library,
    Loader,
    Preprocessing,
    Sizes,
    SnippetSource,
    construct,
    construct_on_meta,
    embeddings_of,
    fill,
    input_of,
    recoloured,
)
from .timm import Timm

# torchvision name -> timm name of the same network.
EQUIVALENTS: dict[str, str] = {
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")},
    **{name: name for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")},
    **{name: name for name in ("wide_resnet50_2", "wide_resnet101_2")},
    **{name: name for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")},
    **{name: name for name in ("densenet121", "densenet161", "densenet169", "densenet201")},
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
}


class Torchvision(Library):
    name = prefix = "torchvision"

    def accepts(self, weights: Weights) -> bool:
        return True  # timm's ResNets, for one, name their tensors as torchvision's do

    def build(self, cfg: Model, sizes: Sizes) -> nn.Module:
        from torchvision import models

        name = self.bare(cfg.name)
        model = _fresh(name, cfg.kwargs, sizes)
        if cfg.pretrained is True:
            tensors = models.get_model_weights(name).DEFAULT.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
            fill(model, tensors, sizes, f"torchvision's {name}")
        return model

    def build_on_meta(self, model: str, **kwargs: Any) -> nn.Module:
        from torchvision import models

        name = self.bare(model)
        if name not in models.list_models():
            raise unknown_name("torchvision model", name, models.list_models())
        return construct_on_meta(lambda: models.get_model(name, weights=None, **kwargs))

    def save(self, folder: Path, model: nn.Module, cfg: Model, view: Preprocessing, licence: str) -> nn.Module:
        name = self.bare(cfg.name)
        equivalent = _as_timm(name, model, view.sizes)
        if equivalent is not None:
            return Timm().save(folder, equivalent, Model(EQUIVALENTS[name]), view, licence)
        write_tensors(folder / "model.safetensors", model.state_dict())
        write_json(folder / "config.json", _config(name, cfg, view, licence))
        return model

    def load(self, folder: Path, config: JSON) -> nn.Module:
        arguments, view = dict(config["model_args"]), config["preprocessing"]
        classes, size = arguments.pop("num_classes"), arguments.pop("image_size", view["image_size"])
        model = _fresh(config["architecture"], arguments, Sizes(classes, view["in_chans"], size))
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return model.eval()

    def preprocessing(self, model: nn.Module, source: Path | str | None = None) -> Preprocessing:
        from torchvision import models

        if isinstance(source, Path):
            return Preprocessing(**_stated(source))
        if source is None:
            raise UsageError(f"a {type(model).__name__} of torchvision does not say how its pixels are prepared")
        weights: Any = models.get_model_weights(self.bare(source)).DEFAULT
        view, (channels, *_) = weights.transforms(), input_of(model)
        return Preprocessing(
            classes=list(weights.meta["categories"]),
            in_chans=channels,
            image_size=view.crop_size[0],
            resize=view.resize_size[0],
            interpolation=view.interpolation.value,
            mean=recoloured(view.mean, channels),
            std=recoloured(view.std, channels),
        )

    def loader(self, config: Mapping[str, Any] | None, model: str, *, video: bool) -> Loader:
        name = self.bare(model)
        if not config and name in EQUIVALENTS:
            return Timm().loader(None, EQUIVALENTS[name], video=video)
        return Loader(self.name, name, video=video)

    def snippets(self, source: SnippetSource) -> dict[str, str]:
        refit = [  # torchvision's constructors know three channels only
            "name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d))",
            f"sizes = ({source.in_chans}, first.out_channels, first.kernel_size, first.stride, first.padding)",
            "model.set_submodule(name, torch.nn.Conv2d(*sizes, bias=first.bias is not None))",
        ]
        lines = [
            "import json",
            "from pathlib import Path",
            "",
            "import torch",
            "import torchvision",
            *(["from huggingface_hub import snapshot_download"] if source.repo_id else []),
            "from safetensors.torch import load_file",
            "",
            f'folder = snapshot_download("{source.repo_id}")' if source.repo_id else 'folder = "."',
            'config = json.loads(Path(folder, "config.json").read_text())',
            'model = torchvision.models.get_model(config["architecture"], **config["model_args"]).eval()',
            *(refit if source.in_chans != 3 else []),
            'model.load_state_dict(load_file(Path(folder, "model.safetensors")))',
            'size = config["preprocessing"]["image_size"]',
            "with torch.no_grad():",
            f"    logits = model(torch.rand(1, {source.in_chans}, size, size))  # (1, classes)",
        ]
        picture = [
            "from PIL import Image",
            "from torchvision import transforms",
            "",
            'view = config["preprocessing"]',
            "transform = transforms.Compose(",
            "    [",
            '        transforms.Resize(view["resize"], transforms.InterpolationMode(view["interpolation"])),',
            '        transforms.CenterCrop(view["image_size"]),',
            "        transforms.ToTensor(),",
            '        transforms.Normalize(view["mean"], view["std"]),',
            "    ]",
            ")",
            f'picture = transform(Image.open("picture.png").convert("{source.mode}"))  # a file of yours',
            "with torch.no_grad():",
            "    shares = model(picture.unsqueeze(0)).softmax(-1)[0]",
            'names = config["label_names"]',
            TOP_3,
        ]
        image = f"torch.rand(1, {source.in_chans}, size, size)"
        features = [
            "last = list(model.children())[-1]  # the classifier, and what pools for it where that is a part of it",
            *embeddings_of("last", f"model({image})"),
        ]
        return {LOAD: "\n".join(lines), PICTURE: "\n".join(picture), FEATURES: "\n".join(features)}


def _stated(folder: Path) -> JSON:
    """What config.json of an export says of its preprocessing."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"classes": list(config["label_names"]), **config["preprocessing"]}


def _fresh(name: str, kwargs: Mapping[str, Any], sizes: Sizes) -> nn.Module:
    """The network without weights. Errors: UnknownNameError; ConfigError for `kwargs` that its constructor refuses."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name("torchvision model", name, known)
    sized = {"image_size": sizes.image_size} if name.startswith("vit_") else {}
    arguments = {"num_classes": sizes.num_classes, **sized, **kwargs}
    model = construct(name, kwargs, lambda: models.get_model(name, weights=None, **arguments))
    if sizes.in_chans != 3:
        _replace_first_convolution(model, sizes.in_chans)
    return model


def _replace_first_convolution(model: nn.Module, in_chans: int) -> None:
    """torchvision's networks take three channels; the same first layer for `in_chans`, drawn as torch draws it."""
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, leaf = name.rpartition(".")
    shape: dict[str, Any] = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    new = nn.Conv2d(in_chans, old.out_channels, bias=old.bias is not None, **shape)
    setattr(model.get_submodule(parent), leaf, new)


def _config(name: str, cfg: Model, view: Preprocessing, licence: str) -> JSON:
    """config.json of torchvision's own tensors, which neither timm nor transformers loads."""
    about = dataclasses.asdict(view)
    note = (
        "neither timm nor transformers loads this: model = torchvision.models.get_model(architecture, **model_args); "
        "model.load_state_dict(safetensors.torch.load_file('model.safetensors'))"
    )
    if view.in_chans != 3:
        note += f". Its first convolution takes {view.in_chans} channels, so replace that first"
    arguments = {"num_classes": len(view.classes), **cfg.kwargs}
    if name.startswith("vit_"):
        arguments["image_size"] = view.image_size
    return {
        "library": "torchvision",
        "architecture": name,
        "model_args": arguments,
        "note": note,
        "license": licence,
        "num_classes": len(view.classes),
        "label_names": about.pop("classes"),
        "preprocessing": about,
    }


def _as_timm(name: str, model: nn.Module, sizes: Sizes) -> nn.Module | None:
    """The timm network that computes what torchvision's `name` does, with the weights of `model`; None without one."""
    if name not in EQUIVALENTS:
        return None
    equivalent = Timm().build(Model(EQUIVALENTS[name]), sizes)
    tensors = model.state_dict()
    pairs = _paired(equivalent.state_dict(), tensors)
    shape = (1, sizes.in_chans, sizes.image_size, sizes.image_size)
    if pairs is None or not _same_function(model, equivalent, pairs, shape):
        return None
    equivalent.load_state_dict(_renamed(tensors, pairs, equivalent.state_dict()))
    return equivalent.eval()


def _paired(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str] | None:
    """For each name of `wanted` the first unused name of `given` with the same shape; None when they do not match up.

    Names that agree go together first, which settles a ResNet. Axes of length 1 do not count: ConvNeXt's layer scale
    is (c, 1, 1) in one library and (c,) in the other.
    """
    if len(wanted) != len(given):
        return None
    same = {name for name in wanted if name in given and given[name].shape == wanted[name].shape}
    unused = [name for name in given if name not in same]
    pairs = {}
    for name, tensor in wanted.items():
        if name in same:
            pairs[name] = name
            continue
        theirs = next((other for other in unused if _long_axes(given[other]) == _long_axes(tensor)), None)
        if theirs is None:
            return None
        unused.remove(theirs)
        pairs[name] = theirs
    return pairs


def _long_axes(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size > 1]


def _renamed(
    tensors: Mapping[str, Tensor], pairs: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return {ours: tensors[theirs].reshape(wanted[ours].shape) for ours, theirs in pairs.items()}


@torch.no_grad()
def _same_function(model: nn.Module, equivalent: nn.Module, pairs: Mapping[str, str], shape: tuple[int, ...]) -> bool:
    """Whether both networks map random images to the same logits, whatever values the paired tensors take."""
    generator = torch.Generator().manual_seed(0)
    first, second = copy.deepcopy(model).double().eval(), copy.deepcopy(equivalent).double().eval()
    values = {name: _random_like(name, tensor, generator) for name, tensor in first.state_dict().items()}
    first.load_state_dict(values)
    second.load_state_dict(_renamed(values, pairs, second.state_dict()))
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    one, other = first(x), second(x)
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(one.abs().max()))


def _random_like(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    if name.endswith("running_var"):
        return drawn + 0.5
    fan_in = tensor[0].numel() if tensor.ndim > 1 else 4
    return (drawn - 0.4) * (3 / fan_in) ** 0.5
