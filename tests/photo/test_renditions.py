"""An HDR picture with a gain map down to SDR keeps both renditions, and both are enhanced alike."""

from __future__ import annotations

import dataclasses
import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from qatie_cli import engines, metrics
from qatie_cli.batch.running import Writing
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.photo import decoding, encoding, hdr, leftovers, spaces
from qatie_cli.photo.beside import dialects, renditions
from qatie_cli.photo.beside.gain_map import Boost, GainMap, linear
from qatie_cli.photo.content import Photo

BOOST = Boost((0.0,), (2.0,), (1.0,), (1 / 64,), (1 / 64,), 0.0, 2.0, base_is_hdr=True)
COLOURED = Boost((-0.2, 0.0, 0.1), (1.0, 2.0, 1.5), (0.9, 1.0, 1.1), (0.01, 0.02, 0.03), (0.02, 0.03, 0.01), 0.5, 2.0)


def _of_both(coffee, primaries=9, boost=BOOST, times=4, channels=1, sdr_space=None) -> Photo:
    """A photo whose SDR rendition is coffee, and whose bright places are up to four times SDR white."""
    base = coffee[:240, :320]
    light = linear(base / 255).astype(np.float32)
    stops = 2 * light.mean(axis=2, keepdims=True) ** 0.5 * np.array([1.0, 0.8, 0.6][:channels], np.float32)
    height, width = (size // times for size in base.shape[:2])
    values = boost.values(stops.reshape(height, times, width, times, channels).mean(axis=(1, 3)))
    gain_map = GainMap(values, boost, sdr_space=sdr_space)
    space = spaces.of_codes(primaries, 16)
    applied = space if boost.in_base_colours else sdr_space
    shown = gain_map.hdr(light, gain_map.boosts(0, *base.shape[:1], *base.shape[:2])) @ hdr.between(applied, space).T
    pixels = np.rint(hdr.of_nits(np.maximum(shown, 0) * hdr.WHITE_NITS, space) * 65535).astype(np.uint16)
    return Photo(pixels, "avif", space=dataclasses.replace(space, peak=800.0), bits=10, gain_map=gain_map)


def _light(photo: Photo) -> np.ndarray:
    return hdr.to_nits(photo.pixels, photo.space) / hdr.WHITE_NITS


def _log_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in the logarithm of light, over the range from black to the brightest place."""
    a, b = (np.log2(np.maximum(light, 0) + 1 / 64) for light in (a, b))
    return float(20 * np.log10((b.max() + 6) / np.sqrt(np.mean((a - b) ** 2))))


# --- the map's description ----------------------------------------------------------------------------------------


def test_the_numbers_of_the_base_come_first_and_boosts_stay_those_from_sdr_to_hdr():
    boost = dataclasses.replace(COLOURED, base_is_hdr=True, sdr_headroom=0.0)
    block = dialects.as_iso(boost)
    again = dialects.of_iso(block)
    assert again.base_is_hdr
    for field in dataclasses.fields(Boost):
        assert getattr(again, field.name) == pytest.approx(getattr(boost, field.name), abs=1e-5), field.name
    assert block[5:21] == bytes([0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])  # headrooms of 2 and 0
    assert dialects.of_iso(dialects.as_iso(dataclasses.replace(boost, hdr_headroom=0.0))) is None


def test_adobe_s_description_says_which_rendition_is_the_base():
    packet = dialects.as_hdrgm(dataclasses.replace(COLOURED, base_is_hdr=False))
    assert not dialects.of_hdrgm(packet).base_is_hdr
    other = dialects.of_hdrgm(packet.replace(b'"False"', b'"True"'))
    assert other == dataclasses.replace(COLOURED, base_is_hdr=True)


# --- both renditions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_sdr_rendition_is_what_the_map_gives(coffee, times, channels):
    photo = _of_both(coffee, times=times, channels=channels)
    seen = renditions.sdr(photo)
    assert metrics.psnr(seen.rgb_u8(), coffee[:240, :320]) > 50  # of 240 rows: their strips do not show
    assert not seen.gain_map.boost.base_is_hdr
    shown = seen.gain_map.hdr(linear(seen.pixels / 65535), seen.gain_map.boosts(0, 240, 240, 320))
    assert _log_psnr(shown, _light(photo)) > 60
    assert seen.space.primaries == photo.space.primaries


def test_boosts_in_the_sdr_rendition_s_colours_are_applied_there(coffee):
    boost = dataclasses.replace(BOOST, in_base_colours=False)
    photo = _of_both(coffee, boost=boost, sdr_space=spaces.of_codes(1, 13))
    seen = renditions.sdr(photo)
    assert seen.space is None  # sRGB
    assert metrics.psnr(seen.rgb_u8(), coffee[:240, :320]) > 50


@pytest.mark.parametrize("offset", [0, 1 / 64])
def test_both_renditions_change_as_enhancing_the_sdr_rendition_changes_it(coffee, weights, offset):
    enhancer = Enhancer(engines.load(weights, "auto"))
    photo = _of_both(coffee, boost=dataclasses.replace(BOOST, sdr_offset=(offset,), hdr_offset=(offset,)))
    seen = renditions.sdr(photo)
    better, wanted = enhancer(photo), enhancer(seen)
    assert metrics.psnr(wanted.rgb_u8(), seen.rgb_u8()) < 30  # there was something to do
    assert metrics.psnr(renditions.sdr(better).rgb_u8(), wanted.rgb_u8()) > 47
    if not offset:
        ratio = linear(wanted.pixels / 65535) / np.maximum(linear(seen.pixels / 65535), 1e-6)
        lit = (linear(seen.pixels / 65535) > 1 / 64) & (seen.pixels < 65535) & (wanted.pixels < 65535)
        assert np.percentile(np.abs(_light(better) / np.maximum(_light(photo) * ratio, 1e-6) - 1)[lit], 95) < 0.05
    assert np.array_equal(Enhancer(enhancer.engine, Effect(0.0))(photo).pixels, photo.pixels)
    assert np.array_equal(enhancer.within(photo).pixels, better.pixels)


def test_a_gray_photo_stays_gray(coffee, weights):
    photo = _of_both(coffee)
    gray = dataclasses.replace(photo, pixels=photo.pixels[..., 1:2])
    better = Enhancer(engines.load(weights, "auto"))(gray)
    assert better.pixels.shape == (240, 320, 1)
    assert better.pixels.dtype == np.uint16
    assert encoding.encoded(better, "jpeg")


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["heic", "avif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_heic_and_avif_hold_the_hdr_picture_as_the_base(coffee, fmt, channels, monkeypatch):
    monkeypatch.delitem(Image.SAVE, "HEIF", raising=False)  # as in a process that has not opened a HEIC
    photo = _of_both(coffee, channels=channels)
    assert encoding.left_out(photo, fmt) == ()
    again = decoding.read(encoding.encoded(photo, fmt))
    assert again.notes == ()
    assert again.space.codes == (9, 16)
    assert again.bits == 10
    assert again.gain_map.boost.base_is_hdr
    assert _log_psnr(_light(again), _light(photo)) > 38
    assert metrics.psnr(renditions.sdr(again).rgb_u8(), coffee[:240, :320]) > (34 if fmt == "heic" else 38)  # 4:2:0


def test_the_sdr_rendition_s_own_colours_are_named(coffee):
    boost = dataclasses.replace(BOOST, in_base_colours=False)
    photo = _of_both(coffee, boost=boost, sdr_space=spaces.of_codes(12, 13))
    again = decoding.read(encoding.encoded(photo, "avif"))
    assert again.gain_map.sdr_space.codes == (12, 13)
    assert not again.gain_map.boost.in_base_colours


def test_jpeg_holds_both_with_sdr_as_the_base(coffee):
    photo = _of_both(coffee, primaries=12)
    assert encoding.left_out(photo, "jpeg") == ("written as 8-bit",)
    written = encoding.encoded(photo, "jpeg", 98)
    again = decoding.read(written)
    assert again.notes == ()
    assert not again.gain_map.boost.base_is_hdr
    assert metrics.psnr(again.rgb_u8(), coffee[:240, :320]) > 38
    assert again.icc == spaces.profile(dataclasses.replace(photo.space, curve="srgb", codes=None, peak=0.0, name=""))
    shown = imagecodecs.ultrahdr_decode(written)[..., :3].astype(np.float32)
    assert _log_psnr(shown, _light(photo)) > 38


@pytest.mark.parametrize("fmt", ["png", "webp", "tiff"])
def test_other_formats_hold_one_of_them_and_say_which(coffee, fmt):
    photo = _of_both(coffee)
    (note, *_) = encoding.left_out(photo, fmt)
    assert note.startswith("the SDR version" if fmt == "png" else "the HDR picture is left out")
    again = decoding.read(encoding.encoded(photo, fmt))
    assert again.gain_map is None
    if fmt == "png":
        assert np.array_equal(again.pixels, photo.pixels)
    else:
        assert metrics.psnr(again.rgb_u8(), coffee[:240, :320]) > 34


def test_without_hdr_the_sdr_rendition_stays_and_without_metadata_the_picture(coffee):
    photo = _of_both(coffee)
    plain = Writing(no_hdr=True).prepared(photo)
    assert plain.gain_map is None
    assert metrics.psnr(plain.rgb_u8(), coffee[:240, :320]) > 50
    stripped = Writing(strip_metadata=True).prepared(photo)
    assert stripped.gain_map is None
    assert np.array_equal(stripped.pixels, photo.pixels)


@pytest.mark.parametrize("transfer", [13, 16])
def test_a_map_that_contradicts_its_picture_is_left_out_and_named(coffee, transfer):
    """HDR by the map and SDR by the picture, or the other way round: nobody knows what either shows."""
    photo = _of_both(coffee)
    if transfer == 13:
        photo = dataclasses.replace(photo, space=spaces.of_codes(9, 13))
    else:
        sdr = dataclasses.replace(BOOST, base_is_hdr=False)
        photo = dataclasses.replace(photo, gain_map=dataclasses.replace(photo.gain_map, boost=sdr))
    again = decoding.read(encoding.encoded(photo, "avif"))
    assert again.gain_map is None
    assert leftovers.GAIN_MAP in again.notes


def test_a_jpeg_whose_map_leads_down_from_hdr_is_named(coffee):
    """Eight bits in sRGB are no HDR picture."""
    values = np.ascontiguousarray(coffee[:20, :30, :1])
    packet = dialects.as_hdrgm(COLOURED).replace(b'"False"', b'"True"')
    first, second = io.BytesIO(), io.BytesIO()
    Image.fromarray(coffee[:80, :120]).save(first, "JPEG")
    Image.fromarray(values[..., 0]).save(second, "JPEG", xmp=packet)
    photo = decoding.read(first.getvalue() + second.getvalue())
    assert photo.gain_map is None
    assert photo.notes == (leftovers.GAIN_MAP,)


@pytest.mark.parametrize("fmt", ["heic", "avif"])
def test_the_further_rendition_is_charged(coffee, fmt, tmp_path):
    photo = _of_both(coffee)
    headers = []
    for name, written in (("both", photo), ("alone", photo.without(gain_map=True))):
        path = tmp_path / f"{name}.{fmt}"
        path.write_bytes(encoding.encoded(written, fmt))
        headers.append(decoding.header(path))
    assert headers[0].beside_bytes - headers[1].beside_bytes == 18 * 240 * 320


@pytest.mark.parametrize(
    "name",
    ["seine_hdr_gainmap_small_srgb", "seine_hdr_gainmap_wrongaltr", "colors_hdr_rec2020", "colors_text_hdr_p3"],
)
def test_files_of_libavif_and_adobe_keep_both(shared, name):
    photo = decoding.read(shared / "realworld" / "odd" / "avif" / f"{name}.avif")
    assert photo.notes == ()
    seen = renditions.sdr(photo)
    again = decoding.read(encoding.encoded(photo, "avif"))
    assert metrics.psnr(renditions.sdr(again).rgb_u8(), seen.rgb_u8()) > 40
    assert _log_psnr(_light(again), _light(photo)) > 40
    if name.startswith("seine"):  # the same picture, with SDR as the base
        other = decoding.read(shared / "realworld" / "odd" / "avif" / "seine_sdr_gainmap_srgb.avif")
        assert metrics.psnr(seen.rgb_u8(), other.pixels) > 31
        assert np.abs(seen.rgb_u8().mean((0, 1)) - other.pixels.mean((0, 1))).max() < 1.5
