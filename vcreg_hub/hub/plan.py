"""What publishing would do: the folder beside what the repo holds now. Nothing here writes anywhere."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.exported import exported_hashes
from ..checkpoints.ref_name import check_ref_name
from ..checkpoints.repo_id import check_repo_id
from ..checkpoints.retry import Patience, attempt
from ..errors import HubError, UsageError
from .bundle import Bundle, is_allowed, read_bundle

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SHOWN_LINES = 60
_TEXT = (".md", ".json", ".yaml")


@dataclass(frozen=True)
class Remote:
    """A repo's branch as it is. head: its newest commit, None for a repo or branch that is not there. base: what a
    new branch starts from. files: path -> (git hash, sha256 where it is kept as a large file), of a branch that is not
    there those it would start with."""

    exists: bool
    private: bool
    head: str | None
    base: str | None
    files: dict[str, tuple[str, str | None]]

    def has(self, bundle: Bundle) -> bool:
        """Whether the branch holds the bundle, and no other files of a kind that bundles hold."""
        return not any(changes(bundle, self))


@dataclass(frozen=True)
class Plan:
    """One publication, thought through but not begun."""

    bundle: Bundle
    repo_id: str
    remote: Remote
    private: bool | None
    branch: str
    pr: bool
    tag: str | None
    diff: str = ""

    def describe(self) -> str:
        """The plan for a person to read, the card included."""
        return "\n".join(_lines(self))


def plan(
    folder: str | Path,
    repo_id: str,
    *,
    api: HfApi | None = None,
    private: bool | None = None,
    revision: str | None = None,
    pr: bool = False,
    tag: str | None = None,
    patience: Patience = Patience(),  # noqa: B008
) -> Plan:
    """What `publish` with the same arguments would do. Reads the hub, writes nothing.

    private: True for a repo that only its owner sees; None leaves a repo as it is and makes a new one as the owner's
    settings have it. revision: the branch, main by default. pr: open a pull request instead of pushing.
    Errors: UsageError for a folder that is not ready, or arguments that do not go together; HubError.
    """
    check_arguments(repo_id, revision, pr, tag)
    bundle = read_bundle(folder, repo_id.partition("/")[0])
    api = api or hub_client()
    remote = look(api, repo_id, revision or "main", patience)
    if pr and not remote.exists:
        raise UsageError(f"there is no {repo_id} to open a pull request for: publish it without --pr")
    if private is not None and remote.exists and remote.private is not private:
        has, asked = ("private", "public") if remote.private else ("public", "private")
        raise UsageError(
            f"{repo_id} is {has} and stays so: publishing never changes who sees a repo that exists. Make it {asked} "
            "in its settings first, or give another name"
        )
    held = tag_commit(api, repo_id, tag, patience) if tag is not None and remote.exists else None
    if held and not (held == remote.head and remote.has(bundle)):
        raise UsageError(f"{repo_id} has a tag {tag} already, at {held[:12]}, and tags never move: give another one")
    made = Plan(bundle, repo_id, remote, private, revision or "main", pr, tag)
    return Plan(**{**vars(made), "diff": _text_changes(made, api, patience)})


def check_arguments(repo_id: str, revision: str | None, pr: bool, tag: str | None) -> None:
    """UsageError for names that a hub does not take, or arguments that do not go together."""
    check_repo_id(repo_id)
    if revision is not None:
        check_ref_name("branch", revision)
    if tag is not None:
        check_ref_name("tag", tag)
        if tag == (revision or "main"):
            raise UsageError(f"tag {tag!r} is the branch's name too, and then means either: give another, such as v1")
    if pr and tag:
        raise UsageError("a pull request cannot be tagged (--pr with --tag): tag after it is merged")
    if pr and revision not in (None, "main"):
        raise UsageError("a pull request goes to main (--pr with --revision): give one of the two")


def hub_client() -> HfApi:
    """The hub of this environment: HF_ENDPOINT, and the token of huggingface_hub's own login or HF_TOKEN."""
    from huggingface_hub import HfApi

    return HfApi(library_name="vcreg_hub")


