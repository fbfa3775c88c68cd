"""Properties of the primary picture of a HEIC or AVIF file (ISO/IEC 23008-12, 9.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MOST_BOXES = 20_000
_MOST_TILES = 10_000
_GRID_REFERENCE = b"dimg"


@dataclass(frozen=True)
class Properties:
    """Type and payload of each property, in the order in which the picture names them."""

    held: tuple[tuple[bytes, bytes], ...] = ()

    def nclx(self) -> tuple[int, int] | None:
        """Codes of colour primaries and transfer characteristics (ISO/IEC 14496-12, 12.1.5); None without."""
        for kind, body in self.held:
            if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 10:
                primaries, transfer = struct.unpack_from(">HH", body, 4)
                return primaries, transfer
        return None

    def depth(self) -> int:
        """Bits per channel, of the deepest one; 8 where nothing says."""
        for kind, body in self.held:
            if kind == b"av1C" and len(body) > 2:  # flags high_bitdepth and twelve_bit (AV1 in ISOBMFF, 2.3.3)
                return (12 if body[2] & 0x20 else 10) if body[2] & 0x40 else 8
            if kind == b"hvcC" and len(body) > 17:
                return 8 + (body[17] & 7)
        for kind, body in self.held:
            if kind == b"pixi" and len(body) > 5:
                return max(body[5 : 5 + body[4]], default=8)
        return 8


def of_primary(content: bytes) -> Properties:
    """The properties of the primary picture and, behind them, of the tiles that it is made of; none where damaged."""
    try:
        return _of_primary(content)
    except (struct.error, IndexError, ValueError):
        return Properties()


def coded_bytes(content: bytes) -> int | None:
    """Bytes of the primary picture's data, or of its tiles'; None where damaged."""
    try:
        return _coded_bytes(content) or None
    except (struct.error, IndexError, ValueError):
        return None


def _coded_bytes(content: bytes) -> int:
    primary, tiles, sizes = 0, list[int](), dict[int, int]()
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind == b"meta":
            parts = {part: (at, stop) for part, at, stop in _boxes(content, start + 4, end)}
            at, _ = parts[b"pitm"]
            (primary,) = struct.unpack_from(">I" if content[at] else ">H", content, at + 4)
            if b"iref" in parts:
                tiles = _parts_of(primary, content, *parts[b"iref"])
            sizes = _sizes(content, parts[b"iloc"][0])
            break
    return sum(sizes.get(item, 0) for item in tiles or [primary])


def _sizes(content: bytes, at: int) -> dict[int, int]:
    """Bytes of each item (`iloc`, ISO/IEC 14496-12, 8.11.3)."""
    version, lengths, bases = content[at], content[at + 4], content[at + 5]
    offset_size, length_size, base_size = lengths >> 4, lengths & 15, bases >> 4
    index_size = bases & 15 if version in (1, 2) else 0
    wide = version == 2
    (count,) = struct.unpack_from(">I" if wide else ">H", content, at + 6)
    at += 10 if wide else 8
    sizes: dict[int, int] = {}
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if wide else ">H", content, at)
        at += (4 if wide else 2) + (2 if version in (1, 2) else 0) + 2 + base_size
        (extents,) = struct.unpack_from(">H", content, at)
        at += 2
        for _ in range(extents):
            at += index_size + offset_size
            sizes[item] = sizes.get(item, 0) + int.from_bytes(content[at : at + length_size], "big")
            at += length_size
    return sizes


def _of_primary(content: bytes) -> Properties:
    primary, tiles = 0, list[int]()
    properties: list[tuple[bytes, bytes]] = []
    named: dict[int, list[int]] = {}
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind != b"meta":
            continue
        for part, at, _ in _boxes(content, start + 4, end):
            if part == b"pitm":
                (primary,) = struct.unpack_from(">I" if content[at] else ">H", content, at + 4)
        for part, at, stop in _boxes(content, start + 4, end):
            if part == b"iref":
                tiles += _parts_of(primary, content, at, stop)
            elif part == b"iprp":
                for box, first, last in _boxes(content, at, stop):
                    if box == b"ipco":
                        properties += [(name, content[a:b]) for name, a, b in _boxes(content, first, last)]
                    elif box == b"ipma":
                        _associate(content, first, last, named)
        break
    numbers = [n for item in (primary, *tiles[:1]) for n in named.get(item, ())]
    return Properties(tuple(properties[n - 1] for n in numbers if 0 < n <= len(properties)))


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, begin and end of the payload of each box between `start` and `end`."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, start + 8)
            head = 16
        stop = end if size == 0 else start + size
        if stop < start + head or stop > end:
            return
        yield kind, start + head, stop
        start = stop


def _parts_of(item: int, content: bytes, start: int, end: int) -> list[int]:
    """The items that a picture such as a grid is made of."""
    form, size = (">I", 4) if content[start] else (">H", 2)
    for kind, at, _ in _boxes(content, start + 4, end):
        (origin,) = struct.unpack_from(form, content, at)
        (count,) = struct.unpack_from(">H", content, at + size)
        if kind == _GRID_REFERENCE and origin == item and count:
            last = min(count, _MOST_TILES)
            return [struct.unpack_from(form, content, at + size + 2 + index * size)[0] for index in range(last)]
    return []


def _associate(content: bytes, at: int, end: int, named: dict[int, list[int]]) -> None:
    version, wide = content[at], content[at + 3] & 1
    (count,) = struct.unpack_from(">I", content, at + 4)
    at += 8
    for _ in range(count):
        if at >= end:
            return
        (item,) = struct.unpack_from(">I" if version else ">H", content, at)
        at += 4 if version else 2
        number = content[at]
        at += 1
        for _ in range(number):
            (index,) = struct.unpack_from(">H" if wide else ">B", content, at)
            named.setdefault(item, []).append(index & (0x7FFF if wide else 0x7F))
            at += 2 if wide else 1
