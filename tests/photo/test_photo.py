"""Decoding and encoding: what travels beside the pixels, and what is refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from qatie_cli import metrics
from qatie_cli.errors import PhotoError
from qatie_cli.photo import decoding, encoding, exif, formats
from qatie_cli.photo.content import Photo

ORIENTATION, MAKE, EXIF_IFD, MAKER_NOTE, GPS_IFD = 0x0112, 0x010F, 0x8769, 0x927C, 0x8825


def _exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION], tags[MAKE] = orientation, "A phone"
    tags.get_ifd(EXIF_IFD)[MAKER_NOTE] = b"maker's own bytes"
    tags.get_ifd(EXIF_IFD)[0xA002], tags.get_ifd(EXIF_IFD)[0xA003] = 64, 32
    tags.get_ifd(GPS_IFD)[1], tags.get_ifd(GPS_IFD)[2] = "N", (50.0, 4.0, 30.0)
    return tags


def _tags(block: bytes) -> Image.Exif:
    tags = Image.Exif()
    tags.load(b"Exif\x00\x00" + block)
    return tags


def _display_p3_like_profile() -> bytes:
    """A valid profile that is not sRGB's usual one."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def _marked(size=(64, 32)) -> Image.Image:
    """A photo whose four quarters tell its orientation."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_photos_come_out_upright_once(tmp_path, orientation, suffix):
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(inverse)
    stored = _marked() if turn is None else _marked().transpose(turn)
    stored.save(tmp_path / f"a.{suffix}", exif=_exif(orientation), **({"quality": 95} if suffix == "jpg" else {}))
    read = decoding.read(tmp_path / f"a.{suffix}")
    assert metrics.psnr(read.pixels, np.asarray(_marked())) > 20  # wrongly turned it is below 10
    encoding.write(tmp_path / f"b.{suffix}", read, formats.format_of_name(Path(f"b.{suffix}")))
    with Image.open(tmp_path / f"b.{suffix}") as written:
        assert written.getexif().get(ORIENTATION) == 1
        assert written.getexif()[MAKE] == "A phone"
    assert np.array_equal(decoding.read(tmp_path / f"b.{suffix}").pixels.shape, read.pixels.shape)


@pytest.mark.parametrize("fmt", ["jpeg", "png", "webp", "tiff", "heic", "avif"])
def test_gps_maker_note_and_profile_survive(tmp_path, fmt):
    profile = _display_p3_like_profile()
    _marked().save(tmp_path / "a.jpg", exif=_exif(6), icc_profile=profile, quality=95)
    read = decoding.read(tmp_path / "a.jpg")
    out = tmp_path / f"b{formats.FORMATS[fmt][0]}"
    encoding.write(out, read, fmt)
    again = decoding.read(out)
    assert again.icc == profile
    tags = _tags(again.exif)
    assert tags.get_ifd(GPS_IFD)[2] == (50.0, 4.0, 30.0)
    assert tags.get_ifd(EXIF_IFD)[MAKER_NOTE] == b"maker's own bytes"
    assert (tags.get_ifd(EXIF_IFD)[0xA002], tags.get_ifd(EXIF_IFD)[0xA003]) == (32, 64)  # turned, like the pixels
    assert metrics.psnr(again.pixels, read.pixels) > 25


def _block_with_thumbnail(thumbnail: bytes, order: str) -> bytes:
    """A TIFF block: orientation in IFD0, a JPEG thumbnail behind IFD1 (TIFF 6.0, EXIF 2.3)."""
    mark = {"<": b"II", ">": b"MM"}[order]
    first, second = 8, 8 + 2 + 12 + 4
    data = second + 2 + 24 + 4
    block = mark + struct.pack(f"{order}HI", 42, first)
    block += struct.pack(f"{order}HHHIHHI", 1, ORIENTATION, 3, 1, 6, 0, second)
    block += struct.pack(f"{order}HHHII", 2, 0x0201, 4, 1, data) + struct.pack(
        f"{order}HHII", 0x0202, 4, 1, len(thumbnail)
    )
    return block + struct.pack(f"{order}I", 0) + thumbnail


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_stale_thumbnail_is_gone_and_nothing_moves(order):
    block = _block_with_thumbnail(b"old picture", order)
    upright = exif.upright(block)
    assert b"old picture" not in upright
    assert struct.unpack_from(f"{order}H", upright, 8 + 2 + 8) == (1,)
    assert upright[: 8 + 2 + 8] == block[: 8 + 2 + 8]
    middle = exif.upright(block + b"maker's own bytes")
    assert middle.endswith(b"maker's own bytes")
    assert len(middle) == len(block) + len(b"maker's own bytes")
    assert b"old picture" not in middle


@pytest.mark.parametrize("block", [b"", b"II", b"garbage garbage", b"II*\x00\xff\xff\xff\xff"])
def test_exif_that_cannot_be_understood_is_left_alone(block):
    assert exif.upright(block) == block


def test_gray_stays_gray_and_alpha_passes_through(tmp_path, coffee):
    gray = Image.fromarray(coffee).convert("L")
    gray.save(tmp_path / "gray.png")
    read = decoding.read(tmp_path / "gray.png")
    assert read.pixels.shape == (400, 600, 1)
    assert read.rgb().shape == (400, 600, 3)
    encoding.write(tmp_path / "out.png", read.with_pixels(read.rgb()), "png")
    with Image.open(tmp_path / "out.png") as written:
        assert written.mode == "L"
        assert np.array_equal(np.asarray(written), np.asarray(gray))
    alpha = np.arange(400 * 600, dtype=np.uint32).reshape(400, 600).astype(np.uint8)
    Image.fromarray(np.dstack([coffee, alpha])).save(tmp_path / "alpha.png")
    read = decoding.read(tmp_path / "alpha.png")
    encoding.write(tmp_path / "alpha-out.png", read, "png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "alpha-out.png")), np.dstack([coffee, alpha]))
    with pytest.raises(PhotoError, match="transparency"):
        encoding.write(tmp_path / "alpha.jpg", read, "jpeg")
    assert not (tmp_path / "alpha.jpg").exists()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "YCbCr"])
def test_every_mode_decodes_to_gray_or_colour(tmp_path, coffee, mode):
    source = Image.fromarray(coffee)
    source = source.convert("L").convert(mode) if mode in ("I;16", "I", "F", "LA") else source.convert(mode)
    suffix = "png" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "tif"
    source.save(tmp_path / f"a.{suffix}")
    read = decoding.read(tmp_path / f"a.{suffix}")
    assert read.pixels.shape[:2] == (400, 600)
    assert read.pixels.shape[2] == (3 if mode in ("P", "RGB", "RGBA", "CMYK", "YCbCr") else 1)
    assert read.pixels.dtype == (np.uint16 if mode[0] in "IF" else np.uint8)
    assert (read.alpha is not None) == (mode in ("LA", "RGBA"))


def test_sixteen_bit_gray_comes_back_exactly(tmp_path):
    ramp = np.arange(64 * 512, dtype=np.uint16).reshape(64, 512) * 2
    Image.fromarray(ramp).save(tmp_path / "a.png")
    read = decoding.read(tmp_path / "a.png")
    encoding.write(tmp_path / "b.png", read, "png")
    assert np.array_equal(decoding.read(tmp_path / "b.png").pixels[..., 0], ramp)


def test_heic_is_read_upright_and_written_as_jpeg_by_default(tmp_path, coffee):
    decoding.open_heif()
    Image.fromarray(coffee).save(tmp_path / "a.HEIC", exif=_exif(1), quality=90)
    read = decoding.read(tmp_path / "a.HEIC")
    assert metrics.psnr(read.pixels, coffee) > 30
    assert formats.output_name(Path("a.HEIC"), "keep") == "a.jpg"
    assert formats.output_name(Path("a.HEIC"), "heic") == "a.HEIC"
    assert formats.output_name(Path("a.JPG"), "keep") == "a.JPG"
    assert formats.output_name(Path("a.bmp"), "keep") == "a.png"


def test_jpeg_keeps_the_chroma_sampling_of_its_source(tmp_path, coffee):
    for code in (0, 2):
        Image.fromarray(coffee).save(tmp_path / "a.jpg", subsampling=code, quality=90)
        encoding.write(tmp_path / "b.jpg", decoding.read(tmp_path / "a.jpg"), "jpeg")
        assert decoding.read(tmp_path / "b.jpg").jpeg.subsampling == code


def test_names_in_any_script_work(tmp_path, coffee):
    folder = tmp_path / "写真"
    folder.mkdir()
    encoding.write(folder / "ñ é.jpg", Photo(coffee, "jpeg"), "jpeg")
    assert decoding.read(folder / "ñ é.jpg").pixels.shape == coffee.shape


def test_a_photo_that_claims_too_many_pixels_is_refused_before_decoding(tmp_path):
    header = struct.pack(">II5B", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(bomb + struct.pack(">I", 0) + b"IEND\xaeB`\x82")
    with pytest.raises(PhotoError, match="10,000 megapixels"):
        decoding.read(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "name", ["none.jpg", "text.jpg", "empty.png", "cut.jpg", "anim.gif", "anim.webp", "folder.jpg"]
)
def test_what_is_no_photo_is_refused_in_one_line(tmp_path, coffee, name):
    path = tmp_path / name
    if name == "text.jpg":
        path.write_text("no photo")
    elif name == "empty.png":
        path.touch()
    elif name == "cut.jpg":
        buffer = io.BytesIO()
        Image.fromarray(coffee).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 8])
    elif name.startswith("anim"):
        frames = [Image.fromarray(coffee), Image.fromarray(255 - coffee)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    elif name == "folder.jpg":
        path.mkdir()
    with pytest.raises(PhotoError) as refused:
        decoding.read(path)
    assert name in str(refused.value)
    assert "\n" not in refused.value.one_line()


def test_real_phone_photos_can_be_read(shared):
    for path in sorted((shared / "realworld" / "phone").iterdir()):
        read = decoding.read(path)
        assert read.pixels.ndim == 3, path
        with Image.open(path) as source:
            turned = source.format != "HEIF" and source.getexif().get(ORIENTATION, 1) >= 5
            assert read.pixels.shape[:2] == (source.size if turned else source.size[::-1]), path


@pytest.mark.parametrize("block", [b"garbage garbage garbage", b"MM\x00*\xff\xff\xff\xff", b""])
def test_broken_exif_is_no_reason_to_refuse_a_photo(tmp_path, coffee, block):
    Image.fromarray(coffee).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00" + block)
    assert decoding.read(tmp_path / "a.jpg").pixels.shape == coffee.shape


@pytest.mark.parametrize("missing", [2, 100, 3000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_end_is_missing_is_read_as_far_as_it_goes(tmp_path, coffee, missing, progressive):
    Image.fromarray(coffee).save(tmp_path / "a.jpg", quality=90, progressive=progressive)
    whole = decoding.read(tmp_path / "a.jpg").pixels
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-missing])
    cut = decoding.read(tmp_path / "cut.jpg")
    assert cut.notes == ("its end is missing; the last rows may be gray",)
    assert metrics.psnr(cut.pixels[:300], whole[:300]) > 30


@pytest.mark.parametrize("limit", [1, None])
def test_pillow_s_own_pixel_limit_is_ignored_and_left_alone(tmp_path, coffee, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    Image.fromarray(coffee).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decoding.read(tmp_path / "a.png").pixels, coffee)
        assert decoding.header(tmp_path / "a.png").width == coffee.shape[1]
    with pytest.raises(PhotoError):
        decoding.read(tmp_path / "broken.png")
    with ThreadPoolExecutor(4) as readers:
        list(readers.map(decoding.read, [tmp_path / "a.png"] * 16))
    assert limit == Image.MAX_IMAGE_PIXELS
