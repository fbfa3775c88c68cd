"""A motion photo's video: where it stands in a file, and what XMP says about it.

Google's motion photo format 1.0 describes it. The video travels as it is: nothing in it names its place in the file.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from dataclasses import dataclass

from qatie_cli.photo import boxes
from qatie_cli.photo.beside import dialects, samsung

CAMERA = b"http://ns.google.com/photos/1.0/camera/"
_PLACE_BOXES = re.compile(rb"\xa9xyz|loci|gps0|GPS ")
_PLACE_KEY = b"location.ISO6709"
_VIDEO_BOXES = {b"ftyp", b"mdat", b"moov", b"free", b"skip", b"wide", b"uuid", b"udta", b"meta", b"moof", b"mfra",
                b"sidx", b"styp", b"pnot", b"pdin", b"mvex"}  # fmt: skip
_MIMES = {b"qt  ": "video/quicktime"}


@dataclass(frozen=True)
class Motion:
    """What stands behind a picture and travels with it as a whole.

    `content` is a video with what precedes and follows it, such as Samsung's trailer; `video` is where the video
    begins in it, None where there is only data. `microseconds` is the moment of the picture in the video. `legacy` says
    that the file described the video in the format's first version (MicroVideo), too. `boxes` are those of a HEIC or
    AVIF file behind the video's, and `box_at` is where the video's payload stood in it.
    """

    content: bytes
    video: int | None = 0
    microseconds: int | None = None
    legacy: bool = False
    boxes: bytes = b""
    box_at: int = 0

    @property
    def video_bytes(self) -> int:
        """From the beginning of the video to the end of the file, which is what XMP states."""
        return 0 if self.video is None else len(self.content) - self.video

    @property
    def is_of_jpeg(self) -> bool:
        """Whether it stood behind a JPEG, not in a box."""
        return not self.box_at

    @property
    def has_more_than_video(self) -> bool:
        """Whether there is Samsung's data, too."""
        return bool(self.video is None or self.video or self.boxes)

    @property
    def mime(self) -> str:
        """The video's type."""
        begins = self.video or 0
        return _MIMES.get(self.content[begins + 8 : begins + 12], "video/mp4")

    def only_video(self) -> bytes:
        """The video without what precedes and follows it; empty where there is none."""
        if self.video is None:
            return b""
        if not self.content.endswith(samsung.END):
            return self.content[self.video :]
        end = self.video
        for kind, _, stop in boxes.walk(self.content, self.video, len(self.content)):
            if kind not in _VIDEO_BOXES:
                break
            end = stop
        return self.content[self.video : end]

    def without_places(self) -> Motion | None:
        """Without the coordinates that cameras write into videos; None if they cannot be isolated."""
        if _PLACE_KEY in self.content:
            return None
        if not _PLACE_BOXES.search(self.content):
            return self
        content = bytearray(self.content)
        for found in _PLACE_BOXES.finditer(self.content):
            at = found.start() - 4
            size = struct.unpack_from(">I", content, at)[0] if at >= 0 else 0
            if not 8 <= size <= 1024 or at + size > len(content):
                continue  # bytes of the video that look like it
            content[at + 4 : at + size] = b"free" + bytes(size - 8)
        return dataclasses.replace(self, content=bytes(content))


def of_jpeg_trailer(trailer: bytes, video: int | None, packet: bytes) -> Motion:
    """The trailer of a JPEG; `packet` is the picture's XMP as it is in the file."""
    return Motion(trailer, video, _moment(packet), b"MicroVideo" in packet)


def of_heif_box(video: bytes, boxes: bytes, at: int, packet: bytes) -> Motion:
    """The payload of a HEIC or AVIF file's `mpvd` box, which begins at `at`, and the boxes behind it."""
    return Motion(video, 0, _moment(packet), False, boxes, at)


def of_samsung_data(data: bytes, at: int) -> Motion:
    """The payload of a HEIC file's `sefd` box without a video; it is the same that stands behind a JPEG."""
    return Motion(data, None, box_at=at)


def _moment(packet: bytes) -> int | None:
    for name in (b"MotionPhotoPresentationTimestampUs", b"MicroVideoPresentationTimestampUs"):
        for text in dialects.values(packet, CAMERA, name):
            try:
                return int(text)
            except ValueError:
                continue
    return None
