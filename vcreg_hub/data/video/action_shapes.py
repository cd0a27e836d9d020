"""Makes a small video set on the spot, in HMDB51's layout: textured shapes in motion, sliding or spinning.

Only motion tells the classes apart. Position, angle, shape, texture and background are drawn alike for all
of them and a sliding shape re-enters at the opposite edge, so every single frame of a class could be of any
other class, and a clip of one class played backwards is a clip of its opposite. Textures belong to a source
"video", of which each class has several clips; splits part sources, as HMDB51's part the films. File names
hold the characters HMDB51's do.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ConfigError, DataError
from ...files import write_json, write_text
from .decode import write_video

# Per frame and unit of speed: shift right, shift down (both in pixels), turn (in twelfths of a radian).
MOTIONS: dict[str, tuple[int, int, int]] = {
    "slide_down": (0, 1, 0),
    "slide_left": (-1, 0, 0),
    "slide_right": (1, 0, 0),
    "slide_up": (0, -1, 0),
    "spin": (0, 0, 1),
    "spin_back": (0, 0, -1),
}
CLASSES = tuple(MOTIONS)
# The name of the set that is made `compound`.
COMPOUND = "action_shapes_compound"
# Of `compound` sets: every diagonal, alone and with a turn. None of them is one of the motions above.
COMPOUND_MOTIONS: dict[str, tuple[int, int, int]] = {
    f"slide_{vertical}_{horizontal}{turning}": (right, down, turn)
    for vertical, down in (("down", 1), ("up", -1))
    for horizontal, right in (("left", -1), ("right", 1))
    for turning, turn in (("", 0), ("_spin", 1), ("_spin_back", -1))
}
SPLITS = 3
SPLIT_FOLDER = "testTrainMulti_7030_splits"
_SOURCE_NAMES = ("-Dash", "Take[1]", "No#1", "Rock&Roll", "One;Two", "Wow!", "(Parens)", "A+B~C", "plain")
_TEST, _TRAIN, _UNUSED = 2, 1, 0
_MADE, _BEGUN = "action_shapes.json", ".action_shapes-begun"


@dataclass(frozen=True)
class ActionShapes:
    """The set to make: `sources` source videos a class, `clips_per_source` clips of each, of `height` x
    `width` pixels and between `min_frames` and `max_frames` frames (inclusive)."""

    sources: int = 20
    clips_per_source: int = 4
    height: int = 48
    width: int = 64
    min_frames: int = 12
    max_frames: int = 44
    seed: int = 0
    compound: bool = False

    @property
    def motions(self) -> dict[str, tuple[int, int, int]]:
        """Shift right, shift down and turn of each class, as in `MOTIONS`."""
        return COMPOUND_MOTIONS if self.compound else MOTIONS

    def __post_init__(self) -> None:
        if self.sources < 4 or self.clips_per_source < 1:
            raise ConfigError(f"expected at least 4 sources of at least 1 clip each, got {self}")
        if min(self.height, self.width) < 16 or self.height % 2 or self.width % 2:
            raise ConfigError(f"expected even height and width of at least 16 pixels, got {self}")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ConfigError(f"expected 1 <= min_frames <= max_frames, got {self}")


@dataclass(frozen=True)
class _Motion:
    """One clip: where the shape begins (pixels, radians) and how it moves per frame."""

    x: float
    y: float
    angle: float
    dx: float
    dy: float
    turn: float

    def reversed(self, frames: int) -> _Motion:
        """The motion whose clip of `frames` frames is this one's played backwards."""
        last = frames - 1
        return _Motion(
            self.x + last * self.dx,
            self.y + last * self.dy,
            self.angle + last * self.turn,
            -self.dx,
            -self.dy,
            -self.turn,
        )


def make(root: str | Path, spec: ActionShapes = ActionShapes()) -> Path:
    """Make the set under `root`: `videos/<class>/<clip>.avi` and the split files. Returns `root`.

    A folder that already holds this very set is left as it is, and an attempt that was interrupted starts over; one
    that holds anything else is a DataError.
    """
    root = Path(root)
    marker, begun = root / _MADE, root / _BEGUN
    if marker.exists():
        found = dataclasses.asdict(ActionShapes()) | json.loads(marker.read_text(encoding="utf-8"))
        asked = dataclasses.asdict(spec)
        if other := [name for name in found if found[name] != asked.get(name)]:
            has, wants = (", ".join(f"{name} {values.get(name)}" for name in other) for values in (found, asked))
            raise DataError(f"{root} holds an action_shapes set of {has}, not {wants}; choose another folder")
        return root
    if root.exists() and any(root.iterdir()):
        if not begun.exists() or {entry.name for entry in root.iterdir()} - {"videos", SPLIT_FOLDER, begun.name}:
            raise DataError(f"{root} is not empty and holds no action_shapes set; choose another folder")
        shutil.rmtree(root / "videos", ignore_errors=True)
        shutil.rmtree(root / SPLIT_FOLDER, ignore_errors=True)
    # What lies in a folder without this mark is somebody else's, whatever it is called.
    write_text(begun, "")
    for label, name in enumerate(spec.motions):
        folder = root / "videos" / name
        folder.mkdir(parents=True)
        for source in range(spec.sources):
            for take in range(spec.clips_per_source):
                frames = draw_clip(spec, label, source, take)
                write_video(folder / _clip_name(name, source, take), frames)
        for split in range(1, SPLITS + 1):
            write_text(root / SPLIT_FOLDER / f"{name}_test_split{split}.txt", _split_file(spec, name, split))
    write_json(marker, dataclasses.asdict(spec))
    begun.unlink()
    return root


