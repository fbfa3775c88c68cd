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
_EMBEDDED_METADATA = (0x0422, 0x0423, 0x0424)  # resources that hold EXIF and XMP once more
_IPTC = 0x0404
# IPTC IIM 4.2, record 2: content location code and name, city, sublocation, province, country code and name.
_PLACES = (26, 27, 90, 92, 95, 100, 101)
# XMP properties that tell the place, whatever their prefix: GPS... of EXIF, those of drones, and names of places.
_PLACE = (
    rb"(?:[Gg][Pp][Ss]\w*|\w*Latitude|\w*Lon[gt]+itude|City|State|Country|CountryCode|CountryName|ProvinceState"
    rb"|Location|LocationCreated|LocationShown|Sublocation|WorldRegion)"
)


# --- XMP ----------------------------------------------------------------------------------------------------------


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet with tiff:Orientation 1, without xmp:Thumbnails and without a motion photo's video.

    The video stands behind the JPEG, and does not travel.
    """
    packet = re.sub(rb"""(tiff:Orientation(?:>|\s*=\s*["']))\s*[2-8](?=["'<])""", rb"\g<1>1", packet)
    packet = re.sub(rb"""\s+GCamera:(?:MicroVideo|MotionPhoto)\w*\s*=\s*("[^"]*"|'[^']*')""", b"", packet)
    return re.sub(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>", b"", packet, flags=re.DOTALL)


def xmp_without_gps(packet: bytes) -> bytes:
    """An XMP packet without the properties that tell a place (attributes and elements).

    Of a packet in another encoding than UTF-8 nothing is left: what it holds cannot be told.
    """
    if b"\x00" in packet.strip(b"\x00"):
        return b""
    packet = re.sub(rb"""\s+[\w-]+:""" + _PLACE + rb"""\s*=\s*("[^"]*"|'[^']*')""", b"", packet)
    element = rb"<([\w-]+:" + _PLACE + rb")\b(?:[^>]*?/>|[^>]*?>.*?</\1\s*>)"
    return re.sub(element, b"", packet, flags=re.DOTALL)


# --- Photoshop's resources ----------------------------------------------------------------------------------------


def _resources(block: bytes) -> list[tuple[int, bytes, bytes]] | None:
    """Identity, whole bytes and data of each image resource, or None where the block cannot be understood."""
    found, at = [], 0
    while at < len(block):
        start = at
        if block[at : at + 4] not in (b"8BIM", b"8B64", b"PHUT", b"DCSR", b"AgHg") or at + 7 > len(block):
            return None
        (identity,) = struct.unpack_from(">H", block, at + 4)
        at += 6
        at += (1 + block[at] + 1) // 2 * 2  # a Pascal string, padded to even
        if at + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, at)
        found.append((identity, block[start : at + 4 + (size + 1) // 2 * 2], block[at + 4 : at + 4 + size]))
        at += 4 + (size + 1) // 2 * 2
    return found


def fresh_photoshop(block: bytes) -> bytes:
    """An image resource block without the thumbnails in it; as it is where it cannot be understood."""
    found = _resources(block)
    if found is None:
        return block
    return b"".join(whole for identity, whole, _ in found if identity not in _STALE_RESOURCES)


def photoshop_without_places(block: bytes) -> bytes:
    """An image resource block without names of places in IPTC, nor EXIF and XMP; nothing of one not understood."""
    kept = []
    for identity, whole, data in _resources(block) or ():
        if identity == _IPTC:
            kept.append(iptc_resource(_iptc_without_places(data)))
        elif identity not in _EMBEDDED_METADATA:
            kept.append(whole)
    return b"".join(kept)


def iptc_resource(iptc: bytes) -> bytes:
    """The image resource that holds IPTC datasets."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def _iptc_without_places(iptc: bytes) -> bytes:
    kept, at = b"", 0
    while at + 5 <= len(iptc) and iptc[at] == 0x1C:
        record, dataset, size = struct.unpack_from(">BBH", iptc, at + 1)
        if size & 0x8000:  # an extended dataset, of kilobytes: no name of a place
            return kept
        if not (record == 2 and dataset in _PLACES):
            kept += iptc[at : at + 5 + size]
        at += 5 + size
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
    """Texts and colour chunks of a PNG file; XMP, and profiles in ImageMagick's way, travel by themselves."""
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


def raw_profile(text: str) -> bytes:
    """The bytes of a profile that ImageMagick wrote as text: a name, a length, and hexadecimal digits."""
    lines = text.strip("\n").split("\n")
    try:
        return bytes.fromhex("".join(lines[2:])[: 2 * int(lines[1])])
    except (ValueError, IndexError):
        return b""
