"""What is dropped from a file is named, and what only describes the old file is not."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qatie_cli.photo import containers, decoding, encoding


def _encoded(photo: np.ndarray, fmt: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(photo[:40, :60]).save(content, fmt)
    return content.getvalue()


def _notes(path: Path, content: bytes) -> tuple[str, ...]:
    path.write_bytes(content)
    return decoding.read(path).notes


def _ducky(*tags: int) -> bytes:
    """Photoshop's record of how it saved a JPEG for the web: 1 is its quality, 2 a comment, 3 a copyright."""
    return b"Ducky" + b"".join(struct.pack(">HHI", tag, 4, 60) for tag in tags)


@pytest.mark.parametrize(
    ("marker", "body", "notes"),
    [
        (0xEB, b"JP\x00\x01box", ("content credentials (C2PA) are left out",)),
        (0xE2, b"Some maker", ("data of 'Some maker' (APP2) left out",)),
        (0xE2, b"FPXR\0\0 sound", ("FlashPix data (APP2) left out",)),
        (0xE2, bytes(11), ("11 bytes of unknown data (APP2) left out",)),
        (0xEC, _ducky(1), ()),
        (0xEC, _ducky(1, 3), ("Photoshop's comment or copyright (APP12) left out",)),
    ],
)
def test_dropped_segments_of_a_jpeg_are_named(tmp_path, coffee, marker, body, notes):
    content, segment = _encoded(coffee, "JPEG"), struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
    assert _notes(tmp_path / "a.jpg", content[:2] + segment + content[2:]) == notes


@pytest.mark.parametrize(
    ("kind", "notes"),
    [(b"caBX", ("content credentials (C2PA) are left out",)), (b"prVt", ("chunk prVt is left out",))],
)
def test_dropped_chunks_of_a_png_are_named(tmp_path, coffee, kind, notes):
    content, body = _encoded(coffee, "PNG"), b"something"
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert _notes(tmp_path / "a.png", content[:-12] + chunk + content[-12:]) == notes


def test_data_after_a_picture_is_named_with_its_size(tmp_path, coffee):
    assert _notes(tmp_path / "a.png", _encoded(coffee, "PNG") + b"x" * 5000) == (
        "data after the picture is left out (5,000 bytes)",
    )


def test_what_another_format_cannot_hold_of_a_jpeg_is_named(tmp_path, coffee):
    content = _encoded(coffee, "JPEG")
    segments = ((0xE5, b"RMETA\0II\0\0"), (0xE7, b"maker's own"), (0xE3, bytes(64)))
    photo = decoding.read(content[:2] + containers.jpeg_segments(None, segments) + content[2:])
    assert encoding.left_out(photo, "jpeg") == ()
    assert encoding.left_out(photo, "heic") == (
        "Ricoh's data (APP5), data of 'maker's own' (APP7), 64 bytes of unknown data (APP3) left out, "
        "heic has no place for it",
    )
