"""In place nothing is lost: every byte of a photo is carried, belongs to the old file only, or keeps it as it is."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from commands import qatie_here
from PIL import Image

from qatie_cli.batch import planning
from qatie_cli.batch.journal import Journal
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Result, Runner, Status, Writing
from qatie_cli.photo import boxes, containers, decoding, encoding, iptc, leftovers

GAIN_MAP_XMP = b'<x xmlns:g="http://ns.adobe.com/hdr-gain-map/1.0/" g:Version="1.0" a:b="c"/>'
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(1, 200))
# Groups of exiftool's tags that describe how and where the old file stored its picture, and its previews.
OF_THE_OLD_FILE = ("SourceFile", "ExifTool:", "System:", "File:", "Composite:", "JFIF:", "MPF0:", "MPImage", "Adobe:",
                   "IFD1:", "IFD2:", "SubIFD", "QuickTime:", "Meta:", "Ducky:Quality")  # fmt: skip


def _jpeg(pixels: np.ndarray, *segments: tuple[int, bytes], **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", extra=containers.jpeg_segments(None, segments), **options)
    return content.getvalue()


def _index(kinds: list[int], sizes: list[int], starts: list[int]) -> bytes:
    """An MPF segment (CIPA DC-007) of pictures of these types."""
    head = b"II*\0" + struct.pack("<IHHHII", 8, 2, 0xB001, 4, 1, len(kinds))
    head += struct.pack("<HHIII", 0xB002, 7, 16 * len(kinds), 38, 0)
    table = b"".join(struct.pack("<IIIHH", *entry, 0, 0) for entry in zip(kinds, sizes, starts, strict=True))
    return b"MPF\0" + head + table


def _with_index(pixels: np.ndarray, kind: int, second: bytes) -> bytes:
    """A JPEG with a second picture of that MP type behind it."""
    first, place = b"", 0
    for _ in range(2):  # the second time it is known how long the first one gets
        first = _jpeg(pixels, (0xE2, _index([0x030000, kind], [0, len(second)], [0, place])))
        place = len(first) - (first.index(b"MPF\0") + 4)
    return first + second


def _chunked(png: bytes, kind: bytes, body: bytes) -> bytes:
    return png[:33] + containers.png_chunk(kind, body) + png[33:]


def _encoded(pixels: np.ndarray, fmt: str, **options: object) -> bytes:
    content = io.BytesIO()
    decoding.open_heif()
    Image.fromarray(pixels).save(content, fmt, **options)
    return content.getvalue()


def _tiff(pixels: np.ndarray, **options: object) -> bytes:
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, photometric="rgb", **options)
    return content.getvalue()


def _block(order: str) -> bytes:
    """A TIFF block that names a maker."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(f"{order}IHHHI4sI", 8, 1, 0x010F, 2, 4, b"abc\0", 0)


def _described(pixels: np.ndarray, fmt: str) -> bytes:
    """A file with EXIF of three directories and a maker's note, and with XMP."""
    exif = Image.Exif()
    exif[0x010F], exif[0x8298] = "Maker", "Somebody"
    exif.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0x829A: 0.01, 0x927C: b"Unknown\0" + bytes(range(64))})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 49.0, 19.5), 3: "E", 4: (2.0, 23.0, 54.5)})
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Paris"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    return _encoded(pixels, fmt, exif=exif.tobytes(), **({} if fmt == "PNG" else {"xmp": packet}))


