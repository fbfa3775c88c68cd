"""Y, Cb and Cr of coarse JPEGs as they are stored, which tell more of their compression than RGB does."""

from __future__ import annotations

import numpy as np
from PIL import ImageFile, JpegImagePlugin

from qatie_cli.photo import fineness
from qatie_cli.photo.content import JpegTraits

FINEST = 95  # libjpeg's quality from which nothing is to be seen of the compression
_LARGE, _FINEST_LARGE = 4_200_000, 70  # pixels, and the same for photos above: seen as a whole, they hide it
_RGB_NAMES = (ord("R"), ord("G"), ord("B"))
_LARGEST_STEP = 255  # that `JpegTraits` holds; tables of 16 bit have larger ones
_STRIP_PIXELS = 1 << 18
# Of T.871's conversion in 16 binary places, as libjpeg rounds them: red and blue; green's two.
_RED, _BLUE, _GREEN_OF_BLUE, _GREEN_OF_RED, _HALF = 91881, 116130, -22554, -46802, 1 << 15


def wanted(image: ImageFile.ImageFile, traits: JpegTraits | None) -> bool:
    """Whether an opened image is a JPEG of YCbCr that is coarse enough for its size."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode != "RGB":
        return False
    stored_as_rgb = image.info.get("adobe_transform") == 0 or tuple(layer[0] for layer in image.layer) == _RGB_NAMES
    fits = all(max(table) <= _LARGEST_STEP for table in image.quantization.values())
    if stored_as_rgb or not fits or traits is None or traits.subsampling is None:
        return False
    large = image.width * image.height > _LARGE
    return fineness.of_tables(traits) < (_FINEST_LARGE if large else FINEST)


def keep(image: ImageFile.ImageFile) -> None:
    """Have Pillow decode an opened JPEG without converting it to RGB."""
    image.draft("YCbCr", image.size)


def rgb(components: np.ndarray) -> np.ndarray:
    """RGB of Y, Cb and Cr, (H, W, 3) uint8 both, with libjpeg's bits."""
    out = np.empty_like(components)
    rows = max(1, _STRIP_PIXELS // components.shape[1])
    for top in range(0, len(components), rows):
        luma, blue, red = np.moveaxis(components[top : top + rows].astype(np.int32), -1, 0)
        blue, red = blue - 128, red - 128
        added = (
            (_RED * red + _HALF) >> 16,
            (_GREEN_OF_BLUE * blue + _GREEN_OF_RED * red + _HALF) >> 16,
            (_BLUE * blue + _HALF) >> 16,
        )
        for channel, more in enumerate(added):
            out[top : top + rows, :, channel] = np.clip(luma + more, 0, 255)
    return out
