"""Views of a photo that a network is trained on: crops, thumbnails and network-sized copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qatie_cli.data import degradation
from qatie_cli.data.sampling import Box, Place, in_pixels
from qatie_cli.model.config import SIZE_MULTIPLE
from qatie_cli.model.view import averaged_px, subsampled
from qatie_cli.photo import resize


def network_sized(image: Image.Image, longest: int) -> Image.Image:
    """The photo with a long side of at most `longest`, both sides multiples of 8 and at least 16."""
    scale = min(1.0, longest / max(image.size))
    width, height = (max(2 * SIZE_MULTIPLE, round(s * scale) // SIZE_MULTIPLE * SIZE_MULTIPLE) for s in image.size)
    return resize.to_size(image, (width, height))


def crop(image: Image.Image, box: Box, side: int, flip: bool) -> np.ndarray:
    """The part `box` (shares of width and height) of a photo as (side, side, 3) float32 in 0..1, mirrored if `flip`."""
    inside = in_pixels(box, image.size)
    part = resize.to_square(image, side, resize.CUBIC, box=inside, reducing_gap=resize.REDUCING_GAP)
    if flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return degradation.from_u8(np.asarray(part))


def view(overview: Image.Image, frame: Box, side: int, flip: bool) -> np.ndarray:
    """The view (side, side, 3) float32 in 0..1 of the part `frame` of a photo, as `view.view_u8` makes it."""
    return subsampled(crop(overview, frame, averaged_px(side), flip), side)


def boxes(places: Sequence[Place]) -> Tensor:
    """Where crops lie in their frames, mirrored as they are: (N, 4), left, top, right, bottom as shares."""
    found = []
    for place in places:
        left, top, right, bottom = place.frame
        width, height = right - left, bottom - top
        x0, x1 = ((x - left) / width for x in (place.crop[0], place.crop[2]))
        y0, y1 = ((y - top) / height for y in (place.crop[1], place.crop[3]))
        found.append((1 - x1, y0, 1 - x0, y1) if place.flip else (x0, y0, x1, y1))
    return torch.tensor(found, dtype=torch.float32)


def stack(photos_hwc: list[np.ndarray]) -> Tensor:
    """Photos (H, W, 3) of one size as (N, 3, H, W)."""
    return torch.from_numpy(np.stack(photos_hwc)).permute(0, 3, 1, 2).contiguous()


def only(photos: Tensor) -> np.ndarray:
    """The one photo of (1, 3, H, W) as (H, W, 3): the inverse of `stack` for one."""
    (photo,) = photos
    return np.ascontiguousarray(photo.permute(1, 2, 0).numpy())