def look(api: HfApi, repo_id: str, branch: str, patience: Patience) -> Remote:
    """The repo's branch as it is now. Errors: HubError."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    what = f"looking at {repo_id}"
    expected = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        refs = attempt(what, lambda: api.list_repo_refs(repo_id), patience, expected)
        info = attempt(what, lambda: api.model_info(repo_id, timeout=patience.timeout), patience, expected)
    except RepositoryNotFoundError:
        return Remote(False, False, None, None, {})
    heads = {ref.name: ref.target_commit for ref in refs.branches}
    head = heads.get(branch)
    base = heads.get("main", info.sha)
    start = head or base
    files = attempt(what, lambda: list_files(api, repo_id, start, patience), patience) if start else {}
    return Remote(True, bool(info.private), head, base, files)


def tag_commit(api: HfApi, repo_id: str, tag: str, patience: Patience) -> str | None:
    """The commit that a tag names, None when there is no such tag. Errors: HubError."""
    from huggingface_hub.errors import RevisionNotFoundError

    what, expected = f"looking at tag {tag} of {repo_id}", (RevisionNotFoundError,)
    try:
        return attempt(
            what, lambda: api.model_info(repo_id, revision=tag, timeout=patience.timeout), patience, expected
        ).sha
    except RevisionNotFoundError:
        return None


def list_files(api: HfApi, repo_id: str, revision: str, patience: Patience) -> dict[str, tuple[str, str | None]]:
    """Path -> (git hash, sha256 where it is kept as a large file) of every file at a revision."""
    # Not list_repo_tree: it takes no timeout, and would wait for a silent hub for ever.
    info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=patience.timeout)
    return {file.rfilename: (str(file.blob_id), file.lfs.sha256 if file.lfs else None) for file in info.siblings or []}


def changes(bundle: Bundle, remote: Remote) -> tuple[list[str], list[str], list[str]]:
    """(new, changed, gone): paths of the bundle the branch lacks or has otherwise, and paths of an earlier
    publication that the bundle no longer has. Files of other kinds are none of our business and stay."""
    ours = {file.path: file for file in bundle.files}
    new = [path for path in ours if path not in remote.files]
    changed = []
    for path, file in ours.items():
        git, large = remote.files.get(path, ("", None))
        if path in remote.files and file.sha256 != large and (large is not None or file.git != git):
            changed.append(path)
    gone = [path for path in remote.files if is_allowed(path) and path not in ours]
    return new, changed, gone


def _lines(plan: Plan) -> list[str]:
    remote, bundle = plan.remote, plan.bundle
    new, changed, gone = changes(bundle, remote)
    if remote.exists:
        state = f"exists, {'private' if remote.private else 'public'}"
    elif plan.private is None:
        state = "will be made, public unless the owner's settings say otherwise"
    else:
        state = f"will be made, {'private' if plan.private else 'public'}"
    lines = [f"repo       {plan.repo_id} ({state})"]
    if remote.exists and remote.head is None:
        base = f"main at {str(remote.base)[:12]}"
        lines.append(f"branch     {plan.branch} (will be created from {base}, and is compared with that)")
    else:
        lines.append(f"branch     {plan.branch}" + (f" at {remote.head[:12]}" if remote.head else ""))
    if plan.pr:
        lines.append("as         a pull request")
    if plan.tag:
        lines.append(f"tag        {plan.tag}")
    lines.append("files")
    for file in bundle.files:
        mark = "new" if file.path in new else "changed" if file.path in changed else "same"
        lines.append(f"  {mark:<8} {file.size:>12,} bytes  {file.path}")
    lines += [f"  removed  {'':>12}        {path}" for path in gone]
    lines += [f"  kept     {'':>12}        {path} (not ours)" for path in remote.files if not is_allowed(path)]
    lines += [f"  stays    {'':>12}        {path} (never published)" for path in bundle.left]
    if not (new or changed or gone):
        lines.append(f"nothing to change: {'the branch' if remote.head else 'main'} holds these files already")
    if plan.diff:
        lines += ["", "difference from what is there", plan.diff]
    if not exported_hashes(bundle.folder):
        lines.append(
            "note: results.json does not record the hash of the exported weights (it is not from this version's "
            "`vcreg export`): whether they were altered since could not be checked"
        )
    card = (bundle.folder / "README.md").read_text(encoding="utf-8")
    if plan.repo_id not in card:
        lines.append(
            f"note: the card does not say how to load it from {plan.repo_id}, and is left as it was written; "
            f"`vcreg card {bundle.folder} --repo {plan.repo_id} --write` renders it anew"
        )
    return [*lines, "", "card", card]


def _text_changes(plan: Plan, api: HfApi, patience: Patience) -> str:
    """A unified diff of the text files that are there already and change; long ones are cut."""
    import tempfile

    _, changed, _ = changes(plan.bundle, plan.remote)
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in changed:
            if not path.endswith(_TEXT):
                continue

            def fetch(path: str = path) -> str:
                at = plan.remote.head or plan.remote.base
                return api.hf_hub_download(plan.repo_id, path, revision=at, cache_dir=folder)

            there = attempt(f"reading {path} of {plan.repo_id}", fetch, patience)
            new = (plan.bundle.folder / path).read_text(encoding="utf-8").splitlines()
            try:
                old = Path(there).read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise HubError(f"{path} of {plan.repo_id} is not text") from None
            change = list(difflib.unified_diff(old, new, f"there/{path}", f"here/{path}", n=1, lineterm=""))
            lines += change[:_SHOWN_LINES]
            if len(change) > _SHOWN_LINES:
                lines.append(f"... and {len(change) - _SHOWN_LINES} more lines")
    return "\n".join(lines)
