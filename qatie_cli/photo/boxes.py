"""The boxes and items of a HEIC or AVIF file, and which of them a photo drops.

ISO/IEC 14496-12 describes the boxes, 23008-12 the items.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from qatie_cli.photo.leftovers import GAIN_MAP, VIDEO

_KNOWN_BOXES = {b"ftyp", b"meta", b"mdat", b"free", b"skip", b"idat", b"styp", b"wide"}
_VIDEO_BOXES = {b"moov", b"mpvd", b"moof"}
_PICTURES = {b"hvc1", b"av01", b"grid", b"iden", b"iovl", b"jpeg", b"unci", b"avc1", b"hvt1", b"lhv1"}
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:avc:2015:auxid:1")
_DEPTH = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth", b"urn:mpeg:hevc:2015:auxid:2", b"urn:mpeg:avc:2015:auxid:2")
_MOST_BOXES = 100_000  # of a file; phones write hundreds

Box = tuple[bytes, int, int]  # type, and where its payload begins and ends


@dataclass
class Items:
    """The boxes and items of a file, with the items' references."""

    file: bytes = b""
    top: list[Box] = field(default_factory=list)  # the file's own boxes
    primary: int = 0
    types: dict[int, bytes] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)  # of MIME items
    links: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)  # type, from, to
    properties: list[bytes] = field(
        default_factory=list
    )  # the type of an auxiliary picture; empty for other properties
    of_item: dict[int, list[int]] = field(default_factory=dict)  # numbers of properties, from 1, as they are named
    essential: set[tuple[int, int]] = field(default_factory=set)  # item and number of essential properties
    boxes: list[Box] = field(default_factory=list)  # of the properties
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # by number of property: width and height
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # where each item's data begins and ends
    primary_at: tuple[int, int] = (0, 0)  # where the file names the primary item, and in how many bytes
    entry_at: dict[int, int] = field(default_factory=dict)  # of each item: where its entry begins

    def data(self, item: int) -> bytes:
        """The data of an item."""
        return b"".join(self.file[begin:end] for begin, end in self.extents.get(item, ()))

    def parts_of(self, item: int) -> tuple[int, ...]:
        """The items that a picture such as a grid is made of."""
        return next((targets for kind, origin, targets in self.links if kind == b"dimg" and origin == item), ())

    def described_by(self, item: int) -> list[int]:
        """The metadata items that describe an item."""
        return [origin for kind, origin, targets in self.links if kind == b"cdsc" and item in targets]

    def auxiliary(self, item: int) -> bytes:
        """The purpose of an auxiliary picture."""
        held = [self.properties[n - 1] for n in self.of_item.get(item, ()) if 0 < n <= len(self.properties)]
        return next(filter(None, held), b"")


def items_of(content: bytes) -> Items:
    """The items of a file.

    Raises:
        ValueError: the boxes make no sense.
    """
    try:
        items = Items(content, list(walk(content, 0, len(content))))
        for kind, start, end in items.top:
            if kind == b"meta":
                _read_items(content, start + 4, end, items)
    except (struct.error, IndexError) as error:
        raise ValueError(f"its boxes make no sense ({error})") from error
    return items


def read(file: BinaryIO) -> Items | None:
    """The items of an opened file; None where its boxes make no sense."""
    file.seek(0)
    try:
        return items_of(file.read())
    except ValueError:
        return None


def left_out(items: Items) -> tuple[str, ...]:
    """Notes on what is dropped from a file, each once."""
    named: list[str] = []
    for kind, _, _ in items.top:
        if kind in _VIDEO_BOXES:
            named.append(VIDEO)
        elif kind not in _KNOWN_BOXES:
            named.append(left_out_box(kind))
    if rest := items.file[items.top[-1][2] if items.top else 0 :].strip(b"\x00"):
        named.append(f"data after the picture is left out ({len(rest):,} bytes)")
    return tuple(dict.fromkeys([*named, *_of_items(items)]))


def left_out_box(kind: bytes) -> str:
    """The note on an unknown box."""
    return f"box {_name(kind)} is left out"


def box(kind: bytes, body: bytes) -> bytes:
    """A box of that type and payload."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def payloads(content: bytes) -> list[tuple[bytes, bytes]]:
    """Type and payload of each box of a content that is made of boxes alone.

    Raises:
        ValueError: it is not.
    """
    found = list(walk(content, 0, len(content)))
    if (found[-1][2] if found else 0) != len(content):
        raise ValueError("a box has an unexpected size")
    return [(kind, content[start:end]) for kind, start, end in found]


def walk(content: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes between two positions, as far as they are valid.

    Raises:
        ValueError: they are more than any camera writes.
    """
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
    raise ValueError("too many boxes")


# --- the meta box -------------------------------------------------------------------------------------------------


