"""HDR gain maps travel: decoded by libultrahdr before and after, they show the same photo, enhanced."""

from __future__ import annotations

import dataclasses
import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from qatie_cli.batch.running import Writing
from qatie_cli.photo import containers, decoding, encoding, leftovers, spaces
from qatie_cli.photo.beside import dialects, jpeg_file, ultra_hdr
from qatie_cli.photo.beside.gain_map import Boost, GainMap, linear
from qatie_cli.photo.content import Photo

APPLE_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<r:Description xmlns:H="http://ns.apple.com/HDRGainMap/1.0/"><H:HDRGainMapVersion>131072</H:HDRGainMapVersion>'
    b"<H:HDRGainMapHeadroom>4.0</H:HDRGainMapHeadroom></r:Description></r:RDF></x:xmpmeta>"
)


@pytest.fixture(scope="module")
def ultra(coffee) -> bytes:
    """An Ultra HDR JPEG as libultrahdr makes it of a photo whose bright places are up to four times SDR white."""
    light = linear(coffee[:240, :320] / 255).astype(np.float32)
    light = np.concatenate([light * (1 + 3 * light), np.ones_like(light[..., :1])], axis=2)
    return imagecodecs.ultrahdr_encode(light.astype(np.float16), gamut=0, transfer=0)


def _shown(content: bytes) -> np.ndarray:
    """What an HDR screen shows, (H, W, 3) in linear light, by libultrahdr."""
    return imagecodecs.ultrahdr_decode(content)[..., :3].astype(np.float32)


def _log_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in the logarithm of light, over the range from black to the brightest place."""
    a, b = (np.log2(np.maximum(light, 0) + 1 / 64) for light in (a, b))
    return float(20 * np.log10((b.max() + 6) / np.sqrt(np.mean((a - b) ** 2))))


def _map_of(base: np.ndarray, times: int, offset: float) -> GainMap:
    """A map of one channel, so many times smaller than its base, which boosts bright places by up to two stops."""
    light = linear(base / 255).mean(axis=2, keepdims=True).astype(np.float32)
    height, width = (size // times for size in base.shape[:2])
    stops = 2 * light.reshape(height, times, width, times, 1).mean(axis=(1, 3)) ** 0.5
    boost = Boost((0.0,), (2.0,), (1.0,), (offset,), (offset,), 0.0, 2.0)
    plain = GainMap(boost.values(stops), boost)
    return dataclasses.replace(plain, encoded=ultra_hdr.encoded(plain))


def _encoded(light: np.ndarray) -> np.ndarray:
    """sRGB's values of linear light."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _jpeg(values: np.ndarray, packet: bytes = b"", *segments: tuple[int, bytes]) -> bytes:
    made = io.BytesIO()
    Image.fromarray(values).save(made, "JPEG", quality=98, xmp=packet, extra=containers.jpeg_segments(None, segments))
    return made.getvalue()


def _with_orientation(content: bytes, orientation: int) -> bytes:
    block = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    return content[:2] + containers.jpeg_segments(None, ((0xE1, block),)) + content[2:]


# --- Ultra HDR ----------------------------------------------------------------------------------------------------


def test_a_map_is_read_with_both_descriptions_and_they_agree(ultra):
    photo = decoding.read(ultra)
    assert photo.notes == ()
    first = jpeg_file.picture(ultra)
    (part,) = jpeg_file.behind(ultra, first)
    (block,) = part.picture.payloads(0xE2, dialects.ISO)
    of_iso, of_xmp = dialects.of_iso(block), dialects.of_hdrgm(part.picture.xmp())
    found = [boost for boost in (of_iso, of_xmp) if boost is not None]
    assert photo.gain_map.boost == found[0]
    for boost in found:
        assert boost.maximum == pytest.approx(photo.gain_map.boost.maximum, abs=1e-3)
        assert boost.hdr_headroom == pytest.approx(photo.gain_map.boost.hdr_headroom, abs=1e-3)


