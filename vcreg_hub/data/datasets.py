"""The data sets, images and videos, one row each; reading a row reads no data and imports no library."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import unknown_name

# What `data.image.module` reads.
IMAGE_SETS = {
    "digits": "1,797 handwritten digits, 8 x 8 grey (scikit-learn); class, superclass",
    "fashion_mnist": "70,000 images of clothes, 28 x 28 grey; class, superclass",
    "folder": "class folders of images at data.root (ImageFolder), plain or in tar files",
    "hf": "hf:<id, local folder or parquet file>: any data set of the `datasets` library",
    "imagenet": "ImageNet-1k at data.root: folder, tar, hfds/<id>, hfids/<id>, wds/<folder>",
    "synthetic": "synthetic[:<classes>x<channels>]: made-up images for trying things out",
}


@dataclass(frozen=True)
class VideoSet:
    """Videos laid out like HMDB51, and the counts required for a comparable result. A number of None is not
    checked. made: by this package, so nothing has to be fetched.

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


def find_image_set(name: str) -> str:
    """The row of `IMAGE_SETS` for the part of a data set's name before its colon.

    Errors: UnknownNameError for none, and for `hf` without an id.
    """
    row, _, rest = name.partition(":")
    if row not in IMAGE_SETS or (row == "hf" and not rest):
        raise unknown_name("data set", name, IMAGE_SETS, "`folder` and `hf:<id>` read your own images.")
    return row
