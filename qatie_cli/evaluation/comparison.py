"""Comparing two results of the same photos: matching by name, and similarity."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from qatie_cli import metrics
from qatie_cli.errors import DataError, UsageError
from qatie_cli.metrics import BEST_DB
from qatie_cli.photo import MAX_PIXELS, colour, decoding, discovery
from qatie_cli.photo.content import Photo

_STRIP_PIXELS = 1 << 20  # compared at a time; CIEDE2000 takes some 400 bytes per pixel
_SSIM_RADIUS = 5  # pixels, of a Gaussian of 1.5 px truncated at 3.5 sigma; SSIM is undefined closer to the edges


@dataclass(frozen=True)
class PhotoPair:
    """Two files of one photo, and its name."""

    name: str
    first: Path
    second: Path


@dataclass(frozen=True)
class Unpaired:
    """A photo that cannot be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Similarity:
    """Metrics of two photos, or means over photos, in 8-bit sRGB at full size.

    `ssim` is None for photos smaller than its window.
    """

    psnr_db: float
    ssim: float | None
    ciede2000: float


def find_pairs(first: Path, second: Path) -> tuple[list[PhotoPair], list[Unpaired]]:
    """Match two files, or the photos of two folders by relative path; suffixes may differ.

    Raises:
        UsageError: there is no such file or folder, or one is a file and the other a folder.
    """
    for path in (first, second):
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    if first.is_dir() != second.is_dir():
        raise UsageError(
            f"One of {first} and {second} is a folder, the other is not.", "Give two folders or two files."
        )
    if not first.is_dir():
        return [PhotoPair(first.name, first, second)], []
    left_out: list[Unpaired] = []
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
            left_out.append(Unpaired(name, _why_unpaired(stems, stem, theirs_called)))
    matched = set(names.values())
    left_out += [Unpaired(n, _why_unpaired(stems[::-1], _stem(n), ours_called)) for n in rest[1] if n not in matched]
    pairs = [PhotoPair(name, ours[name], theirs[names[name]]) for name in sorted(names, key=discovery.natural)]
    return pairs, sorted(left_out, key=lambda photo: discovery.natural(photo.name))


def labels(first: Path, second: Path) -> tuple[str, str]:
    """Names of the two sides, with enough parent folders to distinguish them."""
    a, b = first.absolute().parts, second.absolute().parts
    for length in range(1, max(len(a), len(b)) + 1):
        if a[-length:] != b[-length:]:
            return discovery.readable("/".join(a[-length:])), discovery.readable("/".join(b[-length:]))
    return discovery.readable(first.name), discovery.readable(second.name)


def _photos(folder: Path, left_out: list[Unpaired]) -> dict[str, Path]:
    found = discovery.find(folder)
    left_out += [Unpaired(str(path), f"cannot be searched: {reason}") for path, reason in found.unsearched]
    return {path.relative_to(folder).as_posix(): path for path in found.photos}


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _why_unpaired(stems: Sequence[collections.Counter], stem: str, other: str) -> str:
    if stems[1][stem] and max(stems[0][stem], stems[1][stem]) > 1:
        return f"has no partner in {other}: several photos have that name"
    return f"has no partner in {other}"


def load(pair: PhotoPair, max_pixels: int = MAX_PIXELS) -> tuple[Photo, Photo]:
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


def similarity(first: Photo, second: Photo) -> Similarity:
    """Metrics of two photos of one size; alpha is ignored.

    Equal to `metrics` of the whole photos, but computed in strips so that large photos fit into memory.
    """
    height, width = first.pixels.shape[:2]
    srgb_first, srgb_second = _InSrgb(first), _InSrgb(second)
    squares, colours = 0.0, 0.0
    for top, bottom in _strips(0, height, width):
        a, b = srgb_first.rows(top, bottom), srgb_second.rows(top, bottom)
        squares += float(((a.astype(np.float32) - b) ** 2).sum(dtype=np.float64))
        colours += metrics.ciede2000(a, b) * (bottom - top)
    error = squares / (height * width * 3)
    psnr = BEST_DB if error == 0 else min(BEST_DB, float(10 * np.log10(255**2 / error)))
    return Similarity(psnr, _ssim(srgb_first, srgb_second, height, width), colours / height)


def _ssim(first: _InSrgb, second: _InSrgb, height: int, width: int) -> float | None:
    if min(height, width) <= 2 * _SSIM_RADIUS:
        return None
    total = 0.0
    for top, bottom in _strips(_SSIM_RADIUS, height - _SSIM_RADIUS, width):
        rows = top - _SSIM_RADIUS, bottom + _SSIM_RADIUS
        total += metrics.ssim(first.rows(*rows), second.rows(*rows)) * (bottom - top)
    return total / (height - 2 * _SSIM_RADIUS)


def amplified_difference(first: Photo, second: Photo, factor: int) -> Photo:
    """|first - second| times `factor` in sRGB, clipped: black where they are equal."""
    height, width = first.pixels.shape[:2]
    srgb_first, srgb_second = _InSrgb(first), _InSrgb(second)
    out = np.empty((height, width, 3), np.uint8)
    for top, bottom in _strips(0, height, width):
        moved = np.abs(srgb_first.rows(top, bottom).astype(np.int16) - srgb_second.rows(top, bottom))
        out[top:bottom] = np.minimum(moved.astype(np.int32) * factor, 255)
    return Photo(out, "png")


class _InSrgb:
    """A photo in 8-bit sRGB, converted row by row."""

    def __init__(self, photo: Photo) -> None:
        self._photo, self._colours = photo, colour.of_photo(photo)

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W, 3) uint8."""
        part = Photo(self._photo.pixels[top:bottom], "png").rgb_u8()
        return part if self._colours is None else self._colours.to_srgb(part)


def _strips(top: int, bottom: int, width: int) -> list[tuple[int, int]]:
    rows = max(1, _STRIP_PIXELS // width)
    return [(first, min(first + rows, bottom)) for first in range(top, bottom, rows)]


def mean(similarities: Sequence[Similarity]) -> Similarity:
    """Means over photos; SSIM's over those that have one."""
    ssim = [s.ssim for s in similarities if s.ssim is not None]
    return Similarity(
        float(np.mean([s.psnr_db for s in similarities])),
        float(np.mean(ssim)) if ssim else None,
        float(np.mean([s.ciede2000 for s in similarities])),
    )


def worst(similarities: Sequence[Similarity]) -> Similarity:
    """The worst value of each metric."""
    ssim = [s.ssim for s in similarities if s.ssim is not None]
    return Similarity(
        min(s.psnr_db for s in similarities),
        min(ssim) if ssim else None,
        max(s.ciede2000 for s in similarities),
    )
