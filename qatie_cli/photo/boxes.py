"""What a HEIC or AVIF file holds that a photo read from it does not: every box and item is accounted for.

ISO/IEC 14496-12 describes the boxes, 23008-12 the items.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from qatie_cli.photo.leftovers import GAIN_MAP, VIDEO

_KNOWN_BOXES = {b"ftyp", b"meta", b"mdat", b"free", b"skip", b"idat", b"styp", b"wide"}
_VIDEO_BOXES = {b"moov", b"mpvd", b"moof"}
_PICTURES = {b"hvc1", b"av01", b"grid", b"iden", b"iovl", b"jpeg", b"unci", b"avc1", b"hvt1", b"lhv1"}
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:avc:2015:auxid:1")
_DEPTH = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:depth", b"urn:mpeg:hevc:2015:auxid:2", b"urn:mpeg:avc:2015:auxid:2")
_MOST_BOXES = 100_000  # of a file; phones write hundreds

Box = tuple[bytes, int, int]  # type, and where its payload begins and ends


@dataclass
class _Items:
    """The items of a file and what they are to each other."""

    primary: int = 0
    types: dict[int, bytes] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)  # of MIME items
    links: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)  # type, from, to
    properties: list[bytes] = field(default_factory=list)  # what an auxiliary picture is; empty for other properties
    of_item: dict[int, set[int]] = field(default_factory=dict)  # numbers of properties, from 1

    def auxiliary(self, item: int) -> bytes:
        """What an auxiliary picture is for."""
        held = [self.properties[n - 1] for n in self.of_item.get(item, ()) if 0 < n <= len(self.properties)]
        return next(filter(None, held), b"")


def left_out(content: bytes) -> tuple[str, ...]:
    """Notes on what of the file is left out, each once.

    Raises:
        ValueError: the boxes make no sense.
    """
    named: list[str] = []
    items = _Items()
    try:
        at = 0
        for kind, start, end in _boxes(content, 0, len(content)):
            at = end
            if kind in _VIDEO_BOXES:
                named.append(VIDEO)
            elif kind == b"meta":
                _read_items(content, start + 4, end, items)
            elif kind not in _KNOWN_BOXES:
                named.append(f"box {_name(kind)} is left out")
        if rest := content[at:].strip(b"\x00"):
            named.append(f"what stands behind the picture is left out ({len(rest):,} bytes)")
    except struct.error as error:
        raise ValueError(f"its boxes make no sense ({error})") from error
    return tuple(dict.fromkeys([*named, *_of_items(items)]))


def _boxes(content: bytes, start: int, end: int) -> Iterator[Box]:
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


def _read_items(content: bytes, start: int, end: int, items: _Items) -> None:
    for kind, at, stop in _boxes(content, start, end):
        if kind == b"pitm":
            (items.primary,) = struct.unpack_from(">I" if content[at] else ">H", content, at + 4)
        elif kind == b"iinf":
            for entry, body, last in _boxes(content, at + (8 if content[at] else 6), stop):
                if entry == b"infe" and content[body] >= 2:
                    _read_entry(content, body, last, items)
        elif kind == b"iref":
            wide = bool(content[at])
            for link, body, last in _boxes(content, at + 4, stop):
                _read_link(content, link, body, last, wide, items)
        elif kind == b"iprp":
            for part, body, last in _boxes(content, at, stop):
                if part == b"ipco":
                    for name, first, after in _boxes(content, body, last):
                        urn = content[first + 4 : after].split(b"\x00")[0] if name == b"auxC" else b""
                        items.properties.append(urn)
                elif part == b"ipma":
                    _read_associations(content, body, last, items)


def _read_entry(content: bytes, at: int, end: int, items: _Items) -> None:
    form = ">IH4s" if content[at] >= 3 else ">HH4s"
    item, _, kind = struct.unpack_from(form, content, at + 4)
    items.types[item] = kind
    texts = content[at + 4 + struct.calcsize(form) : end].split(b"\x00")
    if kind == b"mime" and len(texts) > 1:
        items.content[item] = texts[1]


def _read_link(content: bytes, kind: bytes, at: int, end: int, wide: bool, items: _Items) -> None:
    form, size = (">I", 4) if wide else (">H", 2)
    (origin,) = struct.unpack_from(form, content, at)
    (count,) = struct.unpack_from(">H", content, at + size)
    targets = [at + size + 2 + size * index for index in range(count)]
    if targets and targets[-1] + size > end:
        raise ValueError("a reference is longer than its box")
    items.links.append((kind, origin, tuple(struct.unpack_from(form, content, target)[0] for target in targets)))


def _read_associations(content: bytes, at: int, end: int, items: _Items) -> None:
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
            items.of_item.setdefault(item, set()).add(index & (0x7FFF if wide else 0x7F))
            at += 2 if wide else 1


# --- what is left out ---------------------------------------------------------------------------------------------


def _of_items(items: _Items) -> list[str]:
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
    return "".join(c if c.isprintable() else "?" for c in text.decode("ascii", "replace")) or "without a name"
