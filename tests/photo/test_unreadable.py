"""What qatie does not read is named in its owner's words; the page of a TIFF that is read is the photo."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from commands import qatie_here
from PIL import Image

from qatie_cli.errors import PhotoError
from qatie_cli.photo import decoding, encoding, iptc, pages
from qatie_cli.photo.content import Photo


def tiff(*pictures, **options):
    """A TIFF file; each picture an array, or an array with options of its own."""
    content = io.BytesIO()
    with tifffile.TiffWriter(content) as writer:
        for picture in pictures:
            array, own = picture if isinstance(picture, tuple) else (picture, {})
            writer.write(array, **{"photometric": "rgb" if array.ndim == 3 else "minisblack", **options, **own})
    return content.getvalue()


def twelve_bit_jpeg(photo):
    content = io.BytesIO()
    Image.fromarray(photo).save(content, "JPEG")
    body = bytearray(content.getvalue())
    body[body.index(b"\xff\xc0") + 4] = 12
    return bytes(body)


def dng(photo):
    """A preview in front of a colour filter array below it, as cameras write raw files."""
    raw = np.zeros((64, 64), np.uint16)
    content = io.BytesIO()
    with tifffile.TiffWriter(content) as writer:
        writer.write(photo[:30, :40], photometric="rgb", subifds=1, subfiletype=1)
        writer.write(raw, photometric=32803)
    return content.getvalue()


FILES = {
    "raw": (dng, "is a raw file", "Develop it first"),
    "dng tag": (lambda p: tiff(p, extratags=[(50706, 1, 4, b"\1\4\0\0", True)]), "is a raw file", "Develop it first"),
    "cr2": (lambda p: b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "is a raw file", "Develop it first"),
    "cr3": (lambda p: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "is a raw file", "Develop it first"),
    "raf": (lambda p: b"FUJIFILMCCD-RAW 0201" + bytes(40), "is a raw file", "Develop it first"),
    "jpeg 2000": (imagecodecs.jpeg2k_encode, "is a JPEG 2000 file", "Save it as PNG or TIFF"),
    "jpeg xl": (imagecodecs.jpegxl_encode, "is a JPEG XL file", "Save it as PNG or TIFF"),
    "12 bit jpeg": (twelve_bit_jpeg, "is a JPEG of 12 bit per channel", "Save it as 16-bit PNG or TIFF"),
    "float tiff": (lambda p: tiff(p / np.float32(255)), "is a TIFF of floating point", "Save it as 16-bit TIFF"),
    "webp tiff": (lambda p: tiff(p, compression="webp"), "is a TIFF compressed with WebP", "LZW or Deflate"),
    "jpeg xl tiff": (lambda p: tiff(p, compression="jpegxl"), "is a TIFF compressed with JPEG XL", "LZW or Deflate"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_not_read_is_named(tmp_path, coffee, kind):
    make, what, hint = FILES[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(make(np.ascontiguousarray(coffee[:64, :64])))
    with pytest.raises(PhotoError, match=what) as raised:
        decoding.read(path)
    assert str(path) in str(raised.value)
    assert hint in raised.value.hint


def test_raw_files_are_named_and_beside_their_photos_left_out(tmp_path, weights_file, coffee):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(coffee).save(photos / "a.jpg")
    for name in ("a.DNG", "a.jxl", "b.nef", "c.txt"):
        (photos / name).write_bytes(b"x")
    done = qatie_here("enhance", photos, "-o", tmp_path / "out", "--weights", weights_file)
    assert "2 raw files" in done.stderr
    assert "(raw: develop first)" in done.stderr
    assert "JPEG XL" in done.stderr
    planned = qatie_here("enhance", photos, "-o", tmp_path / "out", "--dry-run", "--overwrite").stderr
    assert [line for line in planned.splitlines() if line.startswith("Skipped:")] == [
        line for line in done.stderr.splitlines() if line.startswith("Skipped:")
    ], "the plan leaves out what the run leaves out, for the same reasons"
    done = qatie_here("enhance", photos / "a.DNG", "-o", tmp_path / "o", "--weights", weights_file, code=3)
    assert "a.DNG is a raw file. Develop it first" in done.stderr
    assert "not named like" not in done.stderr


@pytest.mark.parametrize("top", [0.5, 1.0, 4.0, 200.0])
def test_gray_floats_keep_their_range(top):
    ramp = np.linspace(0, top, 64 * 64, dtype=np.float32).reshape(64, 64)
    photo = decoding.read(tiff(ramp))
    assert photo.pixels.max() == (65535 if top > 1 else round(65535 * top))
    assert len(np.unique(photo.pixels)) > 2000
    assert any("floating point" in note for note in photo.notes)


@pytest.mark.parametrize(("top", "white"), [(255, 65535), (65535, 65535), (200, 200 * 257)])
def test_gray_floats_that_are_levels_keep_them(top, white):
    ramp = np.rint(np.linspace(0, top, 64 * 64, dtype=np.float32)).reshape(64, 64)
    assert decoding.read(tiff(ramp)).pixels.max() == white


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_the_full_page_is_read_not_the_preview_in_front_of_it(tmp_path, coffee, depth):
    full = coffee.astype(depth)
    content = tiff((full[:30, :40], {"subfiletype": 1}), (full, {"software": "full"}))
    photo = decoding.read(content)
    assert np.array_equal(photo.pixels, full)
    assert not any("page" in note for note in photo.notes)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    header = decoding.header(path)
    assert (header.width, header.height) == (coffee.shape[1], coffee.shape[0])
    with Image.open(io.BytesIO(encoding.encoded(photo, "tiff"))) as again:
        assert again.tag_v2[305] == "full"


def test_previews_behind_the_page_are_no_loss_and_pages_are(coffee):
    behind = tiff(coffee, (coffee[:30, :40], {"subfiletype": 1}))
    assert decoding.read(behind).notes == ()
    two = tiff((coffee[:30, :40], {"subfiletype": 1}), coffee, coffee[::-1])
    photo = decoding.read(two)
    assert np.array_equal(photo.pixels, coffee)
    assert any("first of 2 pages" in note for note in photo.notes)
    previews = tiff((coffee[:30, :40], {"subfiletype": 1}))
    assert decoding.read(previews).pixels.shape[:2] == (30, 40)


def test_layers_are_named_and_do_not_stay(coffee):
    layers = b"Adobe Photoshop Document Data Block\0" + bytes(100)
    photo = decoding.read(tiff(coffee, extratags=[(37724, 7, len(layers), layers, True)]))
    assert any("layers" in note for note in photo.notes)
    assert 37724 not in pages.tags(io.BytesIO(encoding.encoded(photo, "tiff")))


# --- IPTC ---------------------------------------------------------------------------------------------------------


def dataset(number, text):
    return struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text


@pytest.mark.parametrize("kind", [1, 4, 7])
def test_iptc_stays_in_tiff_s_own_tag_and_nothing_of_it_is_lost(coffee, kind):
    own = dataset(25, b"holiday") + dataset(120, b"A caption!")
    own += bytes(-len(own) % 4)
    resources = struct.pack(">4sHHI", b"8BIM", 0x03ED, 0, 4) + b"abcd"
    older = iptc.resource(dataset(25, b"holiday") + dataset(80, b"Somebody"))
    block = resources + older
    tags = [(33723, kind, len(own) // (4 if kind == 4 else 1), own, True), (34377, 1, len(block), block, True)]
    photo = decoding.read(tiff(coffee, extratags=tags))
    content = io.BytesIO(encoding.encoded(photo, "tiff"))
    datasets = pages.value(content, 33723, 1 << 20)
    assert datasets == dataset(25, b"holiday") + dataset(120, b"A caption!") + dataset(80, b"Somebody")
    assert pages.value(content, 34377, 1 << 20) == resources
    again = decoding.read(content.getvalue())
    assert again.photoshop == photo.photoshop
    assert b"A caption!" in encoding.encoded(photo, "jpeg")


def test_iptc_alone_makes_no_empty_block(coffee):
    photo = Photo(coffee, "tiff", photoshop=iptc.resource(dataset(25, b"holiday")))
    content = io.BytesIO(encoding.encoded(photo, "tiff"))
    assert 34377 not in pages.tags(content)
    assert pages.value(content, 33723, 1 << 20) == dataset(25, b"holiday")