def test_a_map_that_need_not_change_stays_byte_for_byte(ultra):
    photo = decoding.read(ultra)
    written = encoding.encoded(photo, "jpeg")
    again = decoding.read(written)
    assert np.array_equal(again.gain_map.values, photo.gain_map.values)
    assert again.gain_map.boost.maximum == pytest.approx(photo.gain_map.boost.maximum, abs=1e-5)
    assert _log_psnr(_shown(written), _shown(ultra)) > 40
    assert b"hdrgm:Version" in again.gain_map.encoded
    with Image.open(io.BytesIO(written)) as opened:
        assert (opened.format, opened.size) == ("JPEG", (320, 240))


@pytest.mark.parametrize("gamma", [0.6, 1.5])
def test_the_hdr_picture_changes_by_the_ratio_that_the_base_changes_by(coffee, gamma):
    base = coffee[:240, :320]
    photo = Photo(base, "jpeg", gain_map=_map_of(base, 4, 0))
    after = np.rint(255 * (base / 255) ** gamma).astype(np.uint8)
    changed = photo.with_pixels(after)
    assert changed.gain_map is photo.gain_map
    stops = photo.gain_map.boost.stops(photo.gain_map.values).repeat(4, axis=0).repeat(4, axis=1)
    before = photo.gain_map.hdr(linear(base / 255), stops)
    wanted = before * np.maximum(linear(after / 255), 1 / 4096) / np.maximum(linear(base / 255), 1 / 4096)
    assert _log_psnr(changed.gain_map.hdr(linear(after / 255), stops), wanted) > 50
    shown = _shown(encoding.encoded(dataclasses.replace(changed, jpeg=None), "jpeg", 100))
    assert _log_psnr(shown, wanted) > 35  # JPEG's losses and the interpolation of the map included


@pytest.mark.parametrize("shadows", [0.5, 2, 4])
def test_dark_places_with_a_boost_change_as_a_tone_curve_changes_their_hdr_light(coffee, shadows):
    """An HDR picture below SDR white can be enhanced by itself: what its map shows must be nearest to that."""

    def toned(light: np.ndarray) -> np.ndarray:
        return light * shadows / (1 + (shadows - 1) * light)  # shadows become so many times as bright, white stays

    base = coffee[:240, :320]
    before = linear(base / 255)
    after = toned(before)
    gain_map = _map_of(base, 4, 1 / 64)
    stops = gain_map.boost.stops(gain_map.values).repeat(4, axis=0).repeat(4, axis=1)
    light = gain_map.hdr(before, stops)
    enhanced = toned(np.minimum(light, 1))
    followed = gain_map.following(*(np.rint(65535 * _encoded(linear)).astype(np.uint16) for linear in (before, after)))
    assert followed.encoded is gain_map.encoded
    assert followed.values is gain_map.values
    dark = (before < 1 / 16) & (light < 0.5) & (light > 1.15 * before)

    def error(shown: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.log2((shown + 1 / 64) / (enhanced + 1 / 64))[dark] ** 2)))

    by_ratio = light * np.maximum(after, 1 / 4096) / np.maximum(before, 1 / 4096)
    assert dark.mean() > 0.05
    assert error(followed.hdr(after, stops)) < 0.95 * min(error(gain_map.hdr(after, stops)), error(by_ratio))


def test_offsets_that_are_damaged_or_measured_in_black_are_no_reason_to_fail(coffee):
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    for boost in (_map_of(coffee[:40, :60], 4, 1 / 64).boost, Boost(sdr_offset=(999.0,), hdr_offset=(-999.0,))):
        gain_map = GainMap(coffee[:10, :15, :1], boost)
        for before, after in ((black, white), (white, black), (black + 1, white), (coffee[:40, :60], black)):
            followed = gain_map.following(before, after).boost
            assert np.isfinite((*followed.sdr_offset, *followed.hdr_offset)).all()


