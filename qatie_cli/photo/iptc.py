"""Photoshop image resource blocks, which hold IPTC (Adobe Photoshop file formats specification)."""

from __future__ import annotations

import struct

_THUMBNAILS = (0x0409, 0x040C)  # they show the pixels before the edit
_EMBEDDED_METADATA = (0x0422, 0x0423, 0x0424)  # copies of EXIF and XMP
_IPTC = 0x0404
# IPTC IIM 4.2, record 2: content location code and name, city, sublocation, province, country code and name.
_PLACES = (26, 27, 90, 92, 95, 100, 101)


def resource(datasets: bytes) -> bytes:
    """The image resource that holds IPTC datasets."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC, 0, len(datasets)) + datasets + b"\0" * (len(datasets) % 2)


def joined(block: bytes, datasets: bytes) -> bytes:
    """The block with these datasets as its IPTC, followed by its own datasets that are not among them.

    TIFF has a separate IPTC tag, and some programs write a second copy into the block; either may be newer.
    """
    found = _resources(block)
    if found is None:
        return resource(datasets)
    known = _split(datasets)
    own = [dataset for identity, _, data in found if identity == _IPTC for dataset in _split(data) or [data]]
    if known is not None:
        datasets = b"".join([*known, *(dataset for dataset in own if dataset not in set(known))])
    others = b"".join(whole for identity, whole, _ in found if identity != _IPTC)
    return others + resource(datasets)


def apart(block: bytes) -> tuple[bytes, bytes]:
    """The block without IPTC, and its IPTC datasets; the block unchanged if it cannot be parsed."""
    found = _resources(block)
    if found is None:
        return block, b""
    others = b"".join(whole for identity, whole, _ in found if identity != _IPTC)
    return others, b"".join(data for identity, _, data in found if identity == _IPTC)


def without_thumbnails(block: bytes) -> bytes:
    """The block without its thumbnails; unchanged if it cannot be parsed."""
    found = _resources(block)
    if found is None:
        return block
    return b"".join(whole for identity, whole, _ in found if identity not in _THUMBNAILS)


def without_places(block: bytes) -> bytes:
    """The block without IPTC place names and without its copies of EXIF and XMP; empty if it cannot be parsed."""
    kept = []
    for identity, whole, data in _resources(block) or ():
        if identity == _IPTC:
            kept.append(resource(_datasets_without_places(data)))
        elif identity not in _EMBEDDED_METADATA:
            kept.append(whole)
    return b"".join(kept)


def _resources(block: bytes) -> list[tuple[int, bytes, bytes]] | None:
    """Identity, complete bytes and data of each resource, or None if the block cannot be parsed.

    A truncated last resource (data or padding) is repaired, so that resources can be reordered.
    """
    found, at = [], 0
    while at < len(block):
        start = at
        if block[at : at + 4] not in (b"8BIM", b"8B64", b"PHUT", b"DCSR", b"AgHg") or at + 7 > len(block):
            return None
        (identity,) = struct.unpack_from(">H", block, at + 4)
        at += 6
        at += (1 + block[at] + 1) // 2 * 2  # a Pascal string, padded to even
        if at + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, at)
        data = block[at + 4 : at + 4 + size]
        whole = block[start:at] + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
        found.append((identity, whole, data))
        at += 4 + (size + 1) // 2 * 2
    return found


def _datasets_without_places(datasets: bytes) -> bytes:
    found, _ = _parsed(datasets)
    return b"".join(whole for whole in found if not (whole[1] == 2 and whole[2] in _PLACES))


def _split(datasets: bytes) -> list[bytes] | None:
    """Each dataset; None if they cannot be parsed. Trailing padding is dropped."""
    found, left = _parsed(datasets)
    return None if left.strip(b"\0") else found


def _parsed(datasets: bytes) -> tuple[list[bytes], bytes]:
    """The complete datasets (IPTC IIM 4.2, 1.5), and the bytes after them."""
    found, at = [], 0
    while at + 5 <= len(datasets) and datasets[at] == 0x1C:
        (size,) = struct.unpack_from(">H", datasets, at + 3)
        start = at + 5
        if size & 0x8000:  # an extended dataset: this is the length of its length
            start += size & 0x7FFF
            size = int.from_bytes(datasets[at + 5 : start])
        if start + size > len(datasets):
            break
        found.append(datasets[at : start + size])
        at = start + size
    return found, datasets[at:]
