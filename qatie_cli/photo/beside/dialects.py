"""Descriptions of a gain map: Adobe's XMP (hdrgm), ISO 21496-1, Apple's XMP and maker notes."""

from __future__ import annotations

import math
import re
import struct
from fractions import Fraction

import numpy as np

from qatie_cli.photo import exif
from qatie_cli.photo.beside.gain_map import Boost

HDRGM = b"http://ns.adobe.com/hdr-gain-map/1.0/"
APPLE = b"http://ns.apple.com/HDRGainMap/1.0/"
ISO = b"urn:iso:std:iso:ts:21496:-1\x00"  # signature of a JPEG segment
ISO_VERSION = bytes(4)  # minimum and writer's version: all that the segment of the primary picture holds
_NAMESPACE = re.compile(rb"""\bxmlns:([\w.-]++)\s*+=\s*+["']([^"'<]*+)["']""")
_ITEM = re.compile(rb"<[\w.-]++:li\b[^>]*+>\s*+([^<\s][^<]*+)<")
_MULTICHANNEL, _BASE_COLOURS = 0x80, 0x40  # flags of ISO 21496-1, annex C.2.2
_COMMON_DENOMINATOR, _BACKWARD = 0x08, 0x04  # of its drafts, used by libultrahdr and early files
_DENOMINATOR = 1 << 20  # of written fractions
_APPLE_NOTE = b"Apple iOS\x00"
_MAKER_NOTE = 0x927C
_HEADROOM, _GAIN = 0x0021, 0x0030  # of Apple's maker note
_MOST_STOPS = 8.0  # that a headroom may say


# --- XMP ----------------------------------------------------------------------------------------------------------


def values(packet: bytes, address: bytes, name: bytes) -> tuple[str, ...]:
    """The values of a property, whether it is an attribute, an element or a sequence, under any prefix; mostly one."""
    for prefix, bound in _NAMESPACE.findall(packet):
        if bound != address:
            continue
        own = re.escape(prefix + b":" + name)
        if found := re.search(rb"\s" + own + rb"""\s*+=\s*+["']([^"'<]*+)["']""", packet):
            return (found[1].decode("utf-8", "replace").strip(),)
        if found := re.search(rb"<" + own + rb"(?:\s[^>]*+)?>([^<]*+)<", packet):
            if text := found[1].strip():
                return (text.decode("utf-8", "replace"),)
            end = packet.find(b"</" + prefix + b":" + name, found.end())
            items = _ITEM.findall(packet, found.end() - 1, end if end >= 0 else len(packet))
            return tuple(item.decode("utf-8", "replace").strip() for item in items)
    return ()


def of_hdrgm(packet: bytes) -> Boost | None:
    """Adobe's description of a gain map; None if the packet has none.

    Raises:
        ValueError: it makes no sense.
    """
    if HDRGM not in packet:
        return None
    highest = _numbers(packet, b"GainMapMax")
    if not highest:
        return None
    boost = Boost(
        minimum=_numbers(packet, b"GainMapMin") or (0.0,),
        maximum=highest,
        gamma=_numbers(packet, b"Gamma") or (1.0,),
        sdr_offset=_numbers(packet, b"OffsetSDR") or (1 / 64,),
        hdr_offset=_numbers(packet, b"OffsetHDR") or (1 / 64,),
        sdr_headroom=(_numbers(packet, b"HDRCapacityMin") or (0.0,))[0],
        hdr_headroom=(_numbers(packet, b"HDRCapacityMax") or (max(highest),))[0],
        base_is_hdr="true" in [text.lower() for text in values(packet, HDRGM, b"BaseRenditionIsHDR")],
    )
    return boost if boost.sdr_headroom < boost.hdr_headroom else None


def _numbers(packet: bytes, name: bytes) -> tuple[float, ...]:
    found = tuple(float(text) for text in values(packet, HDRGM, name))
    if len(found) not in (0, 1, 3):
        raise ValueError(f"{name.decode()} has {len(found)} values")
    return found


def as_hdrgm(boost: Boost) -> bytes:
    """The XMP packet of the JPEG of a gain map whose base is SDR."""
    attributes, elements = [], []
    for name, numbers in (
        ("GainMapMin", boost.minimum),
        ("GainMapMax", boost.maximum),
        ("Gamma", boost.gamma),
        ("OffsetSDR", boost.sdr_offset),
        ("OffsetHDR", boost.hdr_offset),
        ("HDRCapacityMin", (boost.sdr_headroom,)),
        ("HDRCapacityMax", (boost.hdr_headroom,)),
    ):
        if len(set(numbers)) == 1:
            attributes.append(f' hdrgm:{name}="{numbers[0]:.6f}"')
        else:
            items = "".join(f"<rdf:li>{number:.6f}</rdf:li>" for number in numbers)
            elements.append(f"<hdrgm:{name}><rdf:Seq>{items}</rdf:Seq></hdrgm:{name}>")
    head = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:hdrgm="{HDRGM.decode()}" hdrgm:Version="1.0"'
    )
    flag = ' hdrgm:BaseRenditionIsHDR="False">'
    tail = "</rdf:Description></rdf:RDF></x:xmpmeta>"
    return "".join([head, *attributes, flag, *elements, tail]).encode()


# --- ISO 21496-1 --------------------------------------------------------------------------------------------------


