"""The tone stage: identity when untrained, monotone always, the same in training and in use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from samples import as_tensor

from qatie_cli.model import config, tone, tone_apply, tone_features, tone_map
from qatie_cli.model.config import ModelConfig, ToneConfig
from qatie_cli.model.tone import ToneStage
from qatie_cli.model.tone_map import ToneMap
from qatie_cli.photo.colour import LUMA


def _stage(spread: float) -> ToneStage:
    torch.manual_seed(0)
    stage = ToneStage(ToneConfig()).requires_grad_(False)
    stage.decide.weight.normal_(0, spread)
    stage.decide.bias.normal_(0, spread)
    return stage


def test_untrained_stage_leaves_a_photo_as_it_is(astronaut):
    decided = tone.decide(_stage(0.0), astronaut)
    toned = tone_map.apply_table(astronaut, decided.table(256))
    np.testing.assert_allclose(toned, astronaut / 255, atol=1e-5)


def test_curves_never_fall(astronaut):
    curves = _stage(3.0)(tone.view(astronaut)).curves
    assert (curves.diff(dim=-1) >= 0).all()


def _check_share_of_casts(before: tone.ToneStage, after: tone.ToneStage, share: float) -> list[torch.Tensor]:
    """That `after` keeps `share` of how the channels differ, and their mean; returns the matrices of both."""
    raw = [stage.decide(torch.nn.functional.leaky_relu(torch.linspace(-1, 1, 64), 0.2)) for stage in (before, after)]
    curves, matrices = ([r[part].unflatten(0, (3, -1)) for r in raw] for part in (slice(0, 51), slice(51, None)))
    apart = [c - c.mean(0) for c in curves]
    torch.testing.assert_close(apart[1], share * apart[0])
    torch.testing.assert_close(curves[1].mean(0), curves[0].mean(0))
    of_gray = [m.sum(1) for m in matrices]
    torch.testing.assert_close(of_gray[1].mean(), of_gray[0].mean())
    torch.testing.assert_close(of_gray[1] - of_gray[1].mean(), share * (of_gray[0] - of_gray[0].mean()))
    return matrices


def test_a_share_of_the_colours_is_kept_and_all_of_the_brightness(astronaut):
    view = tone.view(astronaut)
    before, after = _stage(0.5), _stage(0.5)
    after.keep_colours(0.25)
    _check_share_of_casts(before, after, 0.25)
    after.keep_colours(0.0)
    colourless, matrix = after(view)[:2]
    torch.testing.assert_close(colourless[0, 0], colourless[0, 2])
    torch.testing.assert_close(matrix[0], matrix[0, 0, 0] * torch.eye(3))


def test_a_share_of_the_casts_is_kept_and_all_of_the_saturation():
    before, after = _stage(0.5), _stage(0.5)
    after.keep_casts(0.25)
    matrices = _check_share_of_casts(before, after, 0.25)
    carried = ~torch.eye(3, dtype=torch.bool)  # what a channel takes from the others is its saturation
    torch.testing.assert_close(matrices[1][carried], matrices[0][carried])


def test_without_casts_gray_stays_gray(astronaut):
    stage = _stage(3.0)
    gray = torch.linspace(0, 1, 32).expand(1, 3, 1, 32)
    for share, most in ((1.0, None), (0.0, 1e-4)):
        stage.keep_casts(share)
        decision = stage(tone.view(astronaut))
        tinted = tone_apply.apply_global(gray, decision.curves, decision.matrices)
        tint = float((tinted.amax(1) - tinted.amin(1)).max())
        assert tint > 0.01 if most is None else tint < most


def test_white_stays_white_and_black_black():
    matrix = torch.tensor([[[1.02, -0.03, -0.01], [0.01, 0.98, 0.0], [-0.02, 0.0, 1.03]]])
    gray = torch.linspace(0.1, 0.8, 17).expand(1, 3, 17)
    ends = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert tone_apply.apply_global(ends, gray, matrix)[..., 1].max() < 0.85
    curves = tone_apply.with_pinned_ends(gray, matrix)
    black, white = tone_apply.apply_global(ends, curves, matrix).unbind(-1)
    assert white.min() > 0.99
    assert black.max() < tone_map.BLACK + 0.005
    assert (curves.diff(dim=-1) > 0).all()
    assert torch.equal(curves[..., 4:12], gray[..., 4:12])  # what lies between is left to the stage


def test_ends_that_lack_nothing_are_left_alone():
    steep = torch.linspace(-0.1, 1.2, 17).expand(1, 3, 17)
    assert torch.equal(tone_apply.with_pinned_ends(steep, torch.eye(3)[None]), steep)


def _of_contrast(contrast: float) -> torch.Tensor:
    """A thumbnail, half of it at 0.8, half of it darker by a share of that, with specks of black and of white."""
    seen = torch.full((1, 3, 64, 64), 0.8)
    seen[..., 32:] *= 1 - contrast
    seen[..., 0, :3], seen[..., 0, 61:] = 0, 1
    return seen


@pytest.mark.parametrize(
    ("contrast", "share"),
    [(0.0, 0), (0.1, 0), (config.FLAT, 0), (0.225, 0.5), (config.FULL, 1), (1.0, 1)],
)
def test_a_photo_of_one_thing_is_left_alone(contrast, share):
    stage, seen = _stage(0.3), _of_contrast(contrast)
    assert tone_features.confidence(seen) == pytest.approx(share, abs=1e-5)
    curves, matrices = stage(seen)[:2]
    identity = (torch.linspace(0, 1, 17).expand(1, 3, 17), torch.eye(3)[None])
    changed = max((given - same).abs().max() for given, same in zip((curves, matrices), identity, strict=True))
    assert changed > 0.1 if share else changed < 1e-5


def test_a_black_photo_is_left_alone():
    assert tone_features.confidence(torch.zeros(1, 3, 64, 64)) == 0


def test_table_and_training_compute_the_same(astronaut):
    stage = _stage(0.3)
    decided = tone.decide(stage, astronaut)
    used = tone_map.apply_table(astronaut, decided.table(256))
    trained = tone_apply.apply(as_tensor(astronaut), stage(tone.view(astronaut)))
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
    np.testing.assert_allclose(tone_map.apply_table(red, swap.table(256))[0, 0], [0, 0, 1], atol=1e-6)


def test_quantiles_say_where_black_and_white_lie():
    thumbnail = torch.full((2, 3, 64, 64), 0.5)
    thumbnail[1, 0, 0, :32] = 1.0  # 32 of 4,096 pixels are red: more than 0.3 %, less than 1 %
    thumbnail[1, 1, 1, :32] = 0.0  # and 32 lack green
    gray, odd = tone_features.quantiles(thumbnail).view(2, 6, len(config.QUANTILES))
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
    small = tone.view(coffee)
    assert small.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(small.mean((2, 3))[0], coffee.mean((0, 1)) / 255, atol=2e-3)


def _local_stage(spread: float, guide: config.Guide = "luma") -> ToneStage:
    torch.manual_seed(0)
    stage = ToneStage(ToneConfig(channels=4, bins=8, quantiles=True, grid=16, guide=guide)).requires_grad_(False)
    for layer in (stage.decide, stage.gains):
        layer.weight.normal_(0, spread)
        layer.bias.normal_(0, spread)
    return stage


def test_an_untrained_local_stage_leaves_a_photo_as_it_is(astronaut):
    photo = as_tensor(astronaut)
    toned = tone_apply.apply(photo, _local_stage(0.0)(tone.view(astronaut, 128)))
    assert (toned - photo).abs().max() < 1e-5


@pytest.mark.parametrize("guide", ["luma", "largest"])
def test_gains_are_the_same_in_training_and_in_use(astronaut, guide):
    stage = _local_stage(0.3, guide)
    trained = tone_apply.apply(as_tensor(astronaut), stage(tone.view(astronaut, 128)))[0].permute(1, 2, 0).numpy()
    decided = tone.decide(stage, astronaut)
    used = tone_map.apply_table(astronaut, decided.table(256))
    parts = [
        tone_map.apply_gains(used[t : t + 100, left : left + 300], decided.grid, t, left, (512, 512), decided.guide)
        for left in (0, 300)
        for t in range(0, 512, 100)
    ]
    used = np.concatenate([np.concatenate(parts[:6]), np.concatenate(parts[6:])], axis=1)
    assert np.abs(decided.grid).max() > 0.3
    np.testing.assert_allclose(used, trained, atol=2e-5)


def test_a_crop_takes_the_gains_of_its_place(astronaut):
    photo, decision = as_tensor(astronaut), _local_stage(0.3)(tone.view(astronaut, 128))
    whole = tone_apply.apply(photo, decision)
    box = torch.tensor([[0.25, 0.5, 0.5, 0.75]])
    crop = tone_apply.apply(photo[..., 256:384, 128:256], decision, box)
    torch.testing.assert_close(crop, whole[..., 256:384, 128:256], atol=1e-5, rtol=0)


def test_a_vivid_pixel_reads_the_gain_of_its_luma_or_of_its_largest_channel():
    blue = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1) * 0.8
    grid = torch.linspace(-1, 1, 9).view(1, 9, 1, 1).expand(1, 9, 8, 8)  # -1 EV for black, 1 EV for white
    for guide, brightness in (("luma", 0.8 * LUMA[2]), ("largest", 0.8)):
        toned = tone_apply.apply_grid(blue, grid, guide=guide)
        expected = tone_apply.with_gain(blue, torch.full((1, 1, 1, 1), 2.0 ** (2 * brightness - 1)))
        torch.testing.assert_close(toned, expected)


def test_files_from_before_the_guide_are_read_and_written_as_they_were():
    before = ModelConfig(tone=ToneConfig(bins=8, grid=16)).to_table()
    assert "guide" not in before["tone"]
    assert ModelConfig.from_table(before).tone.guide == "luma"
    by_largest = ModelConfig(tone=ToneConfig(bins=8, grid=16, guide="largest"))
    assert ModelConfig.from_table(by_largest.to_table()) == by_largest


def test_gains_keep_hue_and_black_and_white():
    photo = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.2, 0.1, 0.05], [1.0, 0.5, 0.0]]).T[None, :, None]
    for ev in (-1.5, 1.5):
        gained = tone_apply.with_gain(photo, torch.full((1, 1, 1, 4), 2.0**ev))[0, :, 0].T
        torch.testing.assert_close(gained[:2], photo[0, :, 0].T[:2])
        assert (gained <= 1).all()
        for before, after in zip(photo[0, :, 0].T[2:], gained[2:], strict=True):
            torch.testing.assert_close(after / after.max(), before / before.max())


def test_a_flat_photo_takes_no_gains():
    decision = _local_stage(0.3)(torch.full((1, 3, 128, 128), 0.6))
    assert decision.grids.abs().max() == 0


@pytest.mark.parametrize(
    "wrong", [{"grid": 12}, {"grid": 16, "depth": 1}, {"grid": 16, "channels": 0, "bins": 8}, {"guide": "red"}]
)
def test_impossible_grids_are_refused(wrong):
    with pytest.raises(ValueError, match="grid"):
        ToneConfig(**wrong)


def test_a_smooth_photo_is_left_alone_and_a_structured_one_is_not(astronaut, coffee):
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    lamp = (0.4 + 0.5 * torch.exp(-2 * (rows**2 + columns**2))).expand(1, 3, 128, 128)
    assert tone_features.confidence(lamp) == 1  # its contrast is high
    assert tone_features.texture_confidence(lamp) == 0
    for photo in (astronaut, coffee):
        assert tone_features.texture_confidence(tone.view(photo, 128)) == 1
    decision = _local_stage(0.3)(lamp)
    assert (tone_apply.apply(lamp, decision) - lamp).abs().max() < 0.02
