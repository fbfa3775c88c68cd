"""HEIC and AVIF files with a gain map, made of an encoded picture and an encoded map (ISO/IEC 23008-12, `tmap`).

The available encoders write pictures, but no gain maps: the map's item and its properties are added to the picture's
boxes, with an item that derives the other rendition from both. Readers without support see the picture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qatie_cli.photo import boxes
from qatie_cli.photo.beside import dialects
from qatie_cli.photo.beside.gain_map import GainMap
from qatie_cli.photo.boxes import Box, Items, box

_PQ, _SRGB, _UNSPECIFIED = 16, 13, 2  # colour codes of ITU-T H.273
_MATRIX = 6  # BT.601's, which both encoders use
_HIDDEN = 1
_ESSENTIAL = 0x8000  # flag of an association
Placed = list[tuple[int, int]]  # where each part of an item's data begins and ends in the file


@dataclass(frozen=True)
class _File:
    """An encoded picture: what its `meta` box holds, and its items."""

    meta: dict[bytes, bytes]
    items: Items

    @classmethod
    def of(cls, content: bytes) -> _File:
        """Read it.

        Raises:
            ValueError: it is not as encoders write it.
        """
        held = dict(boxes.payloads(dict(boxes.payloads(content)).get(b"meta", b"")[4:]))
        if not {b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp"} <= set(held) or b"idat" in held or b"grpl" in held:
            raise ValueError("the encoder's boxes are unknown")
        items = boxes.items_of(content)
        if items.parts_of(items.primary):
            raise ValueError("the encoder made a picture of tiles")
        return cls(held, items)

    def properties(self) -> bytes:
        """The boxes of its properties, one after the other."""
        return b"".join(box(kind, self.items.file[start:end]) for kind, start, end in self.items.boxes)

    @property
    def kind(self) -> bytes:
        """The type of its picture."""
        return self.items.types[self.items.primary]

    def kind_of(self, association: int) -> bytes:
        """The type of a property by its number."""
        return self.items.boxes[(association & ~_ESSENTIAL) - 1][0]

    def primaries(self) -> int:
        """The picture's colour primaries by their number, as far as it states one."""
        for kind, start, end in self.items.boxes:
            if kind == b"colr" and self.items.file[start : start + 4] == b"nclx" and end - start >= 11:
                return struct.unpack_from(">H", self.items.file, start + 4)[0]
        return _UNSPECIFIED

    def associations(self) -> dict[int, list[int]]:
        """Numbers of each item's properties in their order, with the flag of what readers must know."""
        items = self.items
        return {
            item: [n | (_ESSENTIAL if (item, n) in items.essential else 0) for n in numbers]
            for item, numbers in items.of_item.items()
        }


def with_gain_map(picture: bytes, values: bytes, gain_map: GainMap, size: tuple[int, int]) -> bytes:
    """The file of a picture and its gain map.

    Args:
        picture, values: the picture and the map's values, both encoded as files of this kind.
        size: width and height of the picture.

    Raises:
        ValueError: a file is not as encoders write it.
    """
    base, other = _File.of(picture), _File.of(values)
    toning = _Toning(base, other, gain_map, size)
    of_map, payload = other.items.data(other.items.primary), b"\0" + dialects.as_iso(gain_map.boost)
    appended = {toning.mapped: len(of_map), toning.toned: len(payload)}
    nowhere = {item: [(0, 0)] * len(extents) for item, extents in base.items.extents.items()}
    brands, meta_bytes = _brands(base.items), len(toning.meta(nowhere | {item: [(0, 0)] for item in appended}))
    tops, moved, at = _with_heads(base.items), {}, 0
    for kind, start, end in tops:
        moved[start, end] = at
        at += {b"ftyp": len(brands), b"meta": meta_bytes}.get(kind, end - start)
    places: dict[int, Placed] = {}
    for item, extents in base.items.extents.items():
        for begin, stop in extents:
            start, end = next(top for top in moved if top[0] <= begin and stop <= top[1])
            by = moved[start, end] - start
            places.setdefault(item, []).append((begin + by, stop + by))
    at += 8  # head of the last `mdat`
    for item, length in appended.items():
        places[item] = [(at, at + length)]
        at += length
    replaced = {b"ftyp": brands, b"meta": toning.meta(places)}
    kept = [replaced.get(kind, picture[start:end]) for kind, start, end in tops]
    return b"".join([*kept, box(b"mdat", of_map + payload)])