def test_offsets_are_scaled_as_shadows_are_so_that_a_coarse_map_need_not_change(coffee):
    light = 0.001 + linear(coffee[:240, :320] / 255) / 2
    before, after = (np.rint(65535 * _encoded(exposed)).astype(np.uint16) for exposed in (light, 1.5 * light))
    boost = Boost((0.0,), (2.0,), (1.0,), (1 / 64,), (1 / 64,), 0.0, 2.0)
    values = boost.values(2 * light[::4, ::4].mean(axis=2, keepdims=True).astype(np.float32) ** 0.5)
    plain = GainMap(values, boost)
    photo = Photo(before, "jpeg", gain_map=dataclasses.replace(plain, encoded=ultra_hdr.encoded(plain)))
    changed = photo.with_pixels(after).gain_map
    assert np.array_equal(changed.values, photo.gain_map.values)
    assert changed.encoded == photo.gain_map.encoded
    assert (*changed.boost.sdr_offset, *changed.boost.hdr_offset) == pytest.approx((1.5 / 64,) * 2, rel=0.02)
    stops = boost.stops(values).repeat(4, axis=0).repeat(4, axis=1)
    wanted = 1.5 * photo.gain_map.hdr(light, stops)
    assert _log_psnr(changed.hdr(1.5 * light, stops), wanted) > 60
    assert _log_psnr(photo.gain_map.hdr(1.5 * light, stops), wanted) < 45


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_the_map_turns_with_the_photo(ultra, orientation):
    written = encoding.encoded(decoding.read(_with_orientation(ultra, orientation)), "jpeg")
    turned = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a, -1)}[orientation]
    assert _log_psnr(_shown(written), turned(_shown(ultra))) > 40


def test_three_channels_and_boosts_below_one_come_back(coffee):
    boost = Boost((-0.5, 0.0, 0.25), (1.5, 2.0, 2.5), (1.0, 0.9, 1.2), (0.01, 0.02, 0.03), (0.01, 0.02, 0.03), 0.0, 2.0)
    gain_map = GainMap(coffee[100:160, 100:180], boost)
    again = decoding.read(encoding.encoded(Photo(coffee, "png", gain_map=gain_map), "jpeg")).gain_map
    assert again.values.shape == (60, 80, 3)
    for name in ("minimum", "maximum", "gamma", "sdr_offset", "hdr_offset"):
        assert getattr(again.boost, name) == pytest.approx(getattr(boost, name), abs=1e-5)
    assert dialects.of_hdrgm(dialects.as_hdrgm(boost)) == boost
    read = dialects.of_iso(dialects.as_iso(dataclasses.replace(boost, in_base_colours=False)))
    assert not read.in_base_colours


def test_the_directory_and_the_index_name_the_map_s_place(ultra):
    photo = dataclasses.replace(decoding.read(ultra), xmp=None)
    written = encoding.encoded(photo, "jpeg")
    first = jpeg_file.picture(written)
    (part,) = jpeg_file.behind(written, first)
    length = part.end - part.start
    assert f'Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="{length}"'.encode() in first.xmp()
    at = written.index(b"MPF\0") + 4
    size, offset = struct.unpack(">II", written[at + 50 + 16 + 4 : at + 50 + 16 + 12])
    assert (at + offset, size) == (part.start, length)


def test_metadata_of_the_photo_stay_beside_the_directory(ultra):
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:dc="d" dc:title="Coffee"/></rdf:RDF></x:xmpmeta>'
    )
    photo = dataclasses.replace(decoding.read(ultra), xmp=packet)
    again = decoding.read(encoding.encoded(photo, "jpeg"))
    assert again.xmp.count(b"dc:title") == 1
    assert b"Container" not in again.xmp.replace(b"xmlns:Container", b"")


# --- Apple --------------------------------------------------------------------------------------------------------


def test_apple_s_map_becomes_one_that_gives_the_same_light(coffee):
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None], 16, axis=0)
    photo = decoding.read(_jpeg(coffee[:160, :256]) + _jpeg(levels, APPLE_XMP))
    assert photo.notes == ()
    decoded = np.asarray(Image.open(io.BytesIO(_jpeg(levels, APPLE_XMP))))
    encoded = decoded / 255
    light = np.where(encoded < 0.081, encoded / 4.5, ((encoded + 0.099) / 1.099) ** (1 / 0.45))
    boosts = photo.gain_map.boost.stops(photo.gain_map.values)[..., 0]
    assert np.abs(boosts - np.log2(1 + 3 * light)).max() < 2 / 255  # a rounding step of 2 stops in 8 bit
    assert _shown(encoding.encoded(photo, "jpeg")).max() > 2


