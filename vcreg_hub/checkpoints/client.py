"""Talks to a Hub: its client, retries, the names it takes, and whether it answers at all.

HF_ENDPOINT, HF_HUB_OFFLINE, the login and the cache are huggingface_hub's own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ..errors import HubError, UsageError, VCRegError, first_line
from . import limits

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
# Seconds for which it is remembered whether a hub answers.
MEMORY = 60.0
_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
# A server without Xet storage, which huggingface_hub 2.x takes for granted.
_NO_XET = re.compile(r"404.*xet-(?:write|read)-token|xet-(?:write|read)-token.*404", re.DOTALL)
# As `git check-ref-format` has it.
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|[/.]$|\.lock(/|$)|^@?$")
# Libraries in which an error over a hub's answer is the hub's doing.
_READERS = {"huggingface_hub", "json", "httpx", "httpx2"}
# Address of a hub -> when it was asked, and what kept it from answering, None when it did.
_SILENT = "{} does not answer ({})"
_answers: dict[str, tuple[float, str | None]] = {}


class SilentHubError(HubError):
    """A hub does not answer."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call to a hub is made, and how long it is waited for.

    attempts: at one call. first_wait: seconds before the second attempt, doubled for each further one; a Retry-After
    of the hub comes first. longest_wait bounds both. timeout: seconds without a byte before a connection is given up.
    deadline: seconds after which an attempt makes no further request. max_timeouts: how many attempts may end in
    silence, any number by default. What a file is, before its content comes, is asked for 2 * TIMEOUT seconds at most,
    and after two requests without an answer within 2 * timeout seconds an attempt makes no third.
    """

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 120.0
    timeout: float = 60.0
    deadline: float | None = None
    max_timeouts: int | None = None
    sleep: Callable[[float], None] = lambda seconds: time.sleep(seconds)

    @property
    def impatient(self) -> RetryPolicy:
        """The same for a person in waiting: a silent hub is given up within `2 * TIMEOUT` seconds."""
        return replace(self, timeout=min(self.timeout, limits.TIMEOUT), deadline=2 * limits.TIMEOUT, max_timeouts=2)


def hub_client() -> HfApi:
    """The hub of this environment, with the token of huggingface_hub's own login or HF_TOKEN."""
    from huggingface_hub import HfApi

    return HfApi(library_name="vcreg_hub")


def is_offline() -> bool:
    """Whether huggingface_hub is told to ask no hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def attempt(
    what: str,
    call: Callable[[], T],
    policy: RetryPolicy,
    expect: tuple[type[Exception], ...] = (),
    endpoint: str | None = None,
) -> T:
    """The result of `call`, tried again after each transient failure. `what` begins the message of an error.

    expect: exceptions that are an answer to the caller and pass as they are. endpoint: of the hub, where it is to be
    remembered that it does not answer: it is not waited for again for a minute.
    Errors: SilentHubError, of such a hub; HubError for everything else that a hub or the network does.
    """
    from huggingface_hub.utils import httpx

    if endpoint is not None and (why := hub_unreachable(endpoint)):
        raise SilentHubError(why)
    timeouts = 0
    for number in range(policy.attempts):
        try:
            with limits.limited(policy.timeout, policy.deadline):
                return call()
        except expect:
            raise
        except VCRegError:
            raise
        except Exception as error:
            cause = _cause(error)
            if not isinstance(cause, (OSError, httpx.HTTPError, ValueError)):
                if not _in_reader(cause):  # a mistake of ours
                    raise
                raise HubError(f"{what}: the hub's answer makes no sense ({first_line(cause)})") from error
            silent, transient = isinstance(cause, (httpx.TimeoutException, TimeoutError)), _is_transient(cause)
            timeouts += silent
            if transient and number < policy.attempts - 1 and timeouts != policy.max_timeouts:
                policy.sleep(_wait_after(cause, number, policy))
                continue
            if silent and endpoint is not None:
                why = _SILENT.format(endpoint, first_line(cause))
                # So that it is not waited for again.
                _answers[endpoint] = (time.monotonic(), why)
                raise SilentHubError(why) from error
            raise _explained(what, cause, first_line(cause), transient or silent) from error
    raise AssertionError("policy.attempts is at least 1")


def hub_unreachable(endpoint: str) -> str | None:
    """The obstacle to an answer of a hub, None if it answers. It is asked once a minute,
    without huggingface_hub's retries: those cost 23 seconds for every file of a hub that cannot be reached."""
    from huggingface_hub.utils import get_session, httpx

    asked, why = _answers.get(endpoint, (-MEMORY, None))
    if time.monotonic() - asked < MEMORY:
        return why
    why = None
    try:
        get_session().head(endpoint, timeout=limits.TIMEOUT)
    except httpx.TransportError as error:
        why = _SILENT.format(endpoint, " ".join(str(error).split()) or type(error).__name__)
    _answers[endpoint] = (time.monotonic(), why)
    return why


