"""Metadata that is not EXIF: XMP packets, Photoshop resources with IPTC, chunks of PNG, segments of JPEG."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_PNG_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
XMP_KEYWORD = b"XML:com.adobe.xmp"
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00"
PHOTOSHOP = b"Photoshop 3.0\x00"
_SEGMENT_LIMIT = 65533  # bytes of a JPEG segment's payload
# Image resources (Adobe Photoshop file formats specification) that describe the old pixels: thumbnails.
_STALE_RESOURCES = (0x0409, 0x040C)


# --- XMP ----------------------------------------------------------------------------------------------------------


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet with tiff:Orientation 1 and without xmp:Thumbnails."""
    packet = re.sub(rb"""(tiff:Orientation(?:>|\s*=\s*["']))\s*[2-8](?=["'<])""", rb"\g<1>1", packet)
    return re.sub(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>", b"", packet, flags=re.DOTALL)


def xmp_without_gps(packet: bytes) -> bytes:
    """An XMP packet without the properties exif:GPS... (attributes and elements)."""
    packet = re.sub(rb"""\s+exif:GPS\w+\s*=\s*("[^"]*"|'[^']*')""", b"", packet)
    return re.sub(rb"<exif:GPS(\w+)\b[^>]*?(/>|>.*?</exif:GPS\1>)", b"", packet, flags=re.DOTALL)


# --- Photoshop's resources ----------------------------------------------------------------------------------------


def fresh_photoshop(resources: bytes) -> bytes:
    """An image resource block without the thumbnails in it; as it is where it cannot be understood."""
    kept, at = b"", 0
    while at < len(resources):
        start = at
        if resources[at : at + 4] not in (b"8BIM", b"8B64", b"PHUT", b"DCSR", b"AgHg") or at + 7 > len(resources):
            return resources
        (identity,) = struct.unpack_from(">H", resources, at + 4)
        at += 6
        at += (1 + resources[at] + 1) // 2 * 2  # a Pascal string, padded to even
        if at + 4 > len(resources):
            return resources
        (size,) = struct.unpack_from(">I", resources, at)
        at += 4 + (size + 1) // 2 * 2
        if identity not in _STALE_RESOURCES:
            kept += resources[start:at]
    return kept


# --- JPEG ---------------------------------------------------------------------------------------------------------


def kept_segments(segments: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    """Of a JPEG's segments (marker, payload) those that travel as they are: XMP's extension and makers' own.

    EXIF, XMP, IPTC and profile travel by themselves. What describes the old file goes: JFIF (APP0), the index of
    further pictures (APP2), a signature over the content (APP11), and Adobe's notes on compression (APP12, APP14).
    """
    return tuple(
        (marker, body)
        for marker, body in segments
        if (marker == 0xE1 and body.startswith(XMP_EXTENSION))
        or (marker == 0xE0 and body[6:14] == b"HEAPJPGM")  # Canon's CIFF, EXIF's forerunner
        or marker in (*range(0xE3, 0xEB), 0xEF)
        or (marker == 0xEC and not body.startswith(b"Ducky"))
    )


def jpeg_segments(photoshop: bytes | None, others: tuple[tuple[int, bytes], ...]) -> bytes:
    """APP13 and other segments, ready to stand in a JPEG file (ITU-T T.81, B.2.4.6)."""
    payloads = list(others)
    if photoshop:
        step = _SEGMENT_LIMIT - len(PHOTOSHOP)
        payloads += [(0xED, PHOTOSHOP + photoshop[at : at + step]) for at in range(0, len(photoshop), step)]
    return b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in payloads)


# --- PNG ----------------------------------------------------------------------------------------------------------


def png_chunks(file: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Texts and colour chunks of a PNG file; XMP, and EXIF in ImageMagick's way, travel by themselves."""
    found, at = [], len(PNG_SIGNATURE)
    while at + 12 <= len(file):
        size, kind = struct.unpack_from(">I4s", file, at)
        body = file[at + 8 : at + 8 + size]
        text = kind in _PNG_TEXT_CHUNKS and not body.startswith((XMP_KEYWORD, b"Raw profile type"))
        if len(body) == size and (text or kind in PNG_COLOUR_CHUNKS):
            found.append((kind, body))
        at += 12 + size
    return tuple(found)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A whole chunk (PNG specification, 5.3)."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def xmp_chunk(packet: bytes) -> tuple[bytes, bytes]:
    """The chunk that holds an XMP packet: iTXt, uncompressed, no language."""
    return b"iTXt", XMP_KEYWORD + b"\x00\x00\x00\x00\x00" + packet
