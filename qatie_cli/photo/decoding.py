"""Photo files to pixels: every format, upright, with everything that travels beside the pixels."""

from __future__ import annotations

import dataclasses
import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from qatie_cli.errors import PhotoError
from qatie_cli.photo import MAX_PIXELS, exif, segments
from qatie_cli.photo.content import JpegTraits, Photo
from qatie_cli.photo.formats import OF_CONTENT
from qatie_cli.photo.guard import decoder_call

_STRIP_PIXELS = 1 << 22  # copied out of Pillow at a time
_GRAY_MODES = {"1", "L", "LA", "La", "I", "F"}
_SIXTEEN_BIT_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
_PHOTOMETRIC_TAG, _XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 262, 700, 33723, 34377
_LARGEST_TAG = 1 << 26  # bytes of a metadata tag
# What of a photo in an unusual mode will be different, in words for its owner.
_CONVERTED = {"CMYK": ("CMYK converted to sRGB",), "LAB": ("LAB converted to sRGB",),
              "F": ("floating point written as 16 bit",)}  # fmt: skip
_VIDEO = re.compile(rb"ftyp(mp4|isom|qt  |MSNV|3gp)|MotionPhoto_Data")
# Transfer characteristics of ITU-T H.273: 16 is PQ, 18 is HLG.
_HDR_COLOURS = re.compile(rb"colrnclx..\x00[\x10\x12]", re.DOTALL)
# Photos with strange marker or chunk data raise nearly anything in the decoders.
_DECODE_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, EOFError, struct.error, zlib.error,
                  OverflowError, ZeroDivisionError, AttributeError, RuntimeError, NotImplementedError)  # fmt: skip
_HEIF_READY = threading.Lock()


def open_heif() -> None:
    """Make Pillow read and write HEIC; harmless to repeat."""
    import pillow_heif

    with _HEIF_READY:
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
        raise PhotoError(f"{name} may not be read.", "Check its permissions.") from None
    except UnidentifiedImageError:
        raise PhotoError(f"{name} is not a photo in a format that qatie reads.") from None
    except MemoryError:
        raise PhotoError(f"{name} needs more memory than there is.") from None
    except _DECODE_ERRORS as error:
        raise _why(name, error) from error


def _why(name: str, error: Exception) -> PhotoError:
    """What a decoder's complaint means for the photo's owner."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, NotImplementedError) or reason.lower().startswith(("unsupported", "unknown", "cannot")):
        return PhotoError(f"{name} is of a kind that qatie cannot read ({reason}).", "Save it as PNG or TIFF first.")
    if isinstance(error, (TypeError, AttributeError, KeyError, IndexError, struct.error)):
        reason = f"its data make no sense ({reason})"
    return PhotoError(f"{name} is damaged: {reason}.", "Copy it again from where it came.")


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded; `decode_bytes` is the memory that decoding takes at its peak."""

    width: int
    height: int
    decode_bytes: int
    progressive: bool = False


# Bytes a pixel at the peak of decoding, by Pillow's mode; measured. Progressive JPEGs hold their coefficients, too.
_DECODE_BYTES = {"1": 4, "L": 5, "P": 14, "RGB": 10, "RGBA": 16, "LA": 16, "CMYK": 14, "I;16": 8, "I": 16, "F": 20}
_LARGEST_DECODE_BYTES = 24  # anything else, and WebP with transparency
_SIXTEEN_BIT_COLOUR_BYTES = 24


@decoder_call()
def header(path: Path) -> Header | None:
    """What a file says of itself, or None where it cannot be read; nothing is decoded."""
    try:
        with path.open("rb") as file, _open(file) as image:
            pixel = _DECODE_BYTES.get(image.mode, _LARGEST_DECODE_BYTES)
            if image.format in ("WEBP", "HEIF", "AVIF"):
                pixel = _LARGEST_DECODE_BYTES if image.mode == "RGBA" else 16
            if _sixteen_bit_colour(image):
                pixel = _SIXTEEN_BIT_COLOUR_BYTES
            progressive = bool(image.info.get("progressive"))
            return Header(image.width, image.height, pixel * image.width * image.height, progressive)
    except (UnidentifiedImageError, *_DECODE_ERRORS):
        return None


