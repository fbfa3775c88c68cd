"""The degradation model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qatie_cli import metrics
from qatie_cli.data import degradation
from qatie_cli.data.degradation import DegradationConfig, DegradationParameters, ParameterRange
from qatie_cli.photo.colour import luma


@pytest.fixture(scope="module")
def clean(astronaut):
    return degradation.from_u8(astronaut[:128, :192])


def test_untouched_photos_come_back_as_they_are(clean):
    always = dataclasses.replace(DegradationConfig(), untouched=1.0)
    parameters = degradation.sample(always, np.random.default_rng(0))
    assert degradation.apply(parameters, clean) is clean


def test_the_untouched_share_is_kept():
    config = dataclasses.replace(DegradationConfig(), untouched=0.3)
    rng = np.random.default_rng(0)
    share = np.mean([degradation.sample(config, rng) == degradation.UNTOUCHED for _ in range(2000)])
    assert abs(share - 0.3) < 0.04


def test_one_seed_gives_one_photo(clean):
    first, second = (degradation.sample(DegradationConfig(untouched=0.0), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(degradation.apply(first, clean), degradation.apply(second, clean))
    other = dataclasses.replace(first, noise_seed=first.noise_seed + 1, read_noise=0.01)
    assert not np.array_equal(degradation.apply(first, clean), degradation.apply(other, clean))


def test_parameters_stay_within_their_ranges():
    rng = np.random.default_rng(1)
    parameters = [degradation.sample(DegradationConfig(untouched=0.0), rng) for _ in range(500)]
    for name in ("contrast", "haze", "gamma", "saturation", "blur", "denoise_blur", "sharpen"):
        allowed, values = getattr(DegradationConfig(), name), np.array([getattr(d, name) for d in parameters])
        happened = values[values != getattr(degradation.UNTOUCHED, name)]
        assert happened.min() >= allowed.low
        assert happened.max() <= allowed.high
        assert abs(len(happened) / 500 - allowed.probability) < 0.08


def test_overexposure_takes_the_place_of_exposure():
    rng = np.random.default_rng(1)
    config = DegradationConfig(untouched=0.0)
    parameters = np.array([degradation.sample(config, rng).exposure for _ in range(500)])
    assert parameters.min() >= config.exposure.low
    assert parameters.max() <= config.overexposure.high
    assert abs((parameters > 0).mean() - config.overexposure.probability) < 0.06


@pytest.mark.parametrize("ev", [-2.0, -1.0, 1.0])
def test_exposure_scales_linear_light(ev):
    gray = np.full((8, 8, 3), 0.4, np.float32)
    exposed = degradation.to_linear(degradation.apply(DegradationParameters(exposure=ev), gray))
    np.testing.assert_allclose(exposed, degradation.to_linear(gray) * 2**ev, rtol=0.03)


def test_lamps_stay_white_in_a_darkened_photo():
    lamp, wall = np.ones((4, 8, 3), np.float32), np.full((4, 8, 3), 0.6, np.float32)
    photo = np.concatenate([lamp, wall])
    darkened = degradation.apply(DegradationParameters(exposure=-2.0), photo)
    lit = degradation.apply(DegradationParameters(exposure=-2.0, highlights=2.0), photo)
    assert darkened[:4].max() < 0.6
    np.testing.assert_allclose(lit[:4], 1.0, atol=0.005)
    assert np.array_equal(lit[4:], darkened[4:])


@pytest.mark.parametrize("exposure", [-0.5, 0.0, 0.5])
def test_highlights_are_hardly_whiter_than_in_the_good_photo(clean, exposure):
    as_it_is = degradation.apply(DegradationParameters(exposure=max(exposure, 0.2), gamma=1.001), clean)
    lit = degradation.apply(DegradationParameters(exposure=exposure, gamma=1.001, highlights=3.0), clean)
    assert (lit <= as_it_is + 1 / 255).all()


def test_noise_has_the_variance_asked_for_in_linear_light():
    gray = np.full((256, 256, 3), 0.5, np.float32)
    parameters = DegradationParameters(shot_noise=0.002, read_noise=0.005)
    linear = degradation.to_linear(degradation.apply(parameters, gray))
    signal = float(degradation.to_linear(gray).mean())
    assert np.var(linear) == pytest.approx(0.002 * signal + 0.005**2, rel=0.05)


def test_blur_smooths_and_sharpening_makes_halos(clean):
    def detail(photo):
        return float(np.abs(np.diff(photo, axis=1)).mean())

    assert detail(degradation.apply(DegradationParameters(blur=1.2), clean)) < 0.8 * detail(clean)
    assert detail(degradation.apply(DegradationParameters(sharpen=1.0), clean)) > 1.2 * detail(clean)


def test_blur_keeps_a_flat_photo_flat():
    flat = np.full((20, 30, 3), 0.3, np.float32)
    np.testing.assert_allclose(degradation.gaussian_blur(flat, 1.1), flat, atol=1e-6)


def test_fine_detail_is_made_faint_and_the_rest_stays(clean):
    assert degradation.faint(clean, 0.0) is clean
    made = degradation.faint(clean, 0.02)
    coarse = degradation.gaussian_blur(clean, 5.0)
    fine = made - coarse
    assert np.abs(clean - coarse).max() > 0.3
    assert np.abs(fine).max() <= 0.02 + 1e-6
    assert (fine * (clean - coarse) > -1e-6).all()
    # What was faint before hardly changes.
    plaster = np.float32(0.5) + np.float32(0.002) * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    np.testing.assert_allclose(degradation.faint(plaster, 0.02), plaster, atol=6e-4)


def test_saturation_and_haze_do_what_they_say(clean):
    def colourfulness(photo):
        return float((photo.max(2) - photo.min(2)).mean())

    assert colourfulness(degradation.apply(DegradationParameters(saturation=0.5), clean)) == pytest.approx(
        0.5 * colourfulness(clean), rel=0.05
    )
    assert degradation.apply(DegradationParameters(haze=0.1), clean).min() >= clean.min() + 0.07


def test_lower_jpeg_quality_costs_more(clean):
    def quality(q):
        return metrics.psnr(
            degradation.to_u8(degradation.apply(DegradationParameters(jpeg=q), clean)), degradation.to_u8(clean)
        )

    assert quality(95) > quality(75) > quality(55)


def test_a_thumbnail_shows_the_tone_of_the_degraded_photo(clean):
    parameters = DegradationParameters(exposure=-1.0, gain=(1.1, 1.0, 0.9), contrast=0.8, read_noise=0.004, jpeg=70)
    full = degradation.apply(parameters, clean).mean((0, 1))
    np.testing.assert_allclose(degradation.apply(parameters, clean, tone_only=True).mean((0, 1)), full, atol=0.01)


def test_linear_and_encoded_are_inverse():
    values = np.linspace(0, 1, 1000, dtype=np.float32)
    np.testing.assert_allclose(degradation.to_encoded(degradation.to_linear(values)), values, atol=1e-5)


def test_configs_survive_their_table():
    config = DegradationConfig(untouched=0.2, blur=ParameterRange(0.1, 0.2, 0.3))
    assert DegradationConfig.from_table(config.to_table()) == config


@pytest.mark.parametrize("table", [{"rain": [1, 0, 1]}, {"blur": 0.5}, {"blur": [2, 0, 1]}, {"blur": [0.5, 1, 0]}])
def test_configs_that_make_no_sense_are_refused(table):
    with pytest.raises(ValueError, match=r"degradation"):
        DegradationConfig.from_table(table)


@pytest.mark.parametrize(("old", "new"), degradation.RENAMED.items())
def test_an_old_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(ValueError, match=f"degradation.{old} is now called {new}"):
        DegradationConfig.from_table({old: [0.5, 0.1, 0.2]})


def test_noise_has_the_asked_strength_and_the_correlations_of_developed_photos():
    parameters = DegradationParameters(noise_correlation=0.8, noise_gray=0.7, low_frequency_noise=0.3, noise_seed=1)
    noise = degradation.unit_noise(parameters, (256, 256))
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(0.75, abs=0.1)
    assert (noise[:, 4:] * noise[:, :-4]).mean() == pytest.approx(0.15, abs=0.1)
    assert np.corrcoef(noise[..., 0].ravel(), noise[..., 2].ravel())[0, 1] == pytest.approx(0.7, abs=0.1)


def test_blotches_of_colour_are_wider_than_the_grain():
    parameters = DegradationParameters(
        noise_correlation=0.6, noise_gray=0.7, colour_noise_correlation=3.0, noise_seed=1
    )
    noise = degradation.unit_noise(parameters, (256, 256))
    assert noise.var() == pytest.approx(1, abs=0.05)
    common, colour = noise.mean(2), noise[..., 0] - noise[..., 2]

    def neighbours_alike(values: np.ndarray, apart: int) -> float:
        return float((values[:, apart:] * values[:, :-apart]).mean() / values.var())

    assert neighbours_alike(colour, 3) == pytest.approx(np.exp(-(3**2) / (4 * 3.0**2)), abs=0.1)
    assert neighbours_alike(common, 3) < 0.25


def test_white_noise_stays_white():
    noise = degradation.unit_noise(DegradationParameters(noise_seed=1), (128, 128))
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert (noise[:, 1:] * noise[:, :-1]).mean() == pytest.approx(0, abs=0.03)


def test_blotches_hold_no_luma():
    only_blotches = DegradationParameters(noise_gray=0.0, colour_noise_correlation=3.0, noise_seed=1)
    noise = degradation.unit_noise(only_blotches, (128, 128))
    assert noise.std() > 0.5 and np.abs(luma(noise)).max() < 1e-5


def test_an_earlier_compression_leaves_its_blocks_wherever_they_lie(clean):
    """Differences across the borders of 8 x 8 blocks stand out, on the grid of the file or on a shifted one."""
    whole, shifted = set(), set()

    def across(photo: np.ndarray) -> np.ndarray:
        return np.abs(np.diff(luma(photo)[..., 0], axis=1)).mean(0)

    for seed in range(12):
        once = degradation.apply(DegradationParameters(jpeg_before=30, noise_seed=seed), clean)
        steps = across(once) - across(clean)
        border = int(np.argmax([steps[phase::8].mean() for phase in range(8)]))
        (whole if border == 7 else shifted).add(border)
    assert whole and len(shifted) > 2


def test_a_photo_compressed_twice_is_further_off_than_one_compressed_once(clean):
    def error(**compressed: int) -> float:
        return float(np.abs(degradation.apply(DegradationParameters(noise_seed=3, **compressed), clean) - clean).mean())

    assert error(jpeg_before=50, jpeg=60) > error(jpeg=60)


def test_settings_that_came_later_leave_the_sequences_of_earlier_recipes_alone():
    earlier = DegradationConfig(colour_noise_correlation=ParameterRange(0.0, 0.0, 0.0))
    asked = dataclasses.replace(earlier, jpeg_before=ParameterRange(1.0, 40, 40))
    rngs = np.random.default_rng(4), np.random.default_rng(4)
    first, second = (degradation.sample(config, rng) for config, rng in zip((earlier, asked), rngs, strict=True))
    assert second == dataclasses.replace(first, jpeg_before=40)


def test_a_thumbnail_is_as_noisy_as_the_mean_of_ten_pixels():
    parameters = DegradationParameters(read_noise=0.01, noise_seed=1)
    gray = np.full((128, 128, 3), 0.5, np.float32)
    assert degradation.averaged_noise(parameters, (128, 128)).var() == pytest.approx(0.1, rel=0.05)
    seen, whole = (degradation.apply(parameters, gray, tone_only=thumbnail).std() for thumbnail in (True, False))
    assert seen == pytest.approx(whole / np.sqrt(10), rel=0.1)


def test_jpeg_halves_the_resolution_of_colour_below_quality_90_as_phones_do():
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 1
    lost = [np.abs(degradation.jpeg_round_trip(stripes, quality) - stripes).mean() for quality in (89, 90)]
    assert lost[0] > 0.2 > 5 * lost[1]


def test_untouched_photos_leave_the_sequence_of_the_others_as_it_is():
    rngs = np.random.default_rng(4), np.random.default_rng(4)
    for share, rng in zip((0.0, 1.0), rngs, strict=True):
        degradation.sample(DegradationConfig(untouched=share), rng)
    assert rngs[0].random() == rngs[1].random()


def test_without_noise_all_else_stays():
    parameters = DegradationParameters(exposure=-0.5, shot_noise=0.001, read_noise=0.005, noise_seed=1)
    gray = np.full((16, 16, 3), 0.5, np.float32)
    clean = degradation.apply(degradation.without_noise(parameters), gray)
    assert np.ptp(clean) == 0
    assert clean.mean() == pytest.approx(degradation.apply(parameters, gray).mean(), abs=0.01)
