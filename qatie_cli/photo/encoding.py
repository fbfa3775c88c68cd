"""Encoding photos in every output format, with as much metadata as it can hold."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, JpegImagePlugin

from qatie_cli import files
from qatie_cli.errors import PhotoError
from qatie_cli.photo import (
    avif_items,
    containers,
    deep,
    exif,
    extended_xmp,
    fineness,
    fitting,
    heic_size,
    segment_names,
    tiff,
)
from qatie_cli.photo.beside import renditions, writing
from qatie_cli.photo.content import JpegTraits, Photo, to_eight_bit
from qatie_cli.photo.decoding import open_heif
from qatie_cli.photo.fineness import SOURCE, Quality
from qatie_cli.photo.formats import CHROMA, DEEP, FORMATS, SIXTEEN_BIT

DEFAULT_QUALITY = 95
_PNG_LEVEL = 3  # a third of the time of level 6 for 3% more bytes, measured on photos
_END_OF_JPEG = b"\xff\xd9"
_JPEG_EXIF_LIMIT = 65533 - len(exif.PREFIX)  # one segment
_JPEG_XMP_LIMIT = 65533 - len(b"http://ns.adobe.com/xap/1.0/\x00")


def check_encodable(photo: Photo, fmt: str) -> None:
    """Raise PhotoError if `fmt` cannot hold the photo. Cheap: call it before enhancing."""
    if fmt == "jpeg" and photo.has_transparency:
        raise PhotoError("The photo has transparency, which JPEG cannot hold.", "Use --format png or webp.")
    limit = {"jpeg": 65500, "webp": 16383}.get(fmt)
    if limit and max(photo.pixels.shape[:2]) > limit:
        raise PhotoError(
            f"The photo has a side of {max(photo.pixels.shape[:2]):,} pixels; {fmt} allows {limit:,}.",
            "Use --format png or tiff.",
        )


def left_out(photo: Photo, fmt: str) -> tuple[str, ...]:
    """Notes for the user on what `fmt` cannot hold of the photo."""
    notes = []
    if colours := renditions.left_out(photo, fmt) or fitting.note(photo, fmt):
        notes.append(colours)
    if photo.pixels.dtype == np.uint16 and fmt in DEEP and photo.bits is None:
        notes.append(f"written as {deep.DEFAULT_BITS}-bit")
    elif photo.pixels.dtype == np.uint16 and fmt not in SIXTEEN_BIT and fmt not in DEEP:
        notes.append("written as 8-bit")
    if photo.photoshop and fmt not in ("jpeg", "tiff"):
        notes.append(f"IPTC left out, {fmt} has no place for it")
    if photo.exif and not _exif_fits(photo, fmt):
        notes.append(f"EXIF left out, it is damaged or too long for {fmt}")
    if photo.xmp and fmt == "jpeg" and len(photo.xmp) > _JPEG_XMP_LIMIT:
        notes.append("XMP left out, it is too long for JPEG")
    if fmt != "jpeg" and any(map(extended_xmp.is_part, photo.jpeg_segments)):
        notes.append(f"what XMP continues in further segments is left out, {fmt} has none")
    makers = [segment for segment in photo.jpeg_segments if not extended_xmp.is_part(segment)]
    if makers and fmt != "jpeg":
        notes.append(f"{segment_names.names(makers)} left out, {fmt} has no place for it")
    texts = [chunk for chunk in photo.png_chunks if chunk[0] not in containers.PNG_COLOUR_CHUNKS]
    if (texts and fmt != "png") or (photo.comment and fmt != "jpeg"):
        notes.append(f"comments left out, {fmt} has no place for them")
    notes += writing.left_out(photo, fmt)
    return tuple(notes)


def _exif_fits(photo: Photo, fmt: str) -> bool:
    """Whether `fmt` can hold the photo's EXIF: JPEG has one segment for it.

    libavif refuses damaged EXIF, and libheif may rotate the photo by what is left of it.
    """
    if photo.exif is None:
        return True
    if fmt in ("avif", "heic"):
        return photo.exif.startswith((b"II*\x00", b"MM\x00*"))
    return fmt != "jpeg" or len(photo.exif) <= _JPEG_EXIF_LIMIT


def write(
    path: Path,
    photo: Photo,
    fmt: str,
    quality: Quality = None,
    mode: int | None = None,
    before_replace: Callable[[Path], None] = lambda _: None,
) -> None:
    """Encode to `path` atomically, with the metadata that the format can hold (`left_out` names the rest).

    Special files such as FIFOs are written to instead.

    Args:
        fmt: a key of `formats.FORMATS`.
        quality: 1..100 for the lossy formats, or "source" for about as fine as the photo's source was. None is 95; a
            JPEG is then compressed no coarser than its source.
        mode, before_replace: as for `files.atomic_path`.

    Raises:
        OSError: the file cannot be written.
        PhotoError: the format cannot hold the photo, or the encoder refuses.
    """
    check_encodable(photo, fmt)
    if files.is_special(path):
        files.write_atomic(path, encoded(photo, fmt, quality, str(path)))
        return
    with files.atomic_path(path, mode, before_replace) as temporary, temporary.open("wb") as file:
        _encode_all(file, photo, fmt, quality, str(path))


def encoded(photo: Photo, fmt: str, quality: Quality = None, name: str = "The photo") -> bytes:
    """The content of the file that `write` would write. `name` stands for the photo in errors."""
    check_encodable(photo, fmt)
    content = io.BytesIO()
    _encode_all(content, photo, fmt, quality, name)
    return content.getvalue()


def _encode_all(file: BinaryIO, photo: Photo, fmt: str, quality: Quality, name: str) -> None:
    """The picture, with the gain map and the video that belong to it where the format can hold them."""
    photo = renditions.fitted(photo, fmt)
    if photo.gain_map is None and photo.motion is None:
        _encode(file, photo, fmt, quality, name)
        return
    beside = writing.plan(photo, fmt)
    picture = io.BytesIO()
    if fmt == "heic":
        open_heif()  # for the map
    described = dataclasses.replace(photo, xmp=beside.xmp, jpeg_segments=photo.jpeg_segments + beside.segments)
    _encode(picture, described, fmt, quality, name)
    try:
        file.write(writing.assembled(picture, beside, fmt, photo.pixels.shape[1::-1]))
    except ValueError as error:
        raise PhotoError(f"{name} could not be encoded: {error}.", "Try --no-hdr, or another --format.") from error


def _encode(file: BinaryIO, photo: Photo, fmt: str, quality: Quality, name: str) -> None:
    photo = fitting.fitted(photo, fmt)
    if photo.xmp and fmt != "jpeg":
        photo = dataclasses.replace(photo, xmp=extended_xmp.without_mention(photo.xmp))
    try:
        if fmt == "tiff":
            tiff.write(file, photo)
        elif fmt == "png":
            _write_png(file, photo)
        elif fmt in DEEP and photo.pixels.dtype == np.uint16:
            carried = photo if _exif_fits(photo, fmt) else dataclasses.replace(photo, exif=None)
            content = deep.encoded(carried, fmt, _setting(photo, fmt, quality))
            file.write(heic_size.checked(content, name) if fmt == "heic" else content)
        else:
            _write_lossy(file, photo, fmt, quality, name)
    except (ValueError, KeyError, struct.error, RuntimeError, SyntaxError, OverflowError) as error:
        raise PhotoError(f"{name} could not be encoded: {error}.", "Try another --format.") from error


def _write_png(file: BinaryIO, photo: Photo) -> None:
    import imagecodecs

    pixels = photo.pixels if photo.alpha is None else np.dstack([photo.pixels, photo.alpha])
    content = imagecodecs.png_encode(
        np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), level=_PNG_LEVEL
    )
    header = len(containers.PNG_SIGNATURE) + 25  # IHDR: 13 bytes and the 12 that every chunk has
    chunks = [chunk for chunk in photo.png_chunks if not (photo.icc and chunk[0] == b"sRGB")]
    if photo.space is not None and photo.space.codes and b"cICP" not in dict(chunks):
        chunks.append((b"cICP", bytes([*photo.space.codes, 0, 1])))  # RGB in full range
    if photo.icc:
        chunks.append((b"iCCP", b"ICC profile\x00\x00" + zlib.compress(photo.icc)))
    if photo.dpi:
        metres = [round(dpi / 0.0254) for dpi in photo.dpi]
        chunks.append((b"pHYs", struct.pack(">IIB", *metres, 1)))
    if photo.exif:
        chunks.append((b"eXIf", photo.exif))
    if photo.xmp:
        chunks.append(containers.xmp_chunk(photo.xmp))
    file.write(content[:header])
    for kind, body in chunks:
        file.write(containers.png_chunk(kind, body))
    file.write(memoryview(content)[header:])


def _write_lossy(file: BinaryIO, photo: Photo, fmt: str, quality: Quality, name: str) -> None:
    options: dict = {"quality": _setting(photo, fmt, quality)}
    if fmt == "heic":
        open_heif()
        options |= deep.heic_chroma(photo)
        if photo.space is not None and photo.space.codes:
            options |= deep.nclx_options(photo.space.codes)
    pixels = to_eight_bit(photo.pixels)
    if photo.alpha is not None and fmt != "jpeg":
        pixels = np.dstack([pixels, to_eight_bit(photo.alpha)])
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if photo.icc:
        options["icc_profile"] = photo.icc
    block = photo.exif if _exif_fits(photo, fmt) else None
    if block and fmt != "avif":
        options["exif"] = exif.PREFIX + block
    if photo.xmp and not (fmt == "jpeg" and len(photo.xmp) > _JPEG_XMP_LIMIT):
        options["xmp"] = photo.xmp
    if fmt == "webp" and photo.lossless and quality in (None, SOURCE):
        options |= {"lossless": True, "exact": True, "quality": 50}  # here quality means effort
    if fmt == "jpeg":
        options |= _jpeg_options(photo, quality)
    elif fmt == "avif" and photo.pixels.shape[2] == 3:
        options["subsampling"] = CHROMA[photo.subsampling]
    # Through memory: Pillow's encoders miss short writes to a full disk.
    if fmt == "jpeg":
        with _jpeg_in_memory(image, options) as content:
            shutil.copyfileobj(content, file)
        return
    memory = io.BytesIO()
    image.save(memory, FORMATS[fmt][1], **options)
    if block and fmt == "avif":  # Pillow would rebuild it, and break the offsets in maker notes
        file.write(avif_items.added(memory.getvalue(), block, None, None))
    elif fmt == "heic":
        file.write(heic_size.checked(memory.getvalue(), name))
    else:
        file.write(memory.getbuffer())


def _jpeg_in_memory(image: Image.Image, options: dict) -> BinaryIO:
    """A compressed JPEG as a file in memory, at its beginning.

    Into a descriptor Pillow compresses without the GIL. Else it holds the GIL for nearly all of that time, and the
    network's threads wait.
    """
    # No such files (other systems), none allowed, or smaller ones: `ulimit -f` counts for them, too.
    with contextlib.suppress(AttributeError, OSError), contextlib.ExitStack() as unless_whole:
        memory = unless_whole.enter_context(os.fdopen(os.memfd_create("qatie"), "w+b"))
        image.save(memory, "JPEG", **options)
        memory.seek(-len(_END_OF_JPEG), os.SEEK_END)
        if memory.read() == _END_OF_JPEG:
            unless_whole.pop_all()
            memory.seek(0)
            return memory
    content = io.BytesIO()
    image.save(content, "JPEG", **options)
    content.seek(0)
    return content


def _setting(photo: Photo, fmt: str, quality: Quality) -> int:
    """The encoder's own setting, 1..100."""
    if quality is None:
        return DEFAULT_QUALITY
    if quality != SOURCE:
        return quality
    measured = fineness.of_photo(photo) if photo.fineness is None else photo.fineness
    return fineness.setting(fmt, measured)


