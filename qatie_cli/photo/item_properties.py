"""Properties of the pictures of a HEIC or AVIF file (ISO/IEC 23008-12, 9.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from qatie_cli.photo.boxes import Items


@dataclass(frozen=True)
class Properties:
    """Type and payload of each property, in the order in which the picture names them, its tiles' behind them."""

    held: tuple[tuple[bytes, bytes], ...] = ()
    coded_bytes: int | None = None  # of the picture's data, or of its tiles'

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

    def subsampling(self) -> int | None:
        """Pillow's code of a JPEG that has its chroma as fine: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; None if unknown."""
        for kind, body in self.held:
            if kind == b"av1C" and len(body) > 2:
                return {0x0C: 2, 0x08: 1, 0x00: 0}.get(body[2] & 0x0C)
            if kind == b"hvcC" and len(body) > 16:
                return {1: 2, 2: 1, 3: 0}.get(body[16] & 3)
        return None


def of_primary(items: Items | None) -> Properties:
    """What a file says of its primary picture; nothing for a file that cannot be listed."""
    return Properties() if items is None else of_item(items, items.primary)


def of_item(items: Items, item: int) -> Properties:
    """What a file says of a picture."""
    tiles = items.parts_of(item)
    described = item, *tiles[:1]
    numbers = [n for part in described for n in items.of_item.get(part, ()) if 0 < n <= len(items.boxes)]
    held = tuple((kind, items.file[begin:end]) for kind, begin, end in (items.boxes[n - 1] for n in numbers))
    coded = sum(end - begin for part in tiles or (item,) for begin, end in items.extents.get(part, ()))
    return Properties(held, coded or None)
