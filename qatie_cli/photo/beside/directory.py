"""XMP that describes the data after a picture: Google's container directory, hdrgm's version, the motion photo."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qatie_cli.photo.beside import dialects
from qatie_cli.photo.beside.motion import CAMERA, Motion

_CONTAINER = b"http://ns.google.com/photos/1.0/container/"
_ITEM = b"http://ns.google.com/photos/1.0/container/item/"
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_OPENING = re.compile(rb"""<([\w.-]++):RDF\b(?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+(?<!/)>""")
_FILLING = re.compile(rb"\s{200,}(?=<\?xpacket end)")  # padding at the end of a packet, for edits
_EMPTY = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="' + _RDF + b'"></rdf:RDF></x:xmpmeta>'


@dataclass(frozen=True)
class Item:
    """A part of the file: what it is, its MIME type, its length and the padding behind it (of the picture only)."""

    semantic: str
    mime: str
    length: int = 0
    padding: int = 0


def described(
    packet: bytes | None, mime: str, gain_map_bytes: int, motion: Motion | None, padding: int = 0
) -> bytes | None:
    """The packet with a directory of a picture, its gain map and its video, in this order.

    Args:
        packet: free of descriptions of the old file (`xmp.upright`); None makes one.
        mime: of the picture and its gain map.
        gain_map_bytes: 0 where there is none, or where it is part of the picture's own container.
        padding: bytes between the picture and its video.

    Returns:
        None if the packet is not RDF in UTF-8, and has no place for the description.
    """
    items = [Item("Primary", mime, padding=0 if gain_map_bytes else padding)]
    attributes = ""
    if gain_map_bytes:
        items.append(Item("GainMap", mime, gain_map_bytes))
        attributes += f' xmlns:hdrgm="{dialects.HDRGM.decode()}" hdrgm:Version="1.0"'
    if motion is not None and motion.video is not None:
        items.append(Item("MotionPhoto", motion.mime, motion.video_bytes))
        attributes += f' xmlns:GCamera="{CAMERA.decode()}"' + _motion(motion)
    text = (
        f'<rdf:Description rdf:about="" xmlns:rdf="{_RDF.decode()}" xmlns:Container="{_CONTAINER.decode()}"'
        f' xmlns:Item="{_ITEM.decode()}"{attributes}><Container:Directory><rdf:Seq>'
        + "".join(map(_listed, items))
        + "</rdf:Seq></Container:Directory></rdf:Description>"
    ).encode()
    packet = _EMPTY if packet is None else packet
    opening = _OPENING.search(packet)
    if opening is None or b"xmlns:" + opening[1] not in packet or _RDF not in packet:
        return None
    return _FILLING.sub(b"\n", packet[: opening.end()] + text + packet[opening.end() :])


def _motion(motion: Motion) -> str:
    moment = -1 if motion.microseconds is None else motion.microseconds
    text = (
        f' GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" GCamera:MotionPhotoPresentationTimestampUs="{moment}"'
    )
    if motion.legacy:
        text += (
            f' GCamera:MicroVideo="1" GCamera:MicroVideoVersion="1" GCamera:MicroVideoOffset="{motion.video_bytes}"'
            f' GCamera:MicroVideoPresentationTimestampUs="{moment}"'
        )
    return text


def _listed(item: Item) -> str:
    size = f' Item:Length="{item.length}"' if item.semantic != "Primary" else ""
    padding = f' Item:Padding="{item.padding}"' if item.padding else ""
    return (
        '<rdf:li rdf:parseType="Resource">'
        f'<Container:Item Item:Semantic="{item.semantic}" Item:Mime="{item.mime}"{size}{padding}/></rdf:li>'
    )
