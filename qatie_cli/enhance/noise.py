"""How noisy a photo is, judged by what no surface has: colours that differ from pixel to pixel in its calm parts.

Plaster, leaves and asphalt are as fine and as strong as noise, but gray or of one colour. What a sensor adds differs
between its colour filters, so that the chroma of calm parts tells noise from texture where luma cannot.
"""

from __future__ import annotations

import numpy as np

NOISY_LEVELS = 0.2  # phones' photos of 2007 to 2015 have 0.2 to 0.75 at full size, most newer ones 0 to 0.16
CLEAN_LEVELS = 0.1  # below that, more and more of what looks like noise is texture
_BLOCKS, _SIDE = 10, 34  # 10 x 10 blocks of 34 x 34 pixels stand for the photo
_DARKEST, _WHITE = 6, 250  # levels; blocks darker than the one, or blown beyond the other, say nothing
_FEWEST = 8
_CALMEST = 0.25  # the rank among the blocks: the calm ones have no colours of their own


def colour_noise(pixels: np.ndarray) -> float | None:
    """Standard deviation of chroma against its 3 x 3 mean, in levels of 8 bit, in the calm parts of a photo.

    Args:
        pixels: (H, W, 1 or 3) uint8 or uint16, encoded.

    Returns:
        None where it cannot be told: of a gray photo, and of one with next to nothing that is neither black nor blown.
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
