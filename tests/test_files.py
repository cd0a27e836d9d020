"""Files and folders are whole or absent, a locked folder is one process's, and a hash is read once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import pytest
import torch

from vcreg_hub import files
from vcreg_hub.files import (
    git_hash,
    locked,
    read_tensors,
    replacing,
    replacing_folder,
    sha256,
    write_json,
    write_tensors,
    write_text,
)


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_refused_value_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_files_follow_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_tensors_that_share_memory_survive(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": whole, "b": whole, "c": whole.t(), "d": torch.tensor(3)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_an_interrupted_folder_leaves_the_old_one(tmp_path):
    with replacing_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "a") as folder:
        (folder / "y").write_text("half of the ne")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["x"]
    with replacing_folder(tmp_path / "a") as folder:
        (folder / "z").write_text("new")
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["z"]


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="full"), replacing_folder(tmp_path / "a") as folder:
        monkeypatch.setattr(type(folder), "rename", _once(OSError("full"), type(folder).rename, folder))
    assert os.listdir(tmp_path) == ["a"]


def _once(error, rename, failing):
    """`rename`, which fails for one path."""

    def call(self, target):
        if self == failing:
            raise error
        return rename(self, target)

    return call


@pytest.mark.skipif(files.fcntl is None, reason="nobody is kept out on Windows")
def test_a_locked_folder_is_one_holders(tmp_path):
    with locked(tmp_path) as free:
        assert free is True
        assert os.listdir(tmp_path) == [], "the lock is no file"
        with locked(tmp_path) as second:
            assert second is False
        with locked(tmp_path) as third:
            assert third is False, "who was refused lets nobody in"
    with locked(tmp_path) as free:
        assert free is True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on Unix alone")
def test_a_lock_ends_with_its_process_and_not_with_that_ones_children(tmp_path):
    (tmp_path / "folder").mkdir()
    killed = """if True:
        import os, signal, time
        from vcreg_hub.files import locked
        with locked("folder") as free:
            assert free
            worker = os.fork()
            if worker == 0:
                time.sleep(120)
                os._exit(0)
            print(worker, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with open(tmp_path / "worker", "w") as said:
        ended = subprocess.run([sys.executable, "-c", killed], stdout=said, cwd=tmp_path, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    try:
        with locked(tmp_path / "folder") as free:
            assert free is True
    finally:
        os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(files.fcntl, "flock", refused)
    with locked(tmp_path) as free, locked(tmp_path) as other:
        assert free is None and other is None


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that were read for a hash."""
    read, seen = hashlib.file_digest, []

    def count(file, kind):
        seen.append(os.path.basename(file.name))
        return read(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", count)
    return seen


def test_a_file_that_did_not_change_is_read_once(tmp_path, reads):
    path = tmp_path / "a"
    path.write_bytes(b"what is up, doc?")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (tmp_path / "link").symlink_to(path)
    expected = hashlib.sha256(b"what is up, doc?").hexdigest()
    assert sha256(path) == sha256(str(path)) == sha256(tmp_path / "link") == expected
    assert reads == ["a"]
    # The example of the book "Pro Git", chapter 10.2.
    assert git_hash(path) == git_hash(path) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert reads == ["a", "a"]


def test_a_file_that_changed_is_read_again(tmp_path, reads):
    path = tmp_path / "a"
    for number in range(50):  # as fast as it goes: the time of change may be the same for several
        path.write_text(f"{number:03}")
        assert sha256(path) == hashlib.sha256(f"{number:03}".encode()).hexdigest()
    os.replace(path, tmp_path / "b")
    path.write_text("049")
    assert sha256(path) == sha256(tmp_path / "b")


def test_a_time_of_change_in_whole_seconds_is_not_trusted_at_once(tmp_path, reads, monkeypatch):
    path = tmp_path / "a"
    path.write_text("x")
    now = path.stat().st_mtime_ns // 1_000_000_000
    os.utime(path, (now, now))
    assert sha256(path) == sha256(path) and reads == ["a", "a"]
    monkeypatch.setattr(files.time, "time_ns", lambda: (now + 3) * 1_000_000_000)
    assert sha256(path) == sha256(path) and reads == ["a"] * 3
