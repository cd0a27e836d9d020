"""Turns the bytes of an image file into pixels. Every image of a file is read here, whoever asks for it.

What is shown of a file, whatever its format:

- It is turned and mirrored as its EXIF orientation says. Of several frames the first is shown.
- Of 16 bits a channel the upper eight count, as in Pillow's own reading of 16-bit colour. Of a file with whole numbers
  of 32 bits nobody knows which of them is white: it is refused.
- Floating-point pixels go from 0, black, to 1, white. Others, NaN and infinity are refused.
- An alpha channel and transparent colours of a palette are dropped: the colours beneath are seen.
- A palette is looked up. CMYK becomes RGB by Pillow's plain formula, without the file's colour profile.
- An image beyond twice Pillow's `Image.MAX_IMAGE_PIXELS`, 179 million pixels, is refused before it is unpacked.

What loses something is said once a run, of the first file.
"""

from __future__ import annotations

import io
import logging
import mmap
import multiprocessing
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ...errors import DataError

_logger = logging.getLogger("vcreg_hub")
# Goes into the fingerprints of files: what was extracted under another reading is not taken for what is read now.
READING = "reading 2"
_ORIENTATION = 0x0112
_ALPHA, _CMYK, _DEEP = range(3)
_REMARKS = (
    "%s has an alpha channel or transparent colours, which are dropped: the colours beneath are seen",
    "%s is CMYK: it is seen as RGB without its colour profile",
    "%s has more than 8 bits a channel: 256 levels of them are seen",
)
# Shared with the loaders' workers, so that a remark is made once for all of them.
_said, _saying = mmap.mmap(-1, len(_REMARKS)), multiprocessing.Lock()


class UnreadableImageError(DataError):
    """An undecodable image; the message names it.

    A loader's worker process hands its exception over as a printed traceback and the main process builds a new one from
    that text: the last line, which is ours, is what a person needs.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{type(self).__name__}: ")[2].strip())


def decode(content: bytes, where: str, mode: str = "RGB") -> Image.Image:
    """An image from the bytes of its file. mode: PIL's, `RGB` or `L`. Errors: UnreadableImageError, naming `where`."""
    try:
        # Pillow warns of a file without its name; what matters of it is an error here or a remark.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                _remark(image, where)
                return _in_eight_bits(_upright(image), image.format).convert(mode)
    except Exception as error:  # PIL's decoders raise whatever the parser of their format raises
        raise UnreadableImageError(
            f"{where} does not decode as an image ({_reason(error)}, {len(content)} bytes): replace or remove it"
        ) from None


def decode_file(path: str | Path, mode: str = "RGB") -> Image.Image:
    """An image from its file. mode: PIL's, `RGB` or `L`. Errors: UnreadableImageError, naming it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read ({error.strerror}): fetch it again") from None
    return decode(content, str(path), mode)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
        return "unknown format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, as decompression bombs have"
    return " ".join(str(error).split()) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # what PIL's parser raises at damaged EXIF data: the pixels are whole all the same
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _in_eight_bits(image: Image.Image, form: str | None) -> Image.Image:
    """Errors: ValueError for pixels without a defined white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and form == "PPM"):  # Pillow scales those to 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        raise ValueError("whole numbers of 32 bits, of which none is known to be white: save it with 8 or 16")
    if image.mode != "F":
        return image
    pixels = np.asarray(image)
    if odd := int((~np.isfinite(pixels)).sum()):
        raise ValueError(f"{odd} of {pixels.size} pixels are NaN or infinite")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ValueError(f"floating-point pixels from {low:g} to {high:g}, expected 0 for black to 1 for white")
    return Image.fromarray(np.rint(pixels * 255).astype(np.uint8))


def _remark(image: Image.Image, where: str) -> None:
    """Says once what of such a file is not seen."""
    if image.has_transparency_data:
        kind = _ALPHA
    elif image.mode == "CMYK":
        kind = _CMYK
    elif image.mode.startswith(("I", "F")):
        kind = _DEEP
    else:
        return
    if _said[kind] or os.environ.get("RANK", "0") != "0":
        return
    with _saying:
        first, _said[kind] = not _said[kind], 1
    if first:
        _logger.warning(_REMARKS[kind] + "; other such files are not named", where)
