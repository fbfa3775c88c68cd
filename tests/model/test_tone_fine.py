"""What a tone stage decides by rules: what keeps its brightness, local contrast, and bright photos that stay bright."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from samples import FINE, LOCAL, as_tensor

from qatie_cli.enhance.tiling import Region
from qatie_cli.enhance.toned_rows import ToneRows
from qatie_cli.kernels.fine import HOLD
from qatie_cli.model import tone, tone_apply, tone_fine
from qatie_cli.model.config import FINE_VIEW_PX, HIGHLIGHT, LOCAL_VIEW_PX, ModelConfig, ToneConfig
from qatie_cli.model.tone import ToneStage
from qatie_cli.model.tone_features import luma

SIDE = FINE_VIEW_PX
SKIN_COLOUR = (0.9, 0.74, 0.66)
RIGHT = (Ellipsis, slice(156, 236))


def _stage(gain_ev: float = 0.0, curve: float = 0.0, **settings: float) -> ToneStage:
    """One that decides the same for every photo: a gain everywhere, and curves that rise slower (below 0) or faster."""
    torch.manual_seed(0)
    stage = ToneStage(replace(LOCAL, **settings)).requires_grad_(False)
    stage.gains.bias.fill_(float(np.arctanh(gain_ev / 1.5)))
    stage.decide.bias[:51] = curve
    return stage


def _textured(mean: float, deviation: float) -> torch.Tensor:
    """A gray texture of blobs of four pixels, (1, 3, SIDE, SIDE)."""
    noise = torch.randn(1, 1, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(1))
    blobs = F.interpolate(noise, scale_factor=4, mode="bilinear")
    return (mean + deviation * blobs).clamp(0.01, 0.99).expand(1, 3, SIDE, SIDE).clone()


def _brightened(photo: torch.Tensor, stage: ToneStage) -> torch.Tensor:
    return luma(tone_apply.apply(photo, stage(photo))) - luma(photo)


def test_bright_skin_keeps_its_brightness_and_what_lies_beside_it_does_not():
    photo = _textured(0.4, 0.15)
    photo[..., 20:100] = torch.tensor(SKIN_COLOUR).view(1, 3, 1, 1)
    free, held = (_brightened(photo, _stage(0.8, hold=hold, clarity=1e-6)) for hold in (0.0, 1.0))
    inside = (Ellipsis, slice(40, 80))
    assert free[inside].mean() > 0.03
    assert held[inside].abs().max() < 0.01
    assert luma(photo)[RIGHT].mean() < HIGHLIGHT[0]
    assert (held / free)[RIGHT].median() > 0.99


def test_skin_that_curves_clip_keeps_its_colour():
    photo = _textured(0.4, 0.15)
    photo[..., 20:100] = torch.tensor(SKIN_COLOUR).view(1, 3, 1, 1)
    stage = _stage(hold=1.0)
    free = _stage()(F.avg_pool2d(photo, 2))
    decision = free._replace(curves=1.15 * free.curves)
    refined = stage._refined(decision, photo, tone.statistics_view(photo), torch.ones(1, 1))
    inside = (Ellipsis, slice(40, 80))
    assert tone_apply.apply(photo, decision)[:, 0][inside].min() == 1  # a gain could not take it back
    assert (tone_apply.apply(photo, refined) - photo)[inside].abs().max() < 0.01


@pytest.mark.parametrize(("value", "kept"), [(0.45, 1.0), (0.75, 0.75), (0.9, 0.53)])
def test_the_lighter_the_less_it_is_brightened(value, kept):
    photo = _textured(0.3, 0.1)
    photo[..., 20:100] = value
    inside = (Ellipsis, slice(40, 80))
    free, held = (_brightened(photo, _stage(0.5, hold=hold, clarity=1e-6))[inside].mean() for hold in (0.0, 1.0))
    assert held / free == pytest.approx(kept, abs=0.07)


@pytest.mark.parametrize(("black", "grayed"), [(0.05, False), (0.3, True)])
def test_white_becomes_gray_only_behind_a_veil(black, grayed):
    photo = _textured(0.6, 0.05)
    photo[..., 20:100] = 0.9
    photo[:, :, -8:] = black
    free = _stage()(F.avg_pool2d(photo, 2))
    darker = free._replace(curves=free.curves - 0.05 * torch.sin(torch.linspace(0, torch.pi, 17)))
    held = _stage(hold=1.0)._refined(darker, photo, tone.statistics_view(photo), torch.ones(1, 1))
    inside = (Ellipsis, slice(40, 80))
    before, after = ((photo - tone_apply.apply(photo, decision))[inside].mean() for decision in (darker, held))
    assert after / before == pytest.approx(1 if grayed else 0.54, abs=0.06)


@pytest.mark.parametrize(("deviation", "stays"), [(0.0, True), (0.05, False)])
def test_shadows_stay_dark_where_they_are_smooth(deviation, stays):
    photo = _textured(0.7, 0.15)
    photo[..., 20:100] = _textured(0.1, deviation)[..., 20:100]
    inside = (Ellipsis, slice(50, 70))  # further in than windows reach
    free, held = (_brightened(photo, _stage(0.5, hold=hold, clarity=1e-6))[inside] for hold in (0.0, 1.0))
    assert free.mean() > 0.02
    assert held.mean() < 0.2 * free.mean() if stays else held.mean() > 0.9 * free.mean()


def test_shadows_of_an_underexposed_photo_are_opened_though_they_are_smooth():
    photo = _textured(0.35, 0.1)
    photo[..., 20:100] = 0.1
    free, held = (_brightened(photo, _stage(1.4, hold=hold, clarity=1e-6)) for hold in (0.0, 1.0))
    assert free.mean() > 0.12  # the whole photo was meant to be brighter
    inside = (Ellipsis, slice(40, 80))
    torch.testing.assert_close(held[inside], free[inside])


def test_what_curves_brighten_is_taken_back_as_well_as_gains():
    photo = _textured(0.7, 0.15)
    photo[..., 20:100] = 0.12
    stage = _stage(0.3, hold=1.0)
    decision = stage(photo)
    steeper = decision.curves + 0.06 * torch.sin(torch.linspace(0, torch.pi, 17))
    changed = stage._refined(decision._replace(curves=steeper), photo, tone.statistics_view(photo), torch.ones(1, 1))
    inside = (Ellipsis, slice(50, 70))
    assert (tone_apply.apply_global(photo, steeper, decision.matrices) - photo)[inside].mean() > 0.02
    assert (tone_apply.apply(photo, changed) - photo)[inside].abs().max() < 0.012


def _contrasted(photo: torch.Tensor, clarity: float = 1.8) -> torch.Tensor:
    decision = _stage(clarity=clarity)(photo)
    return tone_apply.with_local_contrast(tone_apply.apply(photo, decision), decision)


def test_texture_stands_out_more_and_its_mean_stays():
    photo = _textured(0.55, 0.06) * torch.tensor([0.8, 1.05, 1.0]).view(1, 3, 1, 1)
    after = _contrasted(photo)
    assert 1.2 < luma(after).std() / luma(photo).std() < 1.6
    assert (after.mean() - photo.mean()).abs() < 0.005


def test_what_is_as_faint_as_noise_stands_out_no_more():
    photo = _textured(0.5, 0.2)
    photo[..., 20:100] = 0.5 + 0.003 * torch.randn(1, 1, SIDE, 80, generator=torch.Generator().manual_seed(2))
    inside = (Ellipsis, slice(40, 80))
    assert _contrasted(photo)[inside].std() < 1.1 * photo[inside].std()


@pytest.mark.parametrize(("colour", "most"), [((1.25, 1.0, 0.85), 0.4), ((1.0, 1.0, 1.0), 0.6)], ids=["skin", "gray"])
def test_skin_and_what_is_gray_stay_smoother_than_other_texture(colour, most):
    photos = (_textured(0.55, 0.05) * torch.tensor(factors).view(1, 3, 1, 1) for factors in ((0.8, 1.05, 1.0), colour))
    gained = [luma(_contrasted(photo)).std() / luma(photo).std() - 1 for photo in photos]
    assert gained[1] < most * gained[0]


def test_an_edge_of_an_object_gets_no_halo():
    photo = _textured(0.5, 0.02)
    photo[..., SIDE // 2 :] += 0.4
    sides = (Ellipsis, slice(SIDE // 2 - 12, SIDE // 2)), (Ellipsis, slice(SIDE // 2, SIDE // 2 + 12))
    change = _contrasted(photo) - photo
    for side in sides:
        assert change[side].mean((0, 1, 2)).abs().max() < 0.02


def test_white_and_black_stay():
    photo = _textured(0.5, 0.3)
    photo[..., :4], photo[..., 4:8] = 1.0, 0.0
    after = _contrasted(photo)
    assert after[..., :4].min() == 1
    assert after[..., 4:8].max() < 0.01


@pytest.mark.parametrize(("clipped", "black", "darkened"), [(0.0, 0.05, False), (0.2, 0.05, True), (0.0, 0.3, True)])
def test_only_a_bright_photo_that_is_overexposed_or_veiled_is_darkened(clipped, black, darkened):
    photo = _textured(0.75, 0.06)
    photo[:, :, : round(clipped * SIDE)] = 1.0
    photo[:, :, -8:] = black
    stage = _stage(-0.8, darkening=0.0, clarity=1e-6)
    free = _stage(-0.8)(F.avg_pool2d(photo, 2))
    curves = free.curves**1.3
    decision = stage._refined(
        free._replace(curves=curves), photo, tone.statistics_view(F.avg_pool2d(photo, 2)), torch.ones(1, 1)
    )
    fall = (photo - tone_apply.apply(photo, decision)).mean()
    assert fall > 0.05 if darkened else fall.abs() < 0.005


def test_a_photo_that_gains_brighten_more_than_curves_darken_is_not_darkened(astronaut):
    view = tone.view(astronaut, FINE_VIEW_PX)
    stage, free = _stage(0.8, darkening=0.0), _stage(0.8)(F.avg_pool2d(view, 2))
    decision = free._replace(curves=free.curves - 0.02 * torch.sin(torch.linspace(0, torch.pi, 17)))
    thumbnail = tone.statistics_view(F.avg_pool2d(view, 2))
    assert (tone_apply.apply_global(thumbnail, decision.curves, decision.matrices) - thumbnail).mean() < -0.01
    kept = stage._refined(decision, view, thumbnail, torch.ones(1, 1))
    assert torch.equal(kept.curves, decision.curves)
    assert torch.equal(kept.grids, decision.grids)


def test_a_stage_is_trained_as_if_it_had_no_rules(astronaut):
    view = tone.view(astronaut, LOCAL_VIEW_PX)
    ruled, learnt = _stage(0.5, hold=0.8, clarity=0.9, darkening=0.3)(view), _stage(0.5)(view)
    assert ruled.fine is None
    for one, other in zip(ruled[:3], learnt[:3], strict=True):
        assert torch.equal(one, other)
    assert FINE.learnt == LOCAL


def test_rules_are_the_same_in_training_and_in_use(astronaut):
    torch.manual_seed(0)
    stage = ToneStage(FINE).requires_grad_(False)
    for layer in (stage.decide, stage.gains):
        layer.weight.normal_(0, 0.3)
        layer.bias.normal_(0, 0.3)
    decision, decided = stage(tone.view(astronaut, FINE.view_px)), tone.decide(stage, astronaut)
    toned = tone_apply.apply(as_tensor(astronaut), decision)
    expected = tone_apply.with_local_contrast(toned, decision)[0].permute(1, 2, 0).numpy()
    assert (expected - toned[0].permute(1, 2, 0).numpy()).std() > 0.005
    rows = ToneRows.of(decided, 256, astronaut.shape[:2])
    region = Region(50, 301, 20, 500)
    used = rows.contrasted(rows.floats(astronaut, region, region.place), region)
    np.testing.assert_allclose(used, region.of(expected), atol=3e-5)
    assert decided.fine is not None
    assert decided.fine[:, HOLD].max() > 0.3


def test_files_from_before_the_rules_are_read_and_written_as_they_were():
    before = ModelConfig(tone=LOCAL).to_table()
    assert not {"hold", "clarity", "darkening"} & set(before["tone"])
    assert ModelConfig.from_table(before).tone == LOCAL
    assert ModelConfig.from_table(ModelConfig(tone=FINE).to_table()).tone == FINE


@pytest.mark.parametrize("wrong", [{"hold": 1.5}, {"clarity": -0.1}, {"darkening": 2.0}])
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(ValueError, match="hold and darkening lie in"):
        replace(LOCAL, **wrong)


def test_rules_need_a_grid():
    with pytest.raises(ValueError, match="need a grid"):
        ToneConfig(bins=8, clarity=0.5)


def test_the_base_layer_is_that_of_the_enlarged_lines():
    y = luma(_textured(0.5, 0.1))
    slope, offset = tone_fine.contrast_lines(_textured(0.5, 0.1), 1.0).split(1, 1)
    assert (slope >= 0).all()
    assert ((slope * y + offset).mean()).abs() < 0.003