def is_begun(root: Path) -> bool:
    """Whether `make` has been at work in a folder."""
    return (root / _MADE).exists() or (root / _BEGUN).exists()


def _clip_name(class_name: str, source: int, take: int) -> str:
    """HMDB51's pattern: source, class, visible part, camera, people, viewpoint, quality, number."""
    origin = f"{_SOURCE_NAMES[source % len(_SOURCE_NAMES)]}_{source}"
    return f"{origin}_{class_name}_f_{'cm' if source % 2 else 'nm'}_np1_fr_goo_{take}.avi"


def _flag(spec: ActionShapes, source: int, split: int) -> int:
    """1 train, 2 test, 0 unused, as in HMDB51's split files: of each source's clips all go the same way."""
    place = (source * SPLITS + spec.sources * (split - 1)) // SPLITS % spec.sources
    tests, unused = round(0.3 * spec.sources), 1 if spec.sources > 8 else 0
    return _TEST if place < tests else _UNUSED if place < tests + unused else _TRAIN


def draw_clip(spec: ActionShapes, label: int, source: int, take: int) -> np.ndarray:
    """uint8 (t, height, width, 3): clip `take` of a source in a class, the same on every call."""
    draws = np.random.default_rng([spec.seed, 3 if spec.compound else 1, label, source, take])
    length = int(draws.integers(spec.min_frames, spec.max_frames + 1))
    speed = draws.uniform(1.2, 2.4)
    right, down, turn = tuple(spec.motions.values())[label]
    motion = _Motion(
        x=draws.uniform(0, spec.width),
        y=draws.uniform(0, spec.height),
        angle=draws.uniform(0, 2 * np.pi),
        dx=right * speed,
        dy=down * speed,
        turn=turn * speed / 12,
    )
    return _render(spec, source, motion, length)


def _render(spec: ActionShapes, source: int, motion: _Motion, length: int) -> np.ndarray:
    """uint8 (length, height, width, 3): the source's textured shape moving over its background."""
    draws = np.random.default_rng([spec.seed, 2 if spec.compound else 0, source])
    background = _texture(draws, spec.height, spec.width, contrast=12)
    skin = _texture(draws, 32, 32, contrast=70)
    radius = draws.uniform(0.28, 0.36) * spec.height
    corners = int(draws.integers(3, 6))

    time = np.arange(length)[:, None, None]
    # Offsets to the nearest copy of the shape's centre on the torus.
    away_x = (np.arange(spec.width) - motion.x - motion.dx * time + spec.width / 2) % spec.width - spec.width / 2
    rows = np.arange(spec.height)[:, None]
    away_y = (rows - motion.y - motion.dy * time + spec.height / 2) % spec.height - spec.height / 2
    angle = motion.angle + motion.turn * time
    u = np.cos(angle) * away_x + np.sin(angle) * away_y
    v = np.cos(angle) * away_y - np.sin(angle) * away_x

    # A regular polygon: the distance to its boundary along each direction, softened over one pixel.
    sector = 2 * np.pi / corners
    around = (np.arctan2(v, u) + np.pi) % sector - sector / 2
    inside = radius * np.cos(sector / 2) - np.hypot(u, v) * np.cos(around)
    cover = np.clip(inside + 0.5, 0, 1)[..., None]
    columns = np.clip((u / radius + 1) * 16, 0, 31).astype(int)
    lines = np.clip((v / radius + 1) * 16, 0, 31).astype(int)
    picture = cover * skin[lines, columns] + (1 - cover) * background
    return np.round(picture).astype(np.uint8)


def _texture(draws: np.random.Generator, height: int, width: int, contrast: float) -> np.ndarray:
    """(height, width, 3) in [0, 255]: soft random blobs around grey, periodic in both directions;
    `contrast` is their standard deviation."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width) * width)
    keep = np.exp(-((frequency / 3) ** 2))[..., None]
    noise = np.fft.ifft2(np.fft.fft2(draws.normal(size=(height, width, 3)), axes=(0, 1)) * keep, axes=(0, 1)).real
    noise = (noise - noise.mean((0, 1))) / noise.std((0, 1))
    return np.clip(128 + contrast * (noise + draws.uniform(-0.5, 0.5, size=3)), 0, 255)


def _split_file(spec: ActionShapes, name: str, split: int) -> str:
    """The lines of one class in one split: file name, space, flag, space."""
    clips = [(source, take) for source in range(spec.sources) for take in range(spec.clips_per_source)]
    return "".join(f"{_clip_name(name, source, take)} {_flag(spec, source, split)} \n" for source, take in clips)