def _files(coffee: np.ndarray) -> dict[str, tuple[bytes, str]]:
    """Files that would lose something, with a word of what is said; "" where nothing is lost."""
    big, small = coffee[:80, :120], coffee[:40, :60]
    plain, gain_map = _jpeg(big), _jpeg(small, xmp=GAIN_MAP_XMP)
    png, webp = _encoded(small, "PNG"), _encoded(small, "WEBP")
    heic = _encoded(big, "HEIF")
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        writer.write(big, photometric="rgb", subifds=1)
        writer.write(small, photometric="rgb", subfiletype=0)
    previewed = io.BytesIO()
    with tifffile.TiffWriter(previewed) as writer:
        writer.write(big, photometric="rgb", subifds=1)
        writer.write(small, photometric="rgb", subfiletype=1)
        writer.write(small, photometric="rgb", subfiletype=1)
    several = pillow_heif.from_pillow(Image.fromarray(big))
    several.add_from_pillow(Image.fromarray(small))
    both = io.BytesIO()
    several.save(both, quality=90)
    layers = [(37724, 7, 4, b"lays", True)]
    return {
        "plain.jpg": (plain, ""),
        "padded.jpg": (plain + bytes(5000) + b"\xff\xff\n", ""),
        "ultra-hdr.jpg": (plain + gain_map, "gain map"),
        "ultra-hdr-indexed.jpg": (_with_index(big, 0, gain_map), "gain map"),
        "preview.jpg": (_with_index(big, 0x010002, _jpeg(small)), ""),
        "stereo.jpg": (_with_index(big, 0x020003, _jpeg(small)), "first of 2 pictures"),
        "motion.jpg": (plain + VIDEO, ""),
        "motion-hdr.jpg": (plain + gain_map + VIDEO, "gain map"),
        "sound.jpg": (plain + b"RIFF and sound" * 9, "data after the picture"),
        "behind-preview.jpg": (_with_index(big, 0x010001, _jpeg(small)) + b"sound" * 9, "data after the picture"),
        "thermal.jpg": (_jpeg(big, (0xE1, b"FLIR\0\1\0\0temperatures")), ""),
        "c2pa.jpg": (_jpeg(big, (0xEB, b"JP\0\1\0\0\0\1\0\0\0\x10jumb\0\0\0\x08jumd")), "C2PA"),
        "flashpix.jpg": (_jpeg(big, (0xE2, b"FPXR\0\0 sound")), "FlashPix data (APP2)"),
        "unknown-exif-like.jpg": (_jpeg(big, (0xE1, b"somebody's own")), "APP1"),
        "two-comments.jpg": (_jpeg(big, (0xFE, b"one"), (0xFE, b"two")), "comment"),
        "maker.jpg": (_jpeg(big, (0xE7, b"maker's own")), ""),
        "kodak.jpg": (_jpeg(big, (0xE3, b"Meta\0\0" + _block("<"))), ""),
        "ricoh.jpg": (_jpeg(big, (0xE5, b"RMETA\0II\0\0\0\0")), ""),
        "picture-info.jpg": (_jpeg(big, (0xEC, b"[picture info]\r\nTimeDate=1\r\n")), ""),
        "graphic-converter.jpg": (_jpeg(big, (0xEF, b"Q 80")), ""),
        "stereo-pair.jpg": (_jpeg(big, (0xE3, b"_JPSJPS_\0\x10\1\0\4\x02" + bytes(12))), ""),
        "scalado.jpg": (_jpeg(big, (0xE4, b"SCALADO\0\0\0\0\0\0\1SPMO\0\0\0\4\xff\xff\xff\xee")), ""),
        "gopro.jpg": (_jpeg(big, (0xE6, b"GoPro\0DEVC\0\1\0\x0cMINFc\4\0\1HERO")), ""),
        "nitf.jpg": (_jpeg(big, (0xE6, b"NITF\0\2\0B\0\1\0\1\0\1\1\1\1\5" + bytes(8))), ""),
        "qualcomm.jpg": (_jpeg(big, (0xE7, b"\x1aQualcomm Camera Attributes\1\0\0")), ""),
        "spiff.jpg": (_jpeg(big, (0xE8, b"SPIFF\0\1\2\0\3\0\0\0P\0\0\0x\x0a\x08\5\1" + bytes(9))), ""),
        "media-jukebox.jpg": (_jpeg(big, (0xE9, b"Media Jukebox\0<MJMD><Date>2005</Date></MJMD>")), ""),
        "app10-comment.jpg": (_jpeg(big, (0xEA, b"UNICODE\0\0A\0b")), ""),
        "canon-ciff.jpg": (_jpeg(big, (0xE0, b"II\x1a\0\0\0HEAPJPGM" + bytes(14))), ""),
        "ocad.jpg": (_jpeg(big, (0xE0, b"Ocad$Rev: 14797 $\0")), "OCAD's data (APP0)"),
        "photoshop-2.5.jpg": (
            _jpeg(big, (0xED, b"Adobe_Photoshop2.5:8BIM" + bytes(8))),
            "Photoshop 2.5's data",
        ),
        "ducky.jpg": (_jpeg(big, (0xEC, b"Ducky\0\1\0\4\0\0\0\x3c\0\0")), ""),  # how fine it was compressed
        "ducky-comment.jpg": (
            _jpeg(big, (0xEC, b"Ducky\0\1\0\4\0\0\0\x3c\0\2\0\x0a\0\0\0\3\0A\0b\0c\0\0")),
            "comment or copyright (APP12)",
        ),
        "described.jpg": (_described(big, "JPEG"), ""),
        "mie.jpg": (plain + b"~\x10\4\xfe0MIE~\0\0\6\0\0\0\x12\x10\4", "data after the picture"),
        "vivo.jpg": (plain + b'vivo{"type":"portrait"}' + b"\0\0\0\x17\xff\xff\xff\xff", "data after the picture"),
        "casio.jpg": (_jpeg(big, (0xE1, b"QVCI\0" + bytes(100))), "Casio's data"),
        "infiray.jpg": (_jpeg(big, (0xE2, b"\1\2\3\4IJPEG\0" + bytes(60)), (0xE3, bytes(64))), "APP2"),
        "jpeg-hdr.jpg": (_jpeg(big, (0xEB, b"HDR_RI ver=11, ln0=-3.3")), "HDR part"),
        "adobe-cm.jpg": (_jpeg(big, (0xED, b"Adobe_CM\0\0\1")), "Adobe's colour data"),
        "afcp.jpg": (plain + b"AXS!\0\1\0\0" + bytes(16) + b"IPTCdata" * 9 + b"AXS!\0\0\0\0", "data after the picture"),
        "photo-mechanic.jpg": (plain + b"\x1c\2\xdd\0\4rate\0\0\0\x0dcbipcbbl", "data after the picture"),
        "foto-station.jpg": (plain + b"IPTC" * 9 + b"\0\1\0\0\0\x30\xa1\xb2\xc3\xd4", "data after the picture"),
        "canon-recipe.jpg": (
            plain + b"CANON OPTIONAL DATA\0" + bytes(44) + b"CANON OPTIONAL DATA\0",
            "data after the picture",
        ),
        "progressive.jpg": (_jpeg(big, progressive=True), ""),
        "plain.png": (_encoded(small, "PNG"), ""),
        "described.png": (_described(small, "PNG"), ""),
        "described.webp": (_described(small, "WEBP"), ""),
        "described.tif": (_described(small, "TIFF"), ""),
        "described.heic": (_described(big, "HEIF"), ""),
        "described.avif": (_described(big, "AVIF"), ""),
        "own-chunk.png": (_chunked(png, b"vpAg", b"own"), "chunk vpAg"),
        "c2pa.png": (_chunked(png, b"caBX", b"own"), "C2PA"),
        "raw-profile.png": (_chunked(png, b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(b"x")), "profile 8bim"),
        "behind.png": (png + b"a zip archive", "data after the picture"),
        "plain.webp": (webp, ""),
        "own-chunk.webp": (webp[:4] + struct.pack("<I", len(webp) + 4) + webp[8:] + b"OWN \4\0\0\0own!", "chunk OWN"),
        "behind.webp": (webp + b"a zip archive", "data after the picture"),
        "plain.heic": (heic, ""),
        "motion.heic": (heic + struct.pack(">I4s", 8 + len(VIDEO), b"mpvd") + VIDEO, ""),
        "own-box.heic": (heic + b"\0\0\0\x0cown!data", "box own!"),
        "behind.heic": (heic + b"\0\0\0\1tail without a box", "data after the picture"),
        "two.heic": (both.getvalue(), "first of 2 pictures"),
        "plain.tif": (_tiff(small), ""),
        "on-a-map.tif": (_tiff(small, extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)]), ""),
        "layered.tif": (_tiff(small, extratags=layers), "layers"),
        "pictures-below.tif": (pages.getvalue(), "below the first page"),
        "previews.tif": (previewed.getvalue(), ""),
    }


