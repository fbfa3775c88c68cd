"""What the tone stage sees of a photo: a small view of all of it."""

from __future__ import annotations

import numpy as np

from qatie_cli.model.config import GLOBAL_VIEW_PX, LOCAL_VIEW_PX, THUMBNAIL_PX
from qatie_cli.photo import resize

# Larger photos are first reduced to about this short side, in strips, so that no second whole photo is held.
_OVERVIEW_PX = 1024


def reduced(pixels_hwc: np.ndarray) -> np.ndarray:
    """A whole photo (H, W, 3), uint8 or uint16, reduced to a short side of about 1024 px where it is larger: uint8."""
    return resize.reduce_by(pixels_hwc, max(1, min(pixels_hwc.shape[:2]) // _OVERVIEW_PX), _high_bytes)


def _high_bytes(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def view_nchw(pixels_hwc: np.ndarray, side: int = THUMBNAIL_PX) -> np.ndarray:
    """The view (1, 3, side, side) float32 in 0..1 that a stage of this `view_px` is given of a photo (H, W, 3).

    The photo is of 8 or of 16 bit.
    """
    return np.ascontiguousarray((view_u8(pixels_hwc, side).astype(np.float32) / 255).transpose(2, 0, 1)[None])


def view_u8(pixels_hwc: np.ndarray, side: int = THUMBNAIL_PX) -> np.ndarray:
    """The same as a picture (side, side, 3) uint8."""
    return np.ascontiguousarray(subsampled(resize.to_square(reduced(pixels_hwc), averaged_px(side)), side))


def averaged_px(side: int) -> int:
    """Side of the square that the view of a stage's `view_px` is taken from."""
    return LOCAL_VIEW_PX if side == LOCAL_VIEW_PX else GLOBAL_VIEW_PX


def subsampled(averaged_hwc: np.ndarray, side: int) -> np.ndarray:
    """Of an averaged square (S, S, 3) the pixels (side, side, 3) that make a view: every S / side-th of each row."""
    step = averaged_hwc.shape[0] // side
    return averaged_hwc[step // 2 :: step, step // 2 :: step]
