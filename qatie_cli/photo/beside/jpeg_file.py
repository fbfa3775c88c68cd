"""The parts of a JPEG file: the picture, further pictures, a trailer with a video, and unknown data."""

from __future__ import annotations

import bisect
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from qatie_cli.photo import exif
from qatie_cli.photo.beside import dialects, samsung

MPF = b"MPF\x00"
XMP = b"http://ns.adobe.com/xap/1.0/\x00"
VIDEO_START = re.compile(rb"....ftyp(?:mp4|isom|qt  |MSNV|3gp|avc1|iso[2-9]|hvc1)", re.DOTALL)
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PADDING = re.compile(rb"(?:\x00|\xff(?!\xd8))*+")
_PREVIEWS = range(0x010000, 0x020000)  # MP types of large thumbnails (CIPA DC-007, 5.2.3.3.1)
_ENTRIES = 0xB002  # tag of the table of pictures
_LEAST_BYTES = 4  # fewer bytes after a picture are ignored
# A progressive photo has about ten. Each costs a pass over all pixels and may take only 30 bytes: 1 MB of scans took an
# hour.
_MOST_SCANS = 100
_STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length


@dataclass(frozen=True)
class Picture:
    """One JPEG inside a file: its segments (marker, payload, position of the payload), where it begins and ends."""

    segments: tuple[tuple[int, bytes, int], ...]
    start: int
    end: int

    def payloads(self, marker: int, signature: bytes) -> list[bytes]:
        """What follows the signature in the segments that have it."""
        return [
            body[len(signature) :] for kind, body, _ in self.segments if kind == marker and body.startswith(signature)
        ]

    def xmp(self) -> bytes:
        """The picture's XMP packet; empty where it has none."""
        return next(iter(self.payloads(0xE1, XMP)), b"")

    def is_gain_map(self) -> bool:
        """Whether its own metadata say that it is a gain map."""
        packet = self.xmp()
        full = any(len(block) > len(dialects.ISO_VERSION) for block in self.payloads(0xE2, dialects.ISO))
        return full or dialects.HDRGM in packet or dialects.is_apple(packet) or b"hdrgainmap" in packet.lower()


class Kind(Enum):
    """The kind of a part after the picture."""

    GAIN_MAP = auto()
    PICTURE = auto()
    TRAILER = auto()  # a motion photo's video with what follows it, or Samsung's data
    UNKNOWN = auto()


@dataclass(frozen=True)
class Part:
    """A part of the file behind its first picture."""

    kind: Kind
    start: int
    end: int
    picture: Picture | None = None


def picture(content: bytes, start: int = 0) -> Picture:
    """The JPEG that begins at `start`; a damaged one ends with the file.

    Raises:
        ValueError: it has more scans than any program writes.
    """
    segments: list[tuple[int, bytes, int]] = []
    at, scans = start + 2, 0
    while at + 2 <= len(content):
        found = _NEXT_MARKER.search(content, at)  # also over the compressed data behind a scan's header
        if not found:
            break
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:
            return Picture(tuple(segments), start, at)
        if marker in _STANDALONE:
            continue
        if at + 2 > len(content):
            break
        (size,) = struct.unpack_from(">H", content, at)
        scans += marker == 0xDA
        if scans > _MOST_SCANS:
            raise ValueError(f"it has more than {_MOST_SCANS} scans")
        if marker >= 0xE0:
            segments.append((marker, content[at + 2 : at + size], at + 2))
        at += max(2, size)
    return Picture(tuple(segments), start, len(content))


def behind(content: bytes, first: Picture) -> Iterator[Part]:
    """The parts behind a file's first picture, without padding and a camera's own previews."""
    previews, pictures = _indexed(content, first)
    trailer = _trailer(content, first.end)
    at = first.end
    known = sorted({*previews, *pictures, trailer, len(content)})
    while (at := _behind_padding(content, at)) < len(content):
        if at in previews:
            at = max(at + 1, previews[at])
        elif at >= trailer:
            yield Part(Kind.TRAILER, trailer, len(content))
            break
        elif content[at : at + 2] == b"\xff\xd8":
            other = picture(content, at)
            yield Part(Kind.GAIN_MAP if other.is_gain_map() else Kind.PICTURE, at, other.end, other)
            at = other.end
        else:
            following = known[bisect.bisect_right(known, at)]
            if following - at >= _LEAST_BYTES:
                yield Part(Kind.UNKNOWN, at, following)
            at = following


def _trailer(content: bytes, start: int) -> int:
    """Where a trailer begins that travels as a whole; the end of the file without one."""
    found = VIDEO_START.search(content, start)
    video = found.start() if found else len(content)
    return min(video, samsung.start(content, start))


def _behind_padding(content: bytes, at: int) -> int:
    found = _PADDING.match(content, at)
    return found.end() if found else at


# --- the index of pictures (CIPA DC-007) --------------------------------------------------------------------------


def _indexed(content: bytes, first: Picture) -> tuple[dict[int, int], list[int]]:
    """Start and end of previews, and starts of other pictures, by the index that a camera wrote."""
    previews: dict[int, int] = {}
    pictures: list[int] = []
    for marker, body, position in first.segments:
        if marker != 0xE2 or not body.startswith(MPF):
            continue
        block, base = body[len(MPF) :], position + len(MPF)
        try:
            order, entries = exif.entries(block)
            (table,) = (entry for entry in entries if entry.tag == _ENTRIES)
            for at in range(table.value, table.value + table.size, 16):
                attributes, size, offset = struct.unpack_from(f"{order}III", block, at)
                if not offset:
                    continue  # the first picture itself
                if attributes & 0xFFFFFF in _PREVIEWS:
                    previews[base + offset] = base + offset + size
                else:
                    pictures.append(base + offset)
        except (struct.error, ValueError):
            continue
    return previews, pictures


_INDEX_HEAD = struct.Struct(">4sIHHHI4sHHIIHHIII")
INDEX_BYTES = _INDEX_HEAD.size + 2 * 16  # of the index of two pictures, without signature


def index(first_bytes: int, second_bytes: int, second_at: int) -> bytes:
    """The index of a JPEG and one more picture, such as a gain map, without signature.

    Args:
        first_bytes, second_bytes: sizes of the two JPEGs.
        second_at: where the second begins, from the beginning of this block in the file.
    """
    head = _INDEX_HEAD.pack(
        b"MM\x00*", 8, 3,  # big-endian, directory at 8, three entries
        0xB000, 7, 4, b"0100",  # version
        0xB001, 4, 1, 2,  # number of pictures
        _ENTRIES, 7, 2 * 16, _INDEX_HEAD.size,
        0,
    )  # fmt: skip
    primary = struct.pack(">IIIHH", 0x030000, first_bytes, 0, 0, 0)  # baseline MP primary image
    other = struct.pack(">IIIHH", 0, second_bytes, second_at, 0, 0)  # of an undefined type, as Android writes it
    return head + primary + other
