"""An estimate of a photo's noise, from the chroma of its smooth parts.

Plaster, leaves and asphalt are as fine and as strong as noise, but of one colour. A sensor's noise differs between its
colour filters, so chroma tells noise from texture where luma cannot.
"""

from __future__ import annotations

import numpy as np

NOISY_LEVELS = 0.2  # phones' photos of 2007 to 2015 have 0.2 to 0.75 at full size, most newer ones 0 to 0.16
CLEAN_LEVELS = 0.1  # below, more and more of what looks like noise is texture
_BLOCKS, _SIDE = 10, 34  # 10 x 10 blocks of 34 x 34 pixels stand for the photo
_DARKEST, _WHITE = 6, 250  # levels; darker and blown blocks are ignored
_FEWEST = 8
_CALMEST = 0.25  # quantile over the blocks: the smoothest have no chroma detail of their own


def colour_noise(pixels: np.ndarray) -> float | None:
    """Standard deviation of chroma around its 3 x 3 mean, in 8-bit levels, in the smooth parts of a photo.

    Args:
        pixels: (H, W, 1 or 3) uint8 or uint16, encoded.

    Returns:
        None if it cannot be measured: for a gray photo, and for one that is almost all black or blown.
    """
    height, width, channels = pixels.shape
    if channels != 3 or min(height, width) < _SIDE:
        return None
    tops, lefts = (np.unique(np.linspace(0, side - _SIDE, _BLOCKS).astype(int)) for side in (height, width))
    blocks = np.stack([pixels[t : t + _SIDE, x : x + _SIDE] for t in tops for x in lefts]).astype(np.float32)
    if pixels.dtype == np.uint16:
        blocks /= 257
    blown = (blocks.max(axis=3) >= _WHITE).mean(axis=(1, 2))
    blocks = blocks[(blocks.mean(axis=(1, 2, 3)) >= _DARKEST) & (blown < 0.3)]
    if len(blocks) < _FEWEST:
        return None
    red, green, blue = np.moveaxis(blocks, 3, 0)
    chroma = np.stack([(red - green) / 2, blue / 2 - (red + green) / 4])
    inner = _SIDE - 2
    around = sum(chroma[..., y : y + inner, x : x + inner] for y in range(3) for x in range(3)) / 9
    deviations = (chroma[..., 1:-1, 1:-1] - around).std(axis=(2, 3)).mean(axis=0)
    return float(np.quantile(deviations, _CALMEST))
