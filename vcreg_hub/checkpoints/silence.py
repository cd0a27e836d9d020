"""How long a silent hub is waited for. huggingface_hub itself waits for ever wherever it takes no timeout."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

_KINDS = ("connect", "read", "write", "pool")  # the HTTP client's timeouts


@contextlib.contextmanager
def silence_limited(seconds: float, in_all: float | None = None) -> Iterator[None]:
    """Inside, a connection to a hub that is silent for `seconds` is given up, as a timeout of the HTTP client's.

    in_all: huggingface_hub tries some calls five times again by itself; that many seconds after the beginning no
    further request is made, and a TimeoutError raised instead.
    """
    from huggingface_hub.utils import get_session

    session = get_session()
    end = None if in_all is None else time.monotonic() + in_all

    def limited(request: Any) -> None:
        if end is not None and time.monotonic() > end:
            raise TimeoutError(f"no answer from {request.url.host} within {in_all:g} seconds")
        asked = request.extensions.get("timeout") or {}
        # For every call: one that takes no timeout says "none", and the second try of a file asks for a minute.
        request.extensions["timeout"] = {what: min(asked.get(what) or seconds, seconds) for what in _KINDS}

    hooks = session.event_hooks
    session.event_hooks = hooks | {"request": [*hooks["request"], limited]}
    try:
        yield
    finally:
        session.event_hooks = hooks
