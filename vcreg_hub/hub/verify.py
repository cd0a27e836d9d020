"""Whether files are what they should be: what a hub serves, what a cache holds, what a folder holds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import IntegrityError, RunFolderError, VCRegError
from ..models.places import HubPlace, places
from ..releases import RELEASES
from ..rundir import sha256
from .bundle import Bundle, git_hash, is_allowed
from .download import SUMS, WEIGHTS, cached_hash
from .repo_id import check_repo_id
from .retry import Patience, attempt

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from torch import Tensor, nn


@dataclass(frozen=True)
class Check:
    """One thing looked at. ok: None where there is nothing to compare with."""

    what: str
    ok: bool | None
    detail: str


def verify(target: str | Path, *, revision: str | None = None, load: bool = True) -> list[Check]:
    """Look again at a folder, a release (`<name>.<tag>`), or a repo (`owner/name`) in the cache; asks no network.

    A folder's files are compared with its SHA256SUMS, a cache's with the hashes it keeps them under, and the weights
    with the table of releases. load: build the network too and look at its logits for a fixed input.
    Errors: VCRegError when there is no such folder or release, and the cache has no such repo.
    """
    folder = Path(target)
    if not folder.is_dir():
        folder = _folder_here(str(target), revision)
    checks = [_hash_check(path, folder) for path in sorted(folder.rglob("*")) if _counts(path, folder)]
    checks += [
        Check(name, False, f"{SUMS} lists it, but it is not there") for name in _sums(folder) if _gone(folder, name)
    ]
    if (folder / WEIGHTS).is_file():
        checks.append(_release_check(folder / WEIGHTS))
    if load:
        checks.append(_load_check(folder))
    return checks


def _folder_here(name: str, revision: str | None) -> Path:
    """The folder on this machine of a release or repo."""
    from huggingface_hub import constants, try_to_load_from_cache

    repos = [name] if "/" in name else []
    for place in [] if repos else places():
        if isinstance(place, HubPlace):
            repos.append(f"{place.namespace}/{name}")
        elif (folder := place.folder(name)) is not None:
            return folder
    for repo in repos:
        check_repo_id(repo)
        there = try_to_load_from_cache(repo, WEIGHTS, revision=revision, cache_dir=constants.HF_HUB_CACHE)
        if isinstance(there, str):
            return Path(there).parent
    raise VCRegError(
        f"there is no {name!r} on this machine: it is no folder, and neither the places of releases nor the cache of "
        f"{', '.join(repos) or 'a hub'} have it. `vcreg download` fetches it"
    )


def _counts(path: Path, folder: Path) -> bool:
    return path.is_file() and is_allowed(str(PurePosixPath(path.relative_to(folder))))


def _gone(folder: Path, name: str) -> bool:
    return not (folder / name).is_file()


def _sums(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of the folder's SHA256SUMS; empty without one."""
    if _gone(folder, SUMS):
        return {}
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if name}


def _hash_check(path: Path, folder: Path) -> Check:
    name, found = str(PurePosixPath(path.relative_to(folder))), sha256(path)
    if expected := _sums(folder).get(name) or cached_hash(path):
        if expected not in (found, git_hash(path)):
            return Check(name, False, f"SHA-256 {found}, recorded was {expected}")
        return Check(name, True, f"SHA-256 {found}")
    return Check(name, None, f"SHA-256 {found}; nothing recorded to compare it with")


def _release_check(weights: Path) -> Check:
    found = sha256(weights)
    if row := next((row for row in RELEASES if row.sha256 == found), None):
        return Check("release", True, f"these are the weights of {row.full_name}")
    if row := next((row for row in RELEASES if row.full_name == weights.parent.name and row.sha256), None):
        return Check("release", False, f"{row.full_name} has SHA-256 {row.sha256}, these weights have {found}")
    return Check("release", None, "these weights are not in this version's table of releases")


