"""Names and advice for kinds of files that qatie does not read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from qatie_cli.errors import PhotoError
from qatie_cli.photo import pages

# Suffixes of cameras' raw files: Adobe, Canon, Nikon, Sony, Fujifilm, Olympus, Panasonic, Pentax, Samsung and others.
RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw"}
    | {".3fr", ".fff", ".iiq", ".erf", ".mef", ".mos", ".mrw", ".kdc", ".dcr", ".x3f", ".rwl", ".gpr"}
)
OTHER_SUFFIXES = {".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".jpx": "JPEG 2000", ".jpf": "JPEG 2000",
                  ".jxl": "JPEG XL"}  # fmt: skip
DEVELOP = "Develop it first, with darktable, RawTherapee or the camera's own program, and save a TIFF or JPEG."
_SAVE = "Save it as PNG or TIFF first."
_RAW_HEADS = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM", b"HEAPCCDR")
_JXL_HEADS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_JP2_HEADS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_COMPRESSION, _PHOTOMETRIC, _SUB_DIRECTORIES, _SAMPLE_FORMAT, _DNG_VERSION = 259, 262, 330, 339, 50706
_COLOUR_FILTER_ARRAY, _LINEAR_RAW, _FLOATING_POINT = 32803, 34892, 3
_COMPRESSIONS = {
    34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL", 34892: "lossy DNG", 34676: "SGI Log", 34677: "SGI Log",
}  # fmt: skip
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF markers
_HEAD_BYTES = 1 << 16


def named(path: PurePath) -> PhotoError | None:
    """The error for a file with this name; None if the name is not of an unreadable kind."""
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return _raw(str(path))
    if suffix in OTHER_SUFFIXES:
        return PhotoError(f"{path} is a {OTHER_SUFFIXES[suffix]} file, which qatie does not read.", _SAVE)
    return None


def sorted_out(paths: Sequence[Path]) -> list[tuple[tuple[Path, ...], tuple[str, str]]]:
    """Files of a folder that are left out, by kind: paths, a name for the kind, and what to do."""
    kinds: dict[tuple[str, str], list[Path]] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in RAW_SUFFIXES:
            kind = "raw files", " (raw: develop first)"
        elif suffix in OTHER_SUFFIXES:
            kind = f"{OTHER_SUFFIXES[suffix]} files", f" ({OTHER_SUFFIXES[suffix]}: save as PNG or TIFF first)"
        else:
            kind = "files", " (not named like photos)"
        kinds.setdefault(kind, []).append(path)
    return [(tuple(found), kind) for kind, found in kinds.items()]


def raw(file: BinaryIO, name: str) -> PhotoError | None:
    """The error for a camera's raw file, in which only a preview opens as an image; else None.

    Args:
        file: positioned anywhere.
    """
    file.seek(0)
    head = file.read(32)
    if head.startswith(_RAW_HEADS) or b"HEAPCCDR" in head[:16] or head[4:12] == b"ftypcrx ":
        return _raw(name)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return None
    if head[8:10] == b"CR":  # Canon's CR2 has a marker after the TIFF header
        return _raw(name)
    try:
        tables = pages.with_those_below(file)
    except (struct.error, ValueError):
        return None
    for table in tables:
        photometric = table.get(_PHOTOMETRIC, (0, 0, 0))[2]
        if _DNG_VERSION in table or photometric in (_COLOUR_FILTER_ARRAY, _LINEAR_RAW):
            return _raw(name)
    return None


def why(file: BinaryIO, name: str) -> PhotoError | None:
    """The error for a file that no decoder opens; None if its kind is unknown."""
    found = raw(file, name)
    if found is not None:
        return found
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head.startswith(_JXL_HEADS):
        return PhotoError(f"{name} is a JPEG XL file, which qatie does not read.", _SAVE)
    if head.startswith(_JP2_HEADS):
        return PhotoError(f"{name} is a JPEG 2000 file, which qatie does not read.", _SAVE)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _why_tiff(file, name)
    if head[:2] == b"\xff\xd8":
        return _why_jpeg(head, name)
    return None


def _raw(name: str) -> PhotoError:
    return PhotoError(f"{name} is a raw file.", DEVELOP)


def _why_tiff(file: BinaryIO, name: str) -> PhotoError | None:
    table = pages.chosen_table(file)
    compression = _COMPRESSIONS.get(table.get(_COMPRESSION, (0, 0, 0))[2])
    if compression:
        hint = "Save it with LZW or Deflate compression."
        return PhotoError(f"{name} is a TIFF compressed with {compression}, which cannot be read.", hint)
    if pages.first_number(file, table.get(_SAMPLE_FORMAT)) == _FLOATING_POINT:
        return PhotoError(f"{name} is a TIFF of floating point, which cannot be read.", "Save it as 16-bit TIFF.")
    return None


def _why_jpeg(head: bytes, name: str) -> PhotoError | None:
    at = 2
    while at + 5 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _FRAMES:
            if head[at + 4] > 8:
                deep = f"{name} is a JPEG of {head[at + 4]} bit per channel, which cannot be read."
                return PhotoError(deep, "Save it as 16-bit PNG or TIFF.")
            if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
                return PhotoError(f"{name} is a lossless or hierarchical JPEG, which cannot be read.", _SAVE)
            return None
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return None