def test_apple_s_older_maps_take_their_headroom_from_the_maker_note():
    def block(headroom: float, gain: float) -> bytes:
        values = struct.pack(">iiii", round(headroom * 1000), 1000, round(gain * 1000), 1000)
        note = b"Apple iOS\0\0\1MM\0\2" + struct.pack(">HHIIHHII", 0x21, 10, 1, 44, 0x30, 10, 1, 52) + bytes(4) + values
        head = b"MM\0*" + struct.pack(">IHHHIII", 8, 1, 0x8769, 4, 1, 26, 0)
        return head + struct.pack(">HHHIII", 1, 0x927C, 7, len(note), 44, 0) + note

    packet = APPLE_XMP.replace(b"<H:HDRGainMapHeadroom>4.0</H:HDRGainMapHeadroom>", b"")
    for headroom, gain, stops in [(0.5, 0, 1.8), (0.5, 1, 1.5), (1.5, 0, 3.0), (1.5, 1, 2.0)]:
        assert np.log2(dialects.apple_headroom(packet, block(headroom, gain))) == pytest.approx(stops)
    assert dialects.apple_headroom(packet, None) is None
    assert dialects.apple_headroom(APPLE_XMP, None) == 4


# --- HEIC and AVIF ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["heic", "avif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_heic_and_avif_hold_the_map_as_an_item_of_their_own(coffee, fmt, channels):
    count = 3 if channels == 3 else 1
    boost = Boost((-0.5, 0.0, 0.25)[:count], (2.0,) * count, (1.0,) * count, (0.0,) * count, (0.0,) * count, 0.0, 2.0)
    photo = Photo(coffee[:150, :210], "png", gain_map=GainMap(coffee[200:270, 100:190, :channels], boost))
    plain = decoding.read(encoding.encoded(photo.without(gain_map=True), fmt))
    assert encoding.left_out(photo, fmt) == ()
    written = encoding.encoded(photo, fmt)
    again = decoding.read(written)
    assert leftovers.GAIN_MAP not in again.notes
    assert np.array_equal(again.pixels, plain.pixels)
    assert again.gain_map.values.shape == (70, 90, channels)
    assert np.abs(again.gain_map.values.astype(int) - photo.gain_map.values).mean() < 4
    for name in ("minimum", "maximum", "gamma", "sdr_offset", "hdr_offset"):
        assert getattr(again.gain_map.boost, name) == pytest.approx(getattr(boost, name), abs=1e-5)
    first = encoding.encoded(photo.without(gain_map=True), fmt)
    assert written[-len(dialects.as_iso(boost)) :] == dialects.as_iso(boost)
    assert len(written) > len(first)


@pytest.mark.parametrize("fmt", ["heic", "avif"])
@pytest.mark.parametrize("primaries", [9, 12])
def test_boosts_in_the_hdr_picture_s_colours_keep_them(coffee, fmt, primaries):
    space = spaces.of_codes(primaries, 13)
    boost = dataclasses.replace(Boost(), in_base_colours=False)
    gain_map = GainMap(coffee[:20, :30], boost)
    photo = Photo(coffee[:80, :120].astype(np.uint16) * 257, "png", space=space, gain_map=gain_map)  # named by codes
    again = decoding.read(encoding.encoded(photo, fmt))
    assert again.notes == ()
    assert not again.gain_map.boost.in_base_colours
    assert again.gain_map.icc == spaces.profile(space)


def test_libavif_reads_the_map_s_description(coffee):
    """It refuses a file whose description is damaged, so it has read it in one that it opens."""
    photo = Photo(coffee[:80, :120], "png", gain_map=GainMap(coffee[:20, :30, :1], Boost()))
    written = encoding.encoded(photo, "avif")
    Image.open(io.BytesIO(written)).load()
    block = dialects.as_iso(Boost())
    damaged = written.replace(block, block[:-4] + bytes(4))  # a fraction of zero parts
    with pytest.raises((OSError, ValueError, RuntimeError)):
        Image.open(io.BytesIO(damaged)).load()


def test_a_photo_with_a_map_keeps_exif_xmp_and_transparency_in_heic_and_avif(coffee):
    alpha = np.full((80, 120), 255, np.uint8)
    alpha[:40] = 100
    block = b"MM\0*" + struct.pack(">IHHHI4sI", 8, 1, 0x010F, 2, 4, b"abc\0", 0)
    gain_map = GainMap(coffee[:20, :30, :1], Boost())
    photo = Photo(coffee[:80, :120], "png", alpha, block, xmp=b"<x:xmpmeta>x</x:xmpmeta>", gain_map=gain_map)
    for fmt in ("heic", "avif"):
        again, plain = (decoding.read(encoding.encoded(p, fmt)) for p in (photo, photo.without(gain_map=True)))
        assert again.gain_map is not None
        assert again.exif == plain.exif
        assert b"<x:xmpmeta>x" in again.xmp
        assert np.abs(again.alpha.astype(int) - alpha).mean() < 2


