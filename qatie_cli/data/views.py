"""Views of a photo: reduced copies, crops and thumbnails. Everything in this room that resizes, resizes here."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qatie_cli.data import degradation
from qatie_cli.data.sampling import Box, in_pixels
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.model.tone import VIEW_PX, points


def reduced(image: Image.Image, longest: int, filter: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The photo with a long side of at most `longest`."""
    if max(image.size) <= longest:
        return image
    return image.resize(_scaled_size(image.size, longest), filter, reducing_gap=2.0)


def reduced_exactly(image: Image.Image, longest: int) -> Image.Image:
    """As `reduced`, but without the box filter in front that makes it fast: for measurements."""
    if max(image.size) <= longest:
        return image
    return image.resize(_scaled_size(image.size, longest), Image.Resampling.BICUBIC)


def network_sized(image: Image.Image, longest: int) -> Image.Image:
    """The photo with a long side of at most `longest`, both sides multiples of 8 and at least 16."""
    scale = min(1.0, longest / max(image.size))
    width, height = (max(2 * SIZE_MULTIPLE, round(s * scale) // SIZE_MULTIPLE * SIZE_MULTIPLE) for s in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def averaged(image: Image.Image, side: int) -> Image.Image:
    """The photo as (side, side) pixels, each the mean of its part."""
    return image.resize((side, side), Image.Resampling.BOX)


def crop(image: Image.Image, box: Box, side: int, flip: bool) -> np.ndarray:
    """The part `box` (shares of width and height) of a photo as (side, side, 3) float32 in 0..1, mirrored if `flip`."""
    part = image.resize((side, side), Image.Resampling.BICUBIC, box=in_pixels(box, image.size), reducing_gap=2.0)
    if flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return degradation.from_u8(np.asarray(part))


def thumbnail(overview: Image.Image, frame: Box, flip: bool) -> np.ndarray:
    """The thumbnail (64, 64, 3) float32 in 0..1 of the part `frame` of a photo, as `tone.thumbnail` makes it."""
    return points(crop(overview, frame, VIEW_PX, flip))


def stack(photos_hwc: list[np.ndarray]) -> Tensor:
    """Photos (H, W, 3) of one size as (N, 3, H, W)."""
    return torch.from_numpy(np.stack(photos_hwc)).permute(0, 3, 1, 2).contiguous()


def _scaled_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = longest / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height
