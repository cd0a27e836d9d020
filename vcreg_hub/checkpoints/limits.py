"""Holds the requests of huggingface_hub's HTTP client to limits: how long a hub may be silent, and what it may answer.

huggingface_hub makes paths of what a hub answers. A blob is named by its ETag, a snapshot by its commit: an ETag such
as `../../x` would be written outside of the cache, over what is there. So an answer is looked at before it is used.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import IntegrityError
from .checksums import HASH

# Seconds that a silent hub is waited for by somebody who asks for something small.
TIMEOUT = 10.0
_TIMEOUTS = ("connect", "read", "write", "pool")  # the HTTP client's
# Headers of which huggingface_hub makes a path or a number, and what each must be.
_HEADERS = {
    "X-Repo-Commit": re.compile(r"[0-9a-f]{40}"),
    "X-Xet-Hash": HASH,
    "X-Linked-Size": re.compile(r"\d{1,15}"),
}
_ETAG = re.compile(rf'(W/)?"?({HASH.pattern})"?')
# What the requests of this process are held to.
_limits: list[_Limit] = []
_changing_limits = threading.Lock()


@dataclass(frozen=True, eq=False)
class _Limit:
    """What one call in one thread allows: seconds of silence, and the time after which it makes no further request.
    unanswered: thread -> how many requests in a row had no answer, and when the first of them was made."""

    timeout: float
    deadline: float | None
    begun: float
    thread: int
    unanswered: dict[int, tuple[int, float]] = field(default_factory=dict)


@contextlib.contextmanager
def guarded(timeout: float = 60.0) -> Iterator[None]:
    """Inside, what another library downloads is held to the same limits, except for the time that it takes in all.

    Errors: IntegrityError for an answer that is not what a hub answers.
    """
    with limited(timeout, math.inf):
        yield


@contextlib.contextmanager
def limited(timeout: float, deadline: float | None) -> Iterator[None]:
    """Inside, a connection to a hub that is silent for `timeout` seconds is given up, as a timeout of the HTTP
    client's: huggingface_hub itself waits for ever wherever it takes no timeout.

    deadline: huggingface_hub tries some calls five times again by itself; that many seconds after the beginning no
    further request is made, and a TimeoutError raised instead. So it is after two requests without an answer.
    Errors: IntegrityError for an answer that is not what a hub answers.
    """
    from huggingface_hub.utils import get_session

    # Not huggingface_hub.set_client_factory: it would replace the client of a user who needs one of their own (a
    # proxy, certificates), and there is no way to ask for the factory in use.
    limit = _Limit(timeout, deadline, time.monotonic(), threading.get_ident())
    with _changing_limits:
        _limits.append(limit)
        session = get_session()
        hooks = session.event_hooks
        if _hold_to_limits not in hooks["request"]:
            session.event_hooks = {kind: [*hooks[kind], *_hooks[kind]] for kind in hooks}
    try:
        yield
    finally:
        with _changing_limits:
            _limits.remove(limit)
            session = get_session()
            if not _limits and _hold_to_limits in (hooks := session.event_hooks)["request"]:
                session.event_hooks = {
                    kind: [hook for hook in hooks[kind] if hook not in _hooks[kind]] for kind in hooks
                }


def _hold_to_limits(request: Any) -> None:
    """A request hook of the HTTP client: httpx's in huggingface_hub 1.x, httpx2's from 2.0 on."""
    now, thread = time.monotonic(), threading.get_ident()
    # Timeouts hold in all threads, since huggingface_hub uploads in threads of its own.
    for limit in tuple(_limits):
        timeout, deadline = limit.timeout, limit.deadline
        if request.method == "HEAD":  # what a file is, before its content is asked for
            timeout = min(timeout, TIMEOUT)
            deadline = deadline if deadline == math.inf else min(deadline or math.inf, 2 * TIMEOUT)
        if deadline is not None and now > limit.begun + deadline and limit.thread == thread:
            raise TimeoutError(f"no answer from {request.url.host} within {deadline:g} seconds")
        count, since = limit.unanswered.get(thread, (0, now))
        if count >= 2 and now - since >= 2 * timeout:
            raise TimeoutError(f"no answer from {request.url.host} to {count} requests in {now - since:.0f} seconds")
        limit.unanswered[thread] = (count + 1, since)
        asked = request.extensions.get("timeout") or {}
        # For every call: one that takes no timeout says "none", and the second try of a file asks for a minute.
        request.extensions["timeout"] = {what: min(asked.get(what) or timeout, timeout) for what in _TIMEOUTS}


def _note_answer(response: Any) -> None:
    for limit in tuple(_limits):
        limit.unanswered.pop(threading.get_ident(), None)


def _refuse_strange_answer(response: Any) -> None:
    """A response hook: IntegrityError for an answer about a file from which huggingface_hub would make a path of the
    hub's choosing. An answer that is an error is used as well: it notes that a commit lacks the file."""
    if response.request.method != "HEAD" or "/resolve" not in response.request.url.path:
        return
    headers, host = response.headers, response.request.url.host
    said = {name: (headers[name], form) for name, form in _HEADERS.items() if name in headers}
    # A renamed repo's own answer has no file yet; huggingface_hub goes where it points.
    moved = response.is_redirect and headers.get("Location", "").startswith("/")
    etag = headers.get("X-Linked-Etag") or (None if moved or response.is_error else headers.get("ETag"))
    if etag is not None:
        said["ETag"] = (etag, _ETAG)
    for name, (value, form) in said.items():
        if not form.fullmatch(value):
            raise IntegrityError(
                f"{host} answers {name} {value[:60]!r} for {response.request.url.path[:200]!r}, which is no "
                f"{'size' if name.endswith('Size') else 'hash of 40 or 64 hexadecimal digits'}: nothing was fetched"
            )


_hooks: dict[str, list[Any]] = {"request": [_hold_to_limits], "response": [_note_answer, _refuse_strange_answer]}
