"""Images in the order of their shards: webdataset (`wds/`) and streamed `datasets` ids (`hfids/`).

timm's readers do the reading and share the shards out among processes and workers. Nothing can be asked for by number,
so nothing can be held out of a stream. timm's webdataset reader skips an image that does not decode, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from ...errors import DataError, first_line

PREFIXES = ("wds/", "hfids/")


class Stream(IterableDataset):
    """(image, class id) pairs of one split; `open` starts reading, `len` is the number of images of the whole split.

    location: `wds/<folder or URL with shards and _info.json>` or `hfids/<id>`. split: a name in _info.json, or shards
    as timm writes them, such as `imagenet-train-{0000..1023}.tar|1281167`.
    Errors: DataError when it cannot be opened.
    """

    def __init__(self, location: str, split: str, root: str | None = None) -> None:
        prefix, _, self.place = location.partition("/")
        self.location, self.split = location, split
        # timm's webdataset reader takes the place as a root, its datasets reader as a name with a cache folder.
        self._name = f"{prefix}/" + ("" if prefix == "wds" else self.place)
        self._root = self.place if prefix == "wds" else root
        reader = self._open(training=False, batch_size=1, seed=0).reader
        self._length = int(reader.num_samples)
        self.class_to_idx: dict[str, int] = dict(reader.class_to_idx or {})

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        yield from self.open(training=False)

    def open(self, training: bool, batch_size: int = 1, workers: int = 0, seed: int = 0) -> Any:
        """timm's IterableImageDataset. In training each process gets its own shards in a shuffled order, which depends
        on `set_epoch`; otherwise each process gets everything in the order it lies in, for accelerate to share out."""
        opened = self._open(training, batch_size, seed)
        if not training:
            opened.reader.dist_rank, opened.reader.dist_num_replicas = 0, 1
        opened.set_loader_cfg(num_workers=workers)
        return opened

    def _open(self, training: bool, batch_size: int, seed: int) -> Any:
        from timm.data import create_dataset

        try:
            return create_dataset(
                self._name,
                root=self._root,
                split=self.split,
                is_training=training,
                batch_size=batch_size,
                seed=seed,
            )
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            reason = first_line(error)
            cure = "run `pip install webdataset`" if "webdataset" in reason else "check data.root and the split's name"
            raise DataError(f"split {self.split!r} of {self.location} could not be opened ({reason}): {cure}") from None


def restart(opened: Any, epoch: int) -> Iterator[tuple[int, Image.Image, int]]:
    """An epoch of an opened stream from its beginning: (number, image, class id); the number is unique among this
    process's workers. Reading anew is what makes a repeated epoch the same."""
    worker = get_worker_info()
    first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
    opened.set_epoch(epoch)
    opened.reader.ds, opened.reader.worker_info = None, None
    for i, (image, label) in enumerate(opened):
        yield first + step * i, image, int(label)
