"""What is dropped when a JPEG, PNG or WebP file is read; every byte is accounted for.

Each part is either carried (`metadata`), describes only the old file (thumbnails, compression), or is reported here.
"""

from __future__ import annotations

import re
import struct

from qatie_cli.photo import containers, exif, segment_names
from qatie_cli.photo.beside import dialects, jpeg_file

VIDEO = "the video of a motion photo is left out"
GAIN_MAP = "the HDR gain map is left out"
_ICC = b"ICC_PROFILE\x00"
_DUCKY, _DUCKY_TEXTS = b"Ducky", (2, 3)  # signature, and the tags of a comment and of a copyright
_LEAST_BYTES = 4  # fewer bytes after a picture are ignored
_PNG_KNOWN = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt",
              b"tIME", b"bKGD", b"hIST", b"sBIT", b"sPLT", b"oFFs", *containers.PNG_COLOUR_CHUNKS}  # fmt: skip
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_PROFILE, _RAW_PROFILES = re.compile(rb"Raw profile type (\w{1,40})\x00"), (b"exif", b"xmp", b"iptc")
_WEBP_KNOWN = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP "}


# --- JPEG ---------------------------------------------------------------------------------------------------------


def of_jpeg(picture: jpeg_file.Picture) -> tuple[str, ...]:
    """Notes on dropped segments of a JPEG, each once; `beside` reports what follows the picture."""
    named = [_segment(marker, body) for marker, body, _ in picture.segments]
    comments = {body for marker, body, _ in picture.segments if marker == 0xFE}
    if len(comments) > 1:
        named.append("all but the last comment are left out")
    return tuple(dict.fromkeys(filter(None, named)))


def _segment(marker: int, body: bytes) -> str:
    """What is lost with a segment; empty if it is carried or only describes the old file."""
    carried = bool(containers.kept_segments([(marker, body)]))
    if marker == 0xE0:
        known = body.startswith((b"JFIF\x00", b"JFXX\x00", b"AVI1")) or carried
    elif marker == 0xE1:
        known = body.startswith((exif.PREFIX, b"Exif\x00", jpeg_file.XMP)) or carried
    elif marker == 0xE2:
        known = body.startswith((_ICC, jpeg_file.MPF, dialects.ISO))
    elif marker == 0xEB:
        if body.startswith(b"JP"):
            return "content credentials (C2PA) are left out"
        known = False
    elif marker == 0xED:
        known = body.startswith(containers.PHOTOSHOP)
    elif marker == 0xEC and body.startswith(_DUCKY):
        known = not _has_text(body)
    else:  # a comment, how it was compressed, or makers' data
        known = marker in (0xEC, 0xEE, 0xFE) or carried or marker > 0xEF
    return "" if known else f"{segment_names.name(marker, body)} left out"


def _has_text(ducky: bytes) -> bool:
    """Whether Photoshop's note on how it saved a JPEG for the web holds a comment or a copyright, too."""
    at = len(_DUCKY)
    while at + 4 <= len(ducky):
        tag, size = struct.unpack_from(">HH", ducky, at)
        if tag in _DUCKY_TEXTS:
            return True
        at += 4 + size
    return False


# --- PNG and WebP -------------------------------------------------------------------------------------------------


def of_png(content: bytes) -> tuple[str, ...]:
    """Notes on what is dropped from a PNG file."""
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
    """Notes on what is dropped from a WebP file."""
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
    if jpeg_file.VIDEO_START.search(rest):
        return [VIDEO]
    named = f"data after the picture is left out ({len(rest):,} bytes)"
    return [named] if len(rest) >= _LEAST_BYTES else []


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace").strip()
