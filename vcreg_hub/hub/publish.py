"""Publishing a folder to a Hub: one commit that is there whole or not at all, looked at afterwards, then the tag.

    plan     what would be done (plan.py); the folder is complete and clean before the hub hears of it
    repo     made if need be, and asked whether it is as private as it should be before a byte goes up
    commit   one, onto the commit the plan was made on; a branch that moved in between is never overwritten
    verify   downloaded into an empty cache: the SHA-256 of every file, and the logits of a fixed input
    tag      names only what was verified

Every step may be repeated: after any failure the same command finishes the job or finds it done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.retry import Patience, attempt, explained, is_of_the_hub, is_transient, wait_after
from ..checkpoints.silence import silence_limited
from ..errors import HubError
from .plan import Plan, Remote, changes, hub_client, list_files, look, plan, tag_commit
from .verify import same_logits, verify_download

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi


@dataclass(frozen=True)
class Published:
    """What was done. commit: the one that holds the files. pushed: False when it was there already."""

    repo_id: str
    commit: str
    url: str
    pushed: bool
    verified: bool
    tag: str | None


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    api: HfApi | None = None,
    private: bool | None = None,
    revision: str | None = None,
    pr: bool = False,
    tag: str | None = None,
    verify: bool = True,
    say: Callable[[str], None] = lambda _: None,
    patience: Patience = Patience(),  # noqa: B008
    same: Callable[[Path, Path], None] | None = same_logits,
) -> Published:
    """Publish an export folder with its card; `plan` with the same arguments shows what this would do.

    api: the hub, `HfApi()` of this environment by default; its token comes from huggingface_hub's login or HF_TOKEN.
    verify: download it again into an empty cache and compare. say: is told each step. same: raises IntegrityError
    unless two folders hold the same network; None compares hashes alone.

    Errors: UsageError (see `plan`); HubError when the hub refuses, fails for good, or the branch moved in between;
    IntegrityError when what came back is not what went up, and then nothing is tagged.
    """
    api = api or hub_client()
    _require_token(api)
    todo = plan(folder, repo_id, api=api, private=private, revision=revision, pr=pr, tag=tag, patience=patience)
    say(todo.describe())
    todo = _ready_repo(todo, api, patience, say)
    commit, url, pushed = _push(todo, api, patience, say)
    if verify:
        verify_download(todo.bundle, repo_id, commit, api=api, patience=patience, same=same)
        say(f"verified: what the hub serves at {commit[:12]} is what was sent")
    if tag:
        _tag(todo, commit, api, patience)
        say(f"tagged {tag}")
    return Published(repo_id, commit, url, pushed, verify, tag)


def _require_token(api: HfApi) -> None:
    from huggingface_hub import get_token

    if not (api.token or get_token()):
        raise HubError("publishing needs a login: `hf auth login`, or a token with write access in HF_TOKEN")


def _ready_repo(todo: Plan, api: HfApi, patience: Patience, say: Callable[[str], None]) -> Plan:
    """The plan on a repo and branch that exist; both are made if need be."""
    repo, branch = todo.repo_id, todo.branch
    if not todo.remote.exists:
        attempt(
            f"making {repo}",
            lambda: api.create_repo(repo, private=todo.private, exist_ok=True),
            patience,
        )
        todo = _at(todo, look(api, repo, branch, patience))
        # create_repo ignores `private` for a repo that exists, and somebody may have made it a moment ago.
        if todo.private is not None and todo.remote.private is not todo.private:
            raise HubError(
                f"{repo} is {'private' if todo.remote.private else 'public'} although it was to be "
                f"{'private' if todo.private else 'public'}; nothing was uploaded. Look at its settings"
            )
        say(f"made {repo} ({'private' if todo.remote.private else 'public'})")
    if todo.remote.head is None and branch != "main":
        attempt(
            f"making branch {branch} of {repo}",
            lambda: api.create_branch(repo, branch=branch, revision=todo.remote.base, exist_ok=True),
            patience,
        )
        todo = _at(todo, look(api, repo, branch, patience))
    if todo.remote.head is None:
        raise HubError(f"{repo} has no branch {branch}, although it was just made; nothing was uploaded")
    return todo


def _at(todo: Plan, remote: Remote) -> Plan:
    return Plan(**{**vars(todo), "remote": remote})


def _push(todo: Plan, api: HfApi, patience: Patience, say: Callable[[str], None]) -> tuple[str, str, bool]:
    """(commit, its address, whether it had to be made)."""
    head, title = str(todo.remote.head), f"Publish {todo.repo_id.partition('/')[2]} ({todo.bundle.digest[:12]})"
    for number in range(patience.attempts):
        if done := _already_there(todo, api, title, head, patience):
            say(f"the files are there already, at {done[0][:12]}")
            return (*done, number > 0)
        try:
            with silence_limited(patience.timeout, patience.in_all):
                info = api.create_commit(
                    todo.repo_id,
                    _operations(todo),
                    commit_message=title,
                    revision=None if todo.pr else todo.branch,
                    create_pr=todo.pr,
                    parent_commit=head,
                )
        except Exception as error:
            if not is_of_the_hub(error):
                raise
            if _is_race(error) or not is_transient(error) or number == patience.attempts - 1:
                return _settle(todo, api, title, head, error, patience)
            # Its answer may be lost and the commit there: that is looked up before anything is sent again.
            patience.sleep(wait_after(error, number, patience))
            continue
        say(f"pushed {info.oid[:12]}" + (f" as {info.pr_url}" if info.pr_url else ""))
        return info.oid, info.pr_url or info.commit_url, True
    raise AssertionError("patience.attempts is at least 1")


def _settle(
    todo: Plan, api: HfApi, title: str, head: str, error: Exception, patience: Patience
) -> tuple[str, str, bool]:
    """After a commit that failed for good: the commit if it landed all the same, else the error."""
    if done := _already_there(todo, api, title, head, patience):
        return (*done, True)
    raise explained(f"publishing to {todo.repo_id}; nothing was changed there", error) from error


def _already_there(todo: Plan, api: HfApi, title: str, head: str, patience: Patience) -> tuple[str, str] | None:
    """The commit and address that hold the bundle already: the branch's, or an open pull request's.

    Errors: HubError when somebody else's commit has landed on the branch since the plan was made.
    """
    remote = look(api, todo.repo_id, todo.branch, patience)
    if remote.has(todo.bundle) and remote.head is not None:
        return remote.head, f"{api.endpoint}/{todo.repo_id}/commit/{remote.head}"
    if todo.pr:
        return _open_pull_request(todo, api, title, patience)
    if remote.head != head:
        raise HubError(
            f"somebody pushed {str(remote.head)[:12]} to {todo.branch} of {todo.repo_id} since this command looked; "
            "nothing was overwritten. Run it again to see what it would change now"
        )
    return None


def _open_pull_request(todo: Plan, api: HfApi, title: str, patience: Patience) -> tuple[str, str] | None:
    def mine() -> list[int]:
        listed = api.get_repo_discussions(todo.repo_id, discussion_type="pull_request", discussion_status="open")
        return [pull.num for pull in listed if pull.is_pull_request and pull.title == title]

    what = f"looking at the pull requests of {todo.repo_id}"
    for number in attempt(what, mine, patience):
        refs = attempt(what, lambda: api.list_repo_refs(todo.repo_id, include_pull_requests=True), patience)
        commits = [ref.target_commit for ref in refs.pull_requests or [] if ref.name.endswith(f"/{number}")]
        for commit in commits:
            files = attempt(what, partial(list_files, api, todo.repo_id, commit, patience), patience)
            if Remote(True, False, commit, None, files).has(todo.bundle):
                return commit, f"{api.endpoint}/{todo.repo_id}/discussions/{number}"
    return None


def _operations(todo: Plan) -> list[CommitOperationAdd | CommitOperationDelete]:
    """Made anew for every attempt: create_commit writes into them."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    new, changed, gone = changes(todo.bundle, todo.remote)
    added = [CommitOperationAdd(path, str(todo.bundle.folder / path)) for path in (*new, *changed)]
    return [*added, *(CommitOperationDelete(path) for path in gone)]


def _is_race(error: Exception) -> bool:
    return getattr(getattr(error, "response", None), "status_code", None) in (409, 412)


def _tag(todo: Plan, commit: str, api: HfApi, patience: Patience) -> None:
    repo, tag = todo.repo_id, str(todo.tag)
    attempt(f"tagging {repo}", lambda: api.create_tag(repo, tag=tag, revision=commit, exist_ok=True), patience)
    held = tag_commit(api, repo, tag, patience)
    if held != commit:
        raise HubError(f"tag {tag} of {repo} is at {str(held)[:12]}, not at {commit[:12]}: give another tag")
