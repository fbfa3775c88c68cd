"""Decoding photo files of every format that qatie reads."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from qatie_cli.errors import PhotoError
from qatie_cli.photo import (
    MAX_PIXELS,
    boxes,
    components,
    declared,
    deep,
    fineness,
    item_properties,
    leftovers,
    metadata,
    pages,
    pixels,
    unreadable,
)
from qatie_cli.photo.beside import reading
from qatie_cli.photo.content import Photo
from qatie_cli.photo.formats import OF_CONTENT
from qatie_cli.photo.guard import decoder_call
from qatie_cli.photo.pixels import DECODE_ERRORS

# Notes on photos in unusual modes.
_CONVERTED = {"CMYK": ("CMYK converted to sRGB",), "LAB": ("LAB converted to sRGB",),
              "F": ("floating point written as 16 bit, from 0 to its largest value",)}  # fmt: skip
_WITHOUT_PROFILE = ("CMYK", "LAB", "YCbCr")  # modes whose profile does not describe the RGB values
_COPY_AGAIN = "Copy it again from its source."
_HEIF_LOCK = threading.Lock()


def open_heif() -> None:
    """Make Pillow read and write HEIC. Idempotent."""
    import pillow_heif

    with _HEIF_LOCK:
        pillow_heif.register_heif_opener()


@decoder_call()
def read(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo, upright, with its metadata.

    Args:
        source: a file, or its content.

    Raises:
        PhotoError: no file, no permission, no photo, a damaged one, an animation, or more than `max_pixels` pixels.
    """
    name = "Standard input" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, bytes):
            return _read(lambda: io.BytesIO(source), name, max_pixels, len(source))
        if source.is_dir():
            raise PhotoError(f"{name} is a folder.")
        with source.open("rb") as file:
            before = os.fstat(file.fileno())
            photo = _read(lambda: source.open("rb"), name, max_pixels, before.st_size)
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise PhotoError(f"{name} changed while it was read.", "Try again when nothing writes to it.")
        return photo
    except FileNotFoundError:
        raise PhotoError(f"There is no file {name}.") from None
    except PermissionError:
        raise PhotoError(f"No permission to read {name}.", "Check its permissions.") from None
    except UnidentifiedImageError:
        raise PhotoError(f"{name} is not a photo in a format that qatie reads.") from None
    except MemoryError:
        raise PhotoError(f"{name} does not fit into memory.") from None
    except DECODE_ERRORS as error:
        raise _why(name, error) from error


