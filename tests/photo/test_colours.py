"""Colour spaces that files name otherwise than by a profile, and pictures of more than 8 bit or more than white."""

import dataclasses
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pillow_heif
import pytest
from PIL import Image, JpegImagePlugin

from qatie_cli import engines, metrics
from qatie_cli.enhance.photos import Enhancer
from qatie_cli.photo import colour, containers, decoding, encoding, fitting, formats, hdr, spaces
from qatie_cli.photo.content import Photo

P3, BT2020_PQ, BT2020_HLG = (spaces.of_codes(*codes) for codes in ((12, 13), (9, 16), (9, 18)))
ALL_FORMATS = ("jpeg", "png", "webp", "tiff", "heic", "avif")


@pytest.fixture(scope="module")
def small(coffee):
    """A part of it: encoders of AVIF take their time."""
    return np.ascontiguousarray(coffee[100:228, 200:392])


def srgb_of(values, space):
    """sRGB (float, 0..1) of values (float) in a space, by the definitions of both."""
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = linear if space.curve == "srgb" else values**space.curve
    back = np.linalg.inv(spaces.to_xyz(spaces.of_codes(1, 13)))
    linear = np.clip(linear @ (back @ spaces.to_xyz(space)).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def managed(photo):
    """sRGB (float, 0..1) of a photo as a program sees it that knows profiles only."""
    values = photo.rgb()
    wide = values if values.dtype == np.uint16 else values.astype(np.uint16) * 257
    colours = colour.of_profile(photo.icc)
    return (wide if colours is None else colours.to_srgb(wide)) / 65535


def png(pixels, *chunks):
    """A PNG file with chunks behind its header."""
    content = imagecodecs.png_encode(pixels)
    return content[:33] + b"".join(containers.png_chunk(*chunk) for chunk in chunks) + content[33:]


def gama(gamma):
    return b"gAMA", struct.pack(">I", round(100_000 / gamma))


def chrm(primaries, white=spaces.D65):
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in (*white, *primaries)))


def dcf_exif(order="<", colour_space=65535, index=b"R03\x00"):
    """An EXIF block with ColorSpace and an interoperability directory."""
    o = order
    interoperability = struct.pack(o + "H", 1) + struct.pack(o + "HHI", 1, 2, 4) + index + struct.pack(o + "I", 0)
    exif_at, inter_at = 26, 26 + 2 + 24 + 4
    exif = struct.pack(o + "H", 2) + struct.pack(o + "HHIHH", 0xA001, 3, 1, colour_space, 0)
    exif += struct.pack(o + "HHII", 0xA005, 4, 1, inter_at) + struct.pack(o + "I", 0)
    first = struct.pack(o + "H", 1) + struct.pack(o + "HHII", 0x8769, 4, 1, exif_at) + struct.pack(o + "I", 0)
    head = (b"II*\x00" if o == "<" else b"MM\x00*") + struct.pack(o + "I", 8)
    return head + first + exif + interoperability


def jpeg(pixels, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95, subsampling=0, **options)
    return content.getvalue()


# --- spaces -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(12, 13), (9, 1), (1, 8), (11, 13), (6, 4)])
def test_a_profile_means_what_its_space_means(codes):
    space = spaces.of_codes(*codes)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 65535, 9)] * 3), -1).reshape(1, -1, 3).astype(np.uint16)
    lab = imagecodecs.cms_transform(
        grid, spaces.profile(space), imagecodecs.cms_profile("xyz"), colorspace="rgb", outcolorspace="xyz", intent=1
    )
    linear = grid / 65535
    linear = linear**space.curve if not isinstance(space.curve, str) else hdr._srgb_decoded(linear)
    own = linear @ spaces.to_xyz(space).T
    # Both tell lightness apart alike: Y is the same before and after adaptation for grays, near it for colours.
    gray = (grid[0, :, 0] == grid[0, :, 1]) & (grid[0, :, 1] == grid[0, :, 2])
    assert np.abs(lab[0, gray, 1] / 32768 - own[0, gray, 1]).max() < 0.002


def test_lcms_own_adobe_rgb_is_ours():
    grid = np.random.default_rng(0).integers(0, 65536, (1, 4096, 3)).astype(np.uint16)
    seen = [
        colour.of_profile(profile).to_srgb(grid).astype(int)
        for profile in (imagecodecs.cms_profile("adobergb"), spaces.profile(spaces.DCF_ADOBE_RGB))
    ]
    assert np.abs(seen[0] - seen[1]).max() < 65535 / 1000


