"""Laws of metadata, over generated blocks: what must go goes, the rest stays, and a second time changes nothing."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import examples

from qatie_cli.photo import containers, decoding, encoding, exif, formats, iptc, xmp
from qatie_cli.photo.content import Photo

# --- EXIF ---------------------------------------------------------------------------------------------------------

ORIENTATION, EXIF_IFD, GPS_IFD = exif.ORIENTATION, exif.EXIF_POINTER, exif.GPS_POINTER
# Tags that neither tell of stored pixels nor name a place, with the types that EXIF 2.32 gives them.
DESCRIPTIVE = {0x010E: 2, 0x010F: 2, 0x0110: 2, 0x0131: 2, 0x0132: 2, 0x013B: 2, 0x8298: 2}
TAKEN = {0x829A: 5, 0x829D: 5, 0x8827: 3, 0x9003: 2, 0x920A: 5, 0x9209: 3, 0xA405: 3, 0x927C: 7, 0xA002: 4, 0xA003: 4}
PLACE = {1: 2, 2: 5, 3: 2, 4: 5, 5: 1, 6: 5, 7: 5, 29: 2}
SIZE_TAGS = (0xA002, 0xA003)


@dataclass(frozen=True)
class Built:
    """An EXIF block and the raw values it was built from, by tag."""

    block: bytes
    order: str
    main: dict[int, bytes]
    taken: dict[int, bytes]
    place: dict[int, bytes]
    thumbnail: bytes
    behind: bytes  # the thumbnail

    def read(self, block: bytes) -> tuple[dict, dict, dict]:
        """The same values as they are in another block."""
        return (
            {tag: exif.raw(block, tag) for tag in self.main},
            {tag: exif.raw(block, tag, (EXIF_IFD,)) for tag in self.taken},
            {tag: exif.raw(block, tag, (GPS_IFD,)) for tag in self.place},
        )


def _value(kind: int, order: str) -> st.SearchStrategy[tuple[int, int, bytes]]:
    """Type, count and bytes of a value of a type."""
    short, long = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
    if kind == 3:
        return short.map(lambda n: (kind, 1, struct.pack(f"{order}H", n)))
    if kind == 4:
        return long.map(lambda n: (kind, 1, struct.pack(f"{order}I", n)))
    if kind == 5:
        parts = st.lists(st.tuples(long, long), min_size=1, max_size=3)
        return parts.map(lambda p: (kind, len(p), b"".join(struct.pack(f"{order}II", *pair) for pair in p)))
    return st.binary(min_size=1, max_size=40).map(lambda b: (kind, len(b), b))


@st.composite
def exif_blocks(draw: st.DrawFn) -> Built:
    """A block as a camera writes it: three directories, a thumbnail, values in any order behind them."""
    order = draw(st.sampled_from("<>"))
    main, taken, place = (
        {tag: draw(_value(kinds[tag], order)) for tag in sorted(draw(st.sets(st.sampled_from(sorted(kinds)))))}
        for kinds in (DESCRIPTIVE, TAKEN, PLACE)
    )
    for tag in SIZE_TAGS:  # both or neither, as the standard has it
        if any(t in taken for t in SIZE_TAGS):
            taken.setdefault(tag, (4, 1, struct.pack(f"{order}I", 7)))
    taken = dict(sorted(taken.items()))
    if orientation := draw(st.integers(0, 8)):
        main[ORIENTATION] = (3, 1, struct.pack(f"{order}H", orientation))
    thumbnail = draw(st.binary(max_size=30).map(lambda b: b and b"\xff\xd8" + b))
    main[EXIF_IFD] = main[GPS_IFD] = (4, 1, b"")
    directories = [dict(sorted(main.items())), taken, place]
    if thumbnail:
        directories.append({0x0201: (4, 1, b""), 0x0202: (4, 1, struct.pack(f"{order}I", len(thumbnail)))})
    starts = list(np.cumsum([8, *(2 + 12 * len(entries) + 4 for entries in directories)]))
    end = int(starts[-1])
    values, body = b"", b""
    pointers = {EXIF_IFD: int(starts[1]), GPS_IFD: int(starts[2])}
    for index, entries in enumerate(directories):
        body += struct.pack(f"{order}H", len(entries))
        for tag, (kind, count, raw) in entries.items():
            content = raw
            if tag in pointers and index == 0:
                content = struct.pack(f"{order}I", pointers[tag])
            if index == 3 and tag == 0x0201:
                content = struct.pack(f"{order}I", 0)  # set below, when the place is known
            if len(content) > 4:
                field = struct.pack(f"{order}I", end + len(values))
                values += content + b"\0" * (len(content) % 2)
            else:
                field = content.ljust(4, b"\0")
            body += struct.pack(f"{order}HHI", tag, kind, count) + field
        body += struct.pack(f"{order}I", int(starts[3]) if index == 0 and thumbnail else 0)
    block = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8) + body + values
    if thumbnail:
        at = int(starts[3]) + 2 + 8
        block = block[:at] + struct.pack(f"{order}I", len(block)) + block[at + 4 :] + thumbnail
    behind = draw(st.binary(max_size=6)) if thumbnail else b""
    raws = [{tag: v[2] for tag, v in part.items() if tag not in pointers} for part in (main, taken, place)]
    return Built(block + behind, order, *raws, thumbnail, behind)


@examples(30)
@given(exif_blocks())
def test_values_are_read_as_they_were_written(built):
    assert built.read(built.block) == (built.main, built.taken, built.place)


@examples(30)
@given(exif_blocks(), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_an_upright_block_differs_in_orientation_size_and_thumbnail_only(built, width, height):
    upright = exif.upright(built.block, (width, height))
    main, taken, place = built.read(upright)
    if ORIENTATION in built.main:
        assert exif.orientation(upright) == 1
    for tag, size in zip(SIZE_TAGS, (width, height), strict=True):
        if tag in built.taken:
            assert exif.numbers(upright, tag, (EXIF_IFD,)) == (size,)
    assert {t: v for t, v in main.items() if t != ORIENTATION} == {
        t: v for t, v in built.main.items() if t != ORIENTATION
    }
    assert {t: v for t, v in taken.items() if t not in SIZE_TAGS} == {
        t: v for t, v in built.taken.items() if t not in SIZE_TAGS
    }
    assert place == built.place
    start = len(built.block) - len(built.thumbnail) - len(built.behind)
    assert upright[start:] == (bytes(len(built.thumbnail)) + built.behind if built.behind else b"")
    assert exif.upright(upright, (width, height)) == upright


@examples(30)
@given(exif_blocks())
def test_a_block_without_gps_has_all_the_rest_and_no_byte_of_the_place(built):
    stripped = exif.without_gps(built.block)
    main, taken, place = built.read(stripped)
    assert (main, taken) == (built.main, built.taken)
    assert set(place.values()) <= {None}
    gone = [raw for raw in built.place.values() if len(raw) >= 8 and any(raw)]
    kept = b"".join((*built.main.values(), *built.taken.values(), built.thumbnail))
    assert not [raw for raw in gone if raw in stripped and raw not in kept]
    assert len(stripped) == len(built.block)
    assert exif.without_gps(stripped) == stripped


@examples(30)
@given(exif_blocks(), st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=3), st.data())
def test_numbers_are_replaced_where_they_fit_and_nothing_else_moves(built, values, data):
    tag = data.draw(st.sampled_from(sorted({*built.taken, 0xA405})))
    changed = exif.with_numbers(built.block, tag, values, (EXIF_IFD,))
    fits = TAKEN[tag] in (3, 4) and len(values) == 1 and tag in built.taken
    if not fits:
        assert changed == built.block
        return
    assert exif.numbers(changed, tag, (EXIF_IFD,)) == tuple(values)
    main, taken, place = built.read(changed)
    assert (main, place) == (built.main, built.place)
    assert {t: v for t, v in taken.items() if t != tag} == {t: v for t, v in built.taken.items() if t != tag}


@examples(80)
@given(st.one_of(exif_blocks().map(lambda b: b.block), st.binary(max_size=60)), st.data())
def test_damaged_blocks_are_never_more_than_left_alone(block, data):
    hits = data.draw(st.lists(st.tuples(st.integers(0, max(0, len(block) - 1)), st.integers(0, 255)), max_size=4))
    damaged = bytearray(block)
    for at, byte in hits if block else ():
        damaged[at] = byte
    damaged = bytes(damaged[: data.draw(st.integers(0, len(block)))])
    upright, stripped = exif.upright(damaged, (3, 4)), exif.without_gps(damaged)
    assert len(upright) <= len(damaged)
    assert len(stripped) <= len(damaged)
    assert exif.orientation(upright) in (None, 1) or exif.orientation(damaged) == exif.orientation(upright)
    exif.numbers(damaged, 0x920A, (EXIF_IFD,))


# --- IPTC ---------------------------------------------------------------------------------------------------------

PLACE_DATASETS = (26, 27, 90, 92, 95, 100, 101)


def _dataset(number: int, content: bytes, extended: bool = False) -> bytes:
    """A dataset of record 2 (IIM 4.2, 1.5.6); an extended one has the length of its length in front."""
    if extended:
        return struct.pack(">BBBHI", 0x1C, 2, number, 0x8004, len(content)) + content
    return struct.pack(">BBBH", 0x1C, 2, number, len(content)) + content


datasets = st.lists(
    st.builds(
        _dataset, st.sampled_from((5, 25, 55, 80, 105, 120, *PLACE_DATASETS)), st.binary(max_size=12), st.booleans()
    ),
    max_size=6,
)


def _other_resource(identity: int, name: bytes, body: bytes) -> bytes:
    pascal = bytes([len(name)]) + name
    pascal += b"\0" * (len(pascal) % 2)
    return (
        b"8BIM" + struct.pack(">H", identity) + pascal + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
    )


PADDED = _other_resource(0x03ED, b"", b"odd")
others = st.lists(
    st.just(PADDED)
    | st.builds(
        _other_resource, st.sampled_from((0x03ED, 0x0409, 0x040C, 0x0425)), st.binary(max_size=4), st.binary(max_size=9)
    ),
    max_size=3,
)


@examples(80)
@given(others, datasets, st.booleans())
def test_iptc_joined_to_resources_comes_apart_again(other, sets, cut):
    block = whole = b"".join(other)
    if cut and other and other[-1] == PADDED:
        block = block[:-1]  # some writers leave out the last resource's padding
    joined = iptc.joined(block, b"".join(sets))
    resources, found = iptc.apart(joined)
    assert found == b"".join(sets)
    assert resources == whole
    assert iptc.joined(joined, found) == joined


@examples(80)
@given(others, datasets)
def test_iptc_loses_places_and_keeps_every_other_dataset(other, sets):
    stripped = iptc.without_places(b"".join(other) + iptc.resource(b"".join(sets)))
    resources, found = iptc.apart(stripped)
    assert found == b"".join(dataset for dataset in sets if dataset[2] not in PLACE_DATASETS)
    assert resources == b"".join(other)
    assert iptc.without_places(stripped) == stripped


@examples(30)
@given(others, datasets)
def test_resources_lose_their_thumbnails_only(other, sets):
    stripped = iptc.without_thumbnails(b"".join(other) + iptc.resource(b"".join(sets)))
    kept = [resource for resource in other if resource[4:6] not in (b"\x04\x09", b"\x04\x0c")]
    assert stripped == b"".join(kept) + iptc.resource(b"".join(sets))


# --- XMP ----------------------------------------------------------------------------------------------------------

NAMESPACES = {
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "ext": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}
PLACE_NAMES = ("exif:GPSLatitude", "exif:GPSTimeStamp", "photoshop:City", "photoshop:Country", "ext:LocationCreated")
PLAIN_NAMES = ("dc:creator", "dc:title", "photoshop:Credit", "exif:ExposureTime", "tiff:Make", "dc:CityOfLight")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<>&\"'", exclude_categories=("Cc", "Cs")), max_size=8)


@st.composite
def elements(draw: st.DrawFn, depth: int = 2) -> str:
    name = draw(st.sampled_from(PLAIN_NAMES + PLACE_NAMES))
    attributes = draw(st.dictionaries(st.sampled_from(PLAIN_NAMES + PLACE_NAMES), TEXT, max_size=2))
    quote, space = draw(st.sampled_from("\"'")), draw(st.sampled_from([" ", "\n  ", "\t"]))
    head = name + "".join(f"{space}{key}={quote}{value}{quote}" for key, value in attributes.items())
    if draw(st.booleans()):
        return f"<{head}/>"
    inside = draw(st.lists(elements(depth - 1), max_size=2)) if depth else []
    return f"<{head}>{draw(TEXT)}{''.join(inside)}</{name}>"


packets = st.builds(
    lambda parts, attribute: (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" '
        + " ".join(f'xmlns:{prefix}="{address}"' for prefix, address in NAMESPACES.items())
        + f"{attribute}>{''.join(parts)}</x:xmpmeta>"
    ).encode(),
    st.lists(elements(), max_size=3),
    st.sampled_from(["", *(f' tiff:Orientation="{n}"' for n in range(1, 9))]),
)


def _qualified(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{NAMESPACES[prefix]}}}{local}"


def _without_places(element: ElementTree.Element) -> tuple:
    """An element's name, attributes, text and children, without those that name a place."""
    places = {_qualified(name) for name in PLACE_NAMES}
    children = [_without_places(child) for child in element if child.tag not in places]
    attributes = {name: value for name, value in element.attrib.items() if name not in places}
    return element.tag, attributes, element.text or "", children


