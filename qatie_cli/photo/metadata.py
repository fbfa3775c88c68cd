"""Collects metadata from an opened image, and notes on what cannot be carried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import ImageFile, JpegImagePlugin, TiffImagePlugin

from qatie_cli.photo import containers, exif, extended_xmp, iptc, leftovers, pages, regions, subject, xmp
from qatie_cli.photo.containers import Chunk, Segment
from qatie_cli.photo.content import JpegTraits
from qatie_cli.photo.pixels import DECODE_ERRORS
from qatie_cli.photo.regions import Turn

_X_RESOLUTION, _XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 282, 700, 33723, 34377
_LARGEST_TAG = 1 << 26  # bytes of a metadata tag
_HEAD_BYTES = 1 << 16  # where WebP describes itself


@dataclass(frozen=True)
class TiffTags:
    """The descriptive tags of a TIFF file as an EXIF block, its XMP packet and its image resources; what is lost."""

    exif: bytes | None = None
    xmp: bytes | None = None
    photoshop: bytes | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """Everything that travels beside the pixels, in the form that `content.Photo` holds; `notes` name what is lost."""

    exif: bytes | None
    xmp: bytes | None
    jpeg_segments: tuple[Segment, ...]
    photoshop: bytes | None
    comment: bytes | None
    png_chunks: tuple[Chunk, ...]
    dpi: tuple[float, float] | None
    turn: Turn
    notes: tuple[str, ...] = ()


def read(
    image: ImageFile.ImageFile, file: BinaryIO, tiff: TiffTags, orientation: int, size: tuple[int, int]
) -> Metadata:
    """Collect the metadata of a decoded image.

    Args:
        tiff: from `tiff_tags`.
        orientation: EXIF's, already applied to the pixels.
        size: (width, height) of the upright pixels.
    """
    info = image.info
    notes = tiff.notes
    block = tiff.exif or info.get("exif") or containers.raw_profile(info.get("Raw profile type exif", "")) or None
    # libheif rotates by the file's own property, which EXIF repeats; EXIF's coordinates refer to the stored picture.
    turned = image.info.get("original_orientation") or orientation if image.format == "HEIF" else orientation
    turn = Turn(turned, *(size[::-1] if turned in (5, 6, 7, 8) else size))
    if block:
        block = exif.upright(block.removeprefix(exif.PREFIX), size)
        block = subject.turned(block, turn)
        if orientation != 1 and exif.orientation(block) != 1:  # a viewer would rotate the photo again
            block, notes = None, (*notes, "EXIF left out, it is damaged")
    packet = tiff.xmp or info.get("xmp") or containers.raw_profile(info.get("Raw profile type xmp", "")) or None
    packet = packet.encode() if isinstance(packet, str) else packet
    if packet and len(packet) > xmp.LARGEST:
        packet, notes = None, (*notes, f"XMP left out, it is longer than {xmp.LARGEST >> 20} MB")
    photoshop = (
        tiff.photoshop
        or _joined(image, containers.APP13, containers.PHOTOSHOP)
        or containers.raw_profile(info.get("Raw profile type iptc", ""))
    )
    segments = containers.kept_segments(_segments(image))
    packet = extended_xmp.consistent(regions.turned(xmp.upright(packet), turn), segments) if packet else None
    return Metadata(
        exif=block,
        xmp=packet,
        jpeg_segments=segments,
        photoshop=iptc.without_thumbnails(photoshop) if photoshop else None,
        comment=info.get("comment") if image.format in ("JPEG", "MPO") else None,
        png_chunks=_png_chunks(file) if image.format == "PNG" else (),
        dpi=_resolution(info.get("dpi")) if _states_resolution(image) else None,
        turn=turn,
        notes=notes,
    )


def tiff_tags(image: ImageFile.ImageFile, file: BinaryIO) -> TiffTags:
    """Metadata in the tags of a TIFF file; nothing for other formats. Read it before decoding closes the image."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return TiffTags()
    wanted = (_XMP_TAG, _PHOTOSHOP_TAG, _IPTC_TAG)
    packet, photoshop, datasets = (pages.value(file, tag, _LARGEST_TAG) for tag in wanted)
    if datasets:
        photoshop = iptc.joined(photoshop or b"", datasets)
    try:
        tags = image.getexif()
        for tag in exif.STORAGE_TAGS & set(tags):
            del tags[tag]
        block = tags.tobytes() if tags else None
    except DECODE_ERRORS:  # tags of the wrong type must not lose the photo
        return TiffTags(None, packet or None, photoshop or None, ("EXIF left out, it is damaged",))
    return TiffTags(block, packet or None, photoshop or None, _lost_tags(file, block))


