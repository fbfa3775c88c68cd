"""What the rendering of detail changes, and what it leaves alone."""

import numpy as np
import pytest
import torch
from skimage import data

from qatie_cli.data.detail import DetailConfig, render
from qatie_cli.model.tone_features import luma

CLEAR = DetailConfig(clarity=0.7)


def _texture(deviation: float, mean: float = 0.5, wavelength: float = 8.0) -> torch.Tensor:
    y, x = np.mgrid[:96, :96] * (2 * np.pi / wavelength)
    waves = mean + deviation * np.sin(x) * np.sin(y) * 2
    return torch.from_numpy(waves.astype(np.float32)).expand(1, 3, -1, -1)


def _deviation(photo: torch.Tensor) -> float:
    return float(luma(photo)[..., 16:-16, 16:-16].std())


def _gain(photo: torch.Tensor, config: DetailConfig = CLEAR) -> float:
    return _deviation(render(photo, config)) / _deviation(photo)


def test_without_clarity_photos_stay_as_they_are():
    photo = torch.from_numpy(data.astronaut()[:96, :96] / np.float32(255)).permute(2, 0, 1)[None]
    assert torch.equal(render(photo, DetailConfig()), photo)
    assert not torch.equal(render(photo, CLEAR), photo)


def test_structure_stands_out_by_the_clarity_and_what_is_as_faint_as_noise_hardly():
    assert 1.25 < _gain(_texture(0.04)) < 1.5
    assert _gain(_texture(0.002)) < 1.03
    assert _gain(_texture(0.04), DetailConfig(clarity=0.7, faint=0.2)) < 1.1
    assert _gain(_texture(0.04), DetailConfig(clarity=0.35)) == pytest.approx((1 + _gain(_texture(0.04))) / 2, abs=0.02)


def test_the_dark_where_noise_shows_first_gets_less():
    assert _gain(_texture(0.03, mean=0.1)) - 1 < 0.5 * (_gain(_texture(0.03)) - 1)


def test_what_is_rich_in_contrast_is_raised_less():
    assert _gain(_texture(0.15)) < _gain(_texture(0.04)) - 0.1
    assert _gain(_texture(0.1)) < _gain(_texture(0.1), DetailConfig(clarity=0.7, busy=100.0)) - 0.05


def test_single_pixels_are_not_sharpened():
    assert _gain(_texture(0.04, wavelength=2.5)) < 1.25 < _gain(_texture(0.04, wavelength=8))


def test_an_objects_edge_gets_no_halo():
    edge = torch.full((1, 3, 96, 96), 0.2)
    edge[..., 48:] = 0.8
    change = (render(edge, CLEAR) - edge).abs()
    assert change.max() < 0.06 * 0.6  # an unsharp mask of as much clarity adds a third of the step
    assert change[..., :36].max() < 1 / 255 and change[..., 60:].max() < 1 / 255


def test_black_white_hue_and_the_mean_stay():
    assert torch.equal(render(torch.zeros(1, 3, 32, 32), CLEAR), torch.zeros(1, 3, 32, 32))
    assert torch.equal(render(torch.ones(1, 3, 32, 32), CLEAR), torch.ones(1, 3, 32, 32))
    photo = torch.from_numpy(data.chelsea()[:256, :256] / np.float32(255)).permute(2, 0, 1)[None]
    rendered = render(photo, CLEAR)
    assert abs(float(luma(rendered).mean() - luma(photo).mean())) < 0.5 / 255
    inside = (rendered.amin(1) > 0) & (rendered.amax(1) < 1)
    apart = ((rendered - luma(rendered)) - (photo - luma(photo))).abs().amax(1)
    assert apart[inside].max() < 1e-5
    assert float((rendered - photo).abs().max()) <= CLEAR.most + 1e-6


@pytest.mark.parametrize("wrong", [{"clarity": -0.1}, {"radius": 0}, {"busy": 0.0}, {"most": 0.0}, {"faint": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DetailConfig(**wrong)