NAMES = list(_files(np.zeros((100, 150, 3), np.uint8)))


def _in_place(folder: Path, journal: Path) -> list[Result]:
    results: list[Result] = []
    known = Journal(journal)
    tasks = planning.plan_in_place([folder], Naming(), known).tasks
    Runner(lambda photo, _: photo.with_pixels(255 - photo.rgb()), Writing(journal=known)).run(tasks, results.append)
    return results


@pytest.mark.parametrize("name", NAMES)
def test_what_would_be_lost_is_named_and_keeps_the_photo_as_it_is(name, tmp_path, coffee):
    content, said = _files(coffee)[name]
    photo = tmp_path / "photos" / name
    photo.parent.mkdir()
    photo.write_bytes(content)
    notes = decoding.read(photo).notes
    (result,) = _in_place(photo.parent, tmp_path / "journal")
    if not said:
        assert notes == ()
        assert result.status is Status.ENHANCED, result.reason
        assert decoding.read(photo).notes == ()
        return
    assert any(said in note for note in notes), notes
    assert result.status is Status.FAILED
    assert said in result.reason
    assert photo.read_bytes() == content


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
def test_every_tag_is_there_afterwards_or_named(tmp_path, coffee):
    """By another program's list of the tags of each kind of file."""
    notes = {}
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    for name, (content, _) in _files(coffee).items():
        photo = decoding.read(content)
        notes[name] = (*photo.notes, *encoding.left_out(photo, photo.source_format))
        (tmp_path / "before" / name).write_bytes(content)
        (tmp_path / "after" / name).write_bytes(encoding.encoded(photo, photo.source_format))
    before, after = (_tags(tmp_path / folder) for folder in ("before", "after"))
    assert "MetaIFD:Kodak_Meta_0x010f" in before["kodak.jpg"]
    for name, tags in before.items():
        lost = {tag for tag in tags - after[name] if not tag.startswith(OF_THE_OLD_FILE)}
        assert not lost or notes[name], (name, lost)


