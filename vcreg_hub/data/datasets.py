"""The data sets, images and videos, one row each; reading a row reads no data and imports no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import unknown_name


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, and what must be in them for a result to be comparable. A number that is None is not checked.

    classes: of the finest labels. train, val, test: images of each part; val is None where the authors give none.
    metric: what chooses a penalty or a rate, and what papers report. licence: in short, as the authors state it.
    hub, revision: a copy on the Hub in the form of the `datasets` library, and the commit that is read.
    columns: label set -> its column in that copy, where it is not found by itself. files: what to fetch, and how it
    lies under `data.root`. torchvision: the class of `torchvision.datasets` that lays it out so.
    """

    name: str
    about: str
    classes: int | None = None
    train: int | None = None
    val: int | None = None
    test: int | None = None
    metric: Literal["top1", "mean_per_class"] = "top1"
    licence: str = ""
    hub: str | None = None
    revision: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    files: str = ""
    torchvision: str | None = None


# What `data.image.module` reads.
IMAGE_SETS = {
    row.name: row
    for row in (
        ImageSet(
            "cifar10",
            "60,000 colour images of 10 kinds of things, 32 x 32",
            classes=10,
            train=50_000,
            test=10_000,
            licence="none stated",
            hub="mteb/cifar10",
            revision="69a62dd171e24a133d193073e73fda4dbb823266",
            files="cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, packed or not "
            "(cifar-10-batches-py/)",
            torchvision="CIFAR10",
        ),
        ImageSet(
            "cifar100",
            "60,000 colour images of 100 kinds of things, 32 x 32; class, superclass (20)",
            classes=100,
            train=50_000,
            test=10_000,
            licence="none stated",
            hub="mteb/cifar100",
            revision="ac5511f885f65fb75d31a9d8810a8440913f7721",
            columns={"class": "fine_label", "superclass": "coarse_label"},
            files="cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html, packed or not "
            "(cifar-100-python/)",
            torchvision="CIFAR100",
        ),
        ImageSet(
            "digits",
            "1,797 handwritten digits, 8 x 8 grey (scikit-learn); class, superclass",
            classes=10,
            train=1_297,
            test=500,
            licence="CC BY 4.0",
        ),
        ImageSet(
            "fashion_mnist",
            "70,000 images of clothes, 28 x 28 grey; class, superclass",
            classes=10,
            train=60_000,
            test=10_000,
            licence="MIT",
            hub="zalando-datasets/fashion_mnist",
            files="the four IDX files of https://github.com/zalandoresearch/fashion-mnist, packed or not",
        ),
        ImageSet("folder", "class folders of images at data.root (ImageFolder), plain or in tar files"),
        ImageSet("hf", "hf:<id, local folder or parquet file>: any data set of the `datasets` library"),
        ImageSet("imagenet", "ImageNet-1k at data.root: folder, tar, hfds/<id>, hfids/<id>, wds/<folder>"),
        ImageSet("synthetic", "synthetic[:<classes>x<channels>]: made-up images for trying things out"),
    )
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
