"""Compares files with the hashes recorded of them: on a hub, in the cache, in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..checkpoints.checksums import expected_checksums, wrong_checksum
from ..checkpoints.client import RetryPolicy, check_repo_id
from ..checkpoints.fetch import cached_folder, fetch_file
from ..checkpoints.find import Lookup, refuse_only_pickles
from ..errors import IntegrityError, VCRegError
from ..files import scratch_folder, sha256
from ..releases import RELEASES, WEIGHTS, is_release_file
from .bundle import SCRATCH, Bundle

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from torch import Tensor


@dataclass(frozen=True)
class Check:
    """One thing looked at. ok: None without a standard of comparison."""

    what: str
    ok: bool | None
    detail: str


def verify(target: str | Path, *, revision: str | None = None, load: bool = True) -> list[Check]:
    """Look again at a folder, a release (`<name>` or `<name>.<tag>`), or a repo (`owner/name`) in the cache; asks no
    network.

    Every file is compared with each hash that is recorded of it: in the folder's SHA256SUMS and results.json, by the
    cache, and in the table of releases. load: build the network too and look at its logits for a fixed input.
    Errors: VCRegError when there is no such folder or release, and the cache has no such repo; UsageError for a folder
    whose weights are pickles: none is read.
    """
    folder, full_name = Path(target), Path(target).resolve().name
    if not folder.is_dir():
        folder, full_name = _folder_here(str(target), revision)
    refuse_only_pickles(folder)
    # An older revision of a release's repo may hold other weights.
    expected = expected_checksums(folder, full_name if revision in (None, "main") else "")
    there = {str(PurePosixPath(path.relative_to(folder))): path for path in folder.rglob("*") if path.is_file()}
    checks = [_hash_check(name, there[name], expected.get(name, [])) for name in sorted(filter(is_release_file, there))]
    gone = [name for name in expected if name not in there]
    checks += [Check(name, False, "its hash is recorded, but it is not there") for name in gone]
    if WEIGHTS in there:
        checks.append(_release_check(there[WEIGHTS], full_name))
    if load:
        checks.append(_load_check(folder))
    return checks


def _folder_here(name: str, revision: str | None) -> tuple[Path, str]:
    """The folder on this machine of a release or repo, and the `<name>.<tag>` that it is said to be."""
    lookup = None if "/" in name else Lookup(name, cache_only=True)
    for source, full_name in lookup or ():
        if (folder := source.folder(full_name, revision)) is not None:
            return folder, full_name
    if "/" in name:
        check_repo_id(name)
        if (folder := cached_folder(name, revision)) is not None:
            return folder, name.partition("/")[2]
    looked = "the Hub's cache does not have it"
    if lookup is not None:
        looked = f"it is not in {', nor in '.join(map(str, lookup.sources))}"
    raise VCRegError(
        f"there is no {name!r} on this machine: it is no folder, and {looked}. `vcreg download` fetches it"
    )


def _hash_check(name: str, path: Path, expected: list[str]) -> Check:
    found = sha256(path)
    if not expected:
        return Check(name, None, f"SHA-256 {found}; nothing recorded to compare it with")
    if wrong := wrong_checksum(path, expected):
        return Check(name, False, f"SHA-256 {found}, recorded was {wrong}")
    return Check(name, True, f"SHA-256 {found}")


def _release_check(weights: Path, full_name: str) -> Check:
    found = sha256(weights)
    if row := next((row for row in RELEASES if row.sha256 == found), None):
        return Check("release", True, f"these are the weights of {row.full_name}")
    if row := next((row for row in RELEASES if row.full_name == full_name and row.sha256), None):
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
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
    same: Callable[[Path, Path], None] | None = None,
) -> None:
    """Download a revision into an empty cache and compare it with the bundle, file by file, then by `same`.

    Errors: IntegrityError that names the first file that differs and both hashes; HubError.
    """
    with scratch_folder(SCRATCH) as cache:
        for file in bundle.files:
            there = fetch_file(repo_id, file.path, revision, cache=cache, api=api, retries=retries)
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


def _fixed_logits(folder: Path, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    import torch

    from ..models.build import input_shape, load_network
    from ..models.outputs import logits

    model = load_network(folder)
    if inputs is None:
        inputs = torch.rand(input_shape(folder), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return inputs, logits(model(inputs))
