"""XMP packets, edited as text so that everything else in them stays byte for byte."""

from __future__ import annotations

import re

# Properties that name a place, under any prefix: EXIF's GPS..., those of drones, and IPTC's place names.
_PLACE = (
    rb"(?:[Gg][Pp][Ss]\w*|\w*Latitude|\w*Lon[gt]+itude|City|State|Country|CountryCode|CountryName|ProvinceState"
    rb"|Location|LocationCreated|LocationShown|Sublocation|WorldRegion)"
)


def upright(packet: bytes) -> bytes:
    """The packet with tiff:Orientation 1, without xmp:Thumbnails and without references to a motion photo's video.

    The video is appended to the JPEG and is not copied.
    """
    packet = re.sub(rb"""(tiff:Orientation(?:>|\s*=\s*["']))\s*[2-8](?=["'<])""", rb"\g<1>1", packet)
    packet = re.sub(rb"""\s+GCamera:(?:MicroVideo|MotionPhoto)\w*\s*=\s*("[^"]*"|'[^']*')""", b"", packet)
    return re.sub(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>", b"", packet, flags=re.DOTALL)


def without_places(packet: bytes) -> bytes:
    """The packet without coordinates and place names, whether attributes or elements.

    A packet that is not UTF-8 is dropped: the patterns would miss its properties.
    """
    if b"\x00" in packet.strip(b"\x00"):
        return b""
    packet = re.sub(rb"""\s+[\w-]+:""" + _PLACE + rb"""\s*=\s*("[^"]*"|'[^']*')""", b"", packet)
    element = rb"<([\w-]+:" + _PLACE + rb")\b(?:[^>]*?/>|[^>]*?>.*?</\1\s*>)"
    return re.sub(element, b"", packet, flags=re.DOTALL)