@dataclass(frozen=True)
class _Toning:
    """Two more items of the file `base`: the map, which is the picture of `other`, and what derives the rendition."""

    base: _File
    other: _File
    gain_map: GainMap
    size: tuple[int, int]

    @property
    def mapped(self) -> int:
        """The number of the map's item."""
        return max(self.base.items.types) + 1

    @property
    def toned(self) -> int:
        """The number of the other rendition's item."""
        return self.mapped + 1

    def meta(self, places: dict[int, Placed]) -> bytes:
        """The `meta` box with both items, for data in these places."""
        base, other = self.base, self.other
        properties, associations = self._properties()
        entries = box(b"infe", struct.pack(">BBHHH4sx", 2, 0, _HIDDEN, self.mapped, 0, other.kind))
        entries += box(b"infe", struct.pack(">BBHHH4sx", 2, 0, 0, self.toned, 0, b"tmap"))
        links = base.meta.get(b"iref", bytes(4))
        if links[0]:
            raise ValueError("the encoder's references are unknown")
        links += box(b"dimg", struct.pack(">HHHH", self.toned, 2, base.items.primary, self.mapped))
        known = base.meta[b"iinf"]
        (items,) = struct.unpack_from(">H", known, 4)
        alternatives = struct.pack(">IIIII", 0, self.toned + 1, 2, self.toned, base.items.primary)
        return box(
            b"meta",
            bytes(4)
            + box(b"hdlr", base.meta[b"hdlr"])
            + box(b"pitm", base.meta[b"pitm"])
            + box(b"iloc", _locations(places))
            + box(b"iinf", known[:4] + struct.pack(">H", items + 2) + known[6:] + entries)
            + box(b"iref", links)
            + box(b"iprp", box(b"ipco", properties) + box(b"ipma", _associated(associations)))
            + box(b"grpl", box(b"altr", alternatives)),
        )

    def _properties(self) -> tuple[bytes, dict[int, list[int]]]:
        """The boxes of all properties, and each item's numbers of them."""
        base, other = self.base, self.other
        count, added = len(base.items.boxes), len(base.items.boxes) + len(other.items.boxes)
        boxes_of_both = base.properties() + other.properties()
        size, space = box(b"ispe", bytes(4) + struct.pack(">II", *self.size)), self._space()
        associations = base.associations()
        own = [n for n in other.associations()[other.items.primary] if other.kind_of(n) != b"colr"]
        depths = [n for n in associations[base.items.primary] if base.kind_of(n) == b"pixi"]
        associations[self.mapped] = [*(n + count for n in own), added + 3]
        associations[self.toned] = [added + 1, *depths, added + 2]
        return boxes_of_both + size + space + _nclx(_UNSPECIFIED, _UNSPECIFIED), associations

    def _space(self) -> bytes:
        """The colour property of the other rendition."""
        primaries, given = self.base.primaries(), self.gain_map.sdr_space
        if not self.gain_map.boost.base_is_hdr:
            icc = self.gain_map.icc
            return _nclx(primaries, _PQ) if icc is None else box(b"colr", b"prof" + icc)
        return _nclx(given.codes[0] if given is not None and given.codes else primaries, _SRGB)


def _nclx(primaries: int, transfer: int) -> bytes:
    return box(b"colr", b"nclx" + struct.pack(">HHHB", primaries, transfer, _MATRIX, 0x80))


def _locations(places: dict[int, Placed]) -> bytes:
    body = struct.pack(">IBBH", 0, 0x44, 0, len(places))
    for item, extents in sorted(places.items()):
        body += struct.pack(">HHH", item, 0, len(extents))
        body += b"".join(struct.pack(">II", begin, end - begin) for begin, end in extents)
    return body


def _associated(associations: dict[int, list[int]]) -> bytes:
    body = struct.pack(">II", 1, len(associations))  # two bytes for a number
    for item, numbers in sorted(associations.items()):
        body += struct.pack(f">HB{len(numbers)}H", item, len(numbers), *numbers)
    return body


def _brands(items: Items) -> bytes:
    """The `ftyp` box, which says that there is a `tmap` item."""
    body = next(items.file[start:end] for kind, start, end in items.top if kind == b"ftyp")
    return box(b"ftyp", body + b"tmap")


def _with_heads(items: Items) -> list[Box]:
    """The file's own boxes with their heads: type, beginning, end."""
    ends = [end for _, _, end in items.top]
    return [(kind, start, end) for (kind, _, end), start in zip(items.top, [0, *ends[:-1]], strict=True)]
