"""The tone stage's samples: exposure of targets, the degradation of many views at once, uneven light, the rendering."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from samples import as_tensor

from qatie_cli.data import degradation, full_frames, rendering, uneven_light
from qatie_cli.data.degradation import DegradationConfig, ParameterRange
from qatie_cli.data.full_frames import Frame, FullFrameConfig, Kind
from qatie_cli.data.rendering import RenderingConfig
from qatie_cli.data.uneven_light import LightConfig, LightParameters
from qatie_cli.model.tone_features import luma

FULL = RenderingConfig(strength=1)
SHADOWS = RenderingConfig(strength=1, contrast=0, deep=0)  # what opens shadows, by itself


@pytest.mark.parametrize("level", [0.15, 0.35, 0.8])
def test_targets_come_nearer_to_the_middle_by_the_share_asked_for(astronaut, level):
    photo = as_tensor(astronaut)
    photo = photo * (level / luma(photo).mean() * 0.6)
    before = float(luma(photo).mean())
    after = float(luma(full_frames.toward_middle(photo, torch.full((1, 1, 1, 1), 0.5))).mean())
    assert after == pytest.approx(before + 0.5 * (full_frames.MIDDLE_LUMA - before), abs=0.01)


def test_undegraded_photos_that_use_the_whole_range_keep_their_exposure():
    """As dark as each other in the mean; one holds a bright face, the other is dim everywhere."""
    config = FullFrameConfig(untouched=1, middle=0.6, middle_untouched=1, middle_full_range=0)
    plain = RenderingConfig(strength=0)
    lit = np.full((64, 64, 3), 0.2, np.float32)
    lit[:16] = 0.95
    dim = np.full_like(lit, lit.mean())
    dim[::2] -= 0.1
    batch = full_frames.samples([Frame(photo, Kind.PHOTO) for photo in (lit, dim)], config, plain)
    moved = luma(batch.target).mean((1, 2, 3)) - luma(batch.input).mean((1, 2, 3))
    assert float(moved[0]) == pytest.approx(0, abs=0.005)
    assert float(moved[1]) > 0.03


def test_views_are_degraded_as_crops_are(astronaut):
    rng = np.random.default_rng(3)
    noiseless = dataclasses.replace(
        DegradationConfig(untouched=0), shot_noise=ParameterRange(0, 0, 0), read_noise=ParameterRange(0, 0, 0)
    )
    view = degradation.from_u8(astronaut[::4, ::4])
    frames = [Frame(view, Kind.PHOTO, degradation.sample(noiseless, rng)) for _ in range(12)]
    at_once = full_frames.degraded(as_tensor(astronaut[::4, ::4]).expand(12, -1, -1, -1), frames)
    for frame, made in zip(frames, at_once, strict=True):
        alone = degradation.apply(frame.parameters, view, tone_only=True)
        np.testing.assert_allclose(made.permute(1, 2, 0).numpy(), alone, atol=1e-4)


def test_a_backlight_darkens_what_is_dark_most(astronaut):
    photo = as_tensor(astronaut[::4, ::4])
    field = uneven_light.field([LightParameters(backlight=1.5, backlight_contrast=6)], photo)
    dark = luma(photo) < luma(photo).quantile(0.2)
    bright = luma(photo) > luma(photo).quantile(0.8)
    assert -1.5 <= field.min() <= field.max() <= 0
    assert field[dark].mean() < field[bright].mean() - 0.4


def test_a_vignette_darkens_the_corners_by_its_strength():
    field = uneven_light.field([LightParameters(vignette=0.8)], torch.full((1, 3, 65, 65), 0.5))[0, 0]
    assert field[0, 0] == pytest.approx(-0.8, abs=1e-3)
    assert field[32, 32] == pytest.approx(0, abs=1e-3)


def test_light_is_a_function_of_its_randomness():
    first, again, other = (uneven_light.sample(LightConfig(), np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


def _photo(dark: float, bright: float) -> torch.Tensor:
    """A textured photo: dark on its left, bright on its right."""
    rng = np.random.default_rng(0)
    halves = np.where(np.arange(128) < 64, dark, bright) * (1 + 0.35 * rng.uniform(-1, 1, (128, 128)))
    return torch.from_numpy(np.clip(halves, 0, 1).astype(np.float32)).expand(1, 3, 128, 128)


def test_the_rendering_opens_textured_shadows_and_keeps_white():
    photo = _photo(0.15, 0.7)
    rendered = rendering.render(photo, SHADOWS)
    assert luma(rendered)[..., :64].mean() > 1.2 * luma(photo)[..., :64].mean()
    white = torch.cat([photo, torch.ones(1, 3, 128, 32)], dim=3)
    assert rendering.render(white, FULL)[..., 128:].min() > 0.99


def test_smooth_shadows_stay_dark():
    smooth = torch.full((1, 3, 128, 128), 0.8)
    smooth[..., :64] = 0.12
    rendered = rendering.render(smooth, SHADOWS)
    opened = rendering.render(smooth, dataclasses.replace(SHADOWS, smooth_shadows=0))
    assert rendered[..., :50].mean() < 0.13
    assert opened[..., :50].mean() > 0.15


@pytest.mark.parametrize("colour", [(0.85, 0.65, 0.52), (0.9, 0.15, 0.2)], ids=["skin", "red"])
def test_bright_skin_and_vivid_colours_become_no_brighter_where_they_are_held(colour):
    photo = _photo(0.2, 0.6).clone()
    photo[:, :, 40:90, 40:90] = torch.tensor(colour)[None, :, None, None]
    free, held = (rendering.render(photo, RenderingConfig(strength=1, deep=0, hold=h)) for h in (0.0, 1.0))
    inside = (slice(None), slice(None), slice(50, 80), slice(50, 80))
    before = luma(photo[inside]).mean()
    assert luma(free[inside]).mean() > before + 0.003
    assert luma(held[inside]).mean() < before + 0.001
    torch.testing.assert_close(held[..., 100:120, 100:120], free[..., 100:120, 100:120])


def test_what_is_vivid_in_the_input_becomes_no_more_saturated_in_the_target():
    """A vivid blue, a pale one, and a blue as dark as noise, each beside its more saturated rendering."""
    shown = torch.tensor([[0.15, 0.3, 0.6], [0.5, 0.55, 0.6], [0.02, 0.04, 0.08]]).T[None, :, None]
    target = shown.clone()
    target[:, :2] *= 0.5
    free, held = (rendering.with_vivid_colours_of(shown, target, share) for share in (0.0, 1.0))
    torch.testing.assert_close(free, target)
    torch.testing.assert_close(held[0, [0, 2], 0, 0], shown[0, [0, 2], 0, 0])  # the least and the largest channel
    torch.testing.assert_close(held[..., 1:], target[..., 1:])
    duller = shown * 0.5 + 0.2
    torch.testing.assert_close(rendering.with_vivid_colours_of(shown, duller, 1.0), duller)


def test_the_move_to_the_middle_holds_bright_skin():
    config, held = FullFrameConfig(untouched=1, middle=1, middle_untouched=1), RenderingConfig(strength=0, hold=1)
    face = np.full((64, 64, 3), 0.15, np.float32) * (
        1 + (np.indices((64, 64)).sum(0) % 2)[..., None].astype(np.float32) / 2
    )
    face[20:44, 20:44] = (0.85, 0.65, 0.52)
    brighter = [
        full_frames.samples([Frame(face, Kind.PHOTO)], config, rendered).target[0, :, 32, 32]
        for rendered in (RenderingConfig(strength=0), held)
    ]
    assert luma(brighter[0].view(1, 3, 1, 1)) > luma(torch.tensor([0.85, 0.65, 0.52]).view(1, 3, 1, 1)) + 0.05
    torch.testing.assert_close(brighter[1], torch.tensor([0.85, 0.65, 0.52]), atol=5e-3, rtol=0)


def test_holding_colours_leaves_no_value_below_black():
    """A value of -1e-9 has no shot noise: not a number, which ended a training."""
    rng = np.random.default_rng(0)
    photo = torch.from_numpy(rng.choice([0.0, 1e-8, 0.6, 0.9], (4, 3, 64, 64)).astype(np.float32))
    brighter = (photo + 1e-7 * torch.from_numpy(rng.random((4, 3, 64, 64)).astype(np.float32))).clamp(0, 1)
    for hold in (0.3, 1.0):
        assert rendering.with_bright_colours_of(photo, brighter, hold).min() >= 0


def test_smooth_shadows_of_an_undegraded_photo_are_not_moved_to_the_middle():
    """A sky at night on the left, as dark grass on the right."""
    photo = _photo(0.15, 0.15).clone()
    photo[..., :64] = 0.15
    brighter = full_frames.toward_middle(photo, torch.full((1, 1, 1, 1), 0.5))
    kept = rendering.with_smooth_shadows_of(photo, brighter)
    torch.testing.assert_close(kept[..., :40], photo[..., :40])
    torch.testing.assert_close(kept[..., 88:], brighter[..., 88:], atol=1e-3, rtol=0)


def test_vibrance_leaves_gray_with_a_cast_alone():
    paper, leaf = torch.tensor([0.8, 0.8, 0.77]), torch.tensor([0.45, 0.6, 0.4])
    photo = torch.stack([paper, leaf]).T.reshape(1, 3, 2, 1)
    vivid = rendering._vibrant(photo, 0.3)
    torch.testing.assert_close(vivid[0, :, 0, 0], paper)
    assert float(vivid[0, 1, 1, 0] - vivid[0, 2, 1, 0]) > 0.22


def test_a_photo_that_is_dark_as_a_whole_is_left_as_it_is():
    photo = _photo(0.05, 0.2)
    assert torch.equal(rendering.render(photo, FULL), photo)


def test_strength_is_the_share_of_the_rendering(astronaut):
    photo = as_tensor(astronaut)
    full, half = (rendering.render(photo, RenderingConfig(strength=s)) for s in (1.0, 0.5))
    torch.testing.assert_close(half, (photo + full) / 2)


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"dark_from": 0.5}, {"black": 0.95}])
def test_impossible_renderings_are_refused(wrong):
    with pytest.raises(ValueError, match="rendering"):
        RenderingConfig(**wrong)