def _lost_tags(file: BinaryIO, block: bytes | None) -> tuple[str, ...]:
    """A note on descriptive tags that Pillow did not read."""
    carried = {entry.tag for entry in exif.entries(block.removeprefix(exif.PREFIX))[1]} if block else set()
    lost = sorted(pages.tags(file) - exif.STORAGE_TAGS - carried)
    return (f"tags {', '.join(map(str, lost))} are left out",) if lost else ()


def jpeg_traits(image: ImageFile.ImageFile) -> JpegTraits | None:
    """How a JPEG is compressed; None for another format."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    sampling = JpegImagePlugin.get_sampling(image)
    tables = tuple(tuple(min(255, value) for value in table) for _, table in sorted(image.quantization.items()))
    return JpegTraits(sampling if sampling in (0, 1, 2) else None, tables, bool(image.info.get("progressive")))


def is_lossless_webp(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Whether the picture is in a VP8L chunk (WebP container specification), not in a lossy VP8 one."""
    if image.format != "WEBP":
        return False
    head = _head(file)
    return b"VP8L" in head and b"VP8 " not in head


def lost(image: ImageFile.ImageFile, file: BinaryIO) -> tuple[str, ...]:
    """Notes for the user on what is dropped from a PNG, WebP or TIFF; `beside` handles other formats."""
    file.seek(0)
    notes: list[str] = []
    if image.format == "PNG":
        notes += leftovers.of_png(file.read())
    elif image.format == "WEBP":
        notes += leftovers.of_webp(file.read())
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        notes += pages.left_out(file)
    return tuple(notes)


def _head(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(_HEAD_BYTES)


def _resolution(dpi: Any) -> tuple[float, float] | None:
    """Pixels per inch; None if a file cannot hold them."""
    try:
        both = (float(dpi[0]), float(dpi[1])) if dpi else None
    except (ZeroDivisionError, TypeError, ValueError):
        return None
    return both if both and all(0 < value < 1e5 for value in both) else None


def _states_resolution(image: ImageFile.ImageFile) -> bool:
    """Whether the file states a resolution: Pillow assumes 72 pixels per inch for JPEGs with EXIF."""
    if image.format not in ("JPEG", "MPO") or image.info.get("jfif_unit") in (1, 2):
        return True
    try:
        return _X_RESOLUTION in image.getexif()
    except DECODE_ERRORS:
        return False


def _segments(image: ImageFile.ImageFile) -> list[Segment]:
    """The application segments of a JPEG; none for another format."""
    found = getattr(image, "applist", ())
    return [(0xE0 + int(kind[3:]), body) for kind, body in found if kind.startswith("APP")]


def _joined(image: ImageFile.ImageFile, wanted: int, signature: bytes) -> bytes | None:
    """Payloads of a JPEG's segments of one kind, joined, without signature."""
    found = [body for marker, body in _segments(image) if marker == wanted and body.startswith(signature)]
    return b"".join(body[len(signature) :] for body in found) or None


def _png_chunks(file: BinaryIO) -> tuple[Chunk, ...]:
    file.seek(0)
    return containers.png_chunks(file.read())