def _jpeg_options(photo: Photo, quality: Quality) -> dict:
    options: dict = {"extra": containers.jpeg_segments(photo.photoshop, photo.jpeg_segments)}
    if photo.dpi:
        options["dpi"] = photo.dpi
    if photo.comment:
        options["comment"] = photo.comment
    options["subsampling"] = photo.subsampling
    traits = photo.jpeg
    if traits is None:
        return options
    options["progressive"] = traits.progressive
    if quality in (None, SOURCE) and traits.quantization:
        own = list(map(list, traits.quantization[: 1 if photo.pixels.shape[2] == 1 else 2]))
        finer = own if quality == SOURCE else _tables(traits, colours=photo.pixels.shape[2])
        options |= {"qtables": finer, "quality": -1}
    return options


def _tables(traits: JpegTraits, colours: int) -> list[list[int]]:
    """The source's quantization tables, with no step coarser than the default quality's.

    Coarse steps only suit the source's own levels: with steps of 20, a photo brightened by 10 levels came out 0 or 20
    levels brighter from block to block.
    """
    sample = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sample, "JPEG", quality=DEFAULT_QUALITY)
    with Image.open(sample) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        finest = [table for _, table in sorted(image.quantization.items())]
    own = traits.quantization[: 1 if colours == 1 else 2]
    return [list(map(min, table, limit)) for table, limit in zip(own, finest, strict=False)]