def _read_items(content: bytes, start: int, end: int, items: Items) -> None:
    inner, located = 0, (0, 0)
    for kind, at, stop in walk(content, start, end):
        if kind == b"pitm":
            items.primary_at = at + 4, 4 if content[at] else 2
            (items.primary,) = struct.unpack_from(">I" if content[at] else ">H", content, at + 4)
        elif kind == b"idat":
            inner = at
        elif kind == b"iloc":
            located = at, stop
        elif kind == b"iinf":
            for entry, body, last in walk(content, at + (8 if content[at] else 6), stop):
                if entry == b"infe" and content[body] >= 2:
                    _read_entry(content, body, last, items)
        elif kind == b"iref":
            wide = bool(content[at])
            for link, body, last in walk(content, at + 4, stop):
                _read_link(content, link, body, last, wide, items)
        elif kind == b"iprp":
            for part, body, last in walk(content, at, stop):
                if part == b"ipco":
                    for name, first, after in walk(content, body, last):
                        urn = content[first + 4 : after].split(b"\x00")[0] if name == b"auxC" else b""
                        items.properties.append(urn)
                        items.boxes.append((name, first, after))
                        if name == b"ispe":
                            items.sizes[len(items.boxes)] = struct.unpack_from(">II", content, first + 4)
                elif part == b"ipma":
                    _read_associations(content, body, last, items)
    if located[1]:
        _read_locations(content, *located, inner, items)


def _read_entry(content: bytes, at: int, end: int, items: Items) -> None:
    form = ">IH4s" if content[at] >= 3 else ">HH4s"
    item, _, kind = struct.unpack_from(form, content, at + 4)
    items.types[item] = kind
    items.entry_at[item] = at
    texts = content[at + 4 + struct.calcsize(form) : end].split(b"\x00")
    if kind == b"mime" and len(texts) > 1:
        items.content[item] = texts[1]


def _read_link(content: bytes, kind: bytes, at: int, end: int, wide: bool, items: Items) -> None:
    form, size = (">I", 4) if wide else (">H", 2)
    (origin,) = struct.unpack_from(form, content, at)
    (count,) = struct.unpack_from(">H", content, at + size)
    targets = [at + size + 2 + size * index for index in range(count)]
    if targets and targets[-1] + size > end:
        raise ValueError("a reference is longer than its box")
    items.links.append((kind, origin, tuple(struct.unpack_from(form, content, target)[0] for target in targets)))


def _read_associations(content: bytes, at: int, end: int, items: Items) -> None:
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
            flag = 0x8000 if wide else 0x80
            items.of_item.setdefault(item, []).append(index & ~flag)
            if index & flag:
                items.essential.add((item, index & ~flag))
            at += 2 if wide else 1


def _read_locations(content: bytes, at: int, end: int, inner: int, items: Items) -> None:
    """Where items' data are; those in other files or in other items have none (14496-12, 8.11.3)."""
    version = content[at]
    offset_size, length_size = content[at + 4] >> 4, content[at + 4] & 15
    base_size, index_size = content[at + 5] >> 4, content[at + 5] & 15 if version else 0
    wide = version >= 2
    (count,) = struct.unpack_from(">I" if wide else ">H", content, at + 6)
    at += 10 if wide else 8

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(content[at - size : at], "big")

    for _ in range(count):
        if at >= end:
            return
        item = number(4 if wide else 2)
        method = number(2) & 15 if version else 0
        elsewhere = number(2)
        base = number(base_size)
        for _ in range(number(2)):
            if at >= end:
                return
            number(index_size)
            begin, length = base + number(offset_size), number(length_size)
            begin += inner if method == 1 else 0
            if method <= 1 and not elsewhere and begin + length <= len(content):
                items.extents.setdefault(item, []).append((begin, begin + length))


# --- what is left out ---------------------------------------------------------------------------------------------


def _of_items(items: Items) -> list[str]:
    parts = {target for kind, _, targets in items.links if kind == b"dimg" for target in targets}
    thumbnails = {origin for kind, origin, _ in items.links if kind == b"thmb"}
    auxiliary = {origin for kind, origin, _ in items.links if kind == b"auxl"}
    named, further = [], 0
    for item, kind in items.types.items():
        if item == items.primary or item in thumbnails:
            continue
        if kind == b"tmap":
            named.append(GAIN_MAP)
        elif item in auxiliary:
            named.append(_auxiliary(items.auxiliary(item)))
        elif item in parts:
            continue  # tiles of a grid
        elif kind in _PICTURES:
            further += 1
        elif kind == b"mime":
            if items.content.get(item) != b"application/rdf+xml":
                named.append(f"item {_name(items.content.get(item, kind))} is left out")
        elif kind != b"Exif":
            named.append(f"item {_name(kind)} is left out")
    if further:
        named.append(f"first of {further + 1} pictures in the file; the others are left out")
    return list(filter(None, named))


def _auxiliary(urn: bytes) -> str:
    if urn in _ALPHA:
        return ""
    if urn in _DEPTH:
        return "the depth map is left out"
    if b"hdrgainmap" in urn.lower():
        return GAIN_MAP
    return f"the auxiliary picture {_name(urn.rpartition(b':')[2])} is left out"


def _name(text: bytes) -> str:
    readable = "".join(c if c.isprintable() else "?" for c in text.decode("ascii", "replace"))
    return readable.strip() or "without a name"