def _tags(folder: Path) -> dict[str, set[str]]:
    """Group and name of the tags in each of its files."""
    command = ["exiftool", "-json", "-G1", "-a", "-U", "-q", *map(str, sorted(folder.iterdir()))]
    listed = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    return {Path(tags["SourceFile"]).name: set(tags) for tags in listed}


def test_a_photo_that_stays_is_named_once(tmp_path, coffee):
    (tmp_path / "a.jpg").write_bytes(_files(coffee)["ultra-hdr.jpg"][0])
    done = qatie_here("enhance", tmp_path / "a.jpg", "--in-place", "--yes", code=1)
    assert done.stderr.count(leftovers.GAIN_MAP) == 1


def test_temperatures_and_iptc_beside_photoshop_s_blocks_travel(tmp_path, coffee):
    content, _ = _files(coffee)["thermal.jpg"]
    assert decoding.read(content).jpeg_segments == ((0xE1, b"FLIR\0\1\0\0temperatures"),)
    caption = b"\x1c\x02\x78\x00\x04Walk"
    own = struct.pack(">4sHHI", b"8BIM", 0x03ED, 0, 4) + b"dpi!"
    tags = [(34377, 7, len(own), own, True), (33723, 7, len(caption), caption, True)]
    read = decoding.read(_tiff(coffee[:20, :30], extratags=tags))
    assert read.photoshop == own + iptc.resource(caption)


