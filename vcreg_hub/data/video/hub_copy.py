"""A video set from its copy on the Hub, laid out as its authors do: class folders, and a split file a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import DataError, first_line
from ...files import replacing, write_text
from ..datasets import VideoSet

_FLAGS = {"train": 1, "test": 2}


def lay_out(row: VideoSet, folder: str | Path) -> Path:
    """Writes the clips of `row.hub` at `row.revision` as `<class>/<file>` and `<class>_test_split1.txt` below `folder`,
    and returns that; files that are there already are kept.

    Errors: DataError where the copy cannot be had, or is of other columns than `video` and `label`.
    """
    folder = Path(folder)
    lines: dict[str, list[str]] = {}
    for part, table in _open(row).items():
        names = table.features["label"].names
        for number, cell in enumerate(table):
            name, video = names[cell["label"]], cell["video"]
            # The authors' file names say which film a clip was cut from; validation clips are carved by it.
            file = Path(video["path"] or f"{name}_{part}_{number:05d}.avi").name
            path = folder / name / file
            if not path.is_file():
                with replacing(path) as temporary:
                    temporary.write_bytes(video["bytes"] or Path(video["path"]).read_bytes())
            lines.setdefault(name, []).append(f"{file} {_FLAGS[part]}")
    for name, listed in lines.items():
        write_text(folder / f"{name}_test_split1.txt", "".join(f"{line} \n" for line in listed))
    return folder


def _open(row: VideoSet) -> dict[str, Any]:
    """Part -> table, with the clips as they were encoded."""
    import datasets

    try:
        tables = datasets.load_dataset(str(row.hub), revision=row.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = first_line(error)
        raise DataError(
            f"{row.hub} at {row.revision} could not be had from the Hub ({reason}): prepare hmdb51 from its archives "
            "with `vcreg data hmdb51 --source DIR --out DIR`"
        ) from None
    found = {}
    for part in _FLAGS:
        features = tables[part].features if part in tables else {}
        if not isinstance(features.get("label"), datasets.ClassLabel) or "video" not in features:
            raise DataError(f"{row.hub}: its {part} part has the columns {', '.join(features) or 'none'}")
        found[part] = tables[part].cast_column("video", datasets.Video(decode=False))
    return found
