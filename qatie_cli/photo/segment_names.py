"""Names of what a JPEG's application segments hold, as people call it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qatie_cli.photo.containers import Segment

_KNOWN = (
    (b"FLIR\x00", "the temperatures of a thermal camera"),
    (b"FPXR\x00", "FlashPix data"),
    (b"QVCI\x00", "Casio's data"),
    (b"HDR_RI", "the HDR part of a JPEG-HDR"),
    (b"Adobe_CM", "Adobe's colour data"),
    (b"Adobe_Photoshop2.5", "Photoshop 2.5's data"),
    (b"Ducky", "Photoshop's comment or copyright"),
    (b"Ocad", "OCAD's data"),
    (b"Meta\x00", "Kodak's data"),
    (b"META\x00", "Kodak's data"),
    (b"RMETA\x00", "Ricoh's data"),
    (b"_JPSJPS_", "the layout of a stereo picture"),
    (b"SCALADO\x00", "Scalado's data"),
    (b"MMIMETA\x00", "the phone maker's data"),
    (b"GoPro\x00", "GoPro's data"),
    (b"NITF\x00", "NITF data"),
    (b"\x1aQualcomm", "Qualcomm's camera data"),
    (b"SPIFF\x00", "SPIFF data"),
    (b"Media Jukebox\x00", "Media Jukebox's data"),
    (b"UNICODE\x00", "a comment of PhotoStudio"),
    (b"OLYMPUS", "Olympus' data"),
    (b"[picture info]", "the camera's data"),
    (b"Q ", "GraphicConverter's quality"),
)
_CIFF = b"HEAPJPGM"  # at 6


def name(marker: int, body: bytes) -> str:
    """What a segment holds, with its number: `Kodak's data (APP3)`."""
    where = f"APP{marker - 0xE0}"
    if body[6:14] == _CIFF:
        return f"Canon's data ({where})"
    known = next((words for start, words in _KNOWN if body.startswith(start)), None)
    if known is not None:
        return f"{known} ({where})"
    readable = re.match(rb"[\x20-\x7e]{2,24}", body)
    if readable:
        return f"data of '{readable[0].decode()}' ({where})"
    return f"{len(body):,} bytes of unknown data ({where})"


def names(segments: Iterable[Segment]) -> str:
    """What segments hold, each once."""
    return ", ".join(dict.fromkeys(name(marker, body) for marker, body in segments))