def check_repo_id(repo_id: str | None) -> None:
    """UsageError unless `repo_id` is None or `owner/name` as a Hub takes it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if repo_id is None:
        return
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(f"{repo_id!r} is not a repo: {error}") from None
    if repo_id.count("/") != 1:
        raise UsageError(f"{repo_id!r} is not a repo: give owner/name")


def is_repo_id(text: object) -> bool:
    """Whether what a hub calls a repo can be one: a name of a list is printed, and asked for."""
    return isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.\-]+/[A-Za-z0-9_.\-]+", text) is not None


def check_ref_name(kind: str, name: str) -> None:
    """UsageError unless git takes `name` for a branch or tag. kind: its role, for the message."""
    if found := _NO_REF.search(name):
        why = f"{found.group()!r} cannot stand there" if found.group() else "it is empty"
        raise UsageError(f"{kind} {name!r} is no name that git takes ({why}): give one such as v1")


# ---- what failed --------------------------------------------------------------------------------------------------


def _cause(error: BaseException) -> BaseException:
    """What huggingface_hub wraps: in a RuntimeError where one file's upload failed, and as "not found locally"."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    while isinstance(error, (RuntimeError, LocalEntryNotFoundError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _in_reader(error: BaseException) -> bool:
    """Whether it was raised in a library that reads a hub's answer: a number where an object should be, too deep."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _READERS


def _is_transient(cause: BaseException) -> bool:
    """Whether the same call may succeed a little later: a network failure, a busy or broken server."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    if isinstance(cause, (OfflineModeIsEnabled, LocalEntryNotFoundError)) or _NO_XET.search(str(cause)):
        return False
    if isinstance(cause, HfHubHTTPError):
        return cause.response is not None and cause.response.status_code in _TRANSIENT_STATUS
    if isinstance(cause, (httpx.TransportError, ConnectionError)):
        return True
    # A body that breaks off: as JSON, or as a file shorter than it was announced.
    return type(cause).__name__ == "JSONDecodeError" or "Consistency check failed" in str(cause)


def _wait_after(cause: BaseException, number: int, policy: RetryPolicy) -> float:
    """Seconds to wait after the attempt with that number (0 is the first)."""
    wait: float = policy.first_wait * 2**number
    response = getattr(cause, "response", None)
    if response is not None and (asked := response.headers.get("Retry-After", "")).isdecimal():
        wait = max(wait, float(asked))
    return min(wait, policy.longest_wait)


def _explained(what: str, cause: BaseException, reason: str, transient: bool) -> HubError:
    """The HubError that says what failed and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if _NO_XET.search(str(cause)):
        return HubError(
            f"{what}: this hub has no Xet storage, which huggingface_hub uses when hf_xet is installed. "
            "Set HF_HUB_DISABLE_XET=1 in the environment and run the same command again"
        )
    if isinstance(cause, OfflineModeIsEnabled):
        return HubError(f"{what}: offline mode is on. Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to reach the hub")
    hints = {
        401: "log in with `hf auth login`, or set HF_TOKEN",
        403: "the token may not do that: give it write access to this owner's repos",
        404: "check the name, and that the token may see it",
        412: "the branch has moved in between",
    }
    hint = hints.get(getattr(getattr(cause, "response", None), "status_code", 0), "")
    if transient:
        hint = "this tends to pass: run the same command again, it goes on from where it stopped"
    return HubError(f"{what}: {reason}" + (f" ({hint})" if hint else ""))
