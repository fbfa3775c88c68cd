"""EXIF, XMP and an ICC profile added to an AVIF file that libavif wrote without them.

imagecodecs encodes 10 and 12 bit without metadata; Pillow encodes 8 bit with metadata, but rebuilds EXIF, which breaks
maker notes. libavif writes a `ftyp`, a `meta` and a `mdat` box (ISO/IEC 14496-12 and 23008-12); items are appended.
"""

from __future__ import annotations

import struct

from qatie_cli.photo.boxes import box, payloads

_XMP_TYPE = b"application/rdf+xml"


def added(content: bytes, exif: bytes | None, xmp: bytes | None, icc: bytes | None) -> bytes:
    """The file with further items and a profile.

    Args:
        exif: a TIFF block without prefix.

    Raises:
        ValueError: the file does not have libavif's layout.
    """
    items: list[tuple[bytes, bytes]] = []  # what an `infe` box says behind the item's number, and the data
    if exif:
        items.append((b"\0\0Exif\0", struct.pack(">I", 0) + exif))
    if xmp:
        items.append((b"\0\0mime\0" + _XMP_TYPE + b"\0", xmp))
    if not items and not icc:
        return content
    try:
        boxes = dict(payloads(content))
        meta = dict(payloads(boxes[b"meta"][4:]))
        changed = _meta(meta, items, icc, 0, 0)  # once for its length, on which all positions depend
        moved = len(changed) - len(boxes[b"meta"])
        changed = _meta(meta, items, icc, moved, len(content) + moved + 8)
    except (struct.error, KeyError, IndexError) as error:
        raise ValueError(f"an AVIF file is laid out unexpectedly ({error})") from error
    rewritten = b"".join(box(kind, changed if kind == b"meta" else body) for kind, body in payloads(content))
    return rewritten + (box(b"mdat", b"".join(data for _, data in items)) if items else b"")


def _meta(
    meta: dict[bytes, bytes], items: list[tuple[bytes, bytes]], icc: bytes | None, moved: int, behind: int
) -> bytes:
    """The payload of the `meta` box: data that is there moves by `moved` bytes, further data begins at `behind`."""
    (primary,) = struct.unpack(">H", meta[b"pitm"][4:6])
    (count,) = struct.unpack_from(">H", meta[b"iinf"], 4)
    numbers = range(max(_numbers(meta[b"iinf"])) + 1, 65536)
    numbered = list(zip(numbers, items, strict=False))
    entries = b"".join(box(b"infe", struct.pack(">IH", 2 << 24, number) + text) for number, (text, _) in numbered)
    parts = {
        **meta,
        b"iloc": _locations(meta[b"iloc"], [(n, len(data)) for n, (_, data) in numbered], moved, behind),
        b"iinf": meta[b"iinf"][:4] + struct.pack(">H", count + len(items)) + meta[b"iinf"][6:] + entries,
    }
    if items:
        links = [box(b"cdsc", struct.pack(">HHH", number, 1, primary)) for number, _ in numbered]
        parts[b"iref"] = meta.get(b"iref", bytes(4)) + b"".join(links)
    if icc:
        parts[b"iprp"] = _properties(meta[b"iprp"], primary, icc)
    order = [b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp"]
    kinds = [*order, *(kind for kind in parts if kind not in order)]
    return bytes(4) + b"".join(box(kind, parts[kind]) for kind in kinds if kind in parts)


def _numbers(entries: bytes) -> list[int]:
    return [struct.unpack_from(">H", body, 4)[0] for kind, body in payloads(entries[6:]) if kind == b"infe"]


def _locations(body: bytes, further: list[tuple[int, int]], moved: int, behind: int) -> bytes:
    """`iloc` of version 0 with 4-byte offsets and lengths and no base offset."""
    if body[0] != 0 or body[4] != 0x44 or body[5] >> 4 != 0:
        raise ValueError("an AVIF file locates its items unexpectedly")
    (count,) = struct.unpack_from(">H", body, 6)
    out, at = [body[:6], struct.pack(">H", count + len(further))], 8
    for _ in range(count):
        (extents,) = struct.unpack_from(">H", body, at + 4)
        out.append(body[at : at + 6])
        at += 6
        for _ in range(extents):
            offset, length = struct.unpack_from(">II", body, at)
            out.append(struct.pack(">II", offset + moved, length))
            at += 8
    for number, length in further:
        out.append(struct.pack(">HHHII", number, 0, 1, behind, length))
        behind += length
    return b"".join(out)


def _properties(body: bytes, primary: int, icc: bytes) -> bytes:
    """`iprp` with a profile that the primary picture has, in front of its other colour property."""
    parts = dict(payloads(body))
    held = payloads(parts[b"ipco"])
    profile = box(b"colr", b"prof" + icc)
    number = len(held) + 1
    associations = parts[b"ipma"]
    if associations[:4] != bytes(4) or number > 127:
        raise ValueError("an AVIF file associates its properties unexpectedly")
    (count,) = struct.unpack_from(">I", associations, 4)
    out, at = [associations[:8]], 8
    for _ in range(count):
        item, size = struct.unpack_from(">HB", associations, at)
        names = associations[at + 3 : at + 3 + size]
        if item == primary:
            names += bytes([number])
        out.append(struct.pack(">HB", item, len(names)) + names)
        at += 3 + size
    return box(b"ipco", parts[b"ipco"] + profile) + box(b"ipma", b"".join(out))