def _whole(element: ElementTree.Element) -> tuple:
    return element.tag, dict(element.attrib), element.text or "", [_whole(child) for child in element]


@examples(60)
@given(packets)
def test_xmp_loses_places_and_stays_the_same_document_otherwise(packet):
    before = ElementTree.fromstring(packet)
    stripped = xmp.without_places(packet)
    assert _whole(ElementTree.fromstring(stripped)) == _without_places(before)
    assert xmp.without_places(stripped) == stripped


@examples(30)
@given(packets)
def test_upright_xmp_differs_in_orientation_only(packet):
    upright = xmp.upright(packet)
    before, after = ElementTree.fromstring(packet), ElementTree.fromstring(upright)
    name = _qualified("tiff:Orientation")
    assert after.attrib.pop(name, None) == (None if before.attrib.pop(name, None) is None else "1")
    assert _whole(after) == _whole(before)
    assert xmp.upright(upright) == upright


@examples(80)
@given(packets, st.data())
def test_damaged_xmp_never_keeps_a_place(packet, data):
    """Whatever is cut off or doubled: either the packet goes, or no property in it names a place."""
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(packet))] * 2)))
    stripped = xmp.without_places(packet[:start] + packet[stop:])
    for name in PLACE_NAMES:
        local = name.split(":")[1].encode()
        assert f"<{name}".encode() + b">" not in stripped
        assert b":" + local + b"=" not in stripped


