"""Resizing of Pillow images and arrays (H, W, 1, 3 or 4) uint8.

Filters work on sRGB-encoded values, not in linear light. The tone stage is trained on views made by these functions, so
changing a filter changes every output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import Image

from qatie_cli.photo.content import to_eight_bit

# AREA averages the pixels that a new one covers; CUBIC is a = -0.5 and widened when reducing, like LANCZOS (a = 3).
AREA, CUBIC, LANCZOS = Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
LINEAR = Image.Resampling.BILINEAR
# Averages whole pixels down to this many times the size before filtering: faster, at a small loss of exactness.
REDUCING_GAP = 2.0
_STRIP_PIXELS = 1 << 20  # passed to Pillow at a time, which takes four bytes for each

Picture = TypeVar("Picture", Image.Image, np.ndarray)
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def size_within(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height scaled down in proportion until the long side is at most `longest`."""
    scale = min(1.0, longest / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def fit(
    picture: Picture, longest: int, filter: Image.Resampling = CUBIC, *, reducing_gap: float | None = None
) -> Picture:
    """The picture with a long side of at most `longest`; the same object if it already fits."""
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    if max(width, height) <= longest:
        return picture
    return to_size(picture, size_within(width, height, longest), filter, reducing_gap=reducing_gap)


def to_square(
    picture: Picture,
    side: int,
    filter: Image.Resampling = AREA,
    *,
    box: Box | None = None,
    reducing_gap: float | None = None,
) -> Picture:
    """The picture, or the part `box` of it, squeezed to (side, side) whatever its proportions."""
    return to_size(picture, (side, side), filter, box=box, reducing_gap=reducing_gap)


def to_size(
    picture: Picture,
    size: tuple[int, int],
    filter: Image.Resampling = CUBIC,
    *,
    box: Box | None = None,
    reducing_gap: float | None = None,
) -> Picture:
    """The picture, or the part `box` of it, at `size` (width, height). An array is returned as a new, writable one."""
    if isinstance(picture, Image.Image):
        return picture.resize(size, filter, box, reducing_gap)
    return _array(_image(picture).resize(size, filter, box, reducing_gap), picture.ndim)


def reduce_by(pixels: np.ndarray, factor: int, to_u8: Callable[[np.ndarray], np.ndarray] = to_eight_bit) -> np.ndarray:
    """Means of factor x factor pixels of (H, W, channels) uint8 or uint16, as uint8; edges average what there is.

    Works in strips, so that next to the photo only the result is held. `to_u8` converts a strip of 16 bit first.
    """
    height, width = pixels.shape[:2]
    rows = factor * max(1, _STRIP_PIXELS // (factor * width))
    strips = (_image(to_u8(pixels[top : top + rows])) for top in range(0, height, rows))
    return np.concatenate([_array(strip.reduce(factor), pixels.ndim) for strip in strips])


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _array(image: Image.Image, dimensions: int) -> np.ndarray:
    pixels = np.array(image)
    return pixels if pixels.ndim == dimensions else pixels[..., None]
