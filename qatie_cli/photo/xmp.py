"""XMP packets, edited as text so that everything else stays byte for byte.

Every edit takes linear time, whatever the packet contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LARGEST = 1 << 24  # bytes of a packet; phones and editors write kilobytes, depth maps a few megabytes

# A tag: slash, name, attributes. It ends before the next `<`, which XML forbids inside of tags, so no text is scanned
# twice; possessive quantifiers never try another length.
_TAG = re.compile(rb"""<(/?)([\w:.-]++)((?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+)>""")
_ATTRIBUTE = re.compile(rb"""(?<!\s)\s++(?:([\w.-]++):)?+([\w.-]++)\s*+=\s*+(?:"[^"]*+"|'[^']*+')""")
_NAMESPACE = re.compile(rb"""\bxmlns:([\w.-]++)\s*+=\s*+["']([^"'<]*+)["']""")
# Regardless of what follows the digit, since Pillow and pillow-heif rotate by it alone.
_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:>|\s*+=\s*+["']))\s*+[2-8]""")

# Namespaces that describe what is appended to a file, or lies beside the picture in it, and is not copied.
_GAIN_MAPS = (b"http://ns.adobe.com/hdr-gain-map/1.0/", b"http://ns.apple.com/HDRGainMap/1.0/")
_CONTAINERS = (b"http://ns.google.com/photos/1.0/container/", b"http://ns.google.com/photos/dd/1.0/device/")

# Properties that name a place, under any prefix: EXIF's GPS..., those of drones, and IPTC's place names.
_PLACE = (
    rb"(?:[Gg][Pp][Ss]\w*+|\w*Latitude|\w*Lon[gt]+itude|City|State|Country|CountryCode|CountryName|ProvinceState"
    rb"|Location|LocationCreated|LocationShown|Sublocation|WorldRegion)"
)
_IS_PLACE = re.compile(_PLACE)
_PLACE_LEFT = re.compile(rb"<[\w.-]*+:" + _PLACE + rb"(?![\w.-])|:" + _PLACE + rb"\s*+=")

Unwanted = Callable[[bytes, bytes], bool]  # of a prefix and a name


def upright(packet: bytes) -> bytes:
    """The packet with tiff:Orientation 1, and without properties of things that are not copied.

    Those are thumbnails, a motion photo's video, a gain map, and the directory of what is appended to the file.
    """
    packet = _ORIENTATION.sub(rb"\g<1>1", packet)
    bound = dict(_NAMESPACE.findall(packet))

    def unwanted(prefix: bytes, name: bytes) -> bool:
        address = bound.get(prefix, b"")
        return (
            name.startswith((b"MicroVideo", b"MotionPhoto"))
            or name == b"Thumbnails"
            or address in _GAIN_MAPS
            or (address in _CONTAINERS and name in (b"Directory", b"Container"))
        )

    cleaned = _without(packet, unwanted)
    return packet if cleaned is None else cleaned


def without_places(packet: bytes) -> bytes:
    """The packet without coordinates and place names, whether attributes or elements.

    A packet that is not UTF-8 or not well-formed is dropped, since properties could be missed.
    """
    if b"\x00" in packet.strip(b"\x00"):
        return b""
    cleaned = _without(packet, lambda prefix, name: _IS_PLACE.fullmatch(name) is not None)
    return b"" if cleaned is None or _PLACE_LEFT.search(cleaned) else cleaned


def _without(packet: bytes, unwanted: Unwanted) -> bytes | None:
    """The packet without unwanted elements and attributes; None where such an element has no end."""

    def attribute(found: re.Match[bytes]) -> bytes:
        return b"" if unwanted(found[1] or b"", found[2]) else found[0]

    kept, at = [], 0
    inside, depth = b"", 0  # the unwanted element whose end is awaited, and how many of its name are open
    for tag in _TAG.finditer(packet):
        closing, name, attributes = tag.groups()
        empty = attributes.endswith(b"/")
        if inside:
            if name == inside and not empty:
                depth += -1 if closing else 1
            if not depth:
                inside, at = b"", tag.end()
        elif not closing:
            prefix, _, local = name.rpartition(b":")
            if unwanted(prefix, local):
                kept.append(packet[at : tag.start()])
                at = tag.end()
                inside, depth = (b"", 0) if empty else (name, 1)
            elif (changed := _ATTRIBUTE.sub(attribute, attributes)) != attributes:
                kept += packet[at : tag.start(3)], changed
                at = tag.end(3)
    return None if inside else b"".join([*kept, packet[at:]])
