"""Two results of the same photos: which belong together, and how far they are apart."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from qatie_cli import metrics
from qatie_cli.errors import DataError, UsageError
from qatie_cli.metrics import BEST_DB
from qatie_cli.photo import MAX_PIXELS, colour, decoding, discovery, formats
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import discover

_STRIP_PIXELS = 1 << 20  # compared at a time: CIEDE2000 takes some 400 bytes a pixel
_SSIM_RADIUS = 5  # pixels that SSIM's window reaches (1.5 px, cut off at 3.5 of them), which it leaves out at the edges


@dataclass(frozen=True)
class Pair:
    """Two files of one photo, and the name that both have."""

    name: str
    first: Path
    second: Path


@dataclass(frozen=True)
class Alone:
    """A file that cannot be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Distance:
    """How far two photos, or the means of many, are apart in 8-bit sRGB at full size.

    `ssim` is None for a photo too small for it. Means are means over photos.
    """

    psnr_db: float
    ssim: float | None
    ciede2000: float


def find_pairs(first: Path, second: Path) -> tuple[list[Pair], list[Alone]]:
    """The photos that two files or two folders have in common, by relative path; suffixes may differ.

    Raises:
        UsageError: there is no such file or folder, or one is a file and the other a folder.
    """
    for path in (first, second):
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    if first.is_dir() != second.is_dir():
        raise UsageError(
            f"One of {first} and {second} is a folder, the other is not.", "Name two folders or two files."
        )
    if not first.is_dir():
        return [Pair(first.name, first, second)], []
    left_out: list[Alone] = []
    ours, theirs = (_photos(folder, left_out) for folder in (first, second))
    ours_called, theirs_called = labels(first, second)
    names = {name: name for name in ours if name in theirs}
    rest = [[name for name in side if name not in names] for side in (ours, theirs)]
    stems = [collections.Counter(_stem(name) for name in side) for side in rest]
    by_stem = {_stem(name): name for name in rest[1]}
    for name in rest[0]:
        stem = _stem(name)
        if stems[0][stem] == 1 and stems[1][stem] == 1:
            names[name] = by_stem[stem]
        else:
            left_out.append(Alone(name, _why_alone(stems, stem, theirs_called)))
    matched = set(names.values())
    left_out += [Alone(n, _why_alone(stems[::-1], _stem(n), ours_called)) for n in rest[1] if n not in matched]
    pairs = [Pair(name, ours[name], theirs[names[name]]) for name in sorted(names, key=discovery.natural)]
    return pairs, sorted(left_out, key=lambda alone: discovery.natural(alone.name))


def labels(first: Path, second: Path) -> tuple[str, str]:
    """What two sides are called: their names, with as many folders before them as it takes to tell them apart."""
    a, b = first.absolute().parts, second.absolute().parts
    for length in range(1, max(len(a), len(b)) + 1):
        if a[-length:] != b[-length:]:
            return discovery.readable("/".join(a[-length:])), discovery.readable("/".join(b[-length:]))
    return discovery.readable(first.name), discovery.readable(second.name)


def _photos(folder: Path, left_out: list[Alone]) -> dict[str, Path]:
    unsearched: list[tuple[Path, str]] = []
    found = [path for path in discover(folder, True, None, unsearched) if formats.has_photo_suffix(path)]
    left_out += [Alone(str(path), f"cannot be searched: {reason}") for path, reason in unsearched]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _why_alone(stems: Sequence[collections.Counter], stem: str, other: str) -> str:
    if stems[1][stem] and max(stems[0][stem], stems[1][stem]) > 1:
        return f"has no partner of its own in {other}: several photos have that name there or here"
    return f"has no partner in {other}"


def load(pair: Pair, max_pixels: int = MAX_PIXELS) -> tuple[Photo, Photo]:
    """Both photos, upright and of one size.

    Raises:
        PhotoError: one of them cannot be read.
        DataError: they differ in size.
    """
    photos = [decoding.read(path, max_pixels) for path in (pair.first, pair.second)]
    (height, width), (other_height, other_width) = (photo.pixels.shape[:2] for photo in photos)
    if (height, width) != (other_height, other_width):
        raise DataError(f"{pair.name}: {width}x{height} against {other_width}x{other_height} pixels.")
    return photos[0], photos[1]


def distance(first: Photo, second: Photo) -> Distance:
    """How far two photos of one size are apart; transparency does not count.

    It is what `metrics` gives of the whole photos, computed in strips so that large ones fit into memory.
    """
    height, width = first.pixels.shape[:2]
    seen_first, seen_second = _Seen(first), _Seen(second)
    squares, colours = 0.0, 0.0
    for top, bottom in _strips(0, height, width):
        a, b = seen_first.rows(top, bottom), seen_second.rows(top, bottom)
        squares += float(((a.astype(np.float32) - b) ** 2).sum(dtype=np.float64))
        colours += metrics.ciede2000(a, b) * (bottom - top)
    error = squares / (height * width * 3)
    psnr = BEST_DB if error == 0 else min(BEST_DB, float(10 * np.log10(255**2 / error)))
    return Distance(psnr, _ssim(seen_first, seen_second, height, width), colours / height)


def _ssim(first: _Seen, second: _Seen, height: int, width: int) -> float | None:
    if min(height, width) <= 2 * _SSIM_RADIUS:
        return None
    total = 0.0
    for top, bottom in _strips(_SSIM_RADIUS, height - _SSIM_RADIUS, width):
        rows = top - _SSIM_RADIUS, bottom + _SSIM_RADIUS
        total += metrics.ssim(first.rows(*rows), second.rows(*rows)) * (bottom - top)
    return total / (height - 2 * _SSIM_RADIUS)


def amplified_difference(first: Photo, second: Photo, factor: int) -> Photo:
    """|first - second| times `factor` in sRGB, clipped: black where both are equal."""
    height, width = first.pixels.shape[:2]
    seen_first, seen_second = _Seen(first), _Seen(second)
    out = np.empty((height, width, 3), np.uint8)
    for top, bottom in _strips(0, height, width):
        moved = np.abs(seen_first.rows(top, bottom).astype(np.int16) - seen_second.rows(top, bottom))
        out[top:bottom] = np.minimum(moved.astype(np.int32) * factor, 255)
    return Photo(out, "png")


class _Seen:
    """A photo in 8-bit sRGB, part by part."""

    def __init__(self, photo: Photo) -> None:
        self._photo, self._colours = photo, colour.of_profile(photo.icc)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W, 3) uint8."""
        part = Photo(self._photo.pixels[top:bottom], "png").rgb_u8()
        return part if self._colours is None else self._colours.to_srgb(part)


def _strips(top: int, bottom: int, width: int) -> list[tuple[int, int]]:
    rows = max(1, _STRIP_PIXELS // width)
    return [(first, min(first + rows, bottom)) for first in range(top, bottom, rows)]


def mean(distances: Sequence[Distance]) -> Distance:
    """Means over photos; SSIM over those that are large enough for it."""
    similar = [d.ssim for d in distances if d.ssim is not None]
    return Distance(
        float(np.mean([d.psnr_db for d in distances])),
        float(np.mean(similar)) if similar else None,
        float(np.mean([d.ciede2000 for d in distances])),
    )


def worst(distances: Sequence[Distance]) -> Distance:
    """The worst of each figure."""
    similar = [d.ssim for d in distances if d.ssim is not None]
    return Distance(
        min(d.psnr_db for d in distances),
        min(similar) if similar else None,
        max(d.ciede2000 for d in distances),
    )