def _open(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        open_heif()  # only now: it takes a while to import, and most photos need it not
        file.seek(0)
        return Image.open(file)


def _read(opened: Callable[[], BinaryIO], name: str, max_pixels: int, file_size: int) -> Photo:
    """Decode what `opened` opens anew each time: Pillow has a file of its own, which it closes as it likes."""
    if file_size == 0:
        raise PhotoError(f"{name} is empty.", "Copy it again from where it came.")
    with opened() as file, opened() as own, _open(own) as image:
        _refuse(image, name, max_pixels)
        try:
            return _decode(image, file)
        except OSError as error:
            if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
                raise
        file.seek(0)
        content = file.read()
    return _cut_off(content, name)


def _cut_off(content: bytes, name: str) -> Photo:
    """A JPEG whose end is missing: what there is of it. An end marker makes the decoder give that out."""
    whole = content + b"\xff\xd9"
    with _open(io.BytesIO(whole)) as image:
        photo = _decode(image, io.BytesIO(whole))
    # Rows that never came are filled with one colour; where they reach far up, there is no photo to enhance.
    flat = (photo.pixels == photo.pixels[:, :1]).all(axis=(1, 2))
    missing = len(flat) - 1 - int(np.flatnonzero(~flat)[-1]) if (~flat).any() else len(flat)
    if missing > len(flat) * 3 // 4:
        raise PhotoError(f"{name} is cut off: most of it is missing.", "Copy it again from where it came.")
    return _with_notes(photo, "its end is missing; the last rows may be gray")


def _with_notes(photo: Photo, *notes: str) -> Photo:
    return dataclasses.replace(photo, notes=(*photo.notes, *notes))


def _refuse(image: Image.Image, name: str, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PhotoError(
            f"{name} says it has {pixels / 1e6:,.0f} megapixels; the limit is {max_pixels / 1e6:,.0f}.",
            "If it really is that large, allow it with --max-pixels.",
        )
    animated = getattr(image, "n_frames", 1) > 1 and image.format in ("WEBP", "PNG", "AVIF")
    if image.format == "GIF" or animated:
        raise PhotoError(f"{name} is a GIF or an animation, not a photo.", "Save the picture you want as PNG first.")
    if image.format not in OF_CONTENT:
        raise PhotoError(
            f"{name} is a {image.format} file, which qatie does not read.", "Save it as PNG or TIFF first."
        )


def _decode(image: Image.Image, file: BinaryIO) -> Photo:
    source_format = OF_CONTENT[image.format]
    notes = _notes(image, file)
    traits = _jpeg_traits(image) if source_format == "jpeg" else None
    tiff_block, tiff_extra = _tiff_metadata(image, file) if image.format == "TIFF" else (None, {})
    white_is_zero = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC_TAG) == 0
    deep = _deep_pixels(image, file)
    if deep is None:
        orientation, pixels, alpha, mode = _plain_pixels(image)
    else:
        orientation, (pixels, alpha), mode = _orientation(image), deep, "RGB"
    if white_is_zero and mode in _SIXTEEN_BIT_GRAY:  # Pillow inverts 1 and 8 bit only
        pixels = 65535 - pixels
    notes += _CONVERTED.get(mode, ())
    info = image.info
    pixels = _turned(pixels, orientation)
    block = tiff_block or info.get("exif") or segments.raw_profile(info.get("Raw profile type exif", "")) or None
    if block:
        block = exif.upright(block.removeprefix(exif.PREFIX), pixels.shape[1::-1])
        if orientation != 1 and exif.orientation(block) != 1:  # a viewer would turn the photo once more
            block, notes = None, (*notes, "EXIF left out, it is damaged")
    packet = (
        tiff_extra.get(_XMP_TAG)
        or info.get("xmp")
        or segments.raw_profile(info.get("Raw profile type xmp", ""))
        or None
    )
    packet = packet.encode() if isinstance(packet, str) else packet
    photoshop = (
        tiff_extra.get(_PHOTOSHOP_TAG)
        or _joined(image, 0xED, segments.PHOTOSHOP)
        or segments.raw_profile(info.get("Raw profile type iptc", ""))
    )
    return Photo(
        pixels=pixels,
        source_format=source_format,
        alpha=None if alpha is None else _turned(alpha, orientation),
        exif=block,
        icc=None if mode in ("CMYK", "LAB", "YCbCr") else info.get("icc_profile") or None,
        xmp=segments.upright_xmp(packet) if packet else None,
        jpeg_segments=segments.kept_segments(_segments(image)),
        photoshop=segments.fresh_photoshop(photoshop) if photoshop else None,
        comment=info.get("comment") if source_format == "jpeg" else None,
        png_chunks=_png_chunks(file) if source_format == "png" else (),
        dpi=_resolution(info.get("dpi")),
        jpeg=traits,
        lossless=source_format == "webp" and _is_lossless_webp(file),
        notes=notes,
    )


def _resolution(dpi: tuple | None) -> tuple[float, float] | None:
    """Pixels an inch, where they are a figure that a file can hold."""
    try:
        both = (float(dpi[0]), float(dpi[1])) if dpi else None
    except (ZeroDivisionError, TypeError, ValueError):
        return None
    return both if both and all(0 < value < 1e5 for value in both) else None


def _is_lossless_webp(file: BinaryIO) -> bool:
    """Whether the picture is in a VP8L chunk (WebP container specification), not in a lossy VP8 one."""
    file.seek(0)
    head = file.read(1 << 16)
    return b"VP8L" in head and b"VP8 " not in head


def _notes(image: Image.Image, file: BinaryIO) -> tuple[str, ...]:
    """What of a file will not be in the photo."""
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        what = "pages" if image.format == "TIFF" else "pictures in the file"
        notes.append(f"first of {frames} {what}; the others are left out")
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        if _VIDEO.search(file.read()):
            notes.append("the video of a motion photo is left out")
    if image.format in ("HEIF", "AVIF"):
        file.seek(0)
        head = file.read(1 << 16)
        if _HDR_COLOURS.search(head):
            notes.append("an HDR photo (PQ or HLG), treated as an ordinary one; it may come out dull")
        depth = image.info.get("bit_depth", 8) if image.format == "HEIF" else _avif_depth(head)
        if depth > 8:
            notes.append(f"{depth} bit read as 8 bit")
    return tuple(notes)


def _jpeg_traits(image: Image.Image) -> JpegTraits:
    sampling = JpegImagePlugin.get_sampling(image)
    tables = tuple(tuple(min(255, value) for value in table) for _, table in sorted(image.quantization.items()))
    return JpegTraits(sampling if sampling in (0, 1, 2) else None, tables, bool(image.info.get("progressive")))


def _avif_depth(head: bytes) -> int:
    """Bits of a channel, from the first AV1 configuration record (AV1 in ISOBMFF, 2.3.3): its flags are in byte 2."""
    found = re.search(rb"av1C..(.)", head, re.DOTALL)
    flags = found[1][0] if found else 0
    return 12 if flags & 0x60 == 0x60 else 10 if flags & 0x40 else 8


def _segments(image: Image.Image) -> list[tuple[int, bytes]]:
    """Marker and payload of each application segment of a JPEG."""
    found = getattr(image, "applist", ())
    return [(0xE0 + int(kind[3:]), body) for kind, body in found if kind.startswith("APP")]


def _joined(image: Image.Image, wanted: int, signature: bytes) -> bytes | None:
    """Payloads of a JPEG's segments of one kind, joined, without signature."""
    found = [body for marker, body in _segments(image) if marker == wanted and body.startswith(signature)]
    return b"".join(body[len(signature) :] for body in found) or None


def _png_chunks(file: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    file.seek(0)
    return segments.png_chunks(file.read())


def _tiff_metadata(image: Image.Image, file: BinaryIO) -> tuple[bytes | None, dict[int, bytes]]:
    """The descriptive tags of a TIFF file as an EXIF block, and its XMP, IPTC and Photoshop blocks."""
    extra = {tag: body for tag in (_XMP_TAG, _PHOTOSHOP_TAG) if (body := _tag_bytes(file, tag))}
    iptc = _tag_bytes(file, _IPTC_TAG)
    if iptc and _PHOTOSHOP_TAG not in extra:
        extra[_PHOTOSHOP_TAG] = segments.iptc_resource(iptc)
    try:
        tags = image.getexif()
        for tag in exif.STORAGE_TAGS & set(tags):
            del tags[tag]
        block = tags.tobytes() if tags else None
    except _DECODE_ERRORS:  # tags of the wrong type: the photo matters more
        block = None
    return block, extra


def _tag_bytes(file: BinaryIO, wanted: int) -> bytes | None:
    """The value of a TIFF file's tag as it stands there, whatever type the file says it has.

    Writers disagree on the type of IPTC and Photoshop blocks, and libraries read each type differently.
    """
    file.seek(0)
    head = file.read(8)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return None
    file.seek(struct.unpack(f"{order}I", head[4:])[0])
    counted = file.read(2)
    for _ in range(struct.unpack(f"{order}H", counted)[0] if len(counted) == 2 else 0):
        field = file.read(12)
        if len(field) < 12:
            return None
        tag, kind, count, value = struct.unpack(f"{order}HHII", field)
        if tag == wanted:
            size = exif.BYTES_OF_TYPE.get(kind, 0) * count
            if size <= 4:
                return field[8 : 8 + size]
            file.seek(value)
            return file.read(size) if size <= _LARGEST_TAG else None
    return None


# --- pixels -------------------------------------------------------------------------------------------------------


def _plain_pixels(image: Image.Image) -> tuple[int, np.ndarray, np.ndarray | None, str]:
    """Orientation still to be applied, pixels and alpha of whatever Pillow decodes, and its mode."""
    image.load()
    orientation, mode = _orientation(image), image.mode
    pixels, alpha = _pixels(image)
    image.close()  # its pixels: two whole photos are never held together longer than the copy takes
    return orientation, pixels, alpha, mode


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 where EXIF cannot be understood, which is no reason to refuse the photo."""
    try:
        return image.getexif().get(exif.ORIENTATION, 1)
    except _DECODE_ERRORS:
        return 1


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) pixels and (H, W) alpha of an image of any mode, not yet turned."""
    if image.mode in _SIXTEEN_BIT_GRAY:
        values = _array(image, np.uint16)
        see_through = image.info.get("transparency")
        alpha = np.where(values == see_through, 0, 65535).astype(np.uint16) if isinstance(see_through, int) else None
        return values[..., None], alpha
    if image.mode == "I":
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise NotImplementedError("32-bit integers")
        return values.astype(np.uint16)[..., None], None
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        top = values.max(initial=0)
        level = 65535 if top <= 1 else 257 if top <= 255 else 1  # of 1.0, of an 8-bit and of a 16-bit level
        return np.clip(np.rint(values * level), 0, 65535).astype(np.uint16)[..., None], None
    if image.mode == "CMYK":
        return _array(_cmyk_to_rgb(image)), None
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    gray = image.mode in _GRAY_MODES
    if not has_alpha:
        wanted = "L" if gray else "RGB"
        converted = _array(image if image.mode == wanted else image.convert(wanted))
        return (converted[..., None] if gray else converted), None
    converted = _array(image if image.mode == "RGBA" else image.convert("RGBA"))
    alpha = np.ascontiguousarray(converted[..., 3])
    return np.ascontiguousarray(converted[..., :1] if gray else converted[..., :3]), alpha


def _array(image: Image.Image, kind: type = np.uint8) -> np.ndarray:
    """(H, W[, channels]) of an image; in strips, since a whole copy passes through twice its bytes."""
    channels = len(image.getbands())
    out = np.empty((image.height, image.width) + ((channels,) if channels > 1 else ()), kind)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        out[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return out


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W[, channels]) as EXIF's orientation 2..8 wants them shown (EXIF 2.3, 4.6.4)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """sRGB of a CMYK image, through its own profile where it has a usable one."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the uncalibrated conversion below is what viewers show
    return image.convert("RGB")


def _sixteen_bit_colour(image: Image.Image) -> bool:
    """Whether a file has 16-bit colours, whose low bytes Pillow drops."""
    if image.format == "PNG" and image.tile:
        return ";16B" in str(image.tile[0][3]) and not image.mode.startswith("I")
    return image.format == "TIFF" and image.mode in ("RGB", "RGBA") and 16 in image.tag_v2.get(258, ())


def _deep_pixels(image: Image.Image, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels and alpha of a file with 16-bit colours; None for any other file."""
    if not _sixteen_bit_colour(image):
        return None
    file.seek(0)
    values = _png_values(file) if image.format == "PNG" else _tiff_values(file)
    if values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (2, 3, 4):
        return None
    colours = values.shape[2] - 1 if values.shape[2] in (2, 4) else 3
    alpha = np.ascontiguousarray(values[..., colours]) if values.shape[2] > colours else None
    return np.ascontiguousarray(values[..., :colours]), alpha


def _png_values(file: BinaryIO) -> np.ndarray:
    import imagecodecs

    return imagecodecs.png_decode(file.read())


def _tiff_values(file: BinaryIO) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(file) as opened:
        page = opened.pages.first
        values = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        values = np.moveaxis(values, 0, -1)
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples and values.shape[-1] == 4 and values.dtype == np.uint16:
        values = np.ascontiguousarray(values)
        for strip in np.array_split(values, max(1, values.size // _STRIP_PIXELS)):
            alpha = np.maximum(strip[..., 3:].astype(np.uint64), 1)
            strip[..., :3] = np.minimum((strip[..., :3] * np.uint64(65535) + alpha // 2) // alpha, 65535)
    return values