# --- what does not travel, and damage -----------------------------------------------------------------------------


def test_formats_without_a_place_for_it_say_so_and_the_owner_may_leave_it_out(ultra):
    photo = decoding.read(ultra)
    assert encoding.left_out(photo, "jpeg") == ()
    for fmt in ("png", "webp", "tiff"):
        assert any(leftovers.GAIN_MAP in note for note in encoding.left_out(photo, fmt))
    for writing in (Writing(no_hdr=True), Writing(strip_metadata=True)):
        assert encoding.left_out(writing.prepared(photo), "png") == ()
        written = encoding.encoded(writing.prepared(photo), "jpeg")
        assert b"hdrgm" not in written
        assert b"MPF\0" not in written
        assert decoding.read(written).notes == ()


@pytest.mark.parametrize("name", ["gamma", "sdr_offset", "hdr_headroom"])
def test_a_number_that_a_written_map_cannot_hold_is_refused_when_it_is_read(name):
    huge = 1e12 if name == "hdr_headroom" else (1e12,)
    with pytest.raises(ValueError, match="out of range"):
        Boost(**{name: huge})


def test_a_map_without_a_description_is_named(coffee):
    packet = b'<x xmlns:g="http://ns.adobe.com/hdr-gain-map/1.0/" g:Version="1.0"/>'
    photo = decoding.read(_jpeg(coffee[:80, :120]) + _jpeg(coffee[:20, :30], packet))
    assert photo.notes == (leftovers.GAIN_MAP,)


@pytest.mark.parametrize(
    "block",
    [b"\0\0\0\0\x40" + bytes(56), b"\0\0\0\0\x40" + b"\x7f" * 56, b"\0\0\0\0\x40\0\0", b"\0\1\0\1\x40" + bytes(56)],
)
def test_a_damaged_description_is_no_reason_to_refuse_the_photo(coffee, block):
    second = _jpeg(coffee[:20, :30], b"", (0xE2, dialects.ISO + block))
    photo = decoding.read(_jpeg(coffee[:80, :120]) + second)
    assert photo.gain_map is None
    assert photo.notes == (leftovers.GAIN_MAP,)


def test_a_map_far_larger_than_its_photo_is_not_decoded(coffee, monkeypatch):
    second = ultra_hdr.encoded(GainMap(np.zeros((400, 400, 1), np.uint8), Boost()))
    photo = decoding.read(_jpeg(coffee[:80, :120]) + second)
    assert photo.gain_map is None
    assert photo.notes == (leftovers.GAIN_MAP,)


# --- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("hdr/pixel6pro-ultrahdr-05.jpg", (768, 1020, 1)),
        ("hdr/assets_examples_iphone_15_pro.heic", (2016, 1512, 1)),
        ("odd/avif/apple_gainmap_old.jpg", (256, 192, 1)),
        ("odd/avif/seine_sdr_gainmap_srgb.avif", (300, 400, 3)),
        ("odd/avif/paris_exif_xmp_gainmap_bigendian.jpg", (384, 512, 1)),
    ],
)
def test_maps_of_phones_and_of_other_programs_become_ultra_hdr(shared, name, size):
    photo = decoding.read(shared / "realworld" / name)
    assert leftovers.GAIN_MAP not in photo.notes
    assert photo.gain_map.values.shape == size
    written = encoding.encoded(photo, "jpeg")
    assert decoding.read(written).gain_map.values.shape == size
    height, width = photo.pixels.shape[:2]
    stops = photo.gain_map.boost.stops(photo.gain_map.values)
    large = [np.asarray(Image.fromarray(stops[..., c]).resize((width, height), 2)) for c in range(stops.shape[2])]
    wanted = photo.gain_map.hdr(linear(photo.rgb_u8() / np.float32(255)).astype(np.float32), np.dstack(large))
    assert _log_psnr(_shown(written), wanted) > 40
