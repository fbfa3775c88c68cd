"""The quality a photo was compressed with, on JPEG's scale, and equivalent settings of other formats.

A JPEG states it in its quantization tables. For WebP, HEIC and AVIF, parts of the photo are recompressed until they
match the file's size.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageFile

from qatie_cli.photo.content import JpegTraits, Photo
from qatie_cli.photo.formats import CHROMA, FORMATS
from qatie_cli.photo.item_properties import Properties

SOURCE: Literal["source"] = "source"
Quality = int | Literal["source"] | None
_LOSSLESS = 100  # of a lossless source
# Settings with equal PSNR of luma, JPEG's first; measured on parts of six photographs, HEIC by x265 and AVIF by aom.
_EQUAL: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "webp": ((25, 34, 47, 57, 65, 72, 82, 87, 92, 96, 98, 100), (20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98, 100)),
    "avif": ((12, 22, 37, 64, 79, 87, 92, 93, 96, 98, 99, 100), (20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 98, 100)),
    "heic": ((14, 42, 75, 88, 94, 97, 98, 99, 100), (20, 30, 40, 50, 60, 70, 80, 90, 100)),
}
_TRIED = (30, 50, 70, 80, 90, 96, 100)  # settings whose sizes are measured
_SIDE, _PARTS = 256, 3  # 3 x 3 parts of 256 x 256 pixels stand for the photo
# Mean of the luminance table of libjpeg's quality 50 (ITU-T T.81, table K.1).
_MEAN_AT_50 = 57.625


def check(quality: Quality) -> Quality:
    """The quality.

    Raises:
        ValueError: it is neither None, 1..100 nor "source".
    """
    if quality is not None and quality != SOURCE and (isinstance(quality, str) or not 1 <= quality <= 100):
        raise ValueError(f"quality lies in 1..100 or is {SOURCE!r}, not {quality!r}")
    return quality


def coded_bytes(image: ImageFile.ImageFile, file: BinaryIO, described: Properties) -> int | None:
    """Bytes of the compressed picture in a lossy WebP, HEIC or AVIF file; None where they are not known.

    Args:
        described: the properties of a HEIC's or AVIF's picture.
    """
    if image.format in ("HEIF", "AVIF"):
        return described.coded_bytes
    if image.format != "WEBP":
        return None
    file.seek(0)
    content, at = file.read(), 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        if kind == b"VP8 ":
            return size
        at += 8 + size + size % 2
    return None


def of_photo(photo: Photo, encoded: Callable[[Photo, int], bytes] | None = None) -> int:
    """A photo's quality, 1..100 on JPEG's scale; 100 if lossless.

    Args:
        photo: as it was decoded.
        encoded: compresses a photo in its own format at a setting; None for Pillow's encoders.
    """
    if photo.jpeg is not None:
        return of_tables(photo.jpeg)
    if photo.coded_bytes is None or photo.source_format not in _EQUAL:
        return _LOSSLESS
    part = _parts(photo.pixels)
    wanted = photo.coded_bytes / (photo.pixels.shape[0] * photo.pixels.shape[1])
    sizes = [_size(part, photo, setting) / part[..., 0].size for setting in _TRIED]
    rising = np.maximum.accumulate(np.log(np.maximum(sizes, 1e-6)) + np.arange(len(sizes)) * 1e-9)
    setting = float(np.interp(np.log(max(wanted, 1e-6)), rising, _TRIED))
    of_jpeg, of_own = _EQUAL[photo.source_format]
    return round(float(np.interp(setting, of_own, of_jpeg)))


def of_tables(traits: JpegTraits) -> int:
    """libjpeg's quality with the same average luminance step."""
    if not traits.quantization:
        return _LOSSLESS
    scale = float(np.mean(traits.quantization[0])) / _MEAN_AT_50
    quality = 100 - 50 * scale if scale <= 1 else 50 / scale
    return int(np.clip(round(quality), 1, 100))


def setting(fmt: str, quality: int) -> int:
    """The setting of a format equivalent to this JPEG quality."""
    if fmt not in _EQUAL:
        return quality
    of_jpeg, of_own = _EQUAL[fmt]
    return round(float(np.interp(quality, of_jpeg, of_own)))


def _parts(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 1 or 3) uint8: the photo, or a mosaic of evenly spaced parts of it."""
    height, width = pixels.shape[:2]
    if height * width > (_SIDE * _PARTS) ** 2 and min(height, width) > _SIDE:
        tops, lefts = (np.linspace(0, side - _SIDE, _PARTS).astype(int) // 8 * 8 for side in (height, width))
        rows = [np.hstack([pixels[top : top + _SIDE, left : left + _SIDE] for left in lefts]) for top in tops]
        pixels = np.vstack(rows)
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _size(part: np.ndarray, photo: Photo, setting: int) -> int:
    fmt, options = photo.source_format, {}
    if part.shape[2] == 3 and fmt != "webp":
        options["subsampling"] = CHROMA[photo.subsampling]
    if fmt == "heic":
        from qatie_cli.photo.decoding import open_heif

        open_heif()
    content = io.BytesIO()
    Image.fromarray(part[..., 0] if part.shape[2] == 1 else part).save(
        content, FORMATS[fmt][1], quality=setting, **options
    )
    return len(content.getvalue())
