"""Pictures for benchmarks."""

from __future__ import annotations

import numpy as np

from qatie_cli.photo import resize


def resized(photo: np.ndarray, size: tuple[int, int] | float | None) -> np.ndarray:
    """A photo (H, W, 3) at the size asked for, rounded to sides that are multiples of 8."""
    height, width = photo.shape[:2]
    if isinstance(size, tuple):
        width, height = size
    elif size is not None:
        scale = (size / (width * height)) ** 0.5
        width, height = round(width * scale), round(height * scale)
    width, height = (max(8, round(side / 8) * 8) for side in (width, height))
    return resize.to_size(photo, (width, height))


def generated(width: int = 1024, height: int = 768) -> np.ndarray:
    """A synthetic picture (height, width, 3): clouds at all scales, edges, a little noise."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        small = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        picture += resize.to_size(small, (width, height)).astype(np.float32) / cells**0.5
    picture *= 200 / picture.max()
    picture[height // 4 : height // 2, width // 4 : width // 2] *= 0.4
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
