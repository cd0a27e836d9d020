"""One decoder for every image file: ordinary ones as ever, deep, turned and odd ones as its docstring says."""

from __future__ import annotations

import io
import logging
import mmap
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data.mutations import mutated, outcomes
from PIL import Image
from torch.utils.data import DataLoader

from vcreg_hub.data.image import decode as module
from vcreg_hub.data.image.decode import UnreadableImageError, decode, decode_file


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_said", bytearray(3))


def noise(mode: str = "RGB", size: tuple[int, int] = (20, 14)) -> Image.Image:
    pixels = np.random.RandomState(0).randint(0, 256, (*size[::-1], 4)).astype(np.uint8)
    if mode in ("RGBA", "CMYK"):
        return Image.frombytes(mode, size, pixels.tobytes())
    return Image.fromarray(pixels[..., :3]).convert(mode)


def saved(image: Image.Image, form: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def seen(content: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(decode(content, "a file", mode))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


ORDINARY = {
    **{f"{mode} PNG": saved(noise(mode), "PNG") for mode in ("RGB", "L", "RGBA", "LA", "P", "1")},
    **{f"{mode} JPEG": saved(noise(mode), "JPEG") for mode in ("RGB", "L", "CMYK")},
    **{f"{mode} TIFF": saved(noise(mode), "TIFF") for mode in ("RGB", "L", "RGBA", "CMYK")},
    **{f"RGB {form}": saved(noise(), form) for form in ("BMP", "GIF", "WEBP", "PPM")},
    "transparent GIF": saved(noise("P"), "GIF", transparency=3),
    "upright JPEG": saved(
        noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0"
    ),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("case", ORDINARY)
def test_ordinary_files_are_bit_for_bit_what_pillow_converts(case: str, mode: str) -> None:
    """The form that all recorded numbers were made with."""
    with Image.open(io.BytesIO(ORDINARY[case])) as image:
        wanted = np.asarray(image.convert(mode))
    assert np.array_equal(seen(ORDINARY[case], mode), wanted)


DEEP = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
DEEP_FILES = {
    "PNG": saved(Image.fromarray(DEEP), "PNG"),
    "TIFF": saved(Image.fromarray(DEEP), "TIFF"),
    "PGM": b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("form", DEEP_FILES)
def test_sixteen_bits_keep_their_values(form: str) -> None:
    wanted = np.array([[0, 0, 1], [3, 156, 255]])
    assert np.array_equal(seen(DEEP_FILES[form], "L"), wanted)
    assert np.array_equal(seen(DEEP_FILES[form]), np.repeat(wanted[..., None], 3, 2))


def test_sixteen_bits_of_grey_and_of_colour_are_read_alike() -> None:
    colour = np.repeat(DEEP[..., None], 3, 2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    assert np.array_equal(seen(png(3, 2, 16, 2, rows)), seen(DEEP_FILES["PNG"]))


@pytest.mark.parametrize("form", ["TIFF", "PFM"])
def test_floating_point_pixels_keep_their_values(form: str) -> None:
    values = np.array([[0, 0.25, 0.5], [0.001, 0.8, 1]], np.float32)
    # The rows of a PFM file begin at the bottom.
    content = saved(Image.fromarray(values), "TIFF") if form == "TIFF" else b"Pf 3 2 -1.0\n" + values[::-1].tobytes()
    assert np.array_equal(seen(content, "L"), [[0, 64, 128], [0, 204, 255]])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[0, np.nan, 1, np.inf]], r"2 of 4 pixels are NaN or infinite"),
        ([[0, 200.5]], r"floating-point pixels from 0 to 200\.5, expected 0 for black to 1 for white"),
        ([[-0.5, 0.5]], r"floating-point pixels from -0\.5 to 0\.5"),
    ],
)
def test_pixels_that_are_no_shade_are_named(values: list, says: str) -> None:
    content = saved(Image.fromarray(np.array(values, np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match=rf"x\.tif does not decode as an image \({says}"):
        decode(content, "x.tif")


def test_whole_numbers_without_a_white_are_refused() -> None:
    content = saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="whole numbers of 32 bits, of which none is known to be white"):
        decode(content, "x.tif")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_honoured(orientation: int, form: str) -> None:
    """Against the definition: where in the picture the file's first row and first column lie."""
    stored = np.zeros((16, 32), np.uint8)
    stored[0, 0:], stored[1:, :16] = 255, 128  # a bright first row, a grey first half of the columns
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"quality": 100} if form in ("JPEG", "WEBP") else {}
    shown = seen(saved(Image.fromarray(stored).convert("RGB"), form, exif=exif, **how), "L").astype(int)
    tall = orientation >= 5
    assert shown.shape == ((32, 16) if tall else (16, 32))
    sides = {"top": shown[0], "bottom": shown[-1], "left": shown[:, 0], "right": shown[:, -1]}
    halves = {
        "left": shown[2:-2, :14],
        "right": shown[2:-2, -14:],
        "top": shown[:14, 2:-2],
        "bottom": shown[-14:, 2:-2],
    }
    row, column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert sides[row].mean() > 200 > sides[opposite[row]].mean()
    assert abs(halves[column].mean() - 128) < 20 and halves[opposite[column]].mean() < 20


def test_damaged_exif_data_cost_no_image() -> None:
    content = saved(noise(), "JPEG", exif=b"Exif\0\0II*\0garbage that is no directory")
    assert np.array_equal(seen(content), seen(saved(noise(), "JPEG")))


def test_alpha_cmyk_and_palette_are_as_defined() -> None:
    rgba = noise("RGBA")
    assert np.array_equal(seen(saved(rgba, "PNG")), np.asarray(rgba)[..., :3]), "the colours beneath"
    ink = noise("CMYK")
    cyan_to_key = np.asarray(ink).astype(float)
    plain = (255 - cyan_to_key[..., :3]) * (255 - cyan_to_key[..., 3:]) / 255
    assert np.abs(seen(saved(ink, "TIFF")) - plain).max() <= 1
    palette = Image.frombytes("P", (2, 1), bytes([1, 0]))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert seen(saved(palette, "PNG", transparency=0)).tolist() == [[[40, 50, 60], [10, 20, 30]]]


def test_what_is_lost_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("one", "two"):
        decode(saved(noise("RGBA"), "PNG"), f"{name}.png")
        decode(saved(noise("CMYK"), "TIFF"), f"{name}.tif")
        decode(DEEP_FILES["PNG"], f"{name}-16.png")
        decode(saved(noise(), "PNG"), f"{name}-plain.png")
    assert [message.split(" ")[0] for message in caplog.messages] == ["one.png", "one.tif", "one-16.png"]
    assert "the colours beneath are seen; other such files are not named" in caplog.messages[0]


def test_what_is_lost_is_said_once_by_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        noise("RGBA").save(tmp_path / f"{number}.png")
    monkeypatch.setattr(module, "_said", mmap.mmap(-1, 3))  # as the module has it
    heard = logging.FileHandler(tmp_path.parent / "heard.txt")
    logging.getLogger("vcreg_hub").addHandler(heard)
    try:
        paths = sorted(map(str, tmp_path.iterdir()))
        loader = DataLoader(paths, batch_size=None, num_workers=2, collate_fn=_size)  # type: ignore[arg-type]
        assert list(loader) == [(20, 14)] * 8
    finally:
        logging.getLogger("vcreg_hub").removeHandler(heard)
        heard.close()
    assert (tmp_path.parent / "heard.txt").read_text().count("alpha channel") == 1


def _size(path: str) -> tuple[int, int]:
    return decode_file(path).size


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = png(60_000, 60_000, 8, 0, b"")
    with pytest.raises(UnreadableImageError, match=r"more than 178,956,970 pixels, as decompression bombs have"):
        decode(bomb, "x.png")


def test_a_large_photograph_is_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns from the limit on and refuses from twice as much on; tests make errors of warnings."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert seen(saved(noise(), "PNG")).shape == (14, 20, 3)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"x\.png cannot be read \(No such file"):
        decode_file(tmp_path / "x.png")


def test_mutated_images_are_read_or_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(np.linspace(0, 1, 300, dtype=np.float32).reshape(15, 20))
    originals = {
        "jpg": saved(noise(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        "png": saved(noise("RGBA"), "PNG"), "16.png": DEEP_FILES["PNG"], "gif": saved(noise("P"), "GIF"),
        "tif": saved(deep, "TIFF"), "webp": saved(noise(), "WEBP"), "bmp": saved(noise(), "BMP"),
        "jp2": saved(noise(), "JPEG2000"),
    }  # fmt: skip
    for form, content in originals.items():
        for seed in range(30):
            (tmp_path / f"{seed:02}.{form}").write_bytes(mutated(content, seed))
    found = outcomes(tmp_path, "image.decode", "decode_file", "UnreadableImageError")
    assert len(found) == 240 and set(found.values()) == {"read", "refused"}
