"""Properties of the primary picture of a HEIC or AVIF file (ISO/IEC 23008-12, 9.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qatie_cli.photo import boxes


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
        items = boxes.items_of(content)
    except ValueError:
        return Properties()
    described = items.primary, *items.parts_of(items.primary)[:1]
    numbers = [n for item in described for n in items.of_item.get(item, ()) if 0 < n <= len(items.boxes)]
    held = (items.boxes[n - 1] for n in numbers)
    return Properties(tuple((kind, content[begin:end]) for kind, begin, end in held))


def coded_bytes(content: bytes) -> int | None:
    """Bytes of the primary picture's data, or of its tiles'; None where damaged."""
    try:
        items = boxes.items_of(content)
    except ValueError:
        return None
    coded = items.parts_of(items.primary) or (items.primary,)
    return sum(end - begin for item in coded for begin, end in items.extents.get(item, ())) or None
