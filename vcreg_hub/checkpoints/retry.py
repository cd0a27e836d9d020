"""Calls to a hub: which failures pass by themselves, how long to wait for that, and what the others are called."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..errors import HubError, VCRegError
from .silence import silence_limited

T = TypeVar("T")
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long a hub is waited for.

    attempts: at one call. first_wait: seconds before the second attempt, doubled for each further one; a Retry-After
    of the hub comes first. longest_wait bounds both. timeout: seconds without a byte before a connection is given up.
    in_all: seconds after which an attempt makes no further request. silences: how many attempts may end in silence,
    any number by default.
    """

    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 120.0
    timeout: float = 60.0
    in_all: float | None = None
    silences: int | None = None
    sleep: Callable[[float], None] = time.sleep


def attempt(what: str, call: Callable[[], T], patience: Patience, expect: tuple[type[Exception], ...] = ()) -> T:
    """What `call` returns, tried again while its failures are transient. `what` begins the message of an error.

    expect: exceptions that are an answer to the caller and pass as they are.
    Errors: HubError for everything else that a hub or the network does.
    """
    silences = 0
    for number in range(patience.attempts):
        try:
            with silence_limited(patience.timeout, patience.in_all):
                return call()
        except expect:
            raise
        except VCRegError:
            raise
        except Exception as error:
            if not is_of_the_hub(error):
                raise
            silences += is_silence(error)
            last = number == patience.attempts - 1 or silences == patience.silences
            if last or not is_transient(error):
                raise explained(what, error) from error
            patience.sleep(wait_after(error, number, patience))
    raise AssertionError("patience.attempts is at least 1")


def is_transient(error: BaseException | None) -> bool:
    """Whether the same call may succeed a little later: a network failure, a busy or broken server.

    huggingface_hub wraps some failures in "not found locally"; the cause decides then.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    error = unwrapped(error)
    if error is None or isinstance(error, OfflineModeIsEnabled) or lacks_xet(error):
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in TRANSIENT_STATUS
    if isinstance(error, LocalEntryNotFoundError):
        return is_transient(error.__cause__)
    if isinstance(error, (httpx.TransportError, ConnectionError)):
        return True
    # A body that breaks off: as JSON, or as a file shorter than it was announced.
    return type(error).__name__ == "JSONDecodeError" or "Consistency check failed" in str(error)


def is_silence(error: BaseException | None) -> bool:
    """Whether a hub did not answer in time."""
    from huggingface_hub.utils import httpx

    return isinstance(unwrapped(error), (httpx.TimeoutException, TimeoutError))


def is_of_the_hub(error: BaseException) -> bool:
    """Whether an exception comes from talking to a hub rather than from a mistake of ours."""
    from huggingface_hub.utils import httpx

    return isinstance(unwrapped(error), (OSError, httpx.HTTPError, ValueError))


def unwrapped(error: BaseException | None) -> BaseException | None:
    """What a failed upload of one file was caused by: huggingface_hub raises it as the cause of a RuntimeError."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def lacks_xet(error: BaseException) -> bool:
    """Whether an upload failed because the server has no Xet storage, which huggingface_hub 2.x takes for granted."""
    text = str(error)
    return "404" in text and ("xet-write-token" in text or "xet-read-token" in text)


def wait_after(error: BaseException, number: int, patience: Patience) -> float:
    """Seconds to wait after the attempt with that number (0 is the first)."""
    wait = patience.first_wait * 2**number
    response = getattr(error, "response", None)
    if response is not None and (asked := response.headers.get("Retry-After", "")).isdecimal():
        wait = max(wait, float(asked))
    return min(wait, patience.longest_wait)


def explained(what: str, error: BaseException) -> HubError:
    """The HubError that says what failed and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    error = unwrapped(error) or error
    if lacks_xet(error):
        return HubError(
            f"{what}: this hub has no Xet storage, which huggingface_hub uses when hf_xet is installed. "
            "Set HF_HUB_DISABLE_XET=1 in the environment and run the same command again"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{what}: offline mode is on. Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE to reach the hub")
    status = getattr(getattr(error, "response", None), "status_code", None)
    cures = {
        401: "log in with `hf auth login`, or set HF_TOKEN",
        403: "the token may not do that: give it write access to this owner's repos",
        404: "check the name, and that the token may see it",
        412: "the branch has moved in between",
    }
    if is_transient(error):
        cure = "this tends to pass: run the same command again, it goes on from where it stopped"
    else:
        cure = cures.get(status or 0, "")
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return HubError(f"{what}: {reason.strip()}" + (f" ({cure})" if cure else ""))
