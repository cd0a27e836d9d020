"""HMDB51's first split from a copy in the form of the Hub's: the same index as from class folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vcreg_hub.config import Data, Video
from vcreg_hub.data import datasets as rows
from vcreg_hub.data.video import action_shapes, hub_copy
from vcreg_hub.data.video.datasets import load_videos
from vcreg_hub.data.video.hmdb51 import prepare
from vcreg_hub.errors import DataError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Serves made clips in place of the Hub; what was asked for."""
    import datasets

    made = action_shapes.make(tmp_path / "made", action_shapes.ActionShapes(sources=4, clips_per_source=1))
    clips = sorted(made.rglob("*.avi"))
    names = sorted({clip.parent.name for clip in clips})
    asked = []

    def load_dataset(name: str, revision: str) -> datasets.DatasetDict:
        asked.append((name, revision))
        features = datasets.Features({"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=names)})
        parts = {"train": [clip for i, clip in enumerate(clips) if i % 4], "test": clips[::4]}
        return datasets.DatasetDict({
            part: datasets.Dataset.from_dict(
                {
                    "video": [{"path": clip.name, "bytes": clip.read_bytes()} for clip in those],
                    "label": [names.index(clip.parent.name) for clip in those],
                },
                features=features,
            )
            for part, those in parts.items()
        })  # fmt: skip

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    row = replace(
        rows.VIDEO_SETS["hmdb51_split1"], classes=len(names), clips=len(clips), train=3 * len(names), test=len(names)
    )
    monkeypatch.setitem(rows.VIDEO_SETS, "hmdb51_split1", row)
    return asked


def test_it_is_laid_out_and_prepared_like_the_archives(hub: list[tuple[str, str]], tmp_path: Path) -> None:
    row = rows.VIDEO_SETS["hmdb51_split1"]
    folder = hub_copy.lay_out(row, tmp_path / "hub")
    assert hub == [("mteb/HMDB51", "73e5ac9cd9536c406d0046f3d6046785885f7ebe")]
    index = prepare(folder, tmp_path / "out", video_set=row, log=lambda text: None)
    assert index.splits == 1 and not index.undecodable()
    videos = load_videos(Data("hmdb51_split1", root=str(tmp_path / "out")), Video())
    assert (len(videos.train), len(videos.test), videos.num_classes) == (row.train, row.test, row.classes)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.avi")}
    hub_copy.lay_out(row, folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.avi")}


def test_the_command_fetches_what_has_no_source(hub: list[tuple[str, str]], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vcreg_hub.cli import app

    done = CliRunner().invoke(app, ["data", "hmdb51_split1", "--out", str(tmp_path / "out"), "--workers", "0"])
    assert done.exit_code == 0, done.output
    assert "prepared:" in done.output and hub


def test_without_the_hub_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be had from the Hub .* prepare hmdb51 from its archives"):
        hub_copy.lay_out(rows.VIDEO_SETS["hmdb51_split1"], tmp_path)
