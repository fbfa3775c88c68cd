"""Reads gain map and video of an opened photo, with notes on what else of the file is dropped."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ImageFile

from qatie_cli.photo import boxes, leftovers
from qatie_cli.photo.beside import heif, jpeg_file, motion, ultra_hdr
from qatie_cli.photo.beside.gain_map import GainMap
from qatie_cli.photo.beside.jpeg_file import Kind
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.boxes import Items
from qatie_cli.photo.pixels import DECODE_ERRORS, orientation_of, upright


@dataclass(frozen=True)
class Beside:
    """What is carried with a photo, and notes on what is not."""

    gain_map: GainMap | None = None
    motion: Motion | None = None
    notes: tuple[str, ...] = ()


def read(image: ImageFile.ImageFile, file: BinaryIO, items: Items | None) -> Beside:
    """Gain map and video of an opened JPEG, HEIC or AVIF file; nothing for other formats.

    Call it before decoding closes the image.

    Args:
        items: of a HEIC or AVIF file; None where it cannot be listed.
    """
    if image.format in ("JPEG", "MPO"):
        file.seek(0)
        return _of_jpeg(image, file.read())
    if image.format in ("HEIF", "AVIF"):
        return _of_heif(image, items)
    return Beside()


def _of_jpeg(image: ImageFile.ImageFile, content: bytes) -> Beside:
    first = jpeg_file.picture(content)
    gain_map, moving, named, further = None, None, [], 0
    for part in jpeg_file.behind(content, first):
        if part.kind is Kind.GAIN_MAP and part.picture is not None and gain_map is None:
            with contextlib.suppress(*DECODE_ERRORS):
                gain_map = ultra_hdr.gain_map(content, part.picture, image.info.get("exif"), image.width * image.height)
            if gain_map is None:
                named.append(leftovers.GAIN_MAP)
        elif part.kind is Kind.TRAILER:
            trailer = content[part.start : part.end]
            found = jpeg_file.VIDEO_START.search(trailer)
            moving = motion.of_jpeg_trailer(trailer, found.start() if found else None, first.xmp())
        elif part.kind is Kind.UNKNOWN:
            named.append(f"data after the picture is left out ({part.end - part.start:,} bytes)")
        else:
            further += 1
    if further:
        named.append(f"first of {further + 1} pictures in the file; the others are left out")
    named += leftovers.of_jpeg(first)
    if gain_map is not None and (orientation := orientation_of(image)) in range(2, 9):
        gain_map = dataclasses.replace(gain_map, values=upright(gain_map.values, orientation), encoded=None)
    return Beside(gain_map, moving, tuple(dict.fromkeys(named)))


def _of_heif(image: ImageFile.ImageFile, items: Items | None) -> Beside:
    if items is None:  # the decoder understood it better
        frames = getattr(image, "n_frames", 1)
        further = f"first of {frames} pictures in the file; the others are left out"
        unlisted = "what else is in the file is left out: it cannot be listed"
        return Beside(notes=(*((further,) if frames > 1 else ()), unlisted))
    named = boxes.left_out(items)
    moving = heif.moving(items, image.info.get("xmp", b""))
    gain_map = None
    if leftovers.GAIN_MAP in named:
        with contextlib.suppress(*DECODE_ERRORS):
            gain_map = heif.gain_map(image, items)
    carried = [leftovers.GAIN_MAP] if gain_map else []
    if moving is not None:
        carried += [leftovers.VIDEO] if moving.video is not None else [boxes.left_out_box(heif.SAMSUNG_BOX)]
        carried += [boxes.left_out_box(heif.SAMSUNG_BOX)] if moving.boxes else []
    return Beside(gain_map, moving, tuple(note for note in named if note not in carried))
