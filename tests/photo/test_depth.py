"""Sixteen bits in, sixteen bits out; colours in the photo's own space."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from qatie_cli import engines
from qatie_cli.enhance.pixels import enhance
from qatie_cli.photo import colour, decoding, encoding, formats
from qatie_cli.photo.content import Photo, to_eight_bit


def _deep(coffee: np.ndarray, channels: int) -> np.ndarray:
    """Values that 8 bit cannot hold."""
    rng = np.random.default_rng(1)
    values = np.dstack([coffee, coffee[..., :1]])[:40, :60].astype(np.uint16) * 257
    values ^= rng.integers(0, 256, values.shape, dtype=np.uint16)
    return np.ascontiguousarray(values[..., :channels])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("source", ["png", "tiff"])
@pytest.mark.parametrize("target", ["png", "tiff"])
def test_sixteen_bits_come_back_exactly(tmp_path, coffee, channels, source, target):
    values = _deep(coffee, channels)
    path = tmp_path / f"a.{source}"
    if source == "png":
        path.write_bytes(imagecodecs.png_encode(values[..., 0] if channels == 1 else values))
    elif channels == 2:
        pytest.skip("Pillow opens no 16-bit gray TIFF with alpha")
    else:
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(path, values[..., 0] if channels == 1 else values, photometric=None, extrasamples=extra)
    read = decoding.read(path)
    assert read.pixels.dtype == np.uint16
    assert np.array_equal(read.pixels, values[..., : 3 if channels > 2 else 1])
    assert (read.alpha is not None) == (channels in (2, 4))
    out = tmp_path / f"b{formats.FORMATS[target][0]}"
    encoding.write(out, read, target)
    if channels == 2 and target == "tiff":
        written = tifffile.imread(out)
        assert np.array_equal(written, values)
        return
    again = decoding.read(out)
    assert np.array_equal(again.pixels, read.pixels)
    assert (again.alpha is None) == (read.alpha is None)
    if read.alpha is not None:
        assert np.array_equal(again.alpha, read.alpha)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiffs_of_all_kinds_are_read(tmp_path, coffee, compression, planar, order):
    values = _deep(coffee, 3)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, compression=compression, byteorder=order
    )
    assert np.array_equal(decoding.read(tmp_path / "a.tif").pixels, values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sixteen_bit_tiffs_come_out_upright(tmp_path, coffee, orientation):
    values = _deep(coffee, 3)
    small = to_eight_bit(values)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(small).save(tmp_path / "b.png", exif=tags)
    deep, plain = decoding.read(tmp_path / "a.tif").pixels, decoding.read(tmp_path / "b.png").pixels
    assert np.array_equal(to_eight_bit(deep), plain)


def test_a_deep_photo_in_a_shallow_format_is_announced(coffee):
    photo = Photo(_deep(coffee, 3), "png")
    assert encoding.left_out(photo, "jpeg") == ("written as 8-bit",)
    assert encoding.left_out(photo, "tiff") == ()


def test_white_is_zero_is_no_negative(tmp_path):
    ramp = np.arange(0, 64 * 1000, 250, dtype=np.uint16).reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - ramp, photometric="miniswhite")
    assert np.array_equal(decoding.read(tmp_path / "a.tif").pixels[..., 0], ramp)


def test_a_lossless_webp_stays_lossless(tmp_path, coffee):
    for lossless in (True, False):
        Image.fromarray(coffee).save(tmp_path / "a.webp", lossless=lossless)
        read = decoding.read(tmp_path / "a.webp")
        assert read.lossless == lossless
        encoding.write(tmp_path / "b.webp", read, "webp")
        assert np.array_equal(decoding.read(tmp_path / "b.webp").pixels, read.pixels) == lossless


# --- colours ------------------------------------------------------------------------------------------------------


def test_srgb_by_another_name_needs_no_conversion():
    assert colour.of_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) is None
    assert colour.of_profile(None) is None
    assert colour.of_profile(b"no profile at all" * 10) is None
    assert colour.of_profile(imagecodecs.cms_profile("adobergb")) is not None


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_photo_in_adobe_rgb_comes_out_as_its_srgb_version_does(depth, weights, coffee):
    engine = engines.load(weights, "auto")
    space = colour.of_profile(imagecodecs.cms_profile("adobergb"))
    srgb = coffee.astype(np.uint16) * 257
    own = space.from_srgb(srgb) if depth == np.uint16 else to_eight_bit(space.from_srgb(srgb))
    wanted = enhance(coffee, engine).astype(int)
    as_srgb = space.to_srgb(enhance(own, engine, colours=space)) / (257 if depth == np.uint16 else 1)
    ignored = space.to_srgb(enhance(own, engine)) / (257 if depth == np.uint16 else 1)
    # The two photos differ by their rounding to 8 bit, which random weights make larger.
    assert np.abs(as_srgb - wanted).mean() < 2.5
    assert np.abs(as_srgb - wanted).mean() < 0.5 * np.abs(ignored - wanted).mean()


def test_colours_outside_srgb_are_kept(weights):
    """A green that sRGB cannot hold must not be clipped to one that it can."""
    engine = engines.load(weights, "auto")
    space = colour.of_profile(imagecodecs.cms_profile("adobergb"))
    photo = np.full((64, 64, 3), (40, 200, 60), np.uint8)
    clipped = space.from_srgb(space.to_srgb(photo))
    assert np.abs(clipped.astype(int) - photo).max() > 10
    assert np.array_equal(enhance(photo, engine, 0.0, colours=space), photo)
    change = enhance(photo, engine, 1e-6, colours=space).astype(int) - photo
    assert np.abs(change).max() <= 1


def test_tiles_do_not_show_in_a_converted_photo(weights, coffee):
    engine = engines.load(weights, "auto")
    space = colour.of_profile(imagecodecs.cms_profile("adobergb"))
    whole, tiled = (enhance(coffee, engine, tile_side=side, colours=space).astype(int) for side in (None, 200))
    assert np.abs(whole - tiled).max() <= 1
