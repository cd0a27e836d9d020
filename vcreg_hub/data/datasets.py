"""The data sets, images and videos, one row each; reading a row reads no data and imports no library."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..config import Data
from ..errors import UsageError, some, unknown_name


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


# The folder of Debian's package dataset-fashion-mnist.
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"

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
        ImageSet("csv", "a CSV file at data.root: a column of image paths, and a column for each set of labels"),
        ImageSet(
            "digits",
            "1,797 handwritten digits, 8 x 8 grey (scikit-learn); class, superclass",
            classes=10,
            train=1_297,
            test=500,
            licence="CC BY 4.0",
        ),
        ImageSet(
            "dtd",
            "5,640 textures by what they are called, such as banded (split 1)",
            classes=47,
            train=1_880,
            val=1_880,
            test=1_880,
            licence="for research",
            files="dtd-r1.0.1.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/dtd, unpacked inside a folder dtd/ "
            "(dtd/dtd/)",
            torchvision="DTD",
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
        ImageSet(
            "fgvc_aircraft",
            "10,000 aircraft of 100 variants",
            classes=100,
            train=3_334,
            val=3_333,
            test=3_333,
            metric="mean_per_class",
            licence="for non-commercial research",
            hub="mteb/FGVCAircraft",
            revision="3ae0e4e94e37c610c26df758ec3255fa90d80e67",
            columns={"class": "variant"},
            files="fgvc-aircraft-2013b.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft, unpacked "
            "(fgvc-aircraft-2013b/)",
            torchvision="FGVCAircraft",
        ),
        ImageSet(
            "flowers102",
            "8,189 flowers of 102 kinds",
            classes=102,
            train=1_020,
            val=1_020,
            test=6_149,
            metric="mean_per_class",
            licence="none stated",
            files="102flowers.tgz, imagelabels.mat and setid.mat of "
            "https://www.robots.ox.ac.uk/~vgg/data/flowers/102, unpacked in a folder flowers-102/ (flowers-102/jpg/)",
            torchvision="Flowers102",
        ),
        ImageSet("folder", "class folders of images at data.root, in folders of superclasses or not, or in tar files"),
        ImageSet(
            "food101",
            "101,000 photographs of 101 dishes",
            classes=101,
            train=75_750,
            test=25_250,
            licence="for research",
            hub="mteb/food101",
            revision="7cca05bfde8fdad4a9b39ed14a881c800cc1dca2",
            files="food-101.tar.gz of https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101, unpacked (food-101/)",
            torchvision="Food101",
        ),
        ImageSet("hf", "hf:<id, local folder or parquet file>: any data set of the `datasets` library"),
        ImageSet(
            "imagenet",
            "ImageNet-1k at data.root: folder, tar, hfds/<id>, hfids/<id>, wds/<folder>",
            classes=1_000,
            train=1_281_167,
            test=50_000,
            licence="for non-commercial research",
            files="ILSVRC/imagenet-1k of the Hub, or train/ and val/ of https://image-net.org",
            torchvision="ImageNet",
        ),
        ImageSet(
            "inaturalist18",
            "461,939 animals, plants and fungi of 8,142 species; class, superclass",
            classes=8_142,
            train=437_513,
            test=24_426,
            licence="for non-commercial research",
            files="train_val2018.tar.gz, train2018.json and val2018.json of "
            "https://github.com/visipedia/inat_comp/tree/master/2018, unpacked (train_val2018/)",
        ),
        ImageSet(
            "oxford_pets",
            "7,349 cats and dogs of 37 breeds",
            classes=37,
            train=3_680,
            test=3_669,
            metric="mean_per_class",
            licence="CC BY-SA 4.0",
            hub="mteb/OxfordPets",
            revision="557b480fae8d69247be74d9503b378a09425096f",
            files="images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets, unpacked in a "
            "folder oxford-iiit-pet/",
            torchvision="OxfordIIITPet",
        ),
        ImageSet(
            "places205",
            "2.5 million scenes of 205 kinds",
            classes=205,
            train=2_448_873,
            test=20_500,
            licence="for research and education",
            files="imagesPlaces205_resize.tar.gz and trainvalsplit_places205.tar.gz of http://places.csail.mit.edu, "
            "unpacked (train_places205.csv and val_places205.csv)",
        ),
        ImageSet(
            "stanford_cars",
            "16,185 cars of 196 models",
            classes=196,
            train=8_144,
            test=8_041,
            licence="for non-commercial research",
            hub="mteb/StanfordCars",
            revision="09ffe9bc7864d3f1e851529e5c4b7e05601a04fb",
            files="the Stanford Cars images, devkit and cars_test_annos_withlabels.mat, in a folder stanford_cars/ as "
            "torchvision.datasets.StanfordCars has it (their authors' page is gone)",
            torchvision="StanfordCars",
        ),
        ImageSet("synthetic", "synthetic[:<classes>x<channels>]: made-up images for trying things out"),
    )
}


# What `data.points` draws.
POINT_SETS = {
    "moons": "moons[:<margin>[@<degrees>]]: two moons in the plane, drawn by each seed; a negative margin overlaps",
}


@dataclass(frozen=True)
class VideoSet:
    """Videos laid out like HMDB51, and the counts required for a comparable result. A number of None is not
    checked. made: by this package, so nothing has to be fetched.

    classes, clips: in all. train, test: clips in each of the `splits`. archive: file name of the RAR of
    class RARs. split_archive, split_md5: file name of the RAR of split files and its MD5. hub, revision: a copy of the
    first split on the Hub, and the commit that is read.
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
    hub: str | None = None
    revision: str | None = None


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
        VideoSet(
            "hmdb51_split1",
            "the first split of HMDB51, fetched from the Hub",
            splits=1,
            classes=51,
            clips=5_100,
            train=3_570,
            test=1_530,
            hub="mteb/HMDB51",
            revision="73e5ac9cd9536c406d0046f3d6046785885f7ebe",
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
    "video_list": "train.csv and test.csv at data.root: lines of a path, a space and a label, or tables with a header",
}


