"""Names that git takes for a branch or tag."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from vcreg_hub.checkpoints.client import check_ref_name
from vcreg_hub.errors import UsageError
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