# --- files --------------------------------------------------------------------------------------------------------

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@examples(20, shrink=False)
@given(exif_blocks(), packets, others, datasets)
def test_every_format_brings_metadata_back(built, packet, other, sets):
    assume(sets and built.taken)
    block = exif.upright(built.block, (8, 8))
    resources = iptc.without_thumbnails(b"".join(other) + iptc.resource(b"".join(sets)))
    photo = Photo(PIXELS, "png", exif=block, xmp=xmp.upright(packet), photoshop=resources)
    for fmt in formats.FORMATS:
        again = decoding.read(encoding.encoded(photo, fmt))
        assert again.xmp == photo.xmp, fmt
        if fmt in ("jpeg", "tiff"):
            resources_again, sets_again = iptc.apart(again.photoshop)
            assert sets_again.rstrip(b"\0") == b"".join(sets).rstrip(b"\0"), fmt
            assert resources_again == iptc.apart(resources)[0], fmt
        if fmt != "tiff":
            assert again.exif == block, fmt
            continue
        for tag in built.taken:  # Pillow writes them anew, with other types and in lowest terms
            before, after = (exif.numbers(found, tag, (EXIF_IFD,)) for found in (block, again.exif))
            assert np.array_equal(after, before, equal_nan=True), hex(tag)


def test_segments_of_a_jpeg_are_split_and_joined(coffee):
    """Image resources longer than a segment go into several."""
    long = iptc.resource(b"".join(_dataset(120, bytes([n]) * 30000) for n in range(5)))
    assert len(containers.jpeg_segments(long, ())) > 2 * 65533
    assert decoding.read(encoding.encoded(Photo(coffee[:16, :16], "jpeg", photoshop=long), "jpeg")).photoshop == long
