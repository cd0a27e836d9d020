"""Compares a folder with its repo's present content and says what publishing would do. It writes nowhere."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from ..checkpoints.checksums import exported_checksums
from ..checkpoints.client import RetryPolicy, attempt, check_ref_name, check_repo_id, hub_client, is_offline
from ..checkpoints.fetch import fetch_file
from ..errors import HubError, UsageError, printable
from ..files import scratch_folder
from ..releases import CARD, is_release_file
from .bundle import SCRATCH, Bundle, read_bundle

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_SHOWN_LINES = 60
_TEXT = (".md", ".json", ".yaml")


@dataclass(frozen=True)
class RemoteFile:
    """A file in a hub's list: git's hash, and the SHA-256 of a file kept as a large one."""

    git: str
    sha256: str | None


@dataclass(frozen=True)
class Remote:
    """A repo's branch as it is. head: its newest commit, None for an absent repo or branch. base: the start of a
    new branch. files: by path; of an absent branch those it would start with. unasked: why the hub was not asked, or
    did not answer; then nothing else is known."""

    exists: bool
    private: bool
    head: str | None
    base: str | None
    files: dict[str, RemoteFile]
    unasked: str = ""

    def has(self, bundle: Bundle) -> bool:
        """Whether the branch holds the bundle, and no other files of a bundle's kinds."""
        return not any(self.changes(bundle))

    def changes(self, bundle: Bundle) -> tuple[list[str], list[str], list[str]]:
        """(new, changed, gone): paths of the bundle the branch lacks or has otherwise, and paths of an earlier
        publication that the bundle no longer has. Files of other kinds are none of our business and stay."""
        ours = {file.path: file for file in bundle.files}
        new = [path for path in ours if path not in self.files]
        both = {path: (file, self.files[path]) for path, file in ours.items() if path in self.files}
        changed = [path for path, (file, there) in both.items() if not file.is_listed(there.git, there.sha256)]
        gone = [path for path in self.files if is_release_file(path) and path not in ours]
        return new, changed, gone


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
    folder: str | Path | Bundle,
    repo_id: str,
    *,
    api: HfApi | None = None,
    private: bool | None = None,
    revision: str | None = None,
    pr: bool = False,
    tag: str | None = None,
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
) -> Plan:
    """The effect of `publish` with the same arguments. Reads the hub, writes nothing.

    Where the hub cannot be asked, the plan says so, and all but the difference from what is there.

    folder: an export folder with its card, or what `read_bundle` made of it. private: True for a repo that only its
    owner sees; None leaves a repo as it is and makes a new one as the owner's settings have it. revision: the branch,
    main by default. pr: open a pull request instead of pushing.
    Errors: UsageError for a folder that is not ready, or arguments that do not go together; HubError.
    """
    check_arguments(repo_id, revision, pr, tag)
    bundle = folder if isinstance(folder, Bundle) else read_bundle(folder, repo_id.partition("/")[0])
    api = api or hub_client()
    remote = _look_if_possible(api, repo_id, revision or "main", retries)
    if remote.unasked:
        return Plan(bundle, repo_id, remote, private, revision or "main", pr, tag)
    if pr and not remote.exists:
        raise UsageError(f"there is no {repo_id} to open a pull request for: publish it without --pr")
    if private is not None and remote.exists and remote.private is not private:
        has, asked = ("private", "public") if remote.private else ("public", "private")
        raise UsageError(
            f"{repo_id} is {has} and stays so: publishing never changes who sees a repo that exists. Make it {asked} "
            "in its settings first, or give another name"
        )
    held = tag_commit(api, repo_id, tag, retries) if tag is not None and remote.exists else None
    if held and not (held == remote.head and remote.has(bundle)):
        raise UsageError(f"{repo_id} has a tag {tag} already, at {held[:12]}, and tags never move: give another one")
    made = Plan(bundle, repo_id, remote, private, revision or "main", pr, tag)
    return replace(made, diff=_text_changes(made, api, retries))


def check_arguments(repo_id: str, revision: str | None, pr: bool, tag: str | None) -> None:
    """UsageError for names a hub does not take, or arguments at odds with one another."""
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


def _look_if_possible(api: HfApi, repo_id: str, branch: str, retries: RetryPolicy) -> Remote:
    why = "offline mode is on (HF_HUB_OFFLINE)"
    if not is_offline():
        try:
            return look(api, repo_id, branch, retries)
        except HubError as error:
            if not is_silence(error):
                raise
            why = str(error)
    return Remote(False, False, None, None, {}, why)


