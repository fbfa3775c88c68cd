"""HEIC and AVIF with 10 and 12 bits, which Pillow reads and writes as 8 bit."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from PIL import ImageFile

from qatie_cli.photo import avif_items, exif
from qatie_cli.photo.content import Photo
from qatie_cli.photo.formats import CHROMA
from qatie_cli.photo.item_properties import Properties

DEFAULT_BITS = 10  # of a 16-bit photo: what phones and screens handle
_AVIF_SPEED = 6  # Pillow's default
_FULL_RANGE, _BT601_MATRIX, _BT2020_MATRIX = 1, 6, 9


def bits_of(image: ImageFile.ImageFile, described: Properties) -> int:
    """Bits per channel of an opened HEIC or AVIF picture."""
    return int(image.info.get("bit_depth", 8)) if image.format == "HEIF" else described.depth()


def decode(image: ImageFile.ImageFile, file: BinaryIO, bits: int) -> np.ndarray | None:
    """(H, W, 1 to 4) uint16 scaled to 0..65535, as stored; None if only Pillow can decode the file."""
    file.seek(0)
    values = _heic_values(file, bits) if image.format == "HEIF" else _avif_values(file.read())
    if values is None or values.dtype != np.uint16:
        return None
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[:2] != (image.height, image.width) or values.shape[2] > 4:
        return None
    top = (1 << bits) - 1
    return _scaled(values, top, 65535) if int(values.max()) <= top else values


def _heic_values(file: BinaryIO, bits: int) -> np.ndarray | None:
    import pillow_heif

    opened = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=True)
    if not opened.mode.endswith(";16") or "a" in opened.mode:  # colours multiplied by alpha
        return None
    return np.asarray(opened) >> (16 - bits)  # libheif's values, shifted up


def _avif_values(content: bytes) -> np.ndarray:
    import imagecodecs

    return imagecodecs.avif_decode(content, index=0)


def _scaled(values: np.ndarray, top: int, wanted: int) -> np.ndarray:
    """(H, W, channels) uint16 of 0..`top` as 0..`wanted`, rounded."""
    out = np.empty(values.shape, np.uint16)
    for row in range(0, len(values), 256):
        out[row : row + 256] = (values[row : row + 256].astype(np.uint32) * wanted + top // 2) // top
    return out


def encoded(photo: Photo, fmt: str, quality: int) -> bytes:
    """A HEIC or AVIF file of a 16-bit photo, with its source's bit depth or 10 bits.

    Args:
        fmt: "heic" or "avif".
        quality: 1..100.
    """
    bits = photo.bits or DEFAULT_BITS
    pixels = photo.pixels if photo.alpha is None else np.dstack([photo.rgb(), photo.alpha])
    values = _scaled(pixels, 65535, (1 << bits) - 1)
    codes = photo.space.codes if photo.space is not None and photo.space.codes else None
    if fmt == "heic":
        return _heic(photo, values, bits, quality, codes)
    return _avif(photo, values, bits, quality, codes)


def nclx_options(codes: tuple[int, int]) -> dict[str, int]:
    """The arguments of pillow-heif that name a colour space."""
    return {
        "color_primaries": codes[0],
        "transfer_characteristics": codes[1],
        "matrix_coefficients": _matrix(codes),
        "full_range_flag": _FULL_RANGE,
    }


def heic_chroma(photo: Photo) -> dict[str, str]:
    """The argument of pillow-heif that keeps the chroma of a HEIC; others get 4:2:0, which is what phones decode."""
    known = photo.source_format == "heic" and photo.chroma is not None
    return {"subsampling": CHROMA[photo.subsampling]} if known else {}


def _matrix(codes: tuple[int, int]) -> int:
    return _BT2020_MATRIX if codes[0] == 9 else _BT601_MATRIX


def _heic(photo: Photo, values: np.ndarray, bits: int, quality: int, codes: tuple[int, int] | None) -> bytes:
    import pillow_heif

    height, width, channels = values.shape
    options: dict = heic_chroma(photo) | ({} if codes is None else nclx_options(codes))
    if photo.icc:
        options["icc_profile"] = photo.icc
    mode = {1: "L;16", 3: "RGB;16", 4: "RGBA;16"}[channels]
    values <<= 16 - bits
    picture = pillow_heif.from_bytes(mode, (width, height), values.astype("<u2", copy=False).tobytes())
    out = io.BytesIO()
    picture.save(
        out, quality=quality, bit_depth=bits, exif=None if photo.exif is None else exif.PREFIX + photo.exif,
        xmp=photo.xmp, **options,
    )  # fmt: skip
    return out.getvalue()


def _avif(photo: Photo, values: np.ndarray, bits: int, quality: int, codes: tuple[int, int] | None) -> bytes:
    import imagecodecs

    primaries, transfer = codes or ((2, 2) if photo.icc else (1, 13))
    gray = values.shape[2] == 1
    content = imagecodecs.avif_encode(
        values[..., 0] if gray else values,
        level=quality,
        speed=_AVIF_SPEED,
        bitspersample=bits,
        pixelformat="yuv400" if gray else "yuv" + CHROMA[photo.subsampling].replace(":", ""),
        primaries=primaries,
        transfer=transfer,
        matrix=_matrix((primaries, transfer)),
    )
    return avif_items.added(bytes(content), photo.exif, photo.xmp, photo.icc)
