"""Writing TIFF 6.0: 8 and 16 bit, gray and colour, alpha, with a whole EXIF block inside.

An EXIF block is a TIFF file without pixels. It is written first, unchanged, so that all its offsets stay valid, even
those inside maker notes, which libraries that rebuild directories break. The pixels follow, then a directory that joins
its entries with those that describe the pixels.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from qatie_cli.errors import PhotoError
from qatie_cli.photo import exif, iptc
from qatie_cli.photo.content import Photo

_STRIP_BYTES = 1 << 20
_EMPTY = b"II*\x00" + struct.pack("<I", 0)
_BYTE, _SHORT, _LONG, _RATIONAL, _UNDEFINED = 1, 3, 4, 5, 7
_DEFLATE, _HORIZONTAL_DIFFERENCING, _UNASSOCIATED_ALPHA, _PER_INCH = 8, 2, 2, 2
_LARGEST = (1 << 32) - (1 << 24)  # offsets have 32 bits


def write(file: BinaryIO, photo: Photo) -> None:
    """Write a photo to an empty file, losslessly compressed (Deflate with predictor 2).

    Raises:
        OSError: the file cannot be written.
        PhotoError: the file would exceed TIFF's 4 GB.
    """
    block = photo.exif or _EMPTY
    try:
        order, described = exif.entries(block) if photo.exif else ("<", [])
        # Readers refuse a file with an entry whose value lies outside of it.
        described = [e for e in described if e.tag not in exif.STORAGE_TAGS and exif.value_of(block, e) is not None]
    except struct.error:
        block, order, described = _EMPTY, "<", []
    file.write(block)
    entries = {entry.tag: (entry.kind, entry.count, bytes(block[entry.at + 8 : entry.at + 12])) for entry in described}
    starts, lengths, rows = _write_strips(file, photo, order)
    for tag, kind, values in _storage(photo, rows, starts, lengths):
        entries[tag] = _placed(file, order, kind, values)
    file.write(b"\0" * (file.tell() % 2))
    directory = file.tell()
    if directory > _LARGEST:
        raise PhotoError("It would be larger than TIFF's limit of 4 GB.", "Use --format png.")
    file.write(struct.pack(f"{order}H", len(entries)))
    for tag, (kind, count, field) in sorted(entries.items()):
        file.write(struct.pack(f"{order}HHI", tag, kind, count) + field)
    file.write(struct.pack(f"{order}I", 0))
    file.seek(4)
    file.write(struct.pack(f"{order}I", directory))


def _write_strips(file: BinaryIO, photo: Photo, order: str) -> tuple[list[int], list[int], int]:
    height, width = photo.pixels.shape[:2]
    channels = photo.pixels.shape[2] + (photo.alpha is not None)
    rows = max(1, _STRIP_BYTES // (width * channels * photo.pixels.itemsize))
    starts, lengths = [], []
    for top in range(0, height, rows):
        strip = photo.pixels[top : top + rows]
        if photo.alpha is not None:
            strip = np.concatenate([strip, photo.alpha[top : top + rows, :, None]], axis=2)
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]  # modulo 2^8 or 2^16, as predictor 2 wants it
        packed = zlib.compress(differences.astype(np.dtype(f"{order}u{strip.itemsize}"), copy=False).tobytes(), 6)
        starts.append(file.tell())
        lengths.append(len(packed))
        file.write(packed)
    return starts, lengths, rows


def _storage(
    photo: Photo, rows: int, starts: list[int], lengths: list[int]
) -> list[tuple[int, int, list[int] | bytes]]:
    """Tag, type and values of everything that describes the pixels, and of XMP, image resources and ICC profile."""
    height, width, colours = photo.pixels.shape
    channels = colours + (photo.alpha is not None)
    tags: list[tuple[int, int, list[int] | bytes]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8 * photo.pixels.itemsize] * channels),
        (259, _SHORT, [_DEFLATE]),
        (262, _SHORT, [2 if colours == 3 else 1]),  # RGB, or 0 is black
        (273, _LONG, starts),
        (exif.ORIENTATION, _SHORT, [1]),
        (277, _SHORT, [channels]),
        (278, _LONG, [rows]),
        (279, _LONG, lengths),
        (284, _SHORT, [1]),  # channels lie side by side
        (317, _SHORT, [_HORIZONTAL_DIFFERENCING]),
    ]
    if photo.alpha is not None:
        tags.append((338, _SHORT, [_UNASSOCIATED_ALPHA]))
    if photo.dpi:
        tags += [(282 + axis, _RATIONAL, [round(dpi * 1000), 1000]) for axis, dpi in enumerate(photo.dpi)]
        tags.append((296, _SHORT, [_PER_INCH]))
    resources, datasets = iptc.apart(photo.photoshop or b"")
    blocks = (
        (700, _BYTE, photo.xmp),
        (33723, _UNDEFINED, datasets),
        (34377, _BYTE, resources),
        (34675, _UNDEFINED, photo.icc),
    )
    return tags + [(tag, kind, block) for tag, kind, block in blocks if block]


def _placed(file: BinaryIO, order: str, kind: int, values: list[int] | bytes) -> tuple[int, int, bytes]:
    """Type, count and value field of an entry; values longer than the field's four bytes are written to the file."""
    if isinstance(values, bytes):
        count, body = len(values), values
    else:
        letter = {_SHORT: "H", _LONG: "I", _RATIONAL: "I"}[kind]
        count, body = (
            len(values) // (2 if kind == _RATIONAL else 1),
            struct.pack(f"{order}{len(values)}{letter}", *values),
        )
    if len(body) <= 4:
        return kind, count, body.ljust(4, b"\0")
    file.write(b"\0" * (file.tell() % 2))
    at = file.tell()
    file.write(body)
    return kind, count, struct.pack(f"{order}I", at)
