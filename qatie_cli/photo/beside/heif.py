"""HEIC and AVIF files with a gain map and a video: Apple's and Samsung's auxiliary pictures, and `tmap` items.

ISO/IEC 23008-12 describes auxiliary pictures and `tmap`. A map that is not an auxiliary picture is decoded from a copy
of the file with the map as its primary picture, since decoders return no other.
"""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageFile

from qatie_cli.photo import item_properties, spaces
from qatie_cli.photo.beside import dialects, motion, samsung
from qatie_cli.photo.beside.gain_map import Boost, GainMap, check_size
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.boxes import Items, box
from qatie_cli.photo.pixels import orientation_of, upright

MOTION_BOX = b"mpvd"
SAMSUNG_BOX = b"sefd"
_BLOCK = 64  # pixels; the largest that a coded picture's sides are multiples of
_SRGB_CURVE, _UNSPECIFIED = 13, 2  # transfer characteristics and colour primaries of ITU-T H.273


def gain_map(image: ImageFile.ImageFile, items: Items) -> GainMap | None:
    """The gain map of an opened file, upright; None where it has none whose description is known.

    Raises:
        ValueError, OSError and what else decoders raise: it is damaged.
    """
    found = _found(image, items)
    codes = item_properties.of_primary(items).nclx()
    space = None if codes is None else spaces.of_codes(*codes)
    if found is None or found.boost.base_is_hdr != (space is not None and space.is_hdr):
        return None
    return found


def _found(image: ImageFile.ImageFile, items: Items) -> GainMap | None:
    for item, kind in items.types.items():
        if kind == b"tmap":
            return _tone_mapped(image, items, item)
    for kind, origin, targets in items.links:
        if kind == b"auxl" and items.primary in targets and b"hdrgainmap" in items.auxiliary(origin).lower():
            return _auxiliary(image, items, origin)
    return None


def _tone_mapped(image: ImageFile.ImageFile, items: Items, item: int) -> GainMap | None:
    """The map of a `tmap` item, which is derived from the base and the map (23008-12, 6.6.2.4)."""
    inputs = next((targets for kind, origin, targets in items.links if kind == b"dimg" and origin == item), ())
    block = items.data(item)
    if len(inputs) != 2 or inputs[0] != items.primary or not block or block[0]:
        return None
    boost = dialects.of_iso(block[1:])
    if boost is None:
        return None
    if not boost.base_is_hdr:
        icc = None if boost.in_base_colours else _profile(items, item)
        return GainMap(_decoded(image, items, inputs[1], boost), boost, icc=icc)
    codes = item_properties.of_item(items, item).nclx() or (_UNSPECIFIED, _UNSPECIFIED)
    space = None if codes[0] == _UNSPECIFIED else spaces.of_codes(codes[0], _SRGB_CURVE)
    if space is None and not boost.in_base_colours:
        return None
    return GainMap(_decoded(image, items, inputs[1], boost), boost, sdr_space=space)


def _auxiliary(image: ImageFile.ImageFile, items: Items, item: int) -> GainMap | None:
    packet = b"".join(items.data(other) for other in items.described_by(item))
    boost = dialects.of_hdrgm(packet)
    if boost is not None:
        return GainMap(_decoded(image, items, item, boost), boost)
    headroom = dialects.apple_headroom(packet, image.info.get("exif")) if dialects.is_apple(packet) else None
    if headroom is None:
        return None
    return GainMap(*dialects.of_apple(_decoded(image, items, item, None), headroom))


def _decoded(image: ImageFile.ImageFile, items: Items, item: int, boost: Boost | None) -> np.ndarray:
    """The values (h, w, 1 or 3) uint8 of a picture that is an item, upright."""
    sizes = [items.sizes[number] for number in items.of_item.get(item, ()) if number in items.sizes]
    check_size(sizes[0] if sizes else (0, 0), max(image.width * image.height, _BLOCK**2))
    if image.format == "HEIF" and any(kind == b"auxl" and origin == item for kind, origin, _ in items.links):
        import pillow_heif

        opened = pillow_heif.open_heif(io.BytesIO(items.file))
        values = _array(opened[opened.primary_index].get_aux_image(item).to_pillow())
    else:
        copy = bytearray(items.file)
        at, size = items.primary_at
        copy[at : at + size] = item.to_bytes(size, "big")
        copy[items.entry_at[item] + 3] &= 0xFE  # not hidden
        with Image.open(io.BytesIO(bytes(copy)), formats=(image.format or "HEIF",)) as primary:
            primary.load()
            values = upright(_array(primary), orientation_of(primary))
    spare = [whole - seen for whole, seen in zip(sorted(sizes[0]), sorted(values.shape[:2]), strict=True)]
    if not all(0 <= rest < _BLOCK for rest in spare):  # the picture may be cut out of whole blocks
        raise ValueError("the decoder shows another picture")
    single = boost is None or len(boost.pairs[0]) == 1
    return values[..., :1] if single and not np.ptp(values, axis=2).any() else values


def _array(image: Image.Image) -> np.ndarray:
    values = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return values[..., None] if values.ndim == 2 else values


def _profile(items: Items, item: int) -> bytes | None:
    """The colour profile of the HDR picture, for boosts in its colours; None where nothing names it."""
    for number in sorted(items.of_item.get(item, ())):
        kind, start, end = items.boxes[number - 1] if number <= len(items.boxes) else (b"", 0, 0)
        if kind == b"colr" and items.file[start : start + 4] in (b"prof", b"rICC"):
            return items.file[start + 4 : end]
        if kind == b"colr" and items.file[start : start + 4] == b"nclx":
            (primaries,) = struct.unpack_from(">H", items.file, start + 4)
            space = spaces.of_codes(primaries, _SRGB_CURVE)  # boosts are of linear light, so any curve will do
            return None if space is None or primaries == _UNSPECIFIED else spaces.profile(space)
    return None


def moving(items: Items, packet: bytes) -> Motion | None:
    """The video of a motion photo with the boxes after it, or Samsung's data alone; None without either."""
    video, further, data = None, b"", []
    for kind, start, end in items.top:
        if kind == MOTION_BOX and video is None:
            video = start, end
        elif video is not None and kind == SAMSUNG_BOX:
            further += box(kind, items.file[start:end])
        elif kind == SAMSUNG_BOX:
            data.append((start, end))
    if video is None:
        alone = items.file[slice(*data[0])] if len(data) == 1 else b""
        return motion.of_samsung_data(alone, data[0][0]) if alone.endswith(samsung.END) else None
    return motion.of_heif_box(items.file[slice(*video)], further, video[0], packet)
