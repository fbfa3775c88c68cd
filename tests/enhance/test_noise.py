"""How noisy a photo is: colour noise is found, texture is not taken for it, and what the network sees follows."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from qatie_cli import engines
from qatie_cli.batch.planning import Task
from qatie_cli.batch.running import Runner, Writing
from qatie_cli.enhance import photos
from qatie_cli.enhance.noise import NOISY_LEVELS, colour_noise
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.photo import decoding, encoding
from qatie_cli.photo.content import Photo


def _gray(luma: np.ndarray) -> np.ndarray:
    return np.repeat(luma[..., None], 3, axis=2)


def _noisy(photo: np.ndarray, levels: float) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, levels, photo.shape)
    return np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("texture", [data.gravel, data.grass, data.brick])
def test_texture_without_colour_is_no_noise(texture):
    assert colour_noise(_gray(texture())) == 0
    tinted = (_gray(texture()) * [0.95, 0.85, 0.7]).round().astype(np.uint8)
    noisy = _noisy(tinted, 3)
    assert colour_noise(noisy) > max(NOISY_LEVELS, 1.5 * colour_noise(tinted))


def test_it_is_the_deviation_of_the_noise():
    flat = np.full((400, 600, 3), 120, np.uint8)
    assert colour_noise(flat) == 0
    # Of noise that is alike in all channels, (red - green) / 2 and its counterpart have 0.71 and 0.61 of the deviation.
    assert colour_noise(_noisy(flat, 4)) == pytest.approx(4 * 0.66 * np.sqrt(8 / 9), rel=0.08)
    assert colour_noise(_noisy(flat, 4).astype(np.uint16) * 257) == pytest.approx(colour_noise(_noisy(flat, 4)))


def test_black_and_blown_parts_say_nothing():
    half = np.zeros((400, 600, 3), np.uint8)
    half[200:] = 255
    assert colour_noise(_noisy(half, 2)) is None


def test_a_photo_full_of_fine_colours_is_judged_by_its_smooth_parts():
    photo = np.full((400, 600, 3), 120, np.uint8)
    photo[:240] = np.random.default_rng(1).integers(60, 200, (240, 600, 3))  # confetti, a meadow
    assert colour_noise(photo) == 0
    smooth = _noisy(photo[240:], 4)
    assert colour_noise(np.concatenate([photo[:240], smooth])) == pytest.approx(colour_noise(smooth), rel=0.15)


@pytest.mark.parametrize("shape", [(400, 600, 1), (20, 600, 3)])
def test_of_gray_and_tiny_photos_it_cannot_be_told(shape):
    photo = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    assert colour_noise(photo) is None
    assert Effect().refinement_of(photo).share == 1


def test_noisy_photos_are_shown_to_the_network_at_full_size():
    large = np.full((2000, 3000, 3), 120, np.uint8)
    noisy = _noisy(large, 3)
    assert [Effect().refinement_of(photo).reduction for photo in (large, noisy, noisy[:1000, :1000])] == [2, 1, 1]
    assert [Effect(fast=fast).refinement_of(noisy).reduction for fast in (True, False)] == [2, 1]
    assert Effect(fast=False).refinement_of(large).reduction == 1
    assert Effect(reduction=3).refinement_of(noisy).reduction == 3


def test_little_is_taken_of_the_residual_of_large_photos_without_noise():
    large = np.full((2000, 3000, 3), 120, np.uint8)
    shares = [Effect(fast=True).refinement_of(_noisy(large, levels)).share for levels in (0, 0.1, 0.25, 3)]
    assert shares[0] == 0.2 and shares == sorted(shares) and shares[-1] == 1
    assert Effect().refinement_of(large).share == 0.2
    assert Effect().refinement_of(large[:1000, :1000]).share == 1  # shown at full size, where texture is not so fine
    assert Effect(reduction=2).refinement_of(large).share == 1


def test_noise_is_measured_once_a_photo_alone_and_in_a_batch(weights, tmp_path, monkeypatch):
    measured = []

    def counted(pixels):
        measured.append(pixels.shape)
        return colour_noise(pixels)

    monkeypatch.setattr(photos, "colour_noise", counted)
    enhancer = Enhancer(engines.load(weights, "auto"))
    photo = Photo(_noisy(np.full((2010, 2000, 3), 120, np.uint8), 0.1), "png")
    alone = enhancer.within(photo)
    assert measured == [photo.pixels.shape]
    encoding.write(tmp_path / "a.png", photo, "png")
    task, results = Task(tmp_path / "a.png", tmp_path / "b.png"), []
    Runner(enhancer, Writing(), refinement=enhancer.effect.refinement_of).run([task], results.append)
    assert results[0].reduction == 2
    assert measured == [photo.pixels.shape] * 2
    assert np.array_equal(decoding.read(tmp_path / "b.png").pixels, alone.pixels)


def test_the_share_scales_what_the_network_adds(weights, coffee):
    from qatie_cli.enhance.pixels import enhance

    engine = engines.load(weights, "float")
    none, half, whole = (enhance(coffee, engine, reduction=2, share=share).astype(float) for share in (0.0, 0.5, 1.0))
    assert np.abs(whole - none).mean() > 0.2
    assert np.abs(half - (none + whole) / 2).mean() < 0.6
