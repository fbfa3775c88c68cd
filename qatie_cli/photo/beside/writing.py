"""Writes gain map and video of a photo, as far as the format has a place for them."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass

from PIL import Image

from qatie_cli.photo import leftovers
from qatie_cli.photo.beside import directory, heif, heif_writing, samsung, ultra_hdr
from qatie_cli.photo.beside.gain_map import GainMap
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.boxes import box
from qatie_cli.photo.containers import Segment
from qatie_cli.photo.content import Photo
from qatie_cli.photo.formats import FORMATS

_WITH_MAPS = ("jpeg", "heic", "avif")
_MAP_QUALITY = 95
_WITH_VIDEOS = ("jpeg", "heic", "avif")
_MPVD_HEAD = 8  # bytes of the box before the video
SAMSUNG_DATA = "Samsung's data behind the picture are left out"


@dataclass(frozen=True)
class Plan:
    """What is written beside a picture."""

    xmp: bytes | None
    segments: tuple[Segment, ...] = ()  # of a JPEG
    layout: ultra_hdr.Layout | None = None
    gain_map: GainMap | None = None  # of HEIC or AVIF
    motion: Motion | None = None  # in a box of HEIC or AVIF


def left_out(photo: Photo, fmt: str) -> tuple[str, ...]:
    """Notes for the user on which of them `fmt` cannot hold."""
    notes = []
    if photo.gain_map is not None and not photo.gain_map.boost.base_is_hdr and fmt not in _WITH_MAPS:
        notes.append(f"{leftovers.GAIN_MAP}, {fmt} has no place for it")
    motion = photo.motion
    if motion is None:
        return tuple(notes)
    if fmt not in _WITH_VIDEOS and motion.video is not None:
        notes.append(leftovers.VIDEO)
    if fmt not in _WITH_VIDEOS or (motion.video is not None and motion.is_of_jpeg != (fmt == "jpeg")):
        notes += [SAMSUNG_DATA] if motion.has_more_than_video else []
    return tuple(notes)


def plan(photo: Photo, fmt: str) -> Plan:
    """What to write beside the picture of a photo."""
    if fmt == "jpeg" and (photo.gain_map is not None or photo.motion is not None):
        layout = ultra_hdr.layout(photo.xmp, photo.gain_map, photo.motion)
        return Plan(layout.xmp, layout.segments, layout)
    motion, gain_map = photo.motion, photo.gain_map if fmt in _WITH_MAPS else None
    if fmt in _WITH_VIDEOS and motion is not None and motion.video is not None:
        alone = dataclasses.replace(motion, content=motion.only_video(), video=0)
        described = directory.described(photo.xmp, f"image/{fmt}", 0, _with_boxes(alone), _MPVD_HEAD)
        return Plan(described or photo.xmp, gain_map=gain_map, motion=alone)
    return Plan(photo.xmp, gain_map=gain_map, motion=motion if fmt in _WITH_VIDEOS else None)


def _with_boxes(motion: Motion) -> Motion:
    """For the directory, which counts the video's bytes to the end of the file."""
    return dataclasses.replace(motion, content=motion.content + motion.boxes)


def assembled(encoded: io.BytesIO, plan: Plan, fmt: str, size: tuple[int, int]) -> bytes | memoryview:
    """The file of an encoded picture, with all that is planned; `size` is the picture's width and height.

    Raises:
        ValueError: the encoder wrote something unknown.
    """
    if plan.gain_map is not None:
        values = plan.gain_map.values
        made = io.BytesIO()
        image = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
        image.save(made, FORMATS[fmt][1], quality=_MAP_QUALITY)
        encoded = io.BytesIO(heif_writing.with_gain_map(encoded.getvalue(), made.getvalue(), plan.gain_map, size))
    if plan.layout is not None:
        return ultra_hdr.assembled(encoded.getvalue(), plan.layout)
    if plan.motion is None:
        return encoded.getbuffer()
    picture, video = encoded.getvalue(), plan.motion.content
    if plan.motion.video is None:
        return picture + box(heif.SAMSUNG_BOX, video)
    at = len(picture) + _MPVD_HEAD
    boxes = samsung.with_moved_video(plan.motion.boxes, plan.motion.box_at, at)
    return picture + box(heif.MOTION_BOX, video) + boxes
