"""Views of a photo that a network is trained on: crops, thumbnails and network-sized copies."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qatie_cli.data import degradation
from qatie_cli.data.sampling import Box, in_pixels
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.model.tone import VIEW_PX, points
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


def thumbnail(overview: Image.Image, frame: Box, flip: bool) -> np.ndarray:
    """The thumbnail (64, 64, 3) float32 in 0..1 of the part `frame` of a photo, as `tone.thumbnail` makes it."""
    return points(crop(overview, frame, VIEW_PX, flip))


def stack(photos_hwc: list[np.ndarray]) -> Tensor:
    """Photos (H, W, 3) of one size as (N, 3, H, W)."""
    return torch.from_numpy(np.stack(photos_hwc)).permute(0, 3, 1, 2).contiguous()