@pytest.mark.parametrize("codes", [(1, 13), (2, 2), (1, 1), (1, 6), (0, 0), (3, 13), (200, 13), (12, 99)])
def test_codes_of_srgb_and_of_nothing_name_no_space(codes):
    found = spaces.of_codes(*codes)
    assert found is None or found.is_srgb


@pytest.mark.parametrize("primaries", [(0, 0, 0, 0, 0, 0), (0.6, 0.3, 0.6, 0.3, 0.15, 0.06), (9, 9, 0.3, 0.6, 0.1, 0)])
def test_chromaticities_that_make_no_sense_are_ignored(small, primaries):
    assert decoding.read(png(small, gama(2.2), chrm(primaries))).space is None
    assert decoding.read(png(small, gama(2.2), chrm(spaces.BT709, (0, 0)))).space is None


# --- what files declare -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ALL_FORMATS)
@pytest.mark.parametrize("source", ["avif", "heic"])
def test_p3_by_nclx_stays_p3_in_every_format(tmp_path, small, source, fmt):
    photo = Photo(small, "png", space=P3)
    read = decoding.read(encoding.encoded(photo, "heic", 100))
    if source == "avif":
        content = imagecodecs.avif_encode(
            small, level=100, speed=9, pixelformat="yuv444", primaries=12, transfer=13, matrix=6
        )
        read = decoding.read(content)
    assert read.icc == spaces.profile(P3)
    assert read.space.codes == (12, 13)
    again = decoding.read(encoding.encoded(read, fmt, 100))
    wanted = srgb_of(read.pixels / 255, P3)
    assert metrics.ciede2000(managed(again), wanted) < (0.1 if fmt in ("png", "tiff") else 1.2)
    assert metrics.ciede2000(again.rgb() / 255, wanted) > 2  # as if it were sRGB


def test_a_png_s_gamma_and_chromaticities_count(small):
    linear = np.rint(hdr._srgb_decoded(small / 255) * 255).astype(np.uint8)
    for pixels, chunks, space in (
        (linear, (gama(1),), spaces.Space(spaces.BT709, spaces.D65, 1.0)),
        (small, (gama(2.2), chrm(spaces.ADOBE_RGB)), spaces.Space(spaces.ADOBE_RGB, spaces.D65, 2.2)),
    ):
        photo = decoding.read(png(pixels, *chunks))
        wanted = srgb_of(pixels / 255, space)
        for fmt in ("jpeg", "png", "tiff"):
            again = decoding.read(encoding.encoded(photo, fmt, 100))
            assert metrics.ciede2000(managed(again), wanted) < 0.5, (space, fmt)
        assert metrics.ciede2000(pixels / 255, wanted) > 2
        kept = decoding.read(encoding.encoded(photo, "png"))
        assert np.array_equal(kept.pixels, pixels)
        assert kept.png_chunks == photo.png_chunks


def test_a_gray_png_s_gamma_counts(small):
    gray = np.ascontiguousarray(small[..., 1])
    photo = decoding.read(png(gray, gama(1)))
    assert photo.icc[16:20] == b"GRAY"
    assert colour.of_photo(photo) is not None
    again = decoding.read(encoding.encoded(photo, "jpeg", 100))
    wanted = srgb_of(np.repeat(gray[..., None], 3, 2) / 255, spaces.Space(spaces.BT709, spaces.D65, 1.0))
    assert metrics.ciede2000(again.rgb() / 255, wanted) < 0.5


def test_a_png_that_says_srgb_is_srgb(small):
    wide = chrm(spaces.ADOBE_RGB)
    assert decoding.read(png(small, (b"sRGB", b"\0"), gama(2.2), wide)).space is None
    assert decoding.read(png(small, gama(2.2))).space is None
    assert decoding.read(png(small, wide)).space is None  # without a gamma it says too little
    profile = spaces.profile(spaces.DCF_ADOBE_RGB)
    photo = decoding.read(png(small, (b"iCCP", b"a\0\0" + zlib.compress(profile)), gama(1)))
    assert photo.icc == profile
    assert photo.space is None