def folder_of(row: ImageSet | VideoSet) -> str | None:
    """The folder of a data set without `data.root`: the one of its name in that of the environment variable
    VCREG_DATA_DIR; None where there is none."""
    place = os.environ.get("VCREG_DATA_DIR")
    found = Path(place).expanduser() / row.name if place else None
    return str(found) if found is not None and found.is_dir() else None


def where_to_put(row: ImageSet) -> str:
    """What to fetch and where to put it, for an error."""
    return (
        f"Fetch {row.files}, and set data.root to the folder that holds it, or put it into the folder {row.name} in "
        "that of the environment variable VCREG_DATA_DIR"
    )


def find_image_set(name: str) -> str:
    """The row of `IMAGE_SETS` for the part of a data set's name before its colon.

    Errors: UnknownNameError for none, and for `hf` without an id.
    """
    row, _, rest = name.partition(":")
    if row not in IMAGE_SETS or (row == "hf" and not rest):
        raise unknown_name("data set", name, IMAGE_SETS, "`folder` and `hf:<id>` read your own images.")
    return row


def named_data(
    data: str | Path | Data | Sequence[str | Path], root: str | None = None, labels: str = "class"
) -> Data | list[str | Path]:
    """The settings of a data set where one is named alone, else files. root, labels: of the data set.

    Errors: UnknownNameError for a name that is neither; UsageError for `root` or `labels` of files.
    """
    if isinstance(data, Data):
        return data
    given = [data] if isinstance(data, str | Path) else list(data)
    only = str(given[0]) if len(given) == 1 else ""
    row = only.partition(":")[0]
    if row in (*IMAGE_SETS, *VIDEO_SETS, *OWN_VIDEOS) and (root or not Path(only).exists()):
        return Data(only, root=root, labels=labels)
    if root is not None or labels != "class":
        raise UsageError(f"--root and --labels are of a data set, got {some(list(map(str, given)))}")
    if only and not isinstance(given[0], Path) and "/" not in only and not Path(only).exists():
        raise unknown_name("data set", only, [*IMAGE_SETS, *VIDEO_SETS, *OWN_VIDEOS], "Files are given by their path.")
    return given