def of_iso(block: bytes) -> Boost | None:
    """The binary description (annex C.2); None where it is of a later version.

    Raises:
        ValueError: it makes no sense.
    """
    try:
        least_version, _, flags = struct.unpack_from(">HHB", block)
        if least_version:
            return None
        channels = 3 if flags & _MULTICHANNEL else 1
        common = bool(flags & _COMMON_DENOMINATOR)
        rows = [("I", "I"), *[("i", "i", "I", "i", "i")] * channels]
        at, denominator = (9, struct.unpack_from(">I", block, 5)[0]) if common else (5, 0)
        numbers = []
        for row in rows:
            for form in row:
                (above,) = struct.unpack_from(f">{form}", block, at)
                below = denominator or struct.unpack_from(">I", block, at + 4)[0]
                at += 4 if common else 8
                numbers.append(above / below)
    except (struct.error, ZeroDivisionError) as error:
        raise ValueError(f"the gain map's description is damaged ({error})") from error
    base, other, rest = numbers[0], numbers[1], np.reshape(numbers[2:], (channels, 5)).T.tolist()
    if flags & _BACKWARD or base == other:
        return None
    minimum, maximum, gamma, of_base, of_other = map(tuple, rest)
    boost = Boost(minimum, maximum, gamma, of_base, of_other, base, other, bool(flags & _BASE_COLOURS))
    return boost.with_the_other_base() if base > other else boost


def as_iso(boost: Boost) -> bytes:
    """The binary description (annex C.2), in its final form."""
    boost = boost.with_the_other_base() if boost.base_is_hdr else boost
    fields = (boost.minimum, boost.maximum, boost.gamma, boost.sdr_offset, boost.hdr_offset)
    channels = 1 if all(len(set(numbers)) == 1 for numbers in fields) else 3
    flags = (_MULTICHANNEL if channels == 3 else 0) | (_BASE_COLOURS if boost.in_base_colours else 0)
    parts = [ISO_VERSION, bytes([flags]), _fraction(boost.sdr_headroom), _fraction(boost.hdr_headroom)]
    for channel in range(channels):
        parts += [_fraction(numbers[channel if len(numbers) == 3 else 0]) for numbers in fields]
    return b"".join(parts)


def _fraction(number: float) -> bytes:
    value = Fraction(number).limit_denominator(_DENOMINATOR)
    return struct.pack(">iI", value.numerator, value.denominator)


# --- Apple --------------------------------------------------------------------------------------------------------


def is_apple(packet: bytes) -> bool:
    """Whether the packet describes Apple's kind of gain map."""
    return APPLE in packet and bool(values(packet, APPLE, b"HDRGainMapVersion"))


def apple_headroom(packet: bytes, exif_block: bytes | None) -> float | None:
    """The linear headroom of Apple's gain map: its own, or else the maker note's; None without either.

    The maker note's formula is Apple's ("Applying Apple HDR effect to your photos").
    """
    if found := values(packet, APPLE, b"HDRGainMapHeadroom"):
        try:
            own = float(found[0])
        except ValueError:
            own = math.nan
        return own if 1 <= own <= 2**_MOST_STOPS else None
    noted = apple_note(exif_block) if exif_block else {}
    headroom, gain = noted.get(_HEADROOM), noted.get(_GAIN)
    if headroom is None or gain is None:
        return None
    if headroom < 1:
        stops = -20.0 * gain + 1.8 if gain <= 0.01 else -0.101 * gain + 1.601
    else:
        stops = -70.0 * gain + 3.0 if gain <= 0.01 else -0.303 * gain + 2.303
    return 2 ** min(max(stops, 0.0), _MOST_STOPS)


def apple_note(block: bytes) -> dict[int, float]:
    """The rational numbers of Apple's maker note in an EXIF block, by tag; none where there is no such note."""
    try:
        order, entries = exif.entries(block.removeprefix(exif.PREFIX))
        block = block.removeprefix(exif.PREFIX)
        (pointer,) = (entry.value for entry in entries if entry.tag == exif.EXIF_POINTER)
        (count,) = struct.unpack_from(f"{order}H", block, pointer)
        for at in range(pointer + 2, pointer + 2 + 12 * count, 12):
            tag, _, size, start = struct.unpack_from(f"{order}HHII", block, at)
            if tag == _MAKER_NOTE:
                return _rationals(block[start : start + size])
    except (struct.error, ValueError):
        pass
    return {}


def _rationals(note: bytes) -> dict[int, float]:
    """Signed rationals of the note's directory, whose offsets count from the note's beginning."""
    if not note.startswith(_APPLE_NOTE):
        return {}
    order = {b"MM": ">", b"II": "<"}.get(note[12:14])
    if order is None:
        return {}
    found = {}
    (count,) = struct.unpack_from(f"{order}H", note, 14)
    for at in range(16, 16 + 12 * count, 12):
        tag, kind, number, start = struct.unpack_from(f"{order}HHII", note, at)
        if kind in (5, 10) and number == 1:
            above, below = struct.unpack_from(f"{order}ii", note, start)
            if below:
                found[tag] = above / below
    return found


def of_apple(pixels: np.ndarray, headroom: float) -> tuple[np.ndarray, Boost]:
    """Apple's map (h, w, 1) uint8 as values of a boost in stops.

    Apple's boost is 1 + (headroom - 1) * g, with g in linear light (ITU-R BT.709's transfer function).
    """
    stops = math.log2(headroom)
    boost = Boost((0.0,), (stops,), (1.0,), (0.0,), (0.0,), 0.0, max(stops, 1e-3))
    encoded = np.linspace(0, 1, 256)
    light = np.where(encoded < 0.081, encoded / 4.5, ((encoded + 0.099) / 1.099) ** (1 / 0.45))
    table = boost.values(np.log2(1 + (headroom - 1) * light)[:, None].astype(np.float32))[:, 0]
    return table[pixels], boost
