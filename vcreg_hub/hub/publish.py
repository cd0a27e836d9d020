"""Publishes a folder to a Hub: one commit, whole or not at all, a look at the result, then the tag.

    prepare  a folder of its own with a card for this repo; the run or export that was given stays as it is
    plan     what would be done (plan.py); the folder is complete and clean before the hub hears of it
    repo     made if need be, and asked whether it is as private as it should be before a byte goes up
    commit   one, onto the commit the plan was made on; a branch that moved in between is never overwritten
    verify   downloaded into an empty cache: the SHA-256 of every file, and the logits of a fixed input
    tag      names only what was verified

Every step may be repeated: after any failure the same command finishes the job or finds it done. A hub that falls
silent is given up within about two minutes, whatever the step.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.client import RetryPolicy, attempt, hub_client
from ..checkpoints.find import refuse_only_pickles
from ..config import to_dict
from ..errors import HubError, UsageError, VCRegError
from ..files import scratch_folder
from ..models.checkpoint import is_imported
from ..releases import CARD, CONFIG
from ..rundir import RunDir
from .bundle import SCRATCH, Bundle, read_bundle, refuse_altered
from .card import check_numbers, is_as_rendered, write_card
from .export import write_export
from .foreign import export_imported
from .licence import check_licence
from .plan import Plan, Remote, is_silence, list_files, look, plan, tag_commit
from .privacy import write_pixels
from .record import is_smoke_test
from .runs import collect
from .verify import same_logits, verify_download

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

Log = Callable[[str], None]
# Seconds of silence on a connection, and of a download for comparison; two such end a step.
_SILENCE, _SILENCE_DOWN = 45.0, 20.0


@dataclass(frozen=True)
class Published:
    """The outcome. commit: the one with the files. pushed: False if it was there already."""

    repo_id: str
    commit: str
    url: str
    pushed: bool
    verified: bool
    tag: str | None


@contextlib.contextmanager
def prepare_upload(
    run: Path, repo_id: str, *, licence: str | None, siblings: list[Path], twins: list[Path], **named: str | None
) -> Iterator[Bundle]:
    """The bundle to publish as `repo_id`, with a card for that name; removed at the end. `run` stays as it is.

    run: a run folder, which is exported, or an export folder. An export in whose card somebody has written is given as
    it is, unless a licence, siblings or twins for a new card are given. What comes of it is the same every time: a
    second publication finds what the first one sent.

    Errors: UsageError for a run without a licence, a smoke test or pickles; IntegrityError for an export that was
    altered; those of `export`, `runs.collect` and `read_bundle`.
    """
    refuse_only_pickles(run)
    if is_imported(run):
        with scratch_folder(SCRATCH) as scratch:
            folder, there = scratch / "export", (run / CONFIG).is_file()
            if there:
                _link_files(run, folder)
            else:
                export_imported(run, folder, repo_id, licence=licence, **named)
            yield read_bundle(folder, repo_id.partition("/")[0], origin=run if there else None)
        return
    _refuse_smoke_test(run)
    about: dict[str, Any] = {"licence": licence, "repo_id": repo_id, "siblings": siblings, "twins": twins, **named}
    owner, exported, record, anew = repo_id.partition("/")[0], (run / CONFIG).is_file(), None, True
    if exported:
        refuse_altered(run)
        anew = bool(licence or siblings or twins) or not (run / CARD).is_file()
        with contextlib.nullcontext() if anew else contextlib.suppress(VCRegError):
            record = collect(run, **about)
        anew = anew or (record is not None and is_as_rendered(run, record))
        if anew:
            check_numbers(run, None if siblings or twins else record)
    elif licence is None:
        raise UsageError("publishing a run needs --licence, the licence of its weights, such as apache-2.0")
    else:
        check_licence(licence, named.get("licence_name"), named.get("licence_link"))
    with scratch_folder(SCRATCH) as scratch:
        folder = scratch / "export"
        if exported:
            _link_files(run, folder)
        else:
            assert licence is not None
            record = collect(write_export(run, folder, licence=licence), **about)
        if anew:
            write_card(folder, record=record)
        yield read_bundle(folder, owner, origin=run if exported else None, record=record)


def publish(
    folder: str | Path | Bundle,
    repo_id: str,
    *,
    api: HfApi | None = None,
    private: bool | None = None,
    revision: str | None = None,
    pr: bool = False,
    tag: str | None = None,
    verify: bool = True,
    log: Log = lambda _: None,
    retries: RetryPolicy = RetryPolicy(),  # noqa: B008
    same: Callable[[Path, Path], None] | None = same_logits,
) -> Published:
    """Publish an export folder with its card; `plan` with the same arguments shows the effect.

    folder: or what `prepare_upload` or `read_bundle` made of one. api: the hub, `HfApi()` of this environment by
    default; its token comes from huggingface_hub's login or HF_TOKEN. verify: download it again into an empty cache
    and compare. log: is told each step. same: raises IntegrityError unless two folders hold the same network; None
    compares hashes alone.

    Errors: UsageError (see `plan`); HubError, which says whether the commit landed, when the hub refuses, fails for
    good, or the branch moved in between; IntegrityError, with nothing tagged, when what came back is not what went up.
    """
    api = api or hub_client()
    _require_token(api)
    retries = _silent_at_most(retries, _SILENCE, 2)
    todo = plan(folder, repo_id, api=api, private=private, revision=revision, pr=pr, tag=tag, retries=retries)
    if todo.remote.unasked:
        raise HubError(f"{todo.remote.unasked}; nothing was sent to {repo_id}")
    log(todo.describe())
    todo = _ready_repo(todo, api, retries, log)
    commit, url, pushed = _push(todo, api, retries, log)
    if verify:
        brief = _silent_at_most(retries, _SILENCE_DOWN, 1)
        with _landed(url, commit, "they could not be downloaded to compare them"):
            verify_download(todo.bundle, repo_id, commit, api=api, retries=brief, same=same)
        log(f"verified: what the hub serves at {commit[:12]} is what was sent")
    if tag:
        with _landed(url, commit, f"the tag {tag} was not set"):
            _tag(todo, commit, api, retries)
        log(f"tagged {tag}")
    return Published(repo_id, commit, url, pushed, verify, tag)


def _silent_at_most(retries: RetryPolicy, seconds: float, times: int) -> RetryPolicy:
    return replace(
        retries, timeout=min(retries.timeout, seconds), max_timeouts=min(retries.max_timeouts or times, times)
    )


@contextlib.contextmanager
def _landed(url: str, commit: str, what: str) -> Iterator[None]:
    """Says of an error of the hub inside that the commit is there, and what is not."""
    try:
        yield
    except HubError as error:
        raise HubError(
            f"the files are published ({url}, commit {commit[:12]}), but {what}: {error}. The same command goes on "
            "from there and sends nothing twice"
        ) from error


def _require_token(api: HfApi) -> None:
    from huggingface_hub import get_token

    if not (api.token or get_token()):
        raise HubError("publishing needs a login: `hf auth login`, or a token with write access in HF_TOKEN")


def _ready_repo(todo: Plan, api: HfApi, retries: RetryPolicy, log: Log) -> Plan:
    """The plan on a repo and branch that exist; both are made if need be."""
    repo, branch = todo.repo_id, todo.branch
    if not todo.remote.exists:
        attempt(
            f"making {repo}",
            lambda: api.create_repo(repo, private=todo.private, exist_ok=True),
            retries,
        )
        todo = replace(todo, remote=look(api, repo, branch, retries))
        # create_repo ignores `private` for a repo that exists, and somebody may have made it a moment ago.
        if todo.private is not None and todo.remote.private is not todo.private:
            raise HubError(
                f"{repo} is {'private' if todo.remote.private else 'public'} although it was to be "
                f"{'private' if todo.private else 'public'}; nothing was uploaded. Look at its settings"
            )
        log(f"made {repo} ({'private' if todo.remote.private else 'public'})")
    if todo.remote.head is None and branch != "main":
        attempt(
            f"making branch {branch} of {repo}",
            lambda: api.create_branch(repo, branch=branch, revision=todo.remote.base, exist_ok=True),
            retries,
        )
        todo = replace(todo, remote=look(api, repo, branch, retries))
    if todo.remote.head is None:
        raise HubError(f"{repo} has no branch {branch}, although it was just made; nothing was uploaded")
    return todo


def _push(todo: Plan, api: HfApi, retries: RetryPolicy, log: Log) -> tuple[str, str, bool]:
    """(commit, its address, whether it had to be made)."""
    head, title = str(todo.remote.head), f"Publish {todo.repo_id.partition('/')[2]} ({todo.bundle.digest[:12]})"
    sent = False

    def commit() -> tuple[str, str, bool]:
        nonlocal sent
        # The answer to an earlier attempt may be lost and its commit there: nothing is sent twice.
        if done := _already_there(todo, api, title, head, retries):
            log(f"the files are there already, at {done[0][:12]}")
            return (*done, sent)
        sent = True
        info = api.create_commit(
            todo.repo_id,
            _operations(todo),
            commit_message=title,
            revision=None if todo.pr else todo.branch,
            create_pr=todo.pr,
            parent_commit=head,
        )
        log(f"pushed {info.oid[:12]}" + (f" as {info.pr_url}" if info.pr_url else ""))
        return info.oid, info.pr_url or info.commit_url, True

    try:
        return attempt(f"publishing to {todo.repo_id}", commit, retries)
    except HubError as error:
        state = "nothing was changed there"
        try:
            if sent and (done := _already_there(todo, api, title, head, retries)):
                return (*done, True)
        except HubError as lookup:
            if not is_silence(lookup):
                raise
            state = "whether the commit landed is not known, and the same command finds out"
        raise HubError(f"{error}; {state}") from error


def _already_there(todo: Plan, api: HfApi, title: str, head: str, retries: RetryPolicy) -> tuple[str, str] | None:
    """The commit and address that hold the bundle already: the branch's, or an open pull request's.

    Errors: HubError when somebody else's commit has landed on the branch since the plan was made.
    """
    remote = look(api, todo.repo_id, todo.branch, retries)
    if remote.has(todo.bundle) and remote.head is not None:
        return remote.head, f"{api.endpoint}/{todo.repo_id}/commit/{remote.head}"
    if todo.pr:
        return _open_pull_request(todo, api, title, retries)
    if remote.head != head:
        raise HubError(
            f"somebody pushed {str(remote.head)[:12]} to {todo.branch} of {todo.repo_id} since this command looked; "
            "nothing was overwritten. Run it again to see what it would change now"
        )
    return None


def _open_pull_request(todo: Plan, api: HfApi, title: str, retries: RetryPolicy) -> tuple[str, str] | None:
    def mine() -> list[int]:
        listed = api.get_repo_discussions(todo.repo_id, discussion_type="pull_request", discussion_status="open")
        return [pull.num for pull in listed if pull.is_pull_request and pull.title == title]

    what = f"looking at the pull requests of {todo.repo_id}"
    for number in attempt(what, mine, retries):
        refs = attempt(what, lambda: api.list_repo_refs(todo.repo_id, include_pull_requests=True), retries)
        commits = [ref.target_commit for ref in refs.pull_requests or [] if ref.name.endswith(f"/{number}")]
        for commit in commits:
            files = list_files(api, todo.repo_id, commit, retries)
            if Remote(True, False, commit, None, files).has(todo.bundle):
                return commit, f"{api.endpoint}/{todo.repo_id}/discussions/{number}"
    return None


def _operations(todo: Plan) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Made anew for every attempt: create_commit writes into them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    new, changed, gone = todo.remote.changes(todo.bundle)
    added = [CommitOperationAdd(path, str(todo.bundle.folder / path)) for path in (*new, *changed)]
    return [*added, *(CommitOperationDelete(path) for path in gone)]


def _tag(todo: Plan, commit: str, api: HfApi, retries: RetryPolicy) -> None:
    repo, tag = todo.repo_id, str(todo.tag)
    attempt(f"tagging {repo}", lambda: api.create_tag(repo, tag=tag, revision=commit, exist_ok=True), retries)
    held = tag_commit(api, repo, tag, retries)
    if held != commit:
        raise HubError(f"tag {tag} of {repo} is at {str(held)[:12]}, not at {commit[:12]}: give another tag")


def _link_files(folder: Path, to: Path) -> None:
    """Make `to` hold the files of `folder` by links, since a preview copies no weights, and its pictures anew."""
    for path in sorted(folder.rglob("*")):
        target = to / path.relative_to(folder)
        if path.is_dir():
            if not path.is_symlink():
                target.mkdir(parents=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png" and not path.is_symlink():
            write_pixels(path, target)
            continue
        try:
            os.symlink(path.absolute(), target)
        except OSError:  # Windows, without the right to make links
            shutil.copyfile(path, target)


def _refuse_smoke_test(run: Path) -> None:
    if (run / "recipe.json").is_file() and is_smoke_test(to_dict(RunDir(run).recipe())):
        raise UsageError(
            f"{run} is a smoke test, or was trained on made-up images: its numbers would pass for results. Nothing was "
            "sent or written"
        )