def _load_check(folder: Path) -> Check:
    try:
        _, logits = _fixed_logits(folder)
    except Exception as error:
        return Check("loads", False, f"{type(error).__name__}: {error}")
    finite = bool(logits.isfinite().all())
    return Check("loads", finite, f"logits {tuple(logits.shape)}, {'finite' if finite else 'not all finite'}")


def verify_download(
    bundle: Bundle,
    repo_id: str,
    revision: str,
    *,
    api: HfApi,
    patience: Patience = Patience(),  # noqa: B008
    same: Callable[[Path, Path], None] | None = None,
) -> None:
    """Download a revision into an empty cache and compare it with the bundle, file by file, then by `same`.

    Errors: IntegrityError that names the first file that differs and both hashes; HubError.
    """
    with tempfile.TemporaryDirectory() as cache:
        for file in bundle.files:

            def fetch(path: str = file.path) -> str:
                return api.hf_hub_download(
                    repo_id, path, revision=revision, cache_dir=cache, etag_timeout=patience.timeout
                )

            there = Path(attempt(f"downloading {file.path} of {repo_id}", fetch, patience))
            found = sha256(there)
            if found != file.sha256:
                raise IntegrityError(
                    f"{file.path} of {repo_id} at {revision[:12]} has SHA-256 {found} when it is downloaded, but "
                    f"{file.sha256} here: it was damaged on the way. Publish it again"
                )
        if same is not None:
            same(bundle.folder, there.parents[len(Path(file.path).parts) - 1])


def same_logits(one: Path, other: Path) -> None:
    """IntegrityError unless the networks of two folders give the same logits for a fixed input."""
    import torch

    inputs, expected = _fixed_logits(one)
    _, found = _fixed_logits(other, inputs)
    if expected.shape != found.shape or not torch.equal(expected, found):
        raise IntegrityError(f"{other} does not give the logits of {one} for the same input")


def load_network(folder: Path) -> nn.Module:
    """The network of an export folder, loaded by the library that its config.json is for; in eval mode.

    Errors: RunFolderError when config.json is absent or is for no library known.
    """
    config = _config(folder)
    if config.get("library") == "torchvision":
        return _torchvision(config, folder)
    if "model_type" in config:
        import transformers

        video = any("Video" in str(name) for name in config.get("architectures") or ())
        kind = "AutoModelForVideoClassification" if video else "AutoModelForImageClassification"
        return getattr(transformers, kind).from_pretrained(folder, trust_remote_code=False).eval()
    if "architecture" not in config:
        raise RunFolderError(f"{folder / 'config.json'} names no architecture")
    import timm

    from ..models import zoo  # noqa: F401  registers the architectures of our own

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _torchvision(config: dict[str, Any], folder: Path) -> nn.Module:
    from safetensors.torch import load_file

    from ..config import Model
    from ..models.factory import build_model

    arguments, view = dict(config["model_args"]), config["preprocessing"]
    classes, size = arguments.pop("num_classes"), arguments.pop("image_size", view["image_size"])
    model = build_model(
        Model(f"torchvision:{config['architecture']}", kwargs=arguments),
        num_classes=classes,
        in_chans=view["in_chans"],
        image_size=size,
    )
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def _fixed_logits(folder: Path, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    import torch

    from ..models.factory import logits

    model = load_network(folder)
    if inputs is None:
        inputs = torch.rand(_input_shape(folder, model), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return inputs, logits(model(inputs))


def _input_shape(folder: Path, model: Any) -> tuple[int, ...]:
    """Of one sample, from config.json and results.json."""
    config = _config(folder)
    if "pretrained_cfg" in config:
        return (1, *config["pretrained_cfg"]["input_size"])
    if "num_frames" in config:
        size = config["image_size"]
        return (1, config["num_frames"], config.get("num_channels", 3), size, size)
    data = json.loads((folder / "results.json").read_text(encoding="utf-8")).get("data", {})
    size = int(data.get("image_size") or config.get("image_size") or 224)
    return (1, int(data.get("in_chans") or config.get("num_channels", 3)), size, size)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise RunFolderError(f"{folder / 'config.json'} holds a {type(config).__name__}, expected an object")
    return config