def is_silence(error: HubError) -> bool:
    """Whether a hub was not reached, or gave no answer that could be read: it says nothing of what is there."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return cause.response is not None and cause.response.status_code >= 500
    return isinstance(cause, httpx.TransportError | OSError | ValueError)


def look(api: HfApi, repo_id: str, branch: str, retries: RetryPolicy) -> Remote:
    """The repo's branch as it is now; a silent hub is given up after 20 seconds. Errors: HubError."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    retries = retries.impatient
    what = f"looking at {repo_id}"
    expected = (RepositoryNotFoundError, RevisionNotFoundError)
    try:
        refs = attempt(what, lambda: api.list_repo_refs(repo_id), retries, expected)
        info = attempt(what, lambda: api.model_info(repo_id, timeout=retries.timeout), retries, expected)
    except RepositoryNotFoundError:
        return Remote(False, False, None, None, {})
    heads = {ref.name: ref.target_commit for ref in refs.branches}
    head = heads.get(branch)
    base = heads.get("main", info.sha)
    start = head or base
    files = list_files(api, repo_id, start, retries) if start else {}
    return Remote(True, bool(info.private), head, base, files)


def tag_commit(api: HfApi, repo_id: str, tag: str, retries: RetryPolicy) -> str | None:
    """The commit of a tag, None for an absent tag. Errors: HubError."""
    from huggingface_hub.errors import RevisionNotFoundError

    what, expected = f"looking at tag {tag} of {repo_id}", (RevisionNotFoundError,)
    try:
        return attempt(
            what, lambda: api.model_info(repo_id, revision=tag, timeout=retries.timeout), retries, expected
        ).sha
    except RevisionNotFoundError:
        return None


def list_files(api: HfApi, repo_id: str, revision: str, retries: RetryPolicy) -> dict[str, RemoteFile]:
    """Every file at a revision, by path. Errors: HubError."""

    def ask() -> dict[str, RemoteFile]:
        # Not list_repo_tree: it takes no timeout, and would wait for a silent hub for ever.
        info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=retries.timeout)
        files = info.siblings or []
        return {file.rfilename: RemoteFile(str(file.blob_id), file.lfs.sha256 if file.lfs else None) for file in files}

    return attempt(f"looking at {repo_id}", ask, retries)


def _lines(plan: Plan) -> list[str]:
    remote, bundle = plan.remote, plan.bundle
    new, changed, gone = remote.changes(bundle)
    if remote.unasked:
        state = f"not looked at: {remote.unasked}"
    elif remote.exists:
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
        mark = "ours" if remote.unasked else mark
        lines.append(f"  {mark:<8} {file.size:>12,} bytes  {file.path}")
    lines += [f"  removed  {'':>12}        {path}" for path in gone]
    kept = [printable(path) for path in remote.files if not is_release_file(path)]
    lines += [f"  kept     {'':>12}        {path} (not ours)" for path in kept]
    lines += [f"  stays    {'':>12}        {path} (never published)" for path in bundle.skipped]
    if not (new or changed or gone):
        lines.append(f"nothing to change: {'the branch' if remote.head else 'main'} holds these files already")
    if remote.unasked:
        lines.append("what of it is new or changed is not known: that needs the hub")
    if plan.diff:
        lines += ["", "difference from what is there", plan.diff]
    if not exported_checksums(bundle.folder):
        lines.append(
            "note: results.json does not record the hash of the exported weights (it is not from this version's "
            "`vcreg export`): whether they were altered since could not be checked"
        )
    card = (bundle.folder / CARD).read_text(encoding="utf-8")
    if plan.repo_id not in card:
        lines.append(
            f"note: the card does not say how to load it from {plan.repo_id}, and is left as it was written; "
            f"`vcreg card {quote(str(bundle.origin))} --repo {plan.repo_id} --write` renders it anew"
        )
    return [*lines, "", "card", card]


def _text_changes(plan: Plan, api: HfApi, retries: RetryPolicy) -> str:
    """A unified diff of the text files that are there already and change; long ones are cut."""
    _, changed, _ = plan.remote.changes(plan.bundle)
    lines: list[str] = []
    with scratch_folder(SCRATCH) as folder:
        for path in changed:
            if not path.endswith(_TEXT):
                continue
            at = str(plan.remote.head or plan.remote.base)
            there = fetch_file(plan.repo_id, path, at, cache=folder, api=api, retries=retries)
            new = (plan.bundle.folder / path).read_text(encoding="utf-8").splitlines()
            try:
                old = there.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError:
                raise HubError(f"{path} of {plan.repo_id} is not text") from None
            change = list(difflib.unified_diff(old, new, f"there/{path}", f"here/{path}", n=1, lineterm=""))
            lines += map(printable, change[:_SHOWN_LINES])
            if len(change) > _SHOWN_LINES:
                lines.append(f"... and {len(change) - _SHOWN_LINES} more lines")
    return "\n".join(lines)
