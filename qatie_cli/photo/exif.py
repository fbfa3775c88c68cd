"""EXIF blocks (TIFF 6.0 structure), edited in place.

Nothing is moved inside a block, since maker notes hold offsets into it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ORIENTATION, EXIF_POINTER, GPS_POINTER = 0x0112, 0x8769, 0x8825
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003  # PixelXDimension and PixelYDimension
_THUMBNAIL_START, _THUMBNAIL_LENGTH = 0x0201, 0x0202  # JPEGInterchangeFormat and its length, in IFD1
_SHORT, _LONG, _RATIONAL, _SRATIONAL = 3, 4, 5, 10
# TIFF 6.0 and its supplements: sizes, strips, tiles, colour storage; then XMP, IPTC, Photoshop and ICC blocks, which
# are carried separately or not at all.
STORAGE_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 282), 284, 317, 320, *range(322, 326), 330, 338, 339, 347}
    | {*range(512, 533), 700, 33723, 34377, 34675}
    | {37724, 50255}  # Photoshop's layers and annotations
)
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
PREFIX = b"Exif\x00\x00"
_WORK_PER_BYTE, _LEAST_WORK, _ENTRY_WORK = 16, 1 << 20, 100  # in bytes copied; reading an entry costs as much as 100


@dataclass(frozen=True)
class Entry:
    """One 12-byte entry of a directory; `at` is its position in the block."""

    at: int
    tag: int
    kind: int
    count: int
    value: int  # the value field read as a LONG: an offset where the value does not fit

    @property
    def size(self) -> int:
        """Bytes of the value; 0 for a type that TIFF 6.0 does not define."""
        return BYTES_OF_TYPE.get(self.kind, 0) * self.count


class _Block:
    """A TIFF block to read and patch.

    Directories may overlap and refer to each other, so a small block can cause hours of work: reads and writes are
    counted, and struct.error is raised if they far exceed the block's size.
    """

    def __init__(self, block: bytes) -> None:
        self.bytes = bytearray(block)
        self._left = _WORK_PER_BYTE * len(block) + _LEAST_WORK
        self.order = {b"II": "<", b"MM": ">"}.get(block[:2], "?")
        if self.order == "?":
            raise struct.error("no TIFF block")
        magic, self.first = self.unpack("HI", 2)
        if magic != 42:
            raise struct.error("no TIFF block")

    def unpack(self, form: str, at: int) -> tuple:
        return struct.unpack_from(self.order + form, self.bytes, at)

    def pack(self, form: str, at: int, *values: int) -> None:
        struct.pack_into(self.order + form, self.bytes, at, *values)

    def spend(self, size: int) -> None:
        """Count `size` bytes of work."""
        self._left -= size
        if self._left < 0:
            raise struct.error("its directories overlap")

    def entries(self, directory: int) -> Iterator[Entry]:
        (count,) = self.unpack("H", directory)
        self.spend(_ENTRY_WORK * count)
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            yield Entry(at, *self.unpack("HHII", at))

    def link_of(self, directory: int) -> int:
        """Position of the directory's link to the next one."""
        return directory + 2 + 12 * self.unpack("H", directory)[0]

    def blank(self, start: int, length: int) -> None:
        if 0 < start <= start + length <= len(self.bytes):
            self.spend(length)
            self.bytes[start : start + length] = bytes(length)


def _patched(block: bytes, change: Callable[[_Block], None]) -> bytes:
    """The block after `change`; unchanged if it cannot be parsed."""
    try:
        patched = _Block(block)
        change(patched)
    except struct.error:
        return block
    return bytes(patched.bytes)


def upright(block: bytes, size: tuple[int, int] | None = None) -> bytes:
    """The block with orientation 1, without thumbnail, and with `size` (width, height) as its pixel dimensions.

    A block that cannot be parsed is returned unchanged.
    """

    def turn(b: _Block) -> None:
        for entry in list(b.entries(b.first)):
            if entry.tag == ORIENTATION and entry.kind in (_SHORT, _LONG):
                b.pack("H" if entry.kind == _SHORT else "I", entry.at + 8, 1)

    def resize(b: _Block) -> None:
        for entry in list(b.entries(b.first)):
            if entry.tag == EXIF_POINTER and size is not None:
                _set_dimensions(b, entry.value, size)

    # Separately: a damaged thumbnail link must not prevent the orientation from being set.
    for change in (turn, resize, _drop_thumbnail):
        block = _patched(block, change)
    return block


def orientation(block: bytes) -> int | None:
    """The block's orientation, or None if it has none or cannot be parsed."""
    try:
        order, found = entries(block)
    except struct.error:
        return None
    for entry in found:
        if entry.tag == ORIENTATION:
            field = block[entry.at + 8 : entry.at + 12]
            return struct.unpack_from(order + ("H" if entry.kind == _SHORT else "I"), field)[0]
    return None


