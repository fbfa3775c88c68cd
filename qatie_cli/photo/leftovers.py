"""What a JPEG, PNG or WebP file holds that a photo read from it does not: every byte is accounted for.

A part is carried (`metadata`), describes the old file only (thumbnails, compression), or is named here, known or not.
"""

from __future__ import annotations

import bisect
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from qatie_cli.photo import containers, exif

VIDEO = "the video of a motion photo is left out"
GAIN_MAP = "the gain map (HDR) is left out"
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\x00"
_MPF, _ICC = b"MPF\x00", b"ICC_PROFILE\x00"
_IS_VIDEO = re.compile(rb"....ftyp(?:mp4|isom|qt  |MSNV|3gp|avc1|iso[2-9]|hvc1)|MotionPhoto_Data", re.DOTALL)
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_PADDING = re.compile(rb"(?:\x00|\xff(?!\xd8))*+")
_PREVIEWS = range(0x010000, 0x020000)  # MP types of large thumbnails (CIPA DC-007, 5.2.3.3.1)
_LEAST_BYTES = 4  # fewer behind a picture are a slip of whoever wrote it
_STANDALONE = (0x01, *range(0xD0, 0xD9))  # markers without a length
_PNG_KNOWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt",
              b"tIME", b"bKGD", b"hIST", b"sBIT", b"sPLT", b"oFFs", *containers.PNG_COLOUR_CHUNKS}  # fmt: skip
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_PROFILE, _RAW_PROFILES = re.compile(rb"Raw profile type (\w{1,40})\x00"), (b"exif", b"xmp", b"iptc")
_WEBP_KNOWN = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP "}


# --- JPEG ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """One JPEG inside a file: its segments (marker, payload, position of the payload) and where it ends."""

    segments: tuple[tuple[int, bytes, int], ...]
    end: int

    def holds(self, *signatures: bytes) -> bool:
        return any(signature in body for _, body, _ in self.segments for signature in signatures)


def of_jpeg(content: bytes) -> tuple[str, ...]:
    """Notes on what of a JPEG file is left out, each once."""
    picture = _picture(content, 0)
    named = [_segment(marker, body) for marker, body, _ in picture.segments]
    comments = {body for marker, body, _ in picture.segments if marker == 0xFE}
    if len(comments) > 1:
        named.append("all but the last comment are left out")
    named += _behind(content, picture)
    return tuple(dict.fromkeys(filter(None, named)))


def _picture(content: bytes, start: int) -> _Picture:
    """The JPEG that begins at `start`; a damaged one ends with the file."""
    segments: list[tuple[int, bytes, int]] = []
    at = start + 2
    while at + 2 <= len(content):
        found = _NEXT_MARKER.search(content, at)  # also over the compressed data behind a scan's header
        if not found:
            break
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:
            return _Picture(tuple(segments), at)
        if marker in _STANDALONE:
            continue
        if at + 2 > len(content):
            break
        (size,) = struct.unpack_from(">H", content, at)
        if marker >= 0xE0:
            segments.append((marker, content[at + 2 : at + size], at + 2))
        at += max(2, size)
    return _Picture(tuple(segments), len(content))


def _segment(marker: int, body: bytes) -> str:
    """What is lost with a segment; empty where it is carried or describes the old file only."""
    name, carried = f"APP{marker - 0xE0}", bool(containers.kept_segments([(marker, body)]))
    if marker == 0xE0:
        known = body.startswith((b"JFIF\x00", b"JFXX\x00", b"AVI1")) or carried
    elif marker == 0xE1:
        known = body.startswith((exif.PREFIX, b"Exif\x00", _XMP)) or carried
    elif marker == 0xE2:
        known = body.startswith((_ICC, _MPF, _ISO_GAIN_MAP))
    elif marker == 0xEB:
        if body.startswith(b"JP"):
            return "content credentials (C2PA) are left out"
        known = False
    elif marker == 0xED:
        known = body.startswith(containers.PHOTOSHOP)
    else:  # a comment, how it was compressed, or makers' data
        known = marker in (0xEC, 0xEE, 0xFE) or carried or marker > 0xEF
    readable = re.match(rb"[\x20-\x7e]{2,24}", body)
    return "" if known else f"{name} data ({readable[0].decode() if readable else 'unknown'}) is left out"


