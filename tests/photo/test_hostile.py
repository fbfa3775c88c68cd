"""Files made to cost much: time stays in proportion to their size, and nesting ends in one line."""

from __future__ import annotations

import io
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from commands import qatie_here
from PIL import Image, PngImagePlugin

import qatie_cli
from qatie_cli import parsing
from qatie_cli.errors import PhotoError, UsageError, WeightsError
from qatie_cli.model import checkpoint
from qatie_cli.photo import decoding, exif, iptc, pixels, xmp
from qatie_cli.training import recipe

MEGABYTE = 1 << 20
# Each is repeated until it fills a megabyte. Quadratic patterns took minutes to hours of these.
PATTERNS = [b" ", b"<", b">", b"a", b":", b'"', b" a:", b"<a:City>", b"<a:City/ ", b'<a b="', b"<xmp:Thumbnails>",
            b" a:City=", b"<x>" + b" " * 5000, b"<a:GPSx>" + b"Latitude" * 50, b" a:City='\"", b"xmlns:a=",
            b"tiff:Orientation=", b"<" + b"a" * 9000, b"\n\t ", b"<a" + b" b='c'" * 500, b"</a:City>",
            b":Lonttt"]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("edit", [xmp.upright, xmp.without_places])
def test_xmp_takes_time_in_proportion_to_its_length(pattern, edit):
    packet = b'<rdf:Description xmlns:a="b" ' + pattern * (MEGABYTE // len(pattern))
    began = time.process_time()
    edit(packet)
    edit(packet + b"/>")
    assert time.process_time() - began < 4


def test_a_packet_that_is_not_well_formed_keeps_no_place():
    for packet in (b"<x a:City='Prague", b"<x><a:City>Prague</x>", b"<x a:City='Pra<gue'/>", b"<a:City ' >Prague"):
        assert b"Prague" not in xmp.without_places(packet)


def test_too_long_xmp_is_left_out_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(xmp, "LARGEST", 100)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.jpg", xmp=b"<x>" + b" " * 100 + b"</x>")
    photo = decoding.read(tmp_path / "a.jpg")
    assert photo.xmp is None
    assert any("XMP left out" in note for note in photo.notes)


def _directories_that_name_each_other(entries: int) -> bytes:
    """Every entry points to the same directory as position and EXIF, whose values are the whole block."""
    pair = b"".join(struct.pack("<HHII", tag, 7, 1 << 19, 8) for tag in (exif.GPS_POINTER, exif.EXIF_POINTER))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 2 * entries) + pair * entries + bytes(MEGABYTE)


@pytest.mark.parametrize("edit", [exif.without_gps, lambda block: exif.upright(block, (9, 9)), exif.orientation])
def test_exif_takes_time_in_proportion_to_its_length(edit):
    began = time.process_time()
    edit(_directories_that_name_each_other(30000))
    assert time.process_time() - began < 4


def test_iptc_takes_time_in_proportion_to_its_length():
    began = time.process_time()
    iptc.without_places(iptc.resource(b"\x1c\x02\x78\x00\x00" * (MEGABYTE // 2)))
    assert time.process_time() - began < 10


@pytest.mark.parametrize("tail", [b" " * MEGABYTE, b"<xmp:Thumbnails>" * (MEGABYTE // 16)])
def test_a_photo_with_a_megabyte_of_hostile_xmp_is_enhanced_at_once(tmp_path, tail):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta " + tail.decode() + "/>")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png", pnginfo=text)
    began = time.process_time()
    decoding.read(tmp_path / "a.png").without_gps()
    assert time.process_time() - began < 5


@pytest.mark.parametrize("where", ["the photo", "its gain map"])
def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(tmp_path, where, monkeypatch):
    """Each takes as long as a photo, and few bytes."""
    content = io.BytesIO()
    Image.new("L", (64, 64), 128).save(content, "JPEG", progressive=True)
    whole = content.getvalue()
    last = whole.rindex(b"\xff\xda")
    bomb = whole[:last] + whole[last:-2] * 5000 + whole[-2:]
    (tmp_path / "a.jpg").write_bytes(bomb if where == "the photo" else whole + bomb)
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PhotoError, match="more than 100 scans"):
        decoding.read(tmp_path / "a.jpg")


@pytest.mark.parametrize("levels", [parsing.MOST_LEVELS + 1, 5_000, 200_000])
def test_nesting_is_refused_in_one_line(levels, tmp_path):
    nested = "[" * levels + "]" * levels
    with pytest.raises(ValueError, match="nested deeper"):
        parsing.from_json(nested)
    (tmp_path / "recipe.toml").write_text("width = " + nested)
    with pytest.raises(UsageError, match="nested deeper"):
        recipe.read_table(tmp_path / "recipe.toml")
    header = {checkpoint.HEADER_KEY: '{"format": 1, "config": ' + nested + "}"}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", header)
    with pytest.raises(WeightsError):
        checkpoint.read(tmp_path / "a.safetensors")


def test_what_is_not_nested_too_deeply_is_read():
    assert parsing.from_json("[" * 60 + "]" * 60)
    assert parsing.from_toml("a.b.c = [{d = 1}]") == {"a": {"b": {"c": [{"d": 1}]}}}
    with pytest.raises(ValueError, match="nested"):
        parsing.from_toml("a" + ".a" * 99 + " = 1")


def test_nesting_on_the_command_line_is_no_traceback(tmp_path):
    (tmp_path / "recipe.toml").write_text("width = " + "[" * 9000 + "]" * 9000)
    done = qatie_here("pairs", "make", tmp_path, "-o", tmp_path / "out", "--recipe", tmp_path / "recipe.toml", code=2)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_json_and_toml_is_read_by_one_module():
    package = Path(qatie_cli.__file__).parent
    readers = re.compile(r"json\.loads?\(|tomllib\.loads?\(")
    assert [p.name for p in package.rglob("*.py") if readers.search(p.read_text(encoding="utf-8"))] == []


def test_a_tiff_whose_tiles_are_far_larger_than_its_picture_is_refused(coffee):
    file = io.BytesIO()
    tifffile.imwrite(file, coffee[:48, :64], tile=(16, 16), photometric="rgb", compression="lzw")
    content = bytearray(file.getvalue())
    page = tifffile.TiffFile(io.BytesIO(bytes(content))).pages[0]
    tag = page.tags["TileLength"]
    content[tag.valueoffset : tag.valueoffset + 4] = struct.pack(tag.parent.byteorder + "I", 16 << 20)
    with pytest.raises(PhotoError, match="tiles are larger"):
        decoding.read(bytes(content))
    # Pillow reads no tag behind one whose value lies outside the file; libtiff does.
    software = page.tags["Software"]
    content[software.offset + 8 : software.offset + 12] = struct.pack(tag.parent.byteorder + "I", 1 << 30)
    with pytest.raises(PhotoError, match="tiles are larger"):
        decoding.read(bytes(content))
