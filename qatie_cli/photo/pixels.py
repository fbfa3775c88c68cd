"""Pixels of an opened image of any mode: upright, gray or RGB, 8 or 16 bit."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin

from qatie_cli.photo import components, deep, exif

# Damaged markers or chunks make decoders raise nearly anything.
DECODE_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, EOFError, struct.error, zlib.error,
                 OverflowError, ZeroDivisionError, AttributeError, RuntimeError, NotImplementedError)  # fmt: skip
_COPIED_PIXELS = 1 << 17  # from Pillow at a time, in the processor's cache: a third of the time of 1 << 22
_STRIP_PIXELS = 1 << 22
GRAY_MODES = {"1", "L", "LA", "La", "I", "F"}
_SIXTEEN_BIT_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
SIXTEEN_BIT_MODES = (*_SIXTEEN_BIT_GRAY, "I", "F")  # that become 16-bit gray
_BITS_PER_SAMPLE_TAG, _PHOTOMETRIC_TAG = 258, 262


@dataclass(frozen=True)
class Decoded:
    """Upright pixels (H, W, 1 or 3) and alpha (H, W) of one type, uint8 or uint16.

    `mode` is Pillow's, "RGB" for a file with 16-bit colours; `orientation` is the EXIF value that has been applied.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    mode: str
    orientation: int
    bits: int | None = None  # that the file's values have, where they are not 8 or 16
    components: np.ndarray | None = None  # of a coarse JPEG, as `Photo` has them


def decode(image: ImageFile.ImageFile, file: BinaryIO, bits: int = 8, keep_components: bool = False) -> Decoded:
    """Decode an opened image and close it.

    CMYK and LAB are converted to sRGB, floating point and 32-bit integers become 16 bit.

    Args:
        file: a second handle of the same file.
        bits: per channel of a HEIC or AVIF picture (`deep.bits_of`).
        keep_components: return those of a JPEG, too (`components.wanted`).

    Raises:
        NotImplementedError: integers of more than 16 bit.
    """
    own_bits: int | None = None
    stored: np.ndarray | None = None
    white_is_zero = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == 0
    if has_sixteen_bit_colours(image) and (wide := _sixteen_bit_colours(image, file)) is not None:
        (pixels, alpha), orientation, mode = wide, orientation_of(image), "RGB"
    elif image.format in ("HEIF", "AVIF") and bits > 8 and (found := _deep_colours(image, file, bits)) is not None:
        pixels, alpha = found
        orientation, mode, own_bits = orientation_of(image), "RGB", bits
        image.close()
    elif keep_components:
        components.keep(image)
        image.load()
        orientation, mode = orientation_of(image), "RGB"
        stored = _array(image)
        image.close()
        pixels, alpha = components.rgb(stored), None
    else:
        image.load()
        orientation, mode = orientation_of(image), image.mode
        pixels, alpha = _of_mode(image)
        image.close()  # frees its pixels, so that two copies exist only during conversion
    if white_is_zero and mode in _SIXTEEN_BIT_GRAY:  # Pillow inverts 1 and 8 bit only
        pixels = 65535 - pixels
    alpha = None if alpha is None else upright(alpha, orientation)
    return Decoded(upright(pixels, orientation), alpha, mode, orientation, own_bits, stored)


def has_sixteen_bit_colours(image: ImageFile.ImageFile) -> bool:
    """Whether a file has 16-bit colours, which Pillow would truncate."""
    if image.format == "PNG" and image.tile:
        return ";16B" in str(image.tile[0][3]) and not image.mode.startswith("I")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.mode in ("RGB", "RGBA") and 16 in image.tag_v2.get(_BITS_PER_SAMPLE_TAG, ())


def orientation_of(image: ImageFile.ImageFile) -> int:
    """EXIF's orientation; 1 if EXIF is damaged."""
    try:
        return image.getexif().get(exif.ORIENTATION, 1)
    except DECODE_ERRORS:
        return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W[, channels]) turned by EXIF's orientation 2..8 (EXIF 2.3, 4.6.4)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


# --- what Pillow decodes ------------------------------------------------------------------------------------------


