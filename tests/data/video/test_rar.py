"""Unpacking: stored archives written here, hostile ones, and an outside program that lies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from data.video.stored_rar import COMPRESSED, LINK, stored_rar, write_stored_rar

from vcreg_hub.data.video import rar
from vcreg_hub.data.video.rar import _find_tool, unpack
from vcreg_hub.errors import DataError, VCRegError

FILES = {
    "kiss/-a [1] #b&c;d!_kiss_f_cm_np1_fr_goo_0.avi": bytes(range(256)) * 40,
    "kiss/empty.avi": b"",
    "readme.txt": b"hello",
}


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def fake_program(tmp_path: Path, name: str, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin" / name
    program.write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n" + script)
    program.chmod(0o755)


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_stored_entries_need_no_program(tmp_path: Path) -> None:
    archive = write_stored_rar(tmp_path / "a [x].rar", FILES)
    paths = unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES and len(paths) == 3


def test_keep_chooses(tmp_path: Path) -> None:
    archive = write_stored_rar(tmp_path / "a.rar", FILES)
    unpack(archive, tmp_path / "out", keep=lambda name: name.endswith(".avi"))
    assert set(tree(tmp_path / "out")) == set(FILES) - {"readme.txt"}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "a\\..\\..\\evil"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = write_stored_rar(tmp_path / "a.rar", {"good.avi": b"x", name: b"evil"})
    with pytest.raises(DataError, match="outside the target folder"):
        unpack(archive, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"a.rar"}


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(stored_rar({"clip.avi": b"/etc/passwd"}, mode=LINK))
    with pytest.raises(DataError, match="is a link"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


def test_damage_is_found(tmp_path: Path) -> None:
    (tmp_path / "crc.rar").write_bytes(stored_rar({"clip.avi": b"abc"}, wrong_checksum=True))
    (tmp_path / "cut.rar").write_bytes(stored_rar({"clip.avi": b"abc" * 1000})[:900])
    (tmp_path / "page.rar").write_bytes(b"<html>moved</html>")
    for name in ("crc.rar", "cut.rar", "page.rar", "absent.rar"):
        with pytest.raises(DataError, match=name):
            unpack(tmp_path / name, tmp_path / "out")
    assert not tree(tmp_path / "out")


def test_a_broken_header_of_the_second_entry_loses_no_entry_in_silence(tmp_path: Path) -> None:
    content = bytearray(stored_rar({"one.avi": b"abc" * 50, "two.avi": b"def" * 50, "three.avi": b"ghi"}))
    content[content.index(b"two.avi")] ^= 0xFF  # the name no longer agrees with the header's checksum
    (tmp_path / "a.rar").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.rar: not a whole RAR archive \(BadRarFile: Header CRC error"):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    assert not tree(tmp_path / "out")


def test_compressed_entries_without_a_program_name_the_package(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(stored_rar({"clip.avi": b"abc"}, method=COMPRESSED))
    with pytest.raises(VCRegError, match="apt install unar"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


def test_the_free_unrar_is_not_taken_for_the_real_one(tmp_path: Path) -> None:
    fake_program(tmp_path, "unrar", "echo 'unrar: Archive not specified' >&2; exit 64\n")
    with pytest.raises(VCRegError, match="unrar-free"):
        _find_tool(tmp_path / "a.rar", tmp_path)
    fake_program(tmp_path, "unrar", "echo 'UNRAR 7.00 freeware  Copyright (c) Alexander Roshal'\n")
    assert _find_tool(tmp_path / "a.rar", tmp_path)[1] == "x"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ('printf abc > "$5/clip.avi"; exit 1\n', None),  # worked, whatever the exit code says
        ("exit 0\n", "did not unpack"),
        ('printf abX > "$5/clip.avi"\n', "damaged"),
        ('ln -s /etc/hostname "$5/clip.avi"\n', "did not unpack"),
    ],
)
def test_what_a_program_unpacked_is_checked(tmp_path: Path, script: str, outcome: str | None) -> None:
    fake_program(tmp_path, "unar", script)
    (tmp_path / "a.rar").write_bytes(stored_rar({"clip.avi": b"abc"}, method=COMPRESSED))
    if outcome is None:
        unpack(tmp_path / "a.rar", tmp_path / "out")
        assert tree(tmp_path / "out") == {"clip.avi": b"abc"}
        return
    with pytest.raises(DataError, match=outcome):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    assert not tree(tmp_path / "out")


def test_a_program_is_never_given_names_from_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    fake_program(tmp_path, "unar", "true\n")
    monkeypatch.setattr(
        rar.subprocess,
        "run",
        lambda command, **_: seen.append(command) or subprocess.CompletedProcess(command, 0, "", ""),
    )
    (tmp_path / "a.rar").write_bytes(stored_rar({"-rf;touch x.avi": b"abc"}, method=COMPRESSED))
    with pytest.raises(DataError):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    assert len(seen) == 1 and not any("touch" in word for word in seen[0])