def _why(name: str, error: Exception) -> PhotoError:
    """The error message for a decoder's exception."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, NotImplementedError) or reason.lower().startswith(("unsupported", "unknown", "cannot")):
        return PhotoError(f"{name} uses a feature that qatie cannot read ({reason}).", "Save it as PNG or TIFF first.")
    if isinstance(error, (TypeError, AttributeError, KeyError, IndexError, struct.error)):
        reason = f"invalid data ({reason})"
    return PhotoError(f"{name} is damaged: {reason}.", _COPY_AGAIN)


@dataclass(frozen=True)
class Header:
    """Size of a photo, and the peak memory that decoding it takes.

    `beside_bytes` is what a video, long metadata and a further rendition take in addition, until the photo is written.
    """

    width: int
    height: int
    decode_bytes: int
    progressive: bool = False
    sample_bytes: int = 1
    gray: bool = False
    beside_bytes: int = 0


# Bytes per pixel at the peak of decoding, by Pillow's mode; measured. Progressive JPEGs hold their coefficients, too.
_DECODE_BYTES = {"1": 4, "L": 5, "P": 14, "RGB": 10, "RGBA": 16, "LA": 16, "CMYK": 14, "I;16": 8, "I": 16, "F": 20}
_LARGEST_DECODE_BYTES = 24  # anything else, and WebP with transparency
_SIXTEEN_BIT_COLOUR_BYTES = 24
_LOSSY = ("JPEG", "MPO", "WEBP", "HEIF", "AVIF")
_LARGEST_TILE_PIXELS = 1 << 22  # of a TIFF whose picture is smaller: a tile is decoded whole
_COPIES_OF_FILE = 4  # of the data beside pixels, at the peak of reading, passing it between processes, and writing
_BOTH_BYTES = 18  # of an HDR picture: its SDR rendition before and after, and what it becomes itself
_COMPONENTS_BYTES = 3  # of a coarse JPEG, beside its pixels
_DEEP_BYTES = 44  # HEIC and AVIF of 10 and 12 bit: decoding takes 15, encoding noise as HEIC 44


@decoder_call()
def header(path: Path) -> Header | None:
    """Read a file's header without decoding its pixels; None if it cannot be read."""
    try:
        with path.open("rb") as file, _open(file) as image:
            pixel = _DECODE_BYTES.get(image.mode, _LARGEST_DECODE_BYTES)
            if image.format in ("WEBP", "HEIF", "AVIF"):
                pixel = _LARGEST_DECODE_BYTES if image.mode == "RGBA" else 16
            beside = 0
            if image.format in ("HEIF", "AVIF"):
                items = boxes.read(file) if image.format == "AVIF" else None
                if deep.bits_of(image, item_properties.of_primary(items)) > 8:
                    pixel = _DEEP_BYTES
                    items = items or boxes.read(file)
                    if items is not None and leftovers.GAIN_MAP in boxes.left_out(items):
                        beside = _BOTH_BYTES * image.width * image.height
            elif components.wanted(image, metadata.jpeg_traits(image)):
                pixel += _COMPONENTS_BYTES
            wide = pixels.has_sixteen_bit_colours(image)
            if wide:
                pixel = _SIXTEEN_BIT_COLOUR_BYTES
            # More than the pixels take at high quality, or uncompressed.
            largest = image.width * image.height * (1 if image.format in _LOSSY else 8 if wide else 4)
            return Header(
                image.width,
                image.height,
                pixel * image.width * image.height,
                progressive=bool(image.info.get("progressive")),
                sample_bytes=2 if wide or image.mode in pixels.SIXTEEN_BIT_MODES else 1,
                gray=image.mode in (*pixels.GRAY_MODES, *pixels.SIXTEEN_BIT_MODES),
                beside_bytes=beside + _COPIES_OF_FILE * max(0, os.fstat(file.fileno()).st_size - largest),
            )
    except (UnidentifiedImageError, *DECODE_ERRORS):
        return None


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        open_heif()  # only now: importing it is slow, and few photos need it
        file.seek(0)
        return Image.open(file)
    if image.format == "TIFF":
        at = file.tell()
        if number := pages.chosen(file):
            image.seek(number)
        else:
            file.seek(at)
    return image


def _read(reopen: Callable[[], BinaryIO], name: str, max_pixels: int, file_size: int) -> Photo:
    """Decode the file that `reopen` opens. Pillow gets its own handle, which it may close at any time."""
    if file_size == 0:
        raise PhotoError(f"{name} is empty.", _COPY_AGAIN)
    with reopen() as file, reopen() as own, _opened(own, file, name) as image:
        _refuse(image, file, name, max_pixels)
        file.seek(0)
        try:
            return _decode(image, file)
        except DECODE_ERRORS as error:
            if found := unreadable.why(file, name):
                raise found from error
            if not isinstance(error, OSError) or image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
                raise
        file.seek(0)
        return _decode_truncated(file.read(), name)


