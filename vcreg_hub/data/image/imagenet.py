"""ImageNet-1k in the layouts of timm's readers. `data.root` picks one:

    DIR                 train/ and val/ (or validation/) with one folder a class, or train.tar and val.tar of those
    hfds/<id>           a `datasets` id or local folder, such as hfds/ILSVRC/imagenet-1k (downloaded whole)
    hfids/<id>          the same, streamed
    wds/<DIR or URL>    webdataset shards with an _info.json, such as timm/imagenet-1k-wds, streamed

The official test images have no labels: the test split is the 50,000 validation images, unless `data.test_split` says
otherwise, and a validation split to choose coefficients on is carved from the training images.
"""

from __future__ import annotations

from dataclasses import replace

from ...config import Data
from ...errors import ConfigError, DataError
from . import folder, hf
from .source import LabelSet, Source, label_set
from .stream import PREFIXES, Stream

CLASSES = 1000


def load(cfg: Data) -> Source:
    """Errors: ConfigError without a root; DataError as the reader of the layout has it."""
    if cfg.root is None:
        raise ConfigError(
            "data.name=imagenet needs data.root: a folder with train/ and val/, hfds/<id>, hfids/<id> or wds/<folder> "
            "(--set data.root=DIR)"
        )
    root = cfg.root
    cfg = replace(cfg, test_split="validation" if cfg.test_split == "test" else cfg.test_split)
    if root.startswith(PREFIXES):
        return _streamed(cfg, root)
    if root.startswith("hfds/"):
        return hf.load(replace(cfg, name=f"hf:{root.removeprefix('hfds/')}", root=None))
    return folder.load(cfg)


def _streamed(cfg: Data, location: str) -> Source:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo

    train, test = Stream(location, cfg.train_split), Stream(location, cfg.test_split)
    named = train.class_to_idx
    names = tuple(sorted(named, key=named.__getitem__)) if named else tuple(ImageNetInfo().label_names())
    if len(names) != CLASSES and not named:
        raise DataError(f"timm knows {len(names)} ImageNet classes, expected {CLASSES}")
    labels = label_set({"class": LabelSet(names, tuple(range(len(names))))}, cfg.labels, "imagenet")
    return Source(train, None, test, labels.names, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, location)
