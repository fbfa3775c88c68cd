"""The tone stage: identity when untrained, monotone always, the same in training and in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import as_tensor

from qatie_cli.model import tone
from qatie_cli.model.tone import ToneConfig, ToneMap, ToneStage


def _stage(spread: float) -> ToneStage:
    torch.manual_seed(0)
    stage = ToneStage(ToneConfig()).requires_grad_(False)
    stage.decide.weight.normal_(0, spread)
    stage.decide.bias.normal_(0, spread)
    return stage


def test_untrained_stage_leaves_a_photo_as_it_is(astronaut):
    decided = tone.decide(_stage(0.0), astronaut)
    toned = tone.apply_table(astronaut, decided.table(256))
    np.testing.assert_allclose(toned, astronaut / 255, atol=1e-5)


def test_curves_never_fall(astronaut):
    curves, _ = _stage(3.0)(tone.thumbnail(astronaut))
    assert (curves.diff(dim=-1) >= 0).all()


def test_white_stays_white_and_black_black():
    matrix = torch.tensor([[[1.02, -0.03, -0.01], [0.01, 0.98, 0.0], [-0.02, 0.0, 1.03]]])
    gray = torch.linspace(0.1, 0.8, 17).expand(1, 3, 17)
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert tone.apply_tone(ends, gray, matrix)[..., 1].max() < 0.85
    curves = tone.with_pinned_ends(gray, matrix)
    black, white = tone.apply_tone(ends, curves, matrix).unbind(-1)
    assert white.min() > 0.99
    assert black.max() < tone.BLACK + 0.005
    assert (curves.diff(dim=-1) > 0).all()
    assert torch.equal(curves[..., 4:12], gray[..., 4:12])  # what lies between is left to the stage


def test_ends_that_lack_nothing_are_left_alone():
    steep = torch.linspace(-0.1, 1.2, 17).expand(1, 3, 17)
    assert torch.equal(tone.with_pinned_ends(steep, torch.eye(3)[None]), steep)


def _of_contrast(contrast: float) -> torch.Tensor:
    """A thumbnail, half of it at 0.8, half of it darker by a share of that, with specks of black and of white."""
    seen = torch.full((1, 3, 64, 64), 0.8)
    seen[..., 32:] *= 1 - contrast
    seen[..., 0, :3], seen[..., 0, 61:] = 0, 1
    return seen


@pytest.mark.parametrize(
    ("contrast", "share"), [(0.0, 0), (0.1, 0), (tone.FLAT, 0), (0.225, 0.5), (tone.FULL, 1), (1.0, 1)]
)
def test_a_photo_of_one_thing_is_left_alone(contrast, share):
    stage, seen = _stage(0.3), _of_contrast(contrast)
    assert tone.confidence(seen) == pytest.approx(share, abs=1e-5)
    curves, matrices = stage(seen)
    identity = (torch.linspace(0, 1, 17).expand(1, 3, 17), torch.eye(3)[None])
    changed = max((given - same).abs().max() for given, same in zip((curves, matrices), identity, strict=True))
    assert changed > 0.1 if share else changed < 1e-5


def test_a_black_photo_is_left_alone():
    assert tone.confidence(torch.zeros(1, 3, 64, 64)) == 0


def test_table_and_training_compute_the_same(astronaut):
    stage = _stage(0.3)
    decided = tone.decide(stage, astronaut)
    used = tone.apply_table(astronaut, decided.table(256))
    trained = tone.apply_tone(as_tensor(astronaut), *stage(tone.thumbnail(astronaut))).clamp(0, 1)
    assert abs(used - astronaut / 255).max() > 0.05  # the stage does something
    np.testing.assert_allclose(used, trained[0].permute(1, 2, 0).numpy(), atol=2e-5)


def test_sixteen_bit_values_fall_between_the_eight_bit_ones():
    knots = np.linspace(0, 1, 17, dtype=np.float32) ** 2
    decided = ToneMap(np.stack([knots] * 3), np.eye(3, dtype=np.float32))
    eight, sixteen = decided.table(256), decided.table(65536)
    np.testing.assert_allclose(sixteen[:, ::257, :], eight, atol=1e-6)
    assert len(np.unique(sixteen[0, :, 0])) > 60_000


def test_matrix_mixes_channels():
    swap = ToneMap(np.stack([np.linspace(0, 1, 17)] * 3).astype(np.float32), np.eye(3, dtype=np.float32)[[2, 1, 0]])
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    np.testing.assert_allclose(tone.apply_table(red, swap.table(256))[0, 0], [0, 0, 1], atol=1e-6)


def test_quantiles_say_where_black_and_white_lie():
    thumbnail = torch.full((2, 3, 64, 64), 0.5)
    thumbnail[1, 0, 0, :32] = 1.0  # 32 of 4,096 pixels are red: more than 0.3 %, less than 1 %
    thumbnail[1, 1, 1, :32] = 0.0  # and 32 lack green
    gray, odd = tone.quantiles(thumbnail).view(2, 6, len(tone.QUANTILES))
    assert torch.equal(gray, torch.zeros_like(gray))
    red, green, _, _, largest, smallest = odd
    assert red[-1] == 1
    assert red[:-1].abs().max() == 0
    assert torch.equal(largest, red)
    assert green[0] == -1
    assert green[1:].abs().max() == 0
    assert torch.equal(smallest, green)


@pytest.mark.parametrize("values", [{"bins": 1}, {"channels": 0}, {"channels": -1}, {"knots": 1}])
def test_a_stage_that_sees_nothing_is_refused(values):
    with pytest.raises(ValueError, match="a tone stage needs"):
        ToneConfig(**values)


def test_thumbnail_is_the_mean_of_the_whole_photo(coffee):
    small = tone.thumbnail(coffee)
    assert small.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(small.mean((2, 3))[0], coffee.mean((0, 1)) / 255, atol=2e-3)
