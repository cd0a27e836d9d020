"""Video data sets laid out like HMDB51, one row each: what must be in them for a result to be comparable."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VideoSet:
    """A number that is None is not checked. made: by this package, so that nothing has to be fetched.

    classes, clips: in all. train, test: clips in each of the `splits`. archive: file name of the RAR of
    class RARs. split_archive, split_md5: file name of the RAR of split files and its MD5.
    """

    name: str
    about: str
    splits: int
    classes: int | None = None
    clips: int | None = None
    train: int | None = None
    test: int | None = None
    archive: str | None = None
    split_archive: str | None = None
    split_md5: str | None = None
    licence: str | None = None
    home: str | None = None
    made: bool = False


VIDEO_SETS = {
    row.name: row
    for row in (
        VideoSet(
            "hmdb51",
            "51 human actions from films and the web",
            splits=3,
            classes=51,
            clips=6766,
            train=3570,
            test=1530,
            archive="hmdb51_org.rar",
            split_archive="test_train_splits.rar",
            split_md5="15e67781e70dcfbdce2d7dbb9b3344b5",
            licence="cc-by-4.0",
            home="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
        ),
        VideoSet("action_shapes", "6 motions of textured shapes, made on the spot", splits=3, classes=6, made=True),
        VideoSet(
            "action_shapes_compound", "12 motions of other shapes, to pretrain on", splits=3, classes=12, made=True
        ),
        VideoSet("hmdb51_like", "any set in HMDB51's layout: class folders and split files", splits=3),
    )
}

# Files of the user's own, which need no preparing: `data.root` says where they are.
OWN_VIDEOS = {
    "video_folder": "class folders of videos at data.root, with train/ and test/ or without",
    "video_list": "train.csv and test.csv at data.root: a path, a space and a whole-number label a line",
}
