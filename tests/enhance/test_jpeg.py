"""Coarse JPEGs nearer to what they were, and the blocks that this is computed on."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image

from qatie_cli import engines, kernels, metrics
from qatie_cli.enhance import blocks, jpeg, tiling
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.kernels import threads
from qatie_cli.model import checkpoint, shipped
from qatie_cli.photo import components, decoding, metadata


def _coded(pixels: np.ndarray, quality: int, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality, **options)
    return content.getvalue()


def _psnr(one: np.ndarray, two: np.ndarray) -> float:
    return metrics.finite_psnr(one, two)


# --- what it is worth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 60, 85])
def test_coarse_jpegs_come_nearer_to_what_they_were(quality, subsampling, astronaut, coffee):
    for original in (astronaut[:263, :301], coffee[100:300, 100:410]):
        photo = decoding.read(_coded(original, quality, subsampling=subsampling))
        assert _psnr(jpeg.restored(photo).pixels, original) > _psnr(photo.pixels, original) + 0.35


def test_photos_compressed_twice_do_too(astronaut):
    once = decoding.read(_coded(astronaut[:256, :256], 50)).pixels
    photo = decoding.read(_coded(np.pad(once, ((4, 4), (4, 4), (0, 0)), "edge"), 50))
    after = jpeg.restored(photo).pixels[4:-4, 4:-4]
    assert _psnr(after, astronaut[:256, :256]) > _psnr(photo.pixels[4:-4, 4:-4], astronaut[:256, :256]) + 0.5


def test_an_enhanced_messenger_photo_is_nearer_to_the_enhanced_original(astronaut, monkeypatch):
    enhancer = Enhancer(engines.load(checkpoint.read(shipped.locate("qatie-c16"))))
    original = enhancer(decoding.read(_coded(astronaut, 100, subsampling="4:4:4"))).pixels
    photo = decoding.read(_coded(astronaut, 30))
    with_it = _psnr(enhancer(photo).pixels, original)
    monkeypatch.setattr(jpeg, "restored", lambda photo, strength: photo)
    assert with_it > _psnr(enhancer(photo).pixels, original) + 0.5


def test_a_flat_area_and_sharp_lines_stay_what_they_are():
    drawn = np.full((64, 96, 3), 200, np.uint8)
    drawn[:, 40:42], drawn[30:32] = 20, (180, 30, 30)
    photo = decoding.read(_coded(drawn, 75, subsampling="4:4:4"))
    after = jpeg.restored(photo).pixels.astype(int)
    assert np.abs(after - drawn).mean() <= np.abs(photo.pixels.astype(int) - drawn).mean()
    assert np.abs(after[:24, :32] - 200).max() <= 2


# --- what is left alone -------------------------------------------------------------------------------------------


def test_what_needs_no_restoring_is_the_same_photo(astronaut, tmp_path):
    fine = decoding.read(_coded(astronaut, 96))
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    png = decoding.read(tmp_path / "a.png")
    coarse = decoding.read(_coded(astronaut, 50))
    changed = dataclasses.replace(coarse, pixels=coarse.pixels[::-1].copy())
    cut = dataclasses.replace(coarse, pixels=coarse.pixels[8:])
    for photo in (fine, png, changed, cut, coarse.with_pixels(coarse.pixels)):
        assert jpeg.restored(photo) is photo
    assert jpeg.restored(coarse, 0.0) is coarse
    assert jpeg.restored(coarse) is not coarse


def test_gray_and_rgb_jpegs_are_read_as_before(astronaut):
    assert decoding.read(_coded(astronaut[..., 0], 50)).components is None
    as_rgb = decoding.read(_coded(astronaut, 50, keep_rgb=True))
    assert as_rgb.components is None
    assert _psnr(as_rgb.pixels, astronaut) > 25


def test_tables_of_16_bit_are_left_alone(astronaut):
    """What is carried of them is clipped to 8 bit."""
    image = Image.open(io.BytesIO(_coded(astronaut, 50)))
    traits = metadata.jpeg_traits(image)
    assert components.wanted(image, traits)
    image.quantization[1][63] = 256
    assert not components.wanted(image, traits)


def test_the_change_fades_with_quality_and_strength(astronaut):
    photo = decoding.read(_coded(astronaut, 50))
    whole, half = (jpeg.restored(photo, strength).pixels.astype(float) for strength in (1.0, 0.5))
    assert np.abs((whole + photo.pixels) / 2 - half).max() <= 1
    shares = [jpeg.share_of(decoding.read(_coded(astronaut[:16, :16], quality)).jpeg) for quality in (60, 92, 94, 95)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == shares[1] == 1
    assert 0 < shares[2] < 1
    assert shares[3] == 0


def test_large_photos_are_restored_only_if_they_are_coarse():
    def kept(quality: int) -> bool:
        return decoding.read(_coded(np.zeros((2100, 2100, 3), np.uint8), quality)).components is not None

    assert [kept(quality) for quality in (65, 75)] == [True, False]


def test_strength_0_leaves_a_coarse_jpeg_as_it_is(astronaut):
    enhancer = Enhancer(engines.load(checkpoint.read(shipped.locate("qatie-c16"))), Effect(strength=0))
    photo = decoding.read(_coded(astronaut, 40))
    np.testing.assert_array_equal(enhancer(photo).pixels, photo.pixels)


# --- how it is computed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"progressive": True}])
def test_pixels_are_those_of_libjpeg(options, astronaut):
    content = _coded(astronaut[:201, :333], 70, **options)
    photo = decoding.read(content)
    assert photo.components is not None
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(io.BytesIO(content))))
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)  # clipped ones, too
    assert np.abs(components.rgb(values).astype(int) - Image.fromarray(values, "YCbCr").convert("RGB")).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_restored_where_their_blocks_lie(orientation, astronaut):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decoding.read(_coded(astronaut[:120, :200], 40, exif=exif))
    plain = jpeg.restored(decoding.read(_coded(astronaut[:120, :200], 40)))
    expected = jpeg.upright(plain.pixels, orientation)
    np.testing.assert_array_equal(jpeg.restored(turned).pixels, expected)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_strips_and_threads_change_no_bit(subsampling, astronaut, monkeypatch):
    photo = decoding.read(_coded(astronaut[:, :301], 50, subsampling=subsampling))
    whole = jpeg.restored(photo).pixels
    monkeypatch.setattr(tiling, "STRIP_PIXELS", 1)
    for number in (1, 3):
        with threads.limited(number):
            np.testing.assert_array_equal(jpeg.restored(photo).pixels, whole)


def test_compiled_and_numpy_blocks_have_the_same_bits(monkeypatch):
    random = np.random.default_rng(0)
    plane, steps = random.normal(0, 30, (96, 640)).astype(np.float32), random.uniform(4, 60, (8, 8)).astype(np.float32)
    numbers = np.rint(random.normal(0, 2, plane.shape)).astype(np.float32)

    def found() -> list[np.ndarray]:
        first = blocks.shrunken(plane, steps)
        return [first, blocks.shrunken(plane, steps, first), blocks.projected(plane, numbers, steps, 0.3)]

    monkeypatch.setattr(kernels, "usable", lambda pixels: False)
    expected = found()
    monkeypatch.setattr(kernels, "usable", lambda pixels: kernels.installed())
    for one, two in zip(found(), expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_blocks_have_the_orthonormal_dct(astronaut):
    plane = astronaut[:16, :24, 0].astype(np.float32)
    k, i = np.mgrid[:8, :8]
    matrix = np.where(k == 0, np.sqrt(1 / 8), np.sqrt(2 / 8)) * np.cos((2 * i + 1) * k * np.pi / 16)
    expected = matrix @ plane[8:, 8:16] @ matrix.T
    found = blocks.into_frequencies(plane)
    np.testing.assert_allclose(found[8:, 8:16].T, expected, atol=1e-3)
    np.testing.assert_allclose(blocks.out_of_frequencies(found), plane, atol=1e-3)


def test_projected_coefficients_lie_within_reach():
    random = np.random.default_rng(0)
    plane, numbers = random.normal(0, 30, (16, 16)).astype(np.float32), np.zeros((16, 16), np.float32)
    steps = np.arange(1, 65, dtype=np.float32).reshape(8, 8)
    found = blocks.into_frequencies(blocks.projected(plane, numbers, steps, 0.3))
    assert (np.abs(found) <= np.tile(0.3 * steps.T, (2, 2)) + 1e-3).all()
    assert np.abs(found).max() > 5


def test_chroma_is_the_file_s_again(astronaut):
    small = astronaut[:40, :60].astype(np.float32)
    for axis in range(2):
        decoded = jpeg._doubled(small[..., 0], axis, 2 * small.shape[axis])
        again = jpeg._without_interpolation(jpeg._halved(decoded, axis), axis)
        assert np.abs(again - small[..., 0]).max() < 0.1


def test_a_restored_photo_would_be_compressed_to_the_same_file(astronaut):
    """Its coefficients lie in the steps that the file states, but for what rounding pixels moves."""
    photo = decoding.read(_coded(astronaut[:64, 200:328], 50, subsampling="4:4:4"))
    table = np.array(photo.jpeg.quantization[0], np.float32).reshape(8, 8)

    def steps(pixels: np.ndarray) -> np.ndarray:
        luma = (pixels @ np.array([0.299, 0.587, 0.114]) - 128).astype(np.float32)
        return blocks.into_frequencies(luma) / np.tile(table.T, (8, 16))

    moved = np.abs(steps(jpeg.restored(photo).pixels) - np.rint(steps(photo.pixels)))
    assert np.quantile(moved, 0.99) < 0.4
    assert np.quantile(moved, 0.95) > 0.2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (17, 2), (8, 8), (33, 70)])
def test_any_size_comes_back_in_its_size(size, astronaut):
    original = np.ascontiguousarray(astronaut[200 : 200 + size[0], 200 : 200 + size[1]])
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        photo = decoding.read(_coded(original, 60, subsampling=subsampling))
        after = jpeg.restored(photo).pixels.astype(int)
        assert after.shape == original.shape
        assert np.abs(after - photo.pixels).max() < 60


def test_damaged_tables_give_a_photo_all_the_same(astronaut):
    photo = decoding.read(_coded(astronaut[:40, :40], 60))
    tables = tuple((0, *table[1:]) for table in photo.jpeg.quantization)
    damaged = dataclasses.replace(photo, jpeg=dataclasses.replace(photo.jpeg, quantization=tables))
    with np.errstate(all="raise"):
        after = jpeg.restored(damaged).pixels.astype(int)
    assert np.abs(after - photo.pixels).mean() < 20


def test_pictures_of_several_frames_are_restored(astronaut):
    content = io.BytesIO()
    frames = [Image.fromarray(part) for part in (astronaut[:200], astronaut[200:400])]
    frames[0].save(content, "MPO", save_all=True, append_images=frames[1:], quality=50)
    photo = decoding.read(content.getvalue())
    assert _psnr(jpeg.restored(photo).pixels, astronaut[:200]) > _psnr(photo.pixels, astronaut[:200]) + 0.35


def test_report_and_verbose_output_name_restored_photos(astronaut, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "coarse.jpg").write_bytes(_coded(astronaut, 50))
    (tmp_path / "photos" / "fine.jpg").write_bytes(_coded(astronaut, 97))
    report = tmp_path / "report.json"
    done = qatie_here("enhance", tmp_path / "photos", "-o", tmp_path / "out", "--report", report, "--verbose")
    rows = {Path(row["input"]).stem: row["restored"] for row in json.loads(report.read_text())["photos"]}
    assert rows == {"coarse": True, "fine": False}
    assert done.stderr.count("coarse JPEG restored") == 1