def test_layers_go_from_the_output(tmp_path, coffee):
    read = decoding.read(_files(coffee)["layered.tif"][0])
    assert b"lays" not in (read.exif or b"")


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_items_of_a_heic_are_told_apart():
    """The primary picture is a grid of two tiles; the rest hangs on it."""
    kinds = {1: b"grid", 2: b"hvc1", 3: b"hvc1", 4: b"hvc1", 5: b"Exif", 6: b"hvc1", 7: b"hvc1", 8: b"hvc1", 9: b"hvc1",
             10: b"tmap", 11: b"uri "}  # fmt: skip
    entries = b"".join(_box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", i, 0, k) + b"\0") for i, k in kinds.items())
    links = [(b"dimg", 1, (2, 3)), (b"thmb", 4, (1,)), (b"cdsc", 5, (1,)), *((b"auxl", i, (1,)) for i in (6, 7, 8))]
    references = b"".join(_box(k, struct.pack(f">HH{len(to)}H", i, len(to), *to)) for k, i, to in links)
    urns = [b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:hevc:2015:auxid:2", b"urn:com:apple:photo:2020:aux:hdrgainmap"]
    properties = _box(b"ipco", b"".join(_box(b"auxC", bytes(4) + urn + b"\0") for urn in urns))
    own = b"".join(struct.pack(">HBB", item, 1, 0x80 | n) for n, item in enumerate((6, 7, 8), 1))
    properties += _box(b"ipma", bytes(4) + struct.pack(">I", 3) + own)
    meta = bytes(4) + _box(b"pitm", bytes(4) + b"\0\1") + _box(b"iinf", bytes(4) + struct.pack(">H", 11) + entries)
    meta += _box(b"iref", bytes(4) + references) + _box(b"iprp", properties)
    found = boxes.left_out(boxes.items_of(_box(b"ftyp", b"heic") + _box(b"meta", meta) + _box(b"moov", b"")))
    assert found == (
        leftovers.VIDEO,
        "the depth map is left out",
        leftovers.GAIN_MAP,
        "item uri is left out",
        "first of 2 pictures in the file; the others are left out",
    )


@pytest.mark.parametrize("cut", [b"\0\0\0\x08pitm", b"\0\0\0\x0cpitm\0\0\0\0", b"\0\0\0\x08iloc", b"\0\0\0\x08iref"])
def test_a_box_that_ends_too_early_is_refused(cut):
    with pytest.raises(ValueError, match="make no sense"):
        boxes.items_of(b"\0\0\0\0meta\0\0\0\0" + cut)


def test_boxes_with_wrong_bytes_are_read_or_refused(coffee):
    generator = np.random.default_rng(0)
    whole = _encoded(coffee[:40, :60], "HEIF")
    assert boxes.left_out(boxes.items_of(whole)) == ()
    named = 0
    for _ in range(2000):
        broken = bytearray(whole)
        for at in generator.integers(0, min(400, len(whole)), 4):
            broken[at] = generator.integers(256)
        try:
            found = boxes.left_out(boxes.items_of(bytes(broken)))
        except ValueError:
            continue
        assert all(note.isprintable() and note for note in found)
        assert len(set(found)) == len(found)
        named += bool(found)
    assert 0 < named < 2000


@pytest.mark.parametrize("tail", ["ff", "00", "ff00", "ffd8", "ffd8ffd9", "61", "ffd8ffe1", "ffd8ffe00002"])
def test_what_stands_behind_takes_time_in_proportion_to_its_length(tail, coffee):
    began = time.process_time()
    decoding.read(_jpeg(coffee[:8, :8]) + bytes.fromhex(tail) * ((2 << 20) // len(tail)))
    assert time.process_time() - began < 5


# --- what belongs to a photo's name -------------------------------------------------------------------------------


@pytest.fixture
def photo(tmp_path, coffee) -> Path:
    path = tmp_path / "photos" / "a.png"
    path.parent.mkdir()
    Image.fromarray(coffee[:40, :60]).save(path)
    return path


def test_extended_attributes_and_the_owner_stay(photo, tmp_path):
    try:
        os.setxattr(photo, "user.rating", b"5")
    except OSError:
        pytest.skip("no extended attributes here")
    if os.geteuid() == 0:
        os.chown(photo, 1234, 2345)
    photo.chmod(0o640)
    before = photo.stat()
    assert _in_place(photo.parent, tmp_path / "journal")[0].status is Status.ENHANCED
    assert os.getxattr(photo, "user.rating") == b"5"
    after = photo.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino


@pytest.mark.parametrize("call", ["setxattr", "chown"])
def test_where_they_cannot_stay_the_photo_does(photo, tmp_path, monkeypatch, call):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    if call == "setxattr":
        monkeypatch.setattr(os, "listxattr", lambda path: ["user.rating"] if Path(path) == photo else [])
        monkeypatch.setattr(os, "getxattr", lambda path, name: b"5")
    elif os.geteuid() == 0:
        os.chown(photo, 1234, 2345)
    else:
        pytest.skip("only root may give files away")
    monkeypatch.setattr(os, call, refuse)
    content = photo.read_bytes()
    (result,) = _in_place(photo.parent, tmp_path / "journal")
    assert result.status is Status.FAILED
    assert "would lose its owner, extended attributes or ACL" in result.reason
    assert photo.read_bytes() == content


def test_a_photo_with_two_names_is_named_and_left(photo, tmp_path):
    os.link(photo, tmp_path / "other name.png")
    (result,) = _in_place(photo.parent, tmp_path / "journal")
    assert "2 names (hard links)" in result.reason
    assert photo.samefile(tmp_path / "other name.png")


def test_links_to_folders_are_not_followed_for_writing(photo, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    content = photo.read_bytes()
    (elsewhere / "b.png").write_bytes(content)
    (photo.parent / "link").symlink_to(elsewhere, target_is_directory=True)
    plan = planning.plan_in_place([photo.parent], Naming(), Journal(tmp_path / "journal"))
    assert [task.source for task in plan.tasks] == [photo]
    assert plan.unsearched == ((photo.parent / "link", "it is a link, and links are not followed in place"),)
    done = qatie_here("enhance", photo.parent, "--in-place", "--yes", code=3)
    assert "link" in done.stderr
    assert (elsewhere / "b.png").read_bytes() == content
    named = planning.plan_in_place([photo.parent / "link"], Naming(), Journal(tmp_path / "journal"))
    assert len(named.tasks) == 1


def test_links_to_files_lead_out_of_a_named_folder_only_to_what_is_named(photo, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    content = photo.read_bytes()
    outside, inside, leading_out = elsewhere / "b.png", photo.parent / "inside.png", photo.parent / "out.png"
    outside.write_bytes(content)
    leading_out.symlink_to(outside)
    inside.symlink_to(photo)

    def plan(*inputs: Path, listed: tuple[Path, ...] = ()) -> planning.Plan:
        return planning.plan_in_place(inputs, Naming(), Journal(tmp_path / "journal"), listed)

    alone = plan(photo.parent)
    assert [task.source for task in alone.tasks] == [photo]
    (refused,) = alone.refused
    assert refused.task.source == leading_out
    assert f"is a link to {outside}, outside the folder; it is left alone" in refused.reason
    named = [(photo.parent, outside), (photo.parent, elsewhere), (photo.parent, leading_out)]
    for found in [*(plan(*inputs) for inputs in named), plan(photo.parent, listed=(outside,))]:
        assert {task.source for task in found.tasks} == {photo, outside}
        assert found.refused == ()

    ended = qatie_here("enhance", photo.parent, "--in-place", "--yes", code=3)
    assert "out.png" in ended.stderr
    assert outside.read_bytes() == content
    assert photo.read_bytes() != content
    assert leading_out.is_symlink()
    assert inside.is_symlink()


def test_times_are_kept_where_that_is_asked_for(photo, tmp_path):
    os.utime(photo, ns=(10**18, 10**18 + 5))
    out = tmp_path / "out"
    qatie_here("enhance", photo, "-o", out, "--preserve-times")
    assert (out / "a.png").stat().st_mtime_ns == 10**18 + 5
    assert "1 photo already done" in qatie_here("enhance", photo, "-o", out, "--preserve-times").stderr
    qatie_here("enhance", photo, "--in-place", "--yes", "--preserve-times")
    assert photo.stat().st_mtime_ns == 10**18 + 5
    assert "1 photo already done" in qatie_here("enhance", photo, "--in-place", "--yes").stderr
    qatie_here("enhance", photo, "-o", tmp_path / "new")
    assert (tmp_path / "new" / "a.png").stat().st_mtime_ns != 10**18 + 5


def test_the_journal_is_on_disk_before_the_photo_is_replaced(photo, tmp_path, monkeypatch):
    order, synced = [], []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        order.append(path.name)
        if path.name == "journal":
            synced.append(path.read_text())
        real_sync(handle)

    def replace(self, target):
        order.append("replace")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    _in_place(photo.parent, tmp_path / "journal")
    # The new journal's own name, too.
    assert order[-4:] == ["journal", tmp_path.name, "replace", "photos"]
    assert order[0].startswith(".qatie-tmp-")
    assert json.loads(synced[0])["path"] == str(photo)  # all of the line, not what stood there before