def _set_dimensions(b: _Block, directory: int, size: tuple[int, int]) -> None:
    for entry in list(b.entries(directory)):
        if entry.tag in (_PIXEL_X, _PIXEL_Y) and entry.count == 1:
            value = size[0] if entry.tag == _PIXEL_X else size[1]
            if entry.kind == _LONG or (entry.kind == _SHORT and value < 1 << 16):
                b.pack("I" if entry.kind == _LONG else "H", entry.at + 8, value)


def _drop_thumbnail(b: _Block) -> None:
    """Blank the thumbnail's JPEG data and unlink the directory (IFD1) that describes it."""
    link = b.link_of(b.first)
    (second,) = b.unpack("I", link)
    if not second:
        return
    b.pack("I", link, 0)
    values = {entry.tag: entry.value for entry in b.entries(second)}
    start, length = values.get(_THUMBNAIL_START, 0), values.get(_THUMBNAIL_LENGTH, 0)
    if start > 0 and start + length == len(b.bytes):
        del b.bytes[start:]
    else:
        b.blank(start, length)


def without_gps(block: bytes) -> bytes:
    """The block without its GPS directory, whose bytes are zeroed; empty if it cannot be parsed."""

    def change(b: _Block) -> None:
        pointers = [entry for entry in b.entries(b.first) if entry.tag == GPS_POINTER]
        for pointer in pointers:
            (count,) = b.unpack("H", pointer.value)
            for entry in list(b.entries(pointer.value)):
                if entry.size > 4:
                    b.blank(entry.value, entry.size)
            b.blank(pointer.value, 2 + 12 * count + 4)
        for pointer in reversed(pointers):
            _remove(b, b.first, pointer)

    try:
        patched = _Block(block)
        change(patched)
    except struct.error:
        return b""
    return bytes(patched.bytes)


def _remove(b: _Block, directory: int, entry: Entry) -> None:
    """Remove an entry from its directory; only the entries after it and the link move up."""
    (count,) = b.unpack("H", directory)
    end = b.link_of(directory) + 4
    b.spend(end - entry.at)
    b.bytes[entry.at : end] = b.bytes[entry.at + 12 : end] + bytes(12)
    b.pack("H", directory, count - 1)


def entries(block: bytes) -> tuple[str, list[Entry]]:
    """Byte order (`<` or `>`) and the entries of a block's first directory.

    Raises:
        struct.error: the block cannot be parsed.
    """
    b = _Block(block)
    return b.order, list(b.entries(b.first))


def raw(block: bytes, tag: int, through: tuple[int, ...] = ()) -> bytes | None:
    """The bytes of a tag's value; None if it is not there or cannot be read.

    Args:
        through: the tags that point from the first directory to the one that holds it.
    """
    found = _find(block, tag, through)
    return None if found is None else value_of(block, found[1])


def value_of(block: bytes, entry: Entry) -> bytes | None:
    """The bytes of an entry's value; None where they would lie outside of the block."""
    start = entry.at + 8 if entry.size <= 4 else entry.value
    value = block[start : start + entry.size]
    return value if len(value) == entry.size else None


def numbers(block: bytes, tag: int, through: tuple[int, ...] = ()) -> tuple[float, ...]:
    """The numbers of a tag of type SHORT, LONG or RATIONAL; empty if it is not there or cannot be read."""
    found, value = _find(block, tag, through), raw(block, tag, through)
    if found is None or value is None:
        return ()
    b, entry = found
    if entry.kind in (_RATIONAL, _SRATIONAL):
        parts = struct.unpack(f"{b.order}{2 * entry.count}{'I' if entry.kind == _RATIONAL else 'i'}", value)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return tuple(top / bottom if bottom else float("nan") for top, bottom in pairs)
    letter = {_SHORT: "H", _LONG: "I"}.get(entry.kind)
    return struct.unpack(f"{b.order}{entry.count}{letter}", value) if letter else ()


def with_numbers(block: bytes, tag: int, values: list[int], through: tuple[int, ...] = ()) -> bytes:
    """The block with other numbers in a tag of type SHORT or LONG; unchanged unless they fit and are as many."""
    found = _find(block, tag, through)
    if found is None:
        return block
    b, entry = found
    letter = {_SHORT: "H", _LONG: "I"}.get(entry.kind)
    if letter is None or entry.count != len(values):
        return block
    try:
        b.pack(f"{len(values)}{letter}", entry.at + 8 if entry.size <= 4 else entry.value, *values)
    except struct.error:
        return block
    return bytes(b.bytes)


def _find(block: bytes, tag: int, through: tuple[int, ...]) -> tuple[_Block, Entry] | None:
    try:
        b = _Block(block)
        directory = b.first
        for pointer in through:
            directory = next(entry.value for entry in b.entries(directory) if entry.tag == pointer)
        return b, next(entry for entry in b.entries(directory) if entry.tag == tag)
    except (struct.error, StopIteration):
        return None
