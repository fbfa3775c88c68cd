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
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from qatie_cli.errors import PhotoError
from qatie_cli.photo import exif, segments
from qatie_cli.photo.content import JpegTraits, Photo
from qatie_cli.photo.formats import OF_CONTENT

# A photo of more pixels is refused unless the caller allows it: 108 MP phones and panoramas pass, bombs do not.
MAX_PIXELS = 250_000_000
_STRIP_PIXELS = 1 << 22  # copied out of Pillow at a time
_GRAY_MODES = {"1", "L", "LA", "La", "I", "F"}
_SIXTEEN_BIT_GRAY = ("I;16", "I;16L", "I;16B", "I;16N")
# TIFF 6.0 and its supplements: sizes, strips, tiles, colour storage; then XMP, IPTC, Photoshop and ICC blocks, which
# travel by themselves or not at all.
TIFF_STORAGE_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 282), 284, 317, 320, *range(322, 326), 330, 338, 339, 347}
    | {*range(512, 533), 700, 33723, 34377, 34675}
)
_XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 700, 33723, 34377
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


def size(path: Path) -> tuple[int, int] | None:
    """(width, height) as a file's header says, or None where it cannot be read; nothing is decoded."""
    try:
        with path.open("rb") as file, _open(file) as image:
            return image.size
    except (UnidentifiedImageError, *_DECODE_ERRORS):
        return None


def _open(file: BinaryIO) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # the caller's limit replaces Pillow's, which only warns at first
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
    if missing > len(flat) // 2:
        raise PhotoError(f"{name} is cut off: more than half is missing.", "Copy it again from where it came.")
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
    tiff_block, tiff_extra = _tiff_metadata(image) if image.format == "TIFF" else (None, {})
    deep = _deep_pixels(image, file)
    if deep is None:
        orientation, pixels, alpha, mode = _plain_pixels(image)
    else:
        orientation, (pixels, alpha), mode = _orientation(image), deep, "RGB"
    info = image.info
    pixels = _turned(pixels, orientation)
    block = tiff_block or info.get("exif") or None
    packet = tiff_extra.get(_XMP_TAG) or info.get("xmp") or None
    packet = packet.encode() if isinstance(packet, str) else packet
    photoshop = tiff_extra.get(_PHOTOSHOP_TAG) or _joined(image, 0xED, segments.PHOTOSHOP)
    dpi = info.get("dpi")
    return Photo(
        pixels=pixels,
        source_format=source_format,
        alpha=None if alpha is None else _turned(alpha, orientation),
        exif=exif.upright(block.removeprefix(exif.PREFIX), pixels.shape[1::-1]) if block else None,
        icc=None if mode in ("CMYK", "LAB", "YCbCr") else info.get("icc_profile") or None,
        xmp=segments.upright_xmp(packet) if packet else None,
        jpeg_segments=segments.kept_segments(_segments(image)),
        photoshop=segments.fresh_photoshop(photoshop) if photoshop else None,
        comment=info.get("comment") if source_format == "jpeg" else None,
        png_chunks=_png_chunks(file) if source_format == "png" else (),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and dpi[0] and dpi[1] else None,
        jpeg=traits,
        notes=notes,
    )


def _notes(image: Image.Image, file: BinaryIO) -> tuple[str, ...]:
    """What of a file will not be in the photo."""
    notes = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        what = "pages" if image.format == "TIFF" else "pictures in the file"
        notes.append(f"first of {frames} {what}; the others are left out")
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


def _tiff_metadata(image: Image.Image) -> tuple[bytes | None, dict[int, bytes]]:
    """The descriptive tags of a TIFF file as an EXIF block, and its XMP, IPTC and Photoshop blocks."""
    extra = {tag: image.tag_v2[tag] for tag in (_XMP_TAG, _PHOTOSHOP_TAG) if tag in image.tag_v2}
    iptc = image.tag_v2.get(_IPTC_TAG)
    if iptc and _PHOTOSHOP_TAG not in extra:
        iptc = iptc if isinstance(iptc, bytes) else struct.pack(f"<{len(iptc)}I", *iptc)
        extra[_PHOTOSHOP_TAG] = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    try:
        tags = image.getexif()
        for tag in TIFF_STORAGE_TAGS & set(tags):
            del tags[tag]
        block = tags.tobytes() if tags else None
    except _DECODE_ERRORS:  # tags of the wrong type: the photo matters more
        block = None
    return block, {tag: value for tag, value in extra.items() if isinstance(value, bytes)}


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
        return _array(image, np.uint16)[..., None], None
    if image.mode == "I":
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)[..., None], None
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        return np.clip(values * (255 if values.max(initial=0) <= 1 else 1), 0, 255).astype(np.uint8)[..., None], None
    if image.mode == "CMYK":
        return _array(_cmyk_to_rgb(image)), None
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    gray = image.mode in _GRAY_MODES
    if not has_alpha:
        wanted = "L" if gray else "RGB"
        converted = _array(image if image.mode == wanted else image.convert(wanted))
        return (converted[..., None] if gray else converted), None
    converted = _array(image.convert("RGBA"))
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


def _deep_pixels(image: Image.Image, file: BinaryIO) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels and alpha of a 16-bit colour file, whose low bytes Pillow drops; None for any other file."""
    if image.format == "PNG" and image.tile and ";16B" in str(image.tile[0][3]) and not image.mode.startswith("I"):
        import imagecodecs

        file.seek(0)
        values = imagecodecs.png_decode(file.read())
    elif image.format == "TIFF" and image.mode in ("RGB", "RGBA") and 16 in image.tag_v2.get(258, ()):
        import tifffile

        file.seek(0)
        with tifffile.TiffFile(file) as opened:
            page = opened.pages.first
            values = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            values = np.moveaxis(values, 0, -1)
        if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples and values.shape[-1] == 4:
            alpha = np.maximum(values[..., 3:].astype(np.uint64), 1)
            colours = (values[..., :3] * np.uint64(65535) + alpha // 2) // alpha
            values = np.concatenate([np.minimum(colours, 65535).astype(np.uint16), values[..., 3:]], axis=-1)
    else:
        return None
    if values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (2, 3, 4):
        return None
    colours = values.shape[2] - 1 if values.shape[2] in (2, 4) else 3
    alpha = np.ascontiguousarray(values[..., colours]) if values.shape[2] > colours else None
    return np.ascontiguousarray(values[..., :colours]), alpha