def _opened(own: BinaryIO, file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """As `_open`.

    Raises:
        PhotoError: it is of a known kind that qatie does not read.
    """
    found = unreadable.raw(file, name)
    if found is not None:
        raise found
    try:
        return _open(own)
    except DECODE_ERRORS as error:
        found = unreadable.why(file, name)
        if found is None:
            raise
        raise found from error
    finally:
        file.seek(0)


def _decode_truncated(content: bytes, name: str) -> Photo:
    """Decode a truncated JPEG as far as it goes: an added end marker makes the decoder return what it has."""
    whole = content + b"\xff\xd9"
    with _open(io.BytesIO(whole)) as image:
        photo = _decode(image, io.BytesIO(whole))
    # Missing rows have one colour; if they are most of the picture, there is no photo to enhance.
    flat = (photo.pixels == photo.pixels[:, :1]).all(axis=(1, 2))
    missing = len(flat) - 1 - int(np.flatnonzero(~flat)[-1]) if (~flat).any() else len(flat)
    if missing > len(flat) * 3 // 4:
        raise PhotoError(f"{name} is cut off: most of it is missing.", _COPY_AGAIN)
    return dataclasses.replace(photo, notes=(*photo.notes, "its end is missing; the last rows may be gray"))


def _refuse(image: ImageFile.ImageFile, file: BinaryIO, name: str, max_pixels: int) -> None:
    """Raise PhotoError for files that qatie does not read."""
    count = image.width * image.height
    if count > max_pixels:
        raise PhotoError(
            f"{name} has {count / 1e6:,.0f} megapixels; the limit is {max_pixels / 1e6:,.0f}.",
            "If it really is that large, raise --max-pixels.",
        )
    # Only there: counting frames may take a pass over the file.
    animated = image.format in ("WEBP", "PNG", "AVIF") and getattr(image, "n_frames", 1) > 1
    if image.format == "GIF" or animated:
        raise PhotoError(f"{name} is a GIF or an animation, not a photo.", "Save the picture you want as PNG first.")
    if image.format not in OF_CONTENT:
        kind = "JPEG 2000" if image.format == "JPEG2000" else image.format
        raise PhotoError(f"{name} is a {kind} file, which qatie does not read.", "Save it as PNG or TIFF first.")
    if image.format == "TIFF" and pages.tile_pixels(image, file) > max(count, _LARGEST_TILE_PIXELS):
        raise PhotoError(f"{name} is damaged: its tiles are larger than its picture.", _COPY_AGAIN)


def _decode(image: ImageFile.ImageFile, file: BinaryIO) -> Photo:
    """Pixels and metadata of an image accepted by `_refuse`."""
    items = boxes.read(file) if image.format in ("HEIF", "AVIF") else None
    described = item_properties.of_primary(items)
    notes = metadata.lost(image, file)
    beside = reading.read(image, file, items)
    traits = metadata.jpeg_traits(image)
    tags = metadata.tiff_tags(image, file)
    decoded = pixels.decode(image, file, deep.bits_of(image, described), components.wanted(image, traits))
    height, width = decoded.pixels.shape[:2]
    carried = metadata.read(image, file, tags, decoded.orientation, (width, height))
    icc = image.info.get("icc_profile") or None
    space = declared.space(image, described, carried.exif, carried.png_chunks, icc is not None)
    if decoded.mode in _WITHOUT_PROFILE:
        icc = space = None
    if space is not None:
        space, icc = declared.finished(space, decoded.pixels)
    lossless = metadata.is_lossless_webp(image, file)
    return Photo(
        pixels=decoded.pixels,
        source_format=OF_CONTENT[image.format or ""],
        alpha=decoded.alpha,
        exif=carried.exif,
        icc=icc,
        space=space,
        bits=decoded.bits,
        xmp=carried.xmp,
        jpeg_segments=carried.jpeg_segments,
        photoshop=carried.photoshop,
        comment=carried.comment,
        png_chunks=carried.png_chunks,
        dpi=carried.dpi,
        turn=carried.turn,
        jpeg=traits,
        components=decoded.components,
        lossless=lossless,
        chroma=2 if image.format == "WEBP" and not lossless else described.subsampling(),
        coded_bytes=fineness.coded_bytes(image, file, described),
        gain_map=beside.gain_map,
        motion=beside.motion,
        notes=beside.notes + notes + _CONVERTED.get(decoded.mode, ()) + carried.notes,
    )
