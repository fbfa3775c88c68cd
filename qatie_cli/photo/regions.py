"""Coordinates in XMP (faces, crops, panoramas, sizes), rotated with the pixels.

Face regions of the Metadata Working Group (which Apple extends by angles), ACDSee, Microsoft and IPTC, Camera Raw's
crop, the parts of a panorama, and EXIF's subject are kept in coordinates of the picture as stored. Packets are edited
as text; every edit takes time in proportion to their length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_TAG = re.compile(rb"""<(/?)([\w:.-]++)((?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>""")
_ATTRIBUTE = re.compile(rb"""(?<!\s)\s++(?:([\w.-]++):)?+([\w.-]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)')""")
_NAMESPACE = re.compile(rb"""\bxmlns:([\w.-]++)\s*+=\s*+["']([^"'<]*+)["']""")
_HINTS = (b"Area", b"Region", b"GPano", b"panorama", b"Crop", b"rbX", b"Subject", b"ImageWidth", b"PixelXDimension")
_DEEPEST = 200  # nested elements; XMP has ten
_MOST_STRUCTURES = 20_000  # packets with more are not examined

_AREAS = (b"http://ns.adobe.com/xmp/sType/Area#", b"http://ns.acdsee.com/sType/Area#")
_DIMENSIONS = (b"http://ns.adobe.com/xap/1.0/sType/Dimensions#", b"http://ns.acdsee.com/sType/Dimensions#")
_MICROSOFT = b"http://ns.microsoft.com/photo/1.2/t/Region#"
_APPLE_FACES = b"http://ns.apple.com/faceinfo/1.0/"
_IPTC = b"http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PANORAMA = b"http://ns.google.com/photos/1.0/panorama/"
_CAMERA_RAW = (b"http://ns.adobe.com/camera-raw-settings/1.0/", b"http://ns.adobe.com/camera-raw-defaults/1.0/")
_TIFF, _EXIF = b"http://ns.adobe.com/tiff/1.0/", b"http://ns.adobe.com/exif/1.0/"

_KNOWN = frozenset({*_AREAS, *_DIMENSIONS, _MICROSOFT, _APPLE_FACES, _IPTC, _PANORAMA, *_CAMERA_RAW, _TIFF, _EXIF})

# Clockwise degrees of each EXIF orientation, the mirroring of 2, 4, 5 and 7 aside.
_DEGREES = {1: 0, 2: 0, 3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}
_MIRRORED = (2, 4, 5, 7)


@dataclass(frozen=True)
class Turn:
    """The rotation of a picture of `width` x `height` stored pixels by EXIF's orientation 1..8."""

    orientation: int
    width: int
    height: int

    @property
    def swaps(self) -> bool:
        """Whether width and height are exchanged."""
        return self.orientation in (5, 6, 7, 8)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height afterwards."""
        return (self.height, self.width) if self.swaps else (self.width, self.height)

    def point(self, x: float, y: float, width: float = 1, height: float = 1) -> tuple[float, float]:
        """Where a point of a picture of `width` x `height` comes to lie."""
        if self.swaps:
            x, y, width, height = y, x, height, width
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        return x, y

    def sides(self, width: float, height: float) -> tuple[float, float]:
        """The sides of a part."""
        return (height, width) if self.swaps else (width, height)

    def corner(
        self, x: float, y: float, sides: tuple[float, float], whole: tuple[float, float] = (1, 1)
    ) -> tuple[float, float]:
        """Where the upper left corner of a part of a picture comes to lie."""
        (x, y), (width, height) = self.point(x + sides[0] / 2, y + sides[1] / 2, *whole), self.sides(*sides)
        return x - width / 2, y - height / 2


@dataclass
class _Structure:
    """An element: its attributes and the elements in it that hold text; where their values stand in the packet."""

    name: bytes
    namespace: bytes
    parent: _Structure | None = None
    values: dict[tuple[bytes, bytes], tuple[int, int]] = field(default_factory=dict)
    items: list[tuple[int, int]] = field(default_factory=list)  # of a list

    def is_in(self, name: bytes) -> bool:
        """Whether it is, or is the description of, a property of this name."""
        return self.name == name or (self.parent is not None and self.parent.name == name)


class _Packet:
    """A packet whose values can be read and replaced."""

    def __init__(self, packet: bytes) -> None:
        self.bytes = packet
        self.structures: list[_Structure] = []  # those that hold values of namespaces in `_KNOWN`
        self._replaced: dict[tuple[int, int], bytes] = {}
        self._parse(dict(_NAMESPACE.findall(packet)))

    def _parse(self, bound: dict[bytes, bytes]) -> None:
        path = [_Structure(b"", b"")]
        opened = 0
        for tag in _TAG.finditer(self.bytes):
            closing, name, attributes = tag.groups()
            prefix, _, local = name.rpartition(b":")
            if closing:
                if len(path) == 1:
                    return  # not well-formed: what was found so far is right
                structure = path.pop()
                if tag.start() >= opened:
                    self._hold(path, structure, (opened, tag.start()))
                opened = len(self.bytes)  # text after an element is not a value
                continue
            structure = _Structure(local, bound.get(prefix, b""), path[-1])
            for found in _ATTRIBUTE.finditer(attributes):
                key = (bound.get(found[1] or b"", b""), found[2])
                if key[0] in _KNOWN:
                    group = 3 if found[3] is not None else 4
                    self._note(structure)
                    structure.values[key] = (tag.start(3) + found.start(group), tag.start(3) + found.end(group))
            if attributes.endswith(b"/"):
                continue
            path.append(structure)
            opened = tag.end()
            if len(path) > _DEEPEST or len(self.structures) > _MOST_STRUCTURES:
                return

    def _hold(self, path: list[_Structure], structure: _Structure, span: tuple[int, int]) -> None:
        """Note the text of an element that ends: a value of the element around it, or an item of a list."""
        if structure.name == b"li" and len(path) > 1:
            owner = path[-2]  # the property around its rdf:Seq
            if owner.namespace in _KNOWN:
                self._note(owner)
                owner.items.append(span)
        elif structure.namespace in _KNOWN and not structure.values:
            self._note(path[-1])
            path[-1].values.setdefault((structure.namespace, structure.name), span)

    def _note(self, structure: _Structure) -> None:
        if not structure.values and not structure.items:
            self.structures.append(structure)

    def text(self, span: tuple[int, int]) -> bytes:
        return self.bytes[slice(*span)].strip()

    def numbers(self, structure: _Structure, names: Iterable[tuple[bytes, bytes]]) -> list[float] | None:
        """The values of these properties; None if one is missing or no number."""
        try:
            return [float(self.text(structure.values[name])) for name in names]
        except (KeyError, ValueError):
            return None

    def set_numbers(self, structure: _Structure, names: Iterable[tuple[bytes, bytes]], values: Iterable[float]) -> None:
        for name, value in zip(names, values, strict=True):
            self.replace(structure.values[name], value)

    def replace(self, span: tuple[int, int], value: float) -> None:
        self._replaced[span] = _written(value)

    def replace_text(self, span: tuple[int, int], text: bytes) -> None:
        self._replaced[span] = text

    def edited(self) -> bytes:
        out: list[bytes] = []
        at = 0
        for (start, end), text in sorted(self._replaced.items()):
            out += self.bytes[at:start], text
            at = end
        return b"".join([*out, self.bytes[at:]])


def _written(value: float) -> bytes:
    return f"{value:.6f}".rstrip("0").rstrip(".").encode() if value else b"0"


def turned(packet: bytes, turn: Turn) -> bytes:
    """The packet with its coordinates and sizes rotated like the pixels."""
    if turn.orientation == 1 or not any(hint in packet for hint in _HINTS):
        return packet
    parsed = _Packet(packet)
    if len(parsed.structures) > _MOST_STRUCTURES:
        return packet
    frames = {_frame(parsed, s) for s in parsed.structures if s.is_in(b"AppliedToDimensions")} - {None}
    # Regions drawn in the rotated picture, as their stated dimensions show, are already right.
    regions_stand = bool(frames) and turn.swaps and frames == {(turn.height, turn.width)}
    if turn.width == turn.height:
        regions_stand = False
    for structure in parsed.structures:
        for change in _REGIONS if not regions_stand else ():
            change(parsed, structure, turn)
        for change in _OTHERS:
            change(parsed, structure, turn)
    return parsed.edited()


def _frame(parsed: _Packet, structure: _Structure) -> tuple[float, float] | None:
    for namespace in _DIMENSIONS:
        found = parsed.numbers(structure, [(namespace, b"w"), (namespace, b"h")])
        if found:
            return found[0], found[1]
    return None


# --- regions ------------------------------------------------------------------------------------------------------


def _area(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """A centre, and sides where it is no point or circle; shares of the picture, or pixels."""
    for namespace in _AREAS:
        names, sides = [(namespace, b"x"), (namespace, b"y")], [(namespace, b"w"), (namespace, b"h")]
        centre, size = parsed.numbers(structure, names), parsed.numbers(structure, sides)
        unit = structure.values.get((namespace, b"unit"))
        whole = (1, 1) if unit is None or parsed.text(unit) != b"pixel" else (turn.width, turn.height)
        if centre:
            parsed.set_numbers(structure, names, turn.point(centre[0], centre[1], *whole))
            if size:
                parsed.set_numbers(structure, sides, turn.sides(size[0], size[1]))


def _applied_to(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    for namespace in _DIMENSIONS:
        names = [(namespace, b"w"), (namespace, b"h")]
        size = parsed.numbers(structure, names)
        if size and structure.is_in(b"AppliedToDimensions"):
            parsed.set_numbers(structure, names, turn.sides(size[0], size[1]))


def _angle(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """A face's roll: 270 degrees for orientation 6, as an upright phone stores it."""
    names = [(_APPLE_FACES, b"AngleInfoRoll")]
    angle = parsed.numbers(structure, names)
    if angle:
        rolled = angle[0] + _DEGREES[turn.orientation]
        parsed.set_numbers(structure, names, [(-rolled if turn.orientation in _MIRRORED else rolled) % 360])


def _rectangle(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """Microsoft's "x, y, width, height" in shares of the picture."""
    span = structure.values.get((_MICROSOFT, b"Rectangle"))
    if span is None:
        return
    try:
        x, y, width, height = (float(value) for value in parsed.text(span).split(b","))
    except ValueError:
        return
    values = (*turn.corner(x, y, (width, height)), *turn.sides(width, height))
    parsed.replace_text(span, b", ".join(map(_written, values)))


def _boundary(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """IPTC's boundary: the corner of a rectangle, the centre of a circle, or the vertex of a polygon."""
    names, sides = [(_IPTC, b"rbX"), (_IPTC, b"rbY")], [(_IPTC, b"rbW"), (_IPTC, b"rbH")]
    at, size = parsed.numbers(structure, names), parsed.numbers(structure, sides)
    if not at:
        return
    unit = structure.values.get((_IPTC, b"rbUnit"))
    in_pixels = max(*at, *(size or [0])) > 1 if unit is None else parsed.text(unit) == b"pixel"
    whole = (turn.width, turn.height) if in_pixels else (1, 1)
    if size:
        parsed.set_numbers(structure, names, turn.corner(at[0], at[1], (size[0], size[1]), whole))
        parsed.set_numbers(structure, sides, turn.sides(size[0], size[1]))
    else:
        parsed.set_numbers(structure, names, turn.point(at[0], at[1], *whole))


# --- crops, panoramas, sizes --------------------------------------------------------------------------------------


def _crop(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """Camera Raw's crop in shares of the picture."""
    for namespace in _CAMERA_RAW:
        names = [(namespace, name) for name in (b"CropLeft", b"CropTop", b"CropRight", b"CropBottom")]
        edges = parsed.numbers(structure, names)
        if edges:
            (a, b), (c, d) = turn.point(edges[0], edges[1]), turn.point(edges[2], edges[3])
            parsed.set_numbers(structure, names, (min(a, c), min(b, d), max(a, c), max(b, d)))
        angle = parsed.numbers(structure, [(namespace, b"CropAngle")])
        if angle and turn.orientation in _MIRRORED:
            parsed.set_numbers(structure, [(namespace, b"CropAngle")], [-angle[0]])


def _panorama(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    """The parts of a panorama, in its pixels."""

    def pixels(*names: bytes) -> tuple[list[tuple[bytes, bytes]], list[float] | None]:
        keys = [(_PANORAMA, name) for name in names]
        return keys, parsed.numbers(structure, keys)

    full_names, full = pixels(b"FullPanoWidthPixels", b"FullPanoHeightPixels")
    crop_names, crop = pixels(b"CroppedAreaImageWidthPixels", b"CroppedAreaImageHeightPixels")
    left_names, left = pixels(b"CroppedAreaLeftPixels", b"CroppedAreaTopPixels")
    rect_names, rect = pixels(b"LargestValidInteriorRectWidth", b"LargestValidInteriorRectHeight")
    rect_left_names, rect_left = pixels(b"LargestValidInteriorRectLeft", b"LargestValidInteriorRectTop")
    if left and crop and full:
        parsed.set_numbers(structure, left_names, turn.corner(left[0], left[1], (crop[0], crop[1]), (full[0], full[1])))
    if rect_left and rect and crop:
        corner = turn.corner(rect_left[0], rect_left[1], (rect[0], rect[1]), (crop[0], crop[1]))
        parsed.set_numbers(structure, rect_left_names, corner)
    for names, size in ((full_names, full), (crop_names, crop), (rect_names, rect)):
        if size:
            parsed.set_numbers(structure, names, turn.sides(size[0], size[1]))


def _sizes(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    for names in (
        [(_TIFF, b"ImageWidth"), (_TIFF, b"ImageLength")],
        [(_EXIF, b"PixelXDimension"), (_EXIF, b"PixelYDimension")],
    ):
        size = parsed.numbers(structure, names)
        if size:
            parsed.set_numbers(structure, names, turn.sides(size[0], size[1]))


def _subject(parsed: _Packet, structure: _Structure, turn: Turn) -> None:
    if structure.namespace != _EXIF or structure.name not in (b"SubjectArea", b"SubjectLocation"):
        return
    try:
        values = [float(parsed.text(span)) for span in structure.items]
    except ValueError:
        return
    for span, value in zip(structure.items, subject(values, turn), strict=True):
        parsed.replace(span, value)


def subject(values: list[float], turn: Turn) -> list[float]:
    """EXIF's SubjectArea or SubjectLocation: a centre in pixels, then a diameter, or width and height."""
    if len(values) not in (2, 3, 4):
        return values
    centre = turn.point(values[0], values[1], turn.width, turn.height)
    sides = turn.sides(values[2], values[3]) if len(values) == 4 else values[2:]
    return [*centre, *sides]


_Change = Callable[[_Packet, _Structure, Turn], None]
_REGIONS: tuple[_Change, ...] = (_area, _applied_to, _angle, _rectangle, _boundary)
_OTHERS: tuple[_Change, ...] = (_crop, _panorama, _sizes, _subject)