def test_cicp_comes_before_a_profile(small):
    profile = (b"iCCP", b"a\0\0" + zlib.compress(spaces.profile(spaces.DCF_ADOBE_RGB)))
    photo = decoding.read(png(small, (b"cICP", bytes([12, 13, 0, 1])), profile))
    assert photo.space.codes == (12, 13)
    assert photo.icc == spaces.profile(P3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_adobe_rgb_by_dcf_is_seen_and_said(small, order):
    content = jpeg(small, exif=b"Exif\0\0" + dcf_exif(order))
    photo = decoding.read(content)
    assert photo.icc == spaces.profile(spaces.DCF_ADOBE_RGB)
    assert decoding.read(encoding.encoded(photo, "jpeg")).icc == photo.icc
    for block in (dcf_exif(order, index=b"R98\x00"), dcf_exif(order, 1, b"R98\x00"), dcf_exif(order)[:40]):
        assert decoding.read(jpeg(small, exif=b"Exif\0\0" + block)).icc is None
    own = spaces.profile(P3)
    assert decoding.read(jpeg(small, exif=b"Exif\0\0" + dcf_exif(order), icc_profile=own)).icc == own


def test_a_declared_space_is_enhanced_as_its_profile_is(weights, small):
    enhancer = Enhancer(engines.load(weights, "auto"))
    declared = decoding.read(jpeg(small, exif=b"Exif\0\0" + dcf_exif()))
    profiled = decoding.read(jpeg(small, icc_profile=spaces.profile(spaces.DCF_ADOBE_RGB)))
    assert np.array_equal(enhancer(declared).pixels, enhancer(profiled).pixels)
    assert not np.array_equal(enhancer(declared).pixels, enhancer(decoding.read(jpeg(small))).pixels)


# --- 10 and 12 bit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["heic", "avif"])
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_ten_and_twelve_bits_come_back(small, fmt, bits, channels):
    ramp = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    pixels = np.repeat(ramp[..., None], 1 if channels == 1 else 3, axis=2)
    alpha = ramp[::-1].copy() if channels == 4 else None
    profile = None if channels == 1 else imagecodecs.cms_profile("adobergb")
    exif = dcf_exif(index=b"R98\x00")
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'
    photo = Photo(pixels, "png", alpha, exif=exif, icc=profile, xmp=packet, bits=bits)
    content = encoding.encoded(photo, fmt, 100)
    again = decoding.read(content)
    assert (again.bits, again.pixels.dtype, again.pixels.shape) == (bits, np.uint16, pixels.shape)
    assert again.pixels.max() == 65535
    assert len(np.unique(again.pixels)) > 600  # of 256 steps that 8 bit has
    assert np.abs(again.pixels.astype(int) - pixels).mean() < 65535 / 800
    assert (again.alpha is None) == (alpha is None)
    if alpha is not None:
        assert np.abs(again.alpha.astype(int) - alpha).mean() < 65535 / 800
    assert (again.exif, again.icc, again.xmp) == (exif, profile, packet)
    assert not again.notes
    with Image.open(io.BytesIO(content)) as other:  # another reader
        assert other.info.get("xmp") == packet
        assert other.info.get("icc_profile") == profile
        assert other.getexif()[0x8769] or other.getexif().get_ifd(0x8769)
    if fmt == "avif":
        assert imagecodecs.avif_decode(content).shape[:2] == (64, 96)


@pytest.mark.parametrize("fmt", ["heic", "avif"])
def test_a_16_bit_photo_becomes_10_bit_and_that_is_said(small, fmt):
    photo = Photo(small.astype(np.uint16) * 257, "png")
    assert encoding.left_out(photo, fmt) == ("written as 10-bit",)
    assert decoding.read(encoding.encoded(photo, fmt)).bits == 10
    deep = decoding.read(encoding.encoded(photo, fmt))
    assert encoding.left_out(deep, fmt) == ()
    assert encoding.left_out(deep, "jpeg") == ("written as 8-bit",)


@pytest.mark.parametrize("fmt", ["avif", "heic", "webp", "jpeg"])
@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:0"])
def test_chroma_is_as_fine_as_the_source_s(small, fmt, chroma):
    """Chroma of half the width and height alone is a colour difference of 0.1 to 0.2 in this picture."""
    decoding.open_heif()
    content = io.BytesIO()
    options = {"lossless": chroma == "4:4:4"} if fmt == "webp" else {"subsampling": chroma, "quality": 95}
    Image.fromarray(small).save(content, formats.FORMATS[fmt][1], **options)
    photo = decoding.read(content.getvalue())
    assert formats.CHROMA[photo.subsampling] == chroma
    with Image.open(io.BytesIO(encoding.encoded(photo, "jpeg"))) as opened:
        assert formats.CHROMA[JpegImagePlugin.get_sampling(opened)] == chroma
    assert formats.CHROMA[decoding.read(encoding.encoded(photo, "avif")).chroma] == chroma
    deep = dataclasses.replace(photo, pixels=photo.pixels.astype(np.uint16) * 257, bits=10)
    assert formats.CHROMA[decoding.read(encoding.encoded(deep, "avif")).chroma] == chroma
    written = decoding.read(encoding.encoded(photo, "heic"))
    assert formats.CHROMA[written.chroma] == (chroma if fmt == "heic" else "4:2:0")


# --- HDR ----------------------------------------------------------------------------------------------------------


def hdr_photo(space, peak=1000.0, size=(96, 128)):
    """A picture of a ramp up to `peak` nits, with colours."""
    light = np.geomspace(0.5, peak, size[1])[None, :, None] * np.ones((size[0], 1, 3))
    light[:32, :, 0] *= 0.5
    light[32:64, :, 2] *= 0.7
    values = hdr.of_nits(light.astype(np.float32), space)
    pixels = np.rint(values * 65535).astype(np.uint16)
    return decoding.read(encoding.encoded(Photo(pixels, "png", space=space), "png"))


@pytest.mark.parametrize("space", [BT2020_PQ, BT2020_HLG, spaces.of_codes(12, 16)], ids=["pq", "hlg", "p3-pq"])
@pytest.mark.parametrize("fmt", ["png", "heic", "avif"])
def test_hdr_stays_hdr_where_the_format_has_it(space, fmt):
    photo = hdr_photo(space)
    assert photo.space.codes == space.codes
    assert photo.icc is None
    again = decoding.read(encoding.encoded(photo, fmt, 100))
    assert again.space.codes == space.codes
    assert fitting.note(photo, fmt) == ""
    assert np.abs(again.pixels.astype(int) - photo.pixels).mean() < 65535 / 250


@pytest.mark.parametrize("fmt", ["jpeg", "webp", "tiff"])
def test_hdr_is_tone_mapped_where_the_format_has_none_and_that_is_said(fmt):
    photo = hdr_photo(BT2020_PQ)
    assert "HDR" in encoding.left_out(photo, fmt)[0]
    again = decoding.read(encoding.encoded(photo, fmt, 100))
    assert again.space is None
    assert again.icc is None
    row = again.pixels[64:].astype(float).mean(axis=(0, 2)) / np.iinfo(again.pixels.dtype).max
    assert row.max() > 0.95
    assert (np.diff(row) > -0.02).all()  # brighter stays brighter
    light = hdr.to_nits(photo.pixels, photo.space)[64:].mean(axis=(0, 2))
    dark = light < 90
    shown = hdr._srgb_decoded(row[dark]) * hdr.WHITE_NITS
    assert np.abs(shown - light[dark]).max() < 7  # what an ordinary screen can show is as bright as it was


@pytest.mark.parametrize("space", [BT2020_PQ, BT2020_HLG], ids=["pq", "hlg"])
@pytest.mark.parametrize("peak", [203, 600, 1000])
def test_tone_mapping_can_be_undone(space, peak):
    colours = hdr.HdrColours(space, peak)
    srgb = np.random.default_rng(0).integers(0, 65536, (32, 32, 3)).astype(np.uint16)
    assert np.abs(colours.to_srgb(colours.from_srgb(srgb)).astype(int) - srgb).max() < 65535 / 500
    white = hdr.to_nits(colours.from_srgb(np.full((1, 1, 3), 65535, np.uint16)), space)
    assert np.abs(white / peak - 1).max() < 0.02


@pytest.mark.parametrize("space", [BT2020_PQ, BT2020_HLG], ids=["pq", "hlg"])
def test_an_enhanced_hdr_picture_keeps_its_range_and_looks_as_its_ordinary_version_does(space, weights):
    enhancer = Enhancer(engines.load(weights, "auto"))
    photo = hdr_photo(space)
    better = enhancer(photo)
    ordinary = enhancer(fitting.fitted(photo, "jpeg"))
    seen = fitting.fitted(better, "jpeg")
    assert metrics.psnr(seen.rgb_u8(), ordinary.rgb_u8()) > 34
    assert metrics.psnr(seen.rgb_u8(), fitting.fitted(photo, "jpeg").rgb_u8()) < 30  # there was something to do
    assert hdr.to_nits(better.pixels, space).max() > 700
    assert np.array_equal(Enhancer(enhancer.engine, type(enhancer.effect)(0.0))(photo).pixels, photo.pixels)


def test_an_ordinary_picture_with_a_gain_map_is_not_hdr(shared):
    folder = shared / "realworld" / "odd" / "avif"
    assert decoding.read(folder / "seine_sdr_gainmap_srgb.avif").space is None
    assert decoding.read(folder / "seine_hdr_gainmap_small_srgb.avif").space.is_hdr


def test_a_heif_reader_of_another_make_sees_the_same_codes(small):
    content = encoding.encoded(hdr_photo(BT2020_PQ), "heic")
    opened = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False)
    assert opened.info["bit_depth"] == 10
    assert opened.info["nclx_profile"]["color_primaries"] == 9
    assert opened.info["nclx_profile"]["transfer_characteristics"] == 16
