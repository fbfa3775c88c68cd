"""The pages of a TIFF file: the one to read, and what is dropped."""

from __future__ import annotations

import struct
from typing import BinaryIO

from PIL import ImageFile

from qatie_cli.photo import exif

_SUBFILE, _SUB_DIRECTORIES = 254, 330
_TILE_SIDES = (322, 323)
_REDUCED = 1  # of NewSubfileType: a preview of another picture
_NAMED = {37724: "Photoshop's layers are left out", 50255: "Photoshop's annotations are left out"}
_MOST_DIRECTORIES, _MOST_ENTRIES = 10_000, 200_000  # of a file: directories may overlap
_MOST_BELOW = 16  # most directories below a page that are read; cameras write up to five

Entry = tuple[int, int, int]  # type, count, value field
Table = dict[int, Entry]


def left_out(file: BinaryIO) -> tuple[str, ...]:
    """Notes on what is dropped from a TIFF file besides its `chosen` page; BigTIFF is not examined."""
    order, tables = _tables(file)
    if not tables:
        return ()
    page = _chosen(tables)
    named = [text for tag, text in _NAMED.items() if tag in tables[page]]
    if _SUB_DIRECTORIES in tables[page] and (further := _full_size(file, order, tables[page][_SUB_DIRECTORIES])):
        named.append(f"{further} pictures below the first page are left out")
    pages = sum(index == page or not _is_reduced(table) for index, table in enumerate(tables))
    if pages > 1:
        named.insert(0, f"first of {pages} pages; the others are left out")
    return tuple(named)


def tile_pixels(image: ImageFile.ImageFile, file: BinaryIO) -> int:
    """Pixels of a tile of the page that Pillow has opened; 0 for a page in strips.

    Pillow stops at a tag that it cannot read, libtiff goes on to the tiles' sides; BigTIFF only Pillow reads.
    """
    table = chosen_table(file)
    found = [first_number(file, table.get(tag)) or image.tag_v2.get(tag, 0) for tag in _TILE_SIDES]  # type: ignore[attr-defined]
    width, height = (side if isinstance(side, int) else 0 for side in found)
    return width * height


def chosen(file: BinaryIO) -> int:
    """The page to read, from 0: the first that is not a preview."""
    return _chosen(_tables(file)[1])


def chosen_table(file: BinaryIO) -> Table:
    """The entries of that page by tag; none where they cannot be read."""
    tables = _tables(file)[1]
    return tables[_chosen(tables)] if tables else {}


def tags(file: BinaryIO) -> set[int]:
    """The tags of the page to read; none where they cannot be read."""
    return set(chosen_table(file))


def value(file: BinaryIO, tag: int, largest: int) -> bytes | None:
    """The raw value of a tag of the page to read, regardless of its type; None if it is too long.

    Writers disagree on the type of IPTC and Photoshop blocks, and libraries read each type differently.
    """
    entry = chosen_table(file).get(tag)
    return None if entry is None else _value(file, _order(file), entry, largest)


def first_number(file: BinaryIO, entry: Entry | None) -> int | None:
    """The first number of a SHORT or LONG; None without entry."""
    if entry is None:
        return None
    kind, number, field = entry
    if kind != 3 or number <= 1:
        return field
    order = _order(file)
    body = _value(file, order, entry, 1 << 10)
    return None if not body or len(body) < 2 else struct.unpack_from(f"{order}H", body)[0]


def with_those_below(file: BinaryIO) -> list[Table]:
    """The directories of all pages and those that they name as parts."""
    order, tables = _tables(file)
    found = list(tables)
    for table in tables[:_MOST_BELOW]:
        for start in _below(file, order, table.get(_SUB_DIRECTORIES))[:_MOST_BELOW]:
            found.append(_directory(file, order, start)[0])
    return found


def _order(file: BinaryIO) -> str:
    file.seek(0)
    return {b"II*\x00": "<", b"MM\x00*": ">"}.get(file.read(4), "")


def _tables(file: BinaryIO) -> tuple[str, list[Table]]:
    """Byte order and the entries of each page; none of another file."""
    order = _order(file)
    head = file.read(4)
    if not order or len(head) < 4:
        return "<", []
    tables: list[Table] = []
    seen = set[int]()
    (at,) = struct.unpack(f"{order}I", head)
    entries = 0
    while at and at not in seen and len(seen) < _MOST_DIRECTORIES and entries < _MOST_ENTRIES:
        seen.add(at)
        table, at = _directory(file, order, at)
        tables.append(table)
        entries += len(table)
    return order, tables


def _chosen(tables: list[Table]) -> int:
    full = [index for index, table in enumerate(tables) if table and not _is_reduced(table)]
    return full[0] if full else 0


def _is_reduced(table: Table) -> bool:
    return bool(table.get(_SUBFILE, (0, 0, 0))[2] & _REDUCED)


def _value(file: BinaryIO, order: str, entry: Entry, largest: int) -> bytes | None:
    kind, count, field = entry
    size = exif.BYTES_OF_TYPE.get(kind, 0) * count
    if size > largest:
        return None
    if size > 4:
        file.seek(field)
        return file.read(size)
    if kind == 3 and count == 1:
        return struct.pack(f"{order}H", field)
    return struct.pack(f"{order}I", field)[:size]


def _directory(file: BinaryIO, order: str, at: int) -> tuple[Table, int]:
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
        tag, kind, number, field = struct.unpack_from(f"{order}HHII", body, start)
        if kind == 3 and number == 1:
            (field,) = struct.unpack_from(f"{order}H", body, start + 8)
        table[tag] = kind, number, field
    return table, struct.unpack_from(f"{order}I", body, 12 * count)[0]


def _below(file: BinaryIO, order: str, entry: Entry | None) -> list[int]:
    """Where a page's sub-directories begin."""
    if entry is None:
        return []
    kind, number, field = entry
    if exif.BYTES_OF_TYPE.get(kind) != 4 or number > _MOST_DIRECTORIES:
        return []
    if number == 1:
        return [field]
    file.seek(field)
    content = file.read(4 * number)
    return [start for (start,) in struct.iter_unpack(f"{order}I", content[: len(content) // 4 * 4])]


def _full_size(file: BinaryIO, order: str, entry: Entry) -> int:
    """Number of a page's sub-directories that are not previews."""
    kind, number, _ = entry
    if exif.BYTES_OF_TYPE.get(kind) != 4 or number > _MOST_DIRECTORIES:
        return 1
    tables = [_directory(file, order, start)[0] for start in _below(file, order, entry)]
    return sum(not _is_reduced(table) for table in tables)