def _behind(content: bytes, picture: _Picture) -> Iterator[str]:
    """What is lost of the bytes behind a JPEG's first picture."""
    previews, pictures = _indexed(content, picture)
    at, further = picture.end, 0
    found = _IS_VIDEO.search(content, at)
    video = found.start() if found else len(content)
    known = sorted({*previews, *pictures, video, len(content)})
    while (at := _behind_padding(content, at)) < len(content):
        if at in previews:
            at = max(at + 1, previews[at])
        elif content[at : at + 2] == b"\xff\xd8":
            other = _picture(content, at)
            if other.holds(b"hdr-gain-map/1.0/", _ISO_GAIN_MAP, b"HDRGainMap"):
                yield GAIN_MAP
            else:
                further += 1
            at = other.end
        elif at >= video:
            yield VIDEO
            break
        else:
            following = known[bisect.bisect_right(known, at)]
            if following - at >= _LEAST_BYTES:
                yield f"what stands behind the picture is left out ({following - at:,} bytes)"
            at = following
    if further:
        yield f"first of {further + 1} pictures in the file; the others are left out"


def _behind_padding(content: bytes, at: int) -> int:
    found = _PADDING.match(content, at)
    return found.end() if found else at


def _indexed(content: bytes, picture: _Picture) -> tuple[dict[int, int], list[int]]:
    """Start and end of previews, and starts of other pictures, by the index that a camera wrote (CIPA DC-007)."""
    previews: dict[int, int] = {}
    pictures: list[int] = []
    for marker, body, position in picture.segments:
        if marker != 0xE2 or not body.startswith(_MPF):
            continue
        block, base = body[len(_MPF) :], position + len(_MPF)
        try:
            order, entries = exif.entries(block)
            (table,) = (entry for entry in entries if entry.tag == 0xB002)
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


# --- PNG and WebP -------------------------------------------------------------------------------------------------


def of_png(content: bytes) -> tuple[str, ...]:
    """Notes on what of a PNG file is left out."""
    named, at = [], len(containers.PNG_SIGNATURE)
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        profile = _RAW_PROFILE.match(content, at + 8) if kind in _PNG_TEXTS else None
        if profile and profile[1] not in _RAW_PROFILES:
            named.append(f"profile {_name(profile[1])} is left out")
        at += 12 + size
        if kind == b"IEND":
            break
        if kind == b"caBX":
            named.append("content credentials (C2PA) are left out")
        elif kind not in _PNG_KNOWN:
            named.append(f"chunk {_name(kind)} is left out")
    return tuple(dict.fromkeys([*named, *_rest(content, at)]))


def of_webp(content: bytes) -> tuple[str, ...]:
    """Notes on what of a WebP file is left out."""
    named, at = [], 12
    end = min(len(content), 8 + (struct.unpack_from("<I", content, 4)[0] if len(content) >= 8 else 0))
    while at + 8 <= end:
        kind, size = struct.unpack_from("<4sI", content, at)
        at += 8 + size + size % 2
        if kind not in _WEBP_KNOWN:
            named.append(f"chunk {_name(kind)} is left out")
    return tuple(dict.fromkeys([*named, *_rest(content, end + end % 2)]))


def _rest(content: bytes, at: int) -> list[str]:
    rest = content[at:].strip(b"\x00\xff")
    if _IS_VIDEO.search(rest):
        return [VIDEO]
    named = f"what stands behind the picture is left out ({len(rest):,} bytes)"
    return [named] if len(rest) >= _LEAST_BYTES else []


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace").strip()
