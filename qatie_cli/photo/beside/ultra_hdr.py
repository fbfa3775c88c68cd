"""JPEG files with a gain map and a video: reading (Android's Ultra HDR, Apple) and writing (Ultra HDR).

A written file is a JPEG, its gain map as a second JPEG, and the video. The index (MPF) and the container directory
(XMP) name the second; it holds its description twice, as hdrgm XMP and after ISO 21496-1.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qatie_cli.photo import containers, metadata
from qatie_cli.photo.beside import dialects, directory, jpeg_file
from qatie_cli.photo.beside.gain_map import GainMap, check_size
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.containers import Segment

_QUALITY = 95  # for a map that was not a JPEG
_APP1, _APP2 = 0xE1, 0xE2
_LARGEST_XMP = 65533 - len(jpeg_file.XMP)  # one segment


# --- reading ------------------------------------------------------------------------------------------------------


def gain_map(content: bytes, picture: jpeg_file.Picture, exif_block: bytes | None, photo_pixels: int) -> GainMap | None:
    """The gain map in a JPEG behind a photo's picture, not turned; None where it has no description that is known.

    Args:
        exif_block: the photo's EXIF, which has the headroom of Apple's older maps.
        photo_pixels: of the photo.

    Raises:
        ValueError, OSError: it is damaged.
    """
    encoded, packet = content[picture.start : picture.end], picture.xmp()
    blocks = [block for block in picture.payloads(_APP2, dialects.ISO) if len(block) > len(dialects.ISO_VERSION)]
    boost = next(filter(None, map(dialects.of_iso, blocks)), None) or dialects.of_hdrgm(packet)
    headroom = dialects.apple_headroom(packet, exif_block) if boost is None and dialects.is_apple(packet) else None
    if (boost is None and headroom is None) or (boost is not None and boost.base_is_hdr):
        return None
    with Image.open(io.BytesIO(encoded), formats=("JPEG", "MPO")) as image:
        check_size(image.size, photo_pixels)
        traits, profile = metadata.jpeg_traits(image), image.info.get("icc_profile")
        gray = image.mode == "L"
        values = np.asarray(image if gray else image.convert("RGB"))
    values = values[..., None] if gray else values
    if boost is None and headroom is not None:
        return GainMap(*dialects.of_apple(values[..., :1], headroom), traits)
    assert boost is not None
    return GainMap(values, boost, traits, encoded, profile)


# --- writing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """What a JPEG needs for a gain map and a video: segments, XMP, and the data after the picture."""

    segments: tuple[Segment, ...]
    xmp: bytes | None
    gain_map: bytes
    trailer: bytes


def layout(packet: bytes | None, gain_map: GainMap | None, motion: Motion | None) -> Layout:
    """How a photo with these is laid out.

    Args:
        packet: the photo's XMP, free of descriptions of the old file.
    """
    second = b"" if gain_map is None else encoded(gain_map)
    trailer = b"" if motion is None else motion.content
    segments: tuple[Segment, ...] = ()
    if second:
        index = jpeg_file.MPF + jpeg_file.index(0, len(second), 0)  # `assembled` fills it in
        segments = ((_APP2, dialects.ISO + dialects.ISO_VERSION), (_APP2, index))
    padding = 0 if motion is None or motion.video is None else motion.video
    described = None
    if second or padding or (motion is not None and motion.video is not None):
        described = directory.described(packet, "image/jpeg", len(second), motion, padding)
    if described is not None and len(described) > _LARGEST_XMP:
        described = None  # readers find the map by the index, and the video by its beginning
    return Layout(segments, described or packet, second, trailer)


def assembled(jpeg: bytes, layout: Layout) -> bytes:
    """The file: the encoded picture with its index filled in, and what stands behind it."""
    if not layout.gain_map:
        return jpeg + layout.trailer
    at = jpeg.index(jpeg_file.MPF + b"MM\x00*") + len(jpeg_file.MPF)
    index = jpeg_file.index(len(jpeg), len(layout.gain_map), len(jpeg) - at)
    return jpeg[:at] + index + jpeg[at + len(index) :] + layout.gain_map + layout.trailer


def encoded(gain_map: GainMap) -> bytes:
    """The JPEG of a gain map with its description: the source's if the values are unchanged, else of equal quality."""
    if gain_map.encoded is not None:
        plain = _without_descriptions(gain_map.encoded)
    else:
        values = gain_map.values
        options: dict = {"quality": _QUALITY, "subsampling": 0}
        if gain_map.jpeg is not None and gain_map.jpeg.quantization:
            tables = list(map(list, gain_map.jpeg.quantization[: 1 if values.shape[2] == 1 else 2]))
            options = {"qtables": tables, "quality": -1, "subsampling": gain_map.jpeg.subsampling or 0}
        if gain_map.icc:
            options["icc_profile"] = gain_map.icc
        made = io.BytesIO()
        Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(made, "JPEG", **options)
        plain = made.getvalue()
    descriptions = (
        (_APP1, jpeg_file.XMP + dialects.as_hdrgm(gain_map.boost)),
        (_APP2, dialects.ISO + dialects.as_iso(gain_map.boost)),
    )
    return plain[:2] + containers.jpeg_segments(None, descriptions) + plain[2:]


def _without_descriptions(jpeg: bytes) -> bytes:
    """The JPEG without XMP, ISO 21496-1 and an index of pictures."""
    kept, at = [], 0
    for marker, body, position in jpeg_file.picture(jpeg).segments:
        described = (marker == _APP1 and body.startswith(jpeg_file.XMP)) or (
            marker == _APP2 and body.startswith((dialects.ISO, jpeg_file.MPF))
        )
        if described:
            kept.append(jpeg[at : position - 4])
            at = position + len(body)
    return b"".join([*kept, jpeg[at:]])
