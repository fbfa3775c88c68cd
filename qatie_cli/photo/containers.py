"""The building blocks of files: JPEG segments and PNG chunks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

Segment = tuple[int, bytes]  # marker and payload of a JPEG segment
Chunk = tuple[bytes, bytes]  # type and data of a PNG chunk

PHOTOSHOP = b"Photoshop 3.0\x00"  # signature of an APP13 segment that holds image resources
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00"
APP13 = 0xED
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_SEGMENT_LIMIT = 65533  # bytes of a JPEG segment's payload
_PNG_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_XMP_KEYWORD = b"XML:com.adobe.xmp"


# --- JPEG ---------------------------------------------------------------------------------------------------------


def kept_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """The segments of a JPEG that are copied verbatim: extended XMP, temperatures of thermal cameras, vendor data.

    EXIF, XMP, IPTC and the ICC profile are carried separately. Segments that describe the old file are dropped: JFIF
    (APP0), the index of further pictures (APP2), content signatures (APP11), Adobe's compression data (APP12, APP14).
    """
    return tuple(
        (marker, body)
        for marker, body in segments
        if (marker == 0xE1 and body.startswith((XMP_EXTENSION, b"FLIR\x00")))
        or (marker == 0xE0 and body[6:14] == b"HEAPJPGM")  # Canon's CIFF, EXIF's forerunner
        or marker in (*range(0xE3, 0xEB), 0xEF)
        or (marker == 0xEC and not body.startswith(b"Ducky"))
    )


def jpeg_segments(photoshop: bytes | None, others: tuple[Segment, ...]) -> bytes:
    """APP13 and other segments, serialized (ITU-T T.81, B.2.4.6)."""
    payloads = list(others)
    if photoshop:
        step = _SEGMENT_LIMIT - len(PHOTOSHOP)
        payloads += [(APP13, PHOTOSHOP + photoshop[at : at + step]) for at in range(0, len(photoshop), step)]
    return b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in payloads)


# --- PNG ----------------------------------------------------------------------------------------------------------


def png_chunks(file: bytes) -> tuple[Chunk, ...]:
    """Text and colour chunks of a PNG file; XMP and ImageMagick's raw profiles are carried separately."""
    found, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        body = file[at + 8 : at + 8 + size]
        text = kind in _PNG_TEXT_CHUNKS and not body.startswith((_XMP_KEYWORD, b"Raw profile type"))
        if len(body) == size and (text or kind in PNG_COLOUR_CHUNKS):
            found.append((kind, body))
        at += 12 + size
    return tuple(found)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk, serialized (PNG specification, 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def xmp_chunk(packet: bytes) -> Chunk:
    """The chunk that holds an XMP packet: iTXt, uncompressed, no language."""
    return b"iTXt", _XMP_KEYWORD + b"\x00\x00\x00\x00\x00" + packet


def raw_profile(text: str) -> bytes:
    """The bytes of a profile that ImageMagick wrote as text (name, length, hexadecimal digits); empty if malformed."""
    lines = text.strip("\n").split("\n")
    try:
        return bytes.fromhex("".join(lines[2:])[: 2 * int(lines[1])])
    except (ValueError, IndexError):
        return b""