def _of_mode(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) pixels and (H, W) alpha of an image of any mode, as stored."""
    if image.mode in _SIXTEEN_BIT_GRAY:
        values = _array(image, np.uint16)
        transparent = image.info.get("transparency")
        alpha = np.where(values == transparent, 0, 65535).astype(np.uint16) if isinstance(transparent, int) else None
        return values[..., None], alpha
    if image.mode == "I":
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise NotImplementedError("32-bit integers")
        return values.astype(np.uint16)[..., None], None
    if image.mode == "F":
        return _of_floats(np.asarray(image))[..., None], None
    if image.mode == "CMYK":
        return _array(_cmyk_to_rgb(image)), None
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    gray = image.mode in GRAY_MODES
    if not has_alpha:
        wanted = "L" if gray else "RGB"
        converted = _array(image if image.mode == wanted else image.convert(wanted))
        return (converted[..., None] if gray else converted), None
    converted = _array(image if image.mode == "RGBA" else image.convert("RGBA"))
    alpha = np.ascontiguousarray(converted[..., 3])
    return np.ascontiguousarray(converted[..., :1] if gray else converted[..., :3]), alpha


def _of_floats(values: np.ndarray) -> np.ndarray:
    """uint16 of gray floating point; white is 1.0, or the largest value if that is more.

    Integers up to 255 or 65535 are 8-bit or 16-bit levels.
    """
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0))
    level = 65535 / max(top, 1.0)
    if top > 1 and top <= 65535 and (values == np.rint(values)).all():
        level = 257 if top <= 255 else 1
    return np.clip(np.rint(values * level), 0, 65535).astype(np.uint16)


def _array(image: Image.Image, dtype: Any = np.uint8) -> np.ndarray:
    """(H, W[, channels]) of an image, copied in strips: copying it at once takes twice its size."""
    channels = len(image.getbands())
    out = np.empty((image.height, image.width) + ((channels,) if channels > 1 else ()), dtype)
    rows = max(1, _COPIED_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        out[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return out


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """sRGB of a CMYK image, through its own profile if that is usable."""
    profile = image.info.get("icc_profile")
    if profile:
        # With a broken profile, use the uncalibrated conversion below, like viewers.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")


# --- 16-bit colours -----------------------------------------------------------------------------------------------


def _sixteen_bit_colours(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels and alpha, as stored; None if the file holds something else."""
    file.seek(0)
    values = _png_values(file) if image.format == "PNG" else _tiff_values(file, image.tell())
    if values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (2, 3, 4):
        return None
    colours = values.shape[2] - 1 if values.shape[2] in (2, 4) else 3
    alpha = np.ascontiguousarray(values[..., colours]) if values.shape[2] > colours else None
    return np.ascontiguousarray(values[..., :colours]), alpha


def _deep_colours(image: ImageFile.ImageFile, file: BinaryIO, bits: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels and alpha of a HEIC or AVIF picture of more than 8 bit; None if only Pillow can decode the file."""
    values = deep.decode(image, file, bits)
    if values is None:
        return None
    colours = values.shape[2] - 1 if values.shape[2] in (2, 4) else values.shape[2]
    alpha = np.ascontiguousarray(values[..., colours]) if values.shape[2] > colours else None
    return np.ascontiguousarray(values[..., :colours]), alpha


def _png_values(file: BinaryIO) -> np.ndarray:
    import imagecodecs

    return imagecodecs.png_decode(file.read())


def _tiff_values(file: BinaryIO, number: int) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(file) as opened:
        page = opened.pages[number]
        assert isinstance(page, tifffile.TiffPage)  # tifffile treats pages as frames only on request
        values = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        values = np.moveaxis(values, 0, -1)
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples and values.shape[-1] == 4 and values.dtype == np.uint16:
        values = np.ascontiguousarray(values)
        for strip in np.array_split(values, max(1, values.size // _STRIP_PIXELS)):
            alpha = np.maximum(strip[..., 3:].astype(np.uint64), 1)
            strip[..., :3] = np.minimum((strip[..., :3] * np.uint64(65535) + alpha // 2) // alpha, 65535)
    return values
