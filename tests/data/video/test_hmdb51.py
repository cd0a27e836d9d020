"""The reader of HMDB51's layout, on the made-up set of the same layout, as folders and as a RAR of RARs."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from data.video.stored_rar import pack, write_stored_rar

from vcreg_hub.data.datasets import VIDEO_SETS
from vcreg_hub.data.video import class_archives
from vcreg_hub.data.video import index as video_index
from vcreg_hub.data.video.action_shapes import ActionShapes, make
from vcreg_hub.data.video.decode import measure
from vcreg_hub.data.video.hmdb51 import _read_splits, _source_of, prepare
from vcreg_hub.data.video.index import TEST, TRAIN, UNUSED, read_index
from vcreg_hub.data.video.rar import unpack
from vcreg_hub.errors import DataError

SPEC = ActionShapes(sources=9, clips_per_source=1, height=16, width=16, min_frames=3, max_frames=8)
ROW = replace(VIDEO_SETS["action_shapes"], archive="all.rar", split_archive="splits.rar", clips=54, train=30, test=18)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("hmdb51") / "set [1]", SPEC)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "set [1]"))


def test_class_folders(root: Path, tmp_path: Path) -> None:
    index = prepare(root, tmp_path / "out", video_set=ROW, log=lambda text: None)
    assert index == read_index(tmp_path / "out")
    assert len(index.clips) == 54 and index.splits == 3 and len(index.class_names) == 6
    assert list(index.class_names) == sorted(index.class_names)
    for clip in index.clips:
        assert clip.path.split("/")[0] == index.class_names[clip.label]
        assert (clip.frames, clip.height, clip.width) == measure(index.root / clip.path)[:3]
        assert not clip.error
    for split in (1, 2, 3):
        counts = [len(index.flagged(split, flag)) for flag in (TRAIN, TEST, UNUSED)]
        assert counts == [30, 18, 6]
        train, test = ({c.source for c in index.flagged(split, flag)} for flag in (TRAIN, TEST))
        assert not train & test
    assert any(clip.path.split("/")[1].startswith("-") for clip in index.clips)
    with pytest.raises(DataError, match="splits 1 to 3"):
        index.flagged(4, TRAIN)


def test_an_index_beside_its_videos_can_be_moved(root: Path, tmp_path: Path) -> None:
    prepare(root, root, video_set=ROW, log=lambda text: None)
    moved = root.rename(tmp_path / "moved")
    index = read_index(moved)
    assert all((index.root / clip.path).is_file() for clip in index.clips)


@pytest.mark.parametrize("given", ["folder", "archive", "class archives"])
def test_a_rar_of_rars_gives_the_same_as_the_folders(root: Path, tmp_path: Path, given: str) -> None:
    packed = pack(root, tmp_path / "packed")
    md5 = hashlib.md5((packed / "splits.rar").read_bytes()).hexdigest()
    if given == "class archives":
        unpack(packed / "all.rar", packed)
        (packed / "all.rar").unlink()
    source = packed / "all.rar" if given == "archive" else packed
    index = prepare(source, tmp_path / "out", video_set=replace(ROW, split_md5=md5), log=lambda text: None)
    plain = prepare(root, tmp_path / "plain", video_set=ROW, log=lambda text: None)
    assert index.clips == plain.clips and index.class_names == plain.class_names
    assert index.root == tmp_path / "out" / "videos"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"videos", "splits", "index.parquet", "dataset.json"}
    for clip in index.clips:
        assert (index.root / clip.path).read_bytes() == (plain.root / clip.path).read_bytes()


def test_an_interrupted_preparation_goes_on_where_it_was(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, out = pack(root, tmp_path / "packed"), tmp_path / "out"
    unpacked, counted = [], []

    def unpack_some(archive: Path, *rest):
        if len(unpacked) == 3:
            raise KeyboardInterrupt
        if archive.parent != packed:
            unpacked.append(archive.stem)
        return unpack(archive, *rest)

    def unpack_all(archive: Path, folder, keep):
        made = unpack(archive, folder, keep)
        if archive == packed / "all.rar":
            assert not {path.stem for path in made} & set(unpacked), "what is there already was unpacked again"
        unpacked.extend([archive.stem] if archive.parent != packed else [])
        return made

    def count_some(path: Path, *part: float | None):
        if len(counted) == 20:
            raise KeyboardInterrupt
        counted.append(path.name)
        return measure(path, *part)

    monkeypatch.setattr(
        class_archives, "unpack", lambda archive, folder, keep: unpack_some(Path(archive), folder, keep)
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(packed, out, video_set=ROW, log=lambda text: None)
    assert len(unpacked) == 3 == len(list((out / "videos").iterdir()))
    (out / ".unpacking-classes-left").mkdir()  # as a kill leaves it
    monkeypatch.setattr(class_archives, "unpack", lambda archive, folder, keep: unpack_all(Path(archive), folder, keep))
    monkeypatch.setattr(video_index, "measure", count_some)
    with pytest.raises(KeyboardInterrupt):
        prepare(packed, out, video_set=ROW, log=lambda text: None)
    assert len(set(unpacked)) == len(unpacked) == 6 and not list(out.glob(".unpacking*"))
    assert not (out / "dataset.json").exists()
    monkeypatch.setattr(
        video_index, "measure", lambda path, *part: (counted.append(path.name), measure(path, *part))[1]
    )
    index = prepare(packed, out, video_set=ROW, log=lambda text: None)
    assert len(set(counted)) == len(counted) == len(index.clips) == 54
    assert index.clips == prepare(root, tmp_path / "plain", video_set=ROW, log=lambda text: None).clips
    assert {p.name for p in out.iterdir()} == {"videos", "splits", "index.parquet", "dataset.json"}


def test_one_preparation_of_a_folder_at_a_time(root: Path, tmp_path: Path) -> None:
    with class_archives.alone_in(tmp_path / "out"):
        with pytest.raises(DataError, match="another process"):
            prepare(root, tmp_path / "out", video_set=ROW, log=lambda text: None)
    prepare(root, tmp_path / "out", video_set=ROW, log=lambda text: None)
    with pytest.raises(DataError, match="holds action_shapes, not hmdb51"):
        prepare(root, tmp_path / "out", log=lambda text: None)


def test_another_split_archive_is_refused(root: Path, tmp_path: Path) -> None:
    packed = pack(root, tmp_path / "packed")
    with pytest.raises(DataError, match="MD5"):
        prepare(packed, tmp_path / "out", video_set=replace(ROW, split_md5="0" * 32))


def test_a_class_archive_that_unpacks_elsewhere_is_refused(root: Path, tmp_path: Path) -> None:
    packed = pack(root, tmp_path / "packed")
    (tmp_path / "inner.rar").write_bytes(b"")
    inner = write_stored_rar(tmp_path / "inner.rar", {"other/clip.avi": b"x"}).read_bytes()
    write_stored_rar(packed / "all.rar", {"spin.rar": inner})
    with pytest.raises(DataError, match="does not unpack to one folder 'spin'"):
        prepare(packed, tmp_path / "out", video_set=ROW)
    assert not (tmp_path / "out" / "videos" / "spin").exists()


def test_a_clip_that_does_not_decode_is_listed_not_fatal(root: Path, tmp_path: Path) -> None:
    broken = sorted((root / "videos" / "spin").iterdir())[2]
    broken.write_bytes(b"")
    index = prepare(root, tmp_path / "out", video_set=ROW, workers=1, log=lambda text: None)
    (clip,) = index.undecodable()
    assert clip.path == f"spin/{broken.name}" and clip.frames == 0 and "0 bytes" in clip.error
    assert "1 clip does not decode" in index.summary() and broken.name in index.summary()
    assert read_index(tmp_path / "out").undecodable() == [clip]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("clip", "not there: 1 clip of the split files"),
        ("split file", r"class 'spin' has split files \[1, 3\]"),
        ("class list", "6 classes, but the split files list 5"),
        ("flag", "line 3: expected a file name and 0, 1 or 2"),
        ("twice", "listed twice"),
        ("other clips", "list different clips"),
        ("all", "no split files"),
        ("videos", "no class folders"),
    ],
)
def test_what_is_not_as_promised_is_an_error_before_decoding(
    root: Path, tmp_path: Path, damage: str, message: str
) -> None:
    lists = root / "testTrainMulti_7030_splits"
    one = lists / "spin_test_split2.txt"
    lines = one.read_text().splitlines()
    if damage == "clip":
        sorted((root / "videos" / "spin").iterdir())[0].unlink()
    elif damage == "split file":
        one.unlink()
    elif damage == "class list":
        for path in lists.glob("spin_test*"):
            path.unlink()
    elif damage == "flag":
        one.write_text("\n".join([*lines[:2], lines[2][:-2] + "3 ", *lines[3:]]))
    elif damage == "twice":
        one.write_text("\n".join([*lines, lines[0]]))
    elif damage == "other clips":
        one.write_text("\n".join([*lines[:-1], "elsewhere.avi 1 "]))
    elif damage == "all":
        shutil.rmtree(lists)
    else:
        shutil.rmtree(root / "videos")
    with pytest.raises(DataError, match=message):
        prepare(root, tmp_path / "out", video_set=ROW)
    assert not (tmp_path / "out" / "dataset.json").exists()


LIKE = VIDEO_SETS["hmdb51_like"]


@pytest.mark.parametrize("given", ["folder", "archives in an archive"])
def test_a_class_without_any_split_file_is_not_dropped(root: Path, tmp_path: Path, given: str) -> None:
    source, lists, row = root, root / "testTrainMulti_7030_splits", LIKE
    if given != "folder":
        source, row = pack(root, tmp_path / "packed"), replace(LIKE, archive="all.rar")
    for path in lists.glob("spin_test*"):
        path.unlink()
    with pytest.raises(DataError, match="no split files of 1 class folder: spin; add"):
        prepare(source, tmp_path / "out", splits=lists, video_set=row, log=lambda text: None)
    shutil.rmtree(root / "videos" / "spin")
    if given == "folder":
        assert len(prepare(root, tmp_path / "out", video_set=row, log=lambda text: None).class_names) == 5


def test_one_class_is_nothing_to_tell_apart(root: Path) -> None:
    for path in root.glob("testTrainMulti_7030_splits/*"):
        if not path.name.startswith("spin_test"):
            path.unlink()
    with pytest.raises(DataError, match="two classes or more, found those of spin only"):
        _read_splits(root, LIKE)


def test_a_class_archive_without_split_files_is_named(root: Path, tmp_path: Path) -> None:
    packed, lists, said = pack(root, tmp_path / "packed"), root / "testTrainMulti_7030_splits", []
    unpack(packed / "all.rar", packed)
    (packed / "all.rar").unlink()
    for path in lists.glob("spin_test*"):
        path.unlink()
    index = prepare(packed, tmp_path / "out", splits=lists, video_set=LIKE, log=said.append)
    assert len(index.class_names) == 5
    assert [line for line in said if "left out" in line] == [
        "archives of no class that the split files list, left out: spin.rar, splits.rar"
    ]


@pytest.mark.parametrize("which", ["source", "splits"])
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_archives_of_another_kind_are_called_what_they_are(root: Path, tmp_path: Path, suffix: str, which: str) -> None:
    archive = shutil.make_archive(str(tmp_path / "set"), suffix, root)
    given = {"source": root, "splits": None, which: archive}
    with pytest.raises(DataError, match=r"is not a RAR archive: only RAR archives and folders are read\. Unpack"):
        prepare(given["source"], tmp_path / "out", splits=given["splits"], video_set=LIKE)
    assert not (tmp_path / "out").exists()


def write_hmdb51_splits(folder: Path) -> None:
    """Split files with HMDB51's counts: 51 classes of 70 train and 30 test clips, and 1,666 unused ones in
    all."""
    folder.mkdir()
    for label in range(51):
        unused = 33 if label < 17 else 32
        unused += 17 if label == 50 else 0
        names = [f"film_{i}_c{label}_f_cm_np1_fr_goo_0.avi" for i in range(100 + unused)]
        flags = [1] * 70 + [2] * 30 + [0] * unused
        for split in (1, 2, 3):
            shifted = flags[split:] + flags[:split]
            text = "".join(f"{name} {flag} \n" for name, flag in zip(names, shifted, strict=True))
            (folder / f"c{label}_test_split{split}.txt").write_text(text)


def test_the_counts_of_hmdb51_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    write_hmdb51_splits(folder)
    files = _read_splits(folder)
    assert sum(len(clips) for clips in files.flags.values()) == 6766
    one = folder / "c7_test_split2.txt"
    content = one.read_text()
    one.write_text(content.replace(" 1 \n", " 0 \n", 1))
    with pytest.raises(DataError, match="3,570 training clips in split 2, but the split files list 3,569"):
        _read_splits(folder)
    for split in (1, 2, 3):
        path = folder / f"c7_test_split{split}.txt"
        path.write_text((content if split == 2 else path.read_text()) + f"one_more.avi {0} \n")
    with pytest.raises(DataError, match="6,766 clips, but the split files list 6,767"):
        _read_splits(folder)


def test_sources() -> None:
    assert _source_of("-Hi_[x]_kick_ball_f_nm_np10_le_med_2.avi", "kick_ball") == "-Hi_[x]"
    assert _source_of("holiday.avi", "kick") == "holiday"
    assert _source_of("a_kick_f_nm_np1_le_med_2.avi", "kick") == _source_of("a_kick_u_cm_np2_fr_bad_7.avi", "kick")


def test_a_damaged_or_absent_index_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vcreg data"):
        read_index(tmp_path / "nothing")
    prepare(root, tmp_path / "out", video_set=ROW, log=lambda text: None)
    os.truncate(tmp_path / "out" / "index.parquet", 200)
    with pytest.raises(DataError, match="damaged"):
        read_index(tmp_path / "out")
