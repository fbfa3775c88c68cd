"""EXIF's subject area, rotated with the pixels, and the pixel dimensions in EXIF's other directories."""

from __future__ import annotations

from qatie_cli.photo import exif
from qatie_cli.photo.regions import Turn, subject

_AREA, _LOCATION = 0x9214, 0xA214
_WIDTH, _LENGTH = 0x0100, 0x0101  # in the first directory, which only TIFF needs
_INTEROPERABILITY, _RELATED_WIDTH, _RELATED_LENGTH = 0xA005, 0x1001, 0x1002


def turned(block: bytes, turn: Turn) -> bytes:
    """The block with SubjectArea, SubjectLocation and sizes turned; unchanged where it cannot be parsed."""
    if turn.orientation == 1:
        return block
    within = (exif.EXIF_POINTER,)
    for tag in (_AREA, _LOCATION):
        values = list(exif.numbers(block, tag, within))
        if values:
            block = exif.with_numbers(block, tag, [round(value) for value in subject(values, turn)], within)
    for tags, through in (
        ((_WIDTH, _LENGTH), ()),
        ((_RELATED_WIDTH, _RELATED_LENGTH), (exif.EXIF_POINTER, _INTEROPERABILITY)),
    ):
        width, length = (exif.numbers(block, tag, through) for tag in tags)
        if len(width) == len(length) == 1:
            for tag, value in zip(tags, turn.sides(width[0], length[0]), strict=True):
                block = exif.with_numbers(block, tag, [round(value)], through)
    return block
