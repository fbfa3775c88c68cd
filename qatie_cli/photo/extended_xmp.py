"""Extended XMP: continuations in further segments of a JPEG (XMP specification, part 3, 1.1.3.1)."""

from __future__ import annotations

import re
import struct

from qatie_cli.photo.containers import XMP_EXTENSION, Segment

_GUID_BYTES = 32
_NOTE = b"http://ns.adobe.com/xmp/note/"
_NAMED = re.compile(rb"""(?<!\s)\s++[\w.-]++:HasExtendedXMP\s*+=\s*+["']([^"'<]*+)["']""")
_ELEMENT = re.compile(rb"<[\w.-]++:HasExtendedXMP\b[^<>]*+>([^<]*+)</[\w.-]++:HasExtendedXMP\s*+>")


def is_part(segment: Segment) -> bool:
    """Whether a segment holds a part of such XMP."""
    return segment[1].startswith(XMP_EXTENSION)


def consistent(packet: bytes, segments: tuple[Segment, ...]) -> bytes:
    """The packet; without HasExtendedXMP if the segments do not hold all of the extended XMP."""
    named = _named(packet)
    if named is None or _is_whole(named, [segment for segment in segments if is_part(segment)]):
        return packet
    return without_mention(packet)


def without_mention(packet: bytes) -> bytes:
    """The packet without HasExtendedXMP."""
    if b"HasExtendedXMP" not in packet:
        return packet
    return _ELEMENT.sub(b"", _NAMED.sub(b"", packet))


def _named(packet: bytes) -> bytes | None:
    if b"HasExtendedXMP" not in packet:
        return None
    found = _NAMED.search(packet) or _ELEMENT.search(packet)
    return found[1].strip() if found else None


def _is_whole(guid: bytes, parts: list[Segment]) -> bool:
    """Whether the parts of this continuation cover its length without a gap."""
    at = len(XMP_EXTENSION)
    spans, length = [], None
    for _, body in parts:
        if len(body) < at + _GUID_BYTES + 8 or body[at : at + _GUID_BYTES] != guid:
            continue
        length, offset = struct.unpack_from(">II", body, at + _GUID_BYTES)
        spans.append((offset, offset + len(body) - at - _GUID_BYTES - 8))
    end = 0
    for start, stop in sorted(spans):
        if start > end:
            return False
        end = max(end, stop)
    return length is not None and end >= length
