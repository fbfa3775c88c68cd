"""What a TIFF file holds that a photo read from it does not: pages, pictures below a page, layers."""

from __future__ import annotations

import struct
from typing import BinaryIO

from qatie_cli.photo import exif

_SUBFILE, _SUB_DIRECTORIES = 254, 330
_REDUCED = 1  # of NewSubfileType: a preview of another picture
_NAMED = {37724: "Photoshop's layers are left out", 50255: "Photoshop's annotations are left out"}
_MOST_DIRECTORIES = 10_000


def left_out(file: BinaryIO) -> tuple[str, ...]:
    """Notes on what of a TIFF file is left out. A BigTIFF file is not looked into."""
    file.seek(0)
    head = file.read(8)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return ()
    named: list[str] = []
    pages, seen = 0, set[int]()
    (at,) = struct.unpack(f"{order}I", head[4:])
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(at)
        table, at = _directory(file, order, at)
        if len(seen) == 1 or not (table.get(_SUBFILE, (0, 0, 0))[2] & _REDUCED):
            pages += 1
        if len(seen) == 1:
            named += [text for tag, text in _NAMED.items() if tag in table]
            if _SUB_DIRECTORIES in table and (further := _full_size(file, order, table[_SUB_DIRECTORIES])):
                named.append(f"{further} pictures below the first page are left out")
    if pages > 1:
        named.insert(0, f"first of {pages} pages; the others are left out")
    return tuple(named)


def tags(file: BinaryIO) -> set[int]:
    """The tags of the first page; none where they cannot be read."""
    file.seek(0)
    head = file.read(8)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(head[:4])
    if order is None or len(head) < 8:
        return set()
    return set(_directory(file, order, struct.unpack(f"{order}I", head[4:])[0])[0])


Entry = tuple[int, int, int]  # type, count, value field


def _directory(file: BinaryIO, order: str, at: int) -> tuple[dict[int, Entry], int]:
    """The entries of a directory by tag, and where the next one is; 0 where that cannot be read."""
    file.seek(at)
    counted = file.read(2)
    if len(counted) < 2:
        return {}, 0
    (count,) = struct.unpack(f"{order}H", counted)
    body = file.read(12 * count + 4)
    if len(body) < 12 * count + 4:
        return {}, 0
    table = {}
    for start in range(0, 12 * count, 12):
        tag, kind, number, value = struct.unpack_from(f"{order}HHII", body, start)
        if kind == 3 and number == 1:
            (value,) = struct.unpack_from(f"{order}H", body, start + 8)
        table[tag] = kind, number, value
    return table, struct.unpack_from(f"{order}I", body, 12 * count)[0]


def _full_size(file: BinaryIO, order: str, entry: Entry) -> int:
    """How many of a page's sub-directories are no previews."""
    kind, number, value = entry
    if exif.BYTES_OF_TYPE.get(kind) != 4 or number > _MOST_DIRECTORIES:
        return 1
    starts = [value]
    if number > 1:
        file.seek(value)
        content = file.read(4 * number)
        starts = [start for (start,) in struct.iter_unpack(f"{order}I", content[: len(content) // 4 * 4])]
    tables = [_directory(file, order, start)[0] for start in starts]
    return sum(not table.get(_SUBFILE, (0, 0, 0))[2] & _REDUCED for table in tables)
