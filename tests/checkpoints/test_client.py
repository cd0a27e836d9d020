"""Names that git takes for a branch or tag, and how long requests may take."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

import pytest
from huggingface_hub.utils import get_session

from vcreg_hub.checkpoints.client import RetryPolicy, attempt, check_ref_name
from vcreg_hub.errors import HubError, UsageError
from vcreg_hub.hub.plan import check_arguments

GOOD = ("v1", "v1.0", "main", "feature/x", "refs/pr/1", "a@b", "é", "1-2_3")
BAD = (
    "", "@", "v 1", "../x", "a..b", "-v", "/v", "v/", "v.", "v.lock", "a.lock/b", "a/.b", ".a", "a//b", "a~1", "a^",
    "a:b", "a?", "a*", "a[1]", "a\\b", "a@{1}", "a\nb", "a\x7f",
)  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name):
    check_ref_name("tag", name)


@pytest.mark.parametrize("name", BAD)
def test_bad_names(name):
    with pytest.raises(UsageError, match=r"(?s)^branch '.*' is no name that git takes"):
        check_ref_name("branch", name)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_says_the_same():
    for name in (*GOOD, *BAD):
        # "-v": an option to git tag, though a ref by that name could be.
        taken = subprocess.run(["git", "check-ref-format", f"refs/tags/{name}"]).returncode == 0
        assert taken is (name in (*GOOD, "-v", "@")), name


@pytest.mark.parametrize(("revision", "tag"), [("v1", "v1"), (None, "main"), ("a b", None), (None, "../x")])
def test_of_a_publication(revision, tag):
    with pytest.raises(UsageError):
        check_arguments("me/name", revision, False, tag)
    check_arguments("me/name", "try", False, "v1")


def test_the_limits_of_one_thread_outlive_those_of_another(hub, api):
    """Calls of two threads that begin and end in turn leave each its limits, and the client as it was."""
    hub.add("me/x", {"config.json": b"{}"})
    before = get_session().event_hooks
    inside, done = threading.Event(), threading.Event()
    found = []

    def other():
        attempt("waiting", lambda: (inside.set(), done.wait(10)), RetryPolicy(attempts=1, timeout=5.0, deadline=0.0))
        found.append(get_session().event_hooks)

    def ask():
        thread.start()
        assert inside.wait(10)
        time.sleep(0.01)
        # The deadline of the other thread has passed; it is no deadline of this one.
        assert api.model_info("me/x").id == "me/x"
        done.set()
        thread.join()
        hub.fault("info", "timeout")
        started = time.monotonic()
        try:
            return api.model_info("me/x")
        finally:
            assert time.monotonic() - started < 5, "this thread's limit is gone"

    thread = threading.Thread(target=other)
    with pytest.raises(HubError, match="asking: timed out"):
        attempt("asking", ask, RetryPolicy(attempts=1, timeout=0.3))
    assert get_session().event_hooks == before and found[0] != before


def test_what_a_file_is_is_not_asked_for_for_ever(hub, api, monkeypatch):
    """huggingface_hub asks five times again, and waits a minute for each answer."""
    monkeypatch.setattr("vcreg_hub.checkpoints.limits.TIMEOUT", 0.2)
    hub.add("me/x", {"config.json": b"{}"})
    hub.fault("head", "timeout", times=None)
    started = time.monotonic()
    with pytest.raises(HubError, match=r"within 0\.4 seconds"):
        attempt("fetching", lambda: api.hf_hub_download("me/x", "config.json"), RetryPolicy())
    assert time.monotonic() - started < 5
