"""Good photos as training data: which are taken, how they are split, and what the stages see of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from qatie_cli.data import clean as clean_photos
from qatie_cli.data import degradation, detail, full_frames, sampling, splitting
from qatie_cli.data.clean import DegradedSource, ToneSampling
from qatie_cli.data.degradation import DegradationConfig, ParameterRange
from qatie_cli.data.detail import DetailConfig
from qatie_cli.data.full_frames import FullFrameConfig
from qatie_cli.data.rendering import RenderingConfig
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError
from qatie_cli.model import tone_features


def test_batches_are_a_function_of_seed_and_step(clean):
    source = DegradedSource(clean, DegradationConfig(), 0, 32)
    first, again, other = (source.crops(step, range(2)) for step in (4, 4, 5))
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.view, again.view)
    assert not torch.equal(first.target, other.target)


def test_faint_detail_and_surfaces_are_the_targets_and_what_is_degraded(clean):
    none, one = ParameterRange(0, 0.01, 0.01), ParameterRange(1, 0.01, 0.01)
    usual, faint, rough = (
        DegradedSource(clean, DegradationConfig(untouched=0.5, faint=f, surface=s), 0, 32).crops(0, range(16))
        for f, s in ((none, none), (one, none), (none, one))
    )
    for sharp, target in zip(usual.target, faint.target, strict=True):
        expected = degradation.faint(sharp.permute(1, 2, 0).numpy(), 0.01)
        np.testing.assert_allclose(target.permute(1, 2, 0).numpy(), expected, atol=1e-6)
    within = ((usual.target > 0.1) & (usual.target < 0.9)).all(1)  # where nothing is clipped
    added = (rough.target - usual.target).movedim(1, -1)[within]
    assert len(added) > 1000
    assert added.square().mean().sqrt() == pytest.approx(0.01, rel=0.15)
    assert np.ptp(added.numpy(), axis=1).max() < 1e-6  # gray, as what phones leave of noise is
    assert 0 <= rough.target.min() <= rough.target.max() <= 1
    same = [
        [torch.equal(*pair) for pair in zip(batch.input, batch.target, strict=True)] for batch in (usual, faint, rough)
    ]
    assert same[0] == same[1] == same[2]  # the untouched are, and no others
    assert 3 < sum(same[0]) < 13
    assert torch.equal(usual.view, rough.view)  # tone is decided by the photo itself


def test_soft_targets_are_what_is_degraded(clean):
    none, one = ParameterRange(0, 0.8, 0.8), ParameterRange(1, 0.8, 0.8)
    kept = dataclasses.replace(DegradationConfig(), untouched=1.0, faint=none, surface=none)
    sharp, soft = (
        DegradedSource(clean, dataclasses.replace(kept, softness=s), 0, 32).crops(0, range(4)) for s in (none, one)
    )
    for before, after in zip(sharp.target, soft.target, strict=True):
        blurred = degradation.gaussian_blur(before.permute(1, 2, 0).numpy(), 0.8)
        np.testing.assert_allclose(after.permute(1, 2, 0).numpy(), blurred, atol=1e-6)
    assert torch.equal(soft.input, soft.target)


def test_what_is_restored_has_the_detail_of_the_target_at_the_tone_of_the_input(clean):
    never = ParameterRange(0, 0, 0)
    tone_only = dataclasses.replace(
        DegradationConfig(), untouched=0.0, blur=never, shot_noise=never, read_noise=never, denoise_blur=never,
        sharpen=never, jpeg=never, jpeg_before=never, overexposure=never, exposure=ParameterRange(1, -1.5, -0.5),
    )  # fmt: skip
    batch = DegradedSource(clean, tone_only, 0, 32).crops(0, range(8))
    assert (batch.restored - batch.input).abs().max() <= 0.51 / 255
    assert (batch.target - batch.input).abs().mean() > 0.05
    noisy = dataclasses.replace(tone_only, read_noise=ParameterRange(1, 0.05, 0.05))
    batch = DegradedSource(clean, noisy, 0, 32).crops(0, range(8))
    error = batch.input - batch.restored
    assert error.std() > 0.02 and abs(float(error.mean())) < 0.02


def test_detail_is_rendered_in_what_the_network_is_to_restore_and_nowhere_else(clean):
    never = ParameterRange(0, 0, 0)
    kept = dataclasses.replace(DegradationConfig(), untouched=1.0, faint=never, surface=never, softness=never)
    plain, clear = (
        DegradedSource(clean, kept, 0, 32, rendered=d).crops(0, range(6)) for d in (detail.UNCHANGED, DetailConfig(0.7))
    )
    assert torch.equal(plain.input, clear.input) and torch.equal(plain.view, clear.view)
    for asked in (clear.restored, clear.target):
        torch.testing.assert_close(asked, detail.render(plain.target, DetailConfig(0.7)), rtol=0, atol=1e-6)
    assert (clear.restored - plain.restored).abs().mean() > 0.5 / 255


def test_crops_reach_from_native_pixels_to_the_whole_frame():
    rng = np.random.default_rng(0)
    sides = [
        right - left for left, _, right, _ in (sampling.crop_box((900, 600), (0, 0, 1, 1), 64, rng) for _ in range(500))
    ]
    assert min(sides) < 70
    assert np.mean(np.isclose(sides, 600)) == pytest.approx(sampling.CropScale().whole, abs=0.06)


def test_crops_stay_near_native_pixels_where_a_recipe_says_so():
    rng, scale = np.random.default_rng(0), sampling.CropScale(whole=0.1, reduction=2.0)
    sides = np.array(
        [
            right - left
            for left, _, right, _ in (sampling.crop_box((900, 600), (0, 0, 1, 1), 64, rng, scale) for _ in range(500))
        ]
    )
    whole = np.isclose(sides, 600)
    assert whole.mean() == pytest.approx(0.1, abs=0.04)
    assert 64 <= sides[~whole].min() < 66 and 120 < sides[~whole].max() <= 128


def test_the_split_depends_on_names_and_seed_only():
    names = [f"{i}.jpg" for i in range(50)]
    held_out = splitting.held_out(names, 0.1, seed=0)
    assert len(held_out) == 5
    assert splitting.held_out(names[::-1], 0.1, seed=0) == held_out
    assert splitting.held_out(names, 0.1, seed=1) != held_out


def test_not_all_photos_are_held_out():
    assert len(splitting.held_out(["a", "b", "c", "d"], 0.99, 0)) == 3


def test_no_validation_photo_is_learnt_from(clean):
    assert clean.validation
    assert not {p.name for p in clean.training} & {p.name for p in clean.validation}


def test_too_few_photos_are_refused_with_the_number_needed(tmp_path, coffee):
    Image.fromarray(coffee).save(tmp_path / "a.png")
    Image.fromarray(coffee // 8).save(tmp_path / "dark.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    with pytest.raises(DataError) as refused:
        clean_photos.load(tmp_path, Store(0), 0.1, 0)
    assert "1 usable photos; training needs at least 4" in str(refused.value)
    assert "1 could not be read; 0 are too small, 1 too dark, bright or flat" in refused.value.hint


PHOTOS_ONLY = FullFrameConfig(extreme=0, page=0, screen=0, flat=0, night=0)


def _source(photos, frames: FullFrameConfig, strength: float = 0.0) -> DegradedSource:
    tone = ToneSampling(frames, rendering=RenderingConfig(strength=strength))
    return DegradedSource(photos, DegradationConfig(), 0, 32, tone=tone)


def test_what_is_no_target_is_seen_untouched_by_the_tone_stage_alone(tmp_path, coffee):
    for name in ("a", "b", "c", "d"):
        Image.fromarray(coffee[:, :: 1 - 2 * (name > "b")]).save(tmp_path / f"{name}.png")
    night = (coffee * 0.15).astype(np.uint8)
    Image.fromarray(night).save(tmp_path / "unlit.png")
    night[:60, :80] = 220
    Image.fromarray(night).save(tmp_path / "dark.png")
    Image.fromarray(coffee[:20, :20]).save(tmp_path / "small.png")
    photos = clean_photos.load(tmp_path, Store(10**9), 0.2, 0)
    assert [p.name for p in photos.extreme] == ["dark.png"]
    assert [p.name for p in photos.unlit] == ["unlit.png"]
    assert photos.too_small == ("small.png",)
    frames = dataclasses.replace(PHOTOS_ONLY, extreme=0.3, untouched=0.3, middle=0.9, middle_bright=0.9)
    source, rows = _source(photos, frames), range(48)
    names, batch = source.full_frame_names(0, rows), source.full_frames(0, rows)
    dark = torch.tensor([name == "dark.png" for name in names])
    untouched = (batch.input == batch.target).all(3).all(2).all(1)
    assert 6 < int(dark.sum()) < 24
    assert bool(untouched[dark].all())
    assert not {"dark.png", "unlit.png"} & set(source.crop_names(0, rows))
    assert "unlit.png" not in names
    # The targets of degraded photos come to the middle.
    luma = tone_features.luma(batch.target).mean((1, 2, 3))
    assert (luma[dark] < 0.3).all()
    degraded = (batch.input - batch.target).abs().amax((1, 2, 3)) > 0.1
    assert degraded.sum() > 10
    assert (luma[degraded] - full_frames.MIDDLE_LUMA).abs().mean() < 0.04


@pytest.mark.parametrize("kind", ["page", "screen", "flat", "night"])
@pytest.mark.parametrize("side", [64, 128])
def test_drawings_are_their_own_targets(clean, kind, side):
    frames = dataclasses.replace(PHOTOS_ONLY, **{kind: 1.0})
    source = DegradedSource(clean, DegradationConfig(), 0, 32, view_px=side, tone=ToneSampling(frames))
    batch = source.full_frames(0, range(24))
    assert set(source.full_frame_names(0, range(24))) == {f"a drawn {kind}"}
    assert batch.input.shape == (24, 3, side, side)
    assert torch.equal(batch.input, batch.target)
    assert batch.exact.all()
    assert batch.target.min() >= 0
    assert batch.target.max() <= 1
    assert torch.equal(source.full_frames(0, range(5, 9)).target, batch.target[5:9])
    luma = tone_features.luma(batch.target).flatten(1)
    if kind == "page":
        assert (luma.quantile(0.9, 1) > 0.8).sum() > 8  # paper is light, mostly
        assert (luma.quantile(0.9, 1) < 0.4).any()  # or dark
        light = luma[luma.median(1).values > 0.8]
        assert (light.amin(1) < 0.5).sum() > len(light) / 2  # letters are seen, not washed out
    elif kind == "night":
        assert (luma.quantile(0.1, 1) < 0.2).sum() > 16  # something of a night is dark
        assert luma.mean(1).median() < 0.3
    elif kind == "flat":
        assert (luma.quantile(0.95, 1) - luma.quantile(0.05, 1)).median() < 0.3


def test_shares_of_full_frames_add_up():
    with pytest.raises(ValueError, match="more than 1"):
        FullFrameConfig(extreme=0.6, page=0.5)


def test_targets_are_rendered(clean):
    plain, rendered = (
        _source(clean, dataclasses.replace(PHOTOS_ONLY, untouched=1, middle=0, middle_bright=0), strength=s)
        for s in (0, 1)
    )
    before, after = plain.full_frames(0, range(8)), rendered.full_frames(0, range(8))
    assert torch.equal(before.input, after.input)
    torch.testing.assert_close(before.input, before.target, atol=1e-5, rtol=0)
    assert (after.target - before.target).abs().mean() > 0.01


def test_photos_that_are_not_degraded_go_their_own_share_to_the_middle(clean):
    frames = dataclasses.replace(PHOTOS_ONLY, untouched=1, middle=0.8, middle_bright=0.8)
    as_they_are, half, whole = (
        _source(clean, dataclasses.replace(frames, middle_untouched=share)).full_frames(0, range(8))
        for share in (0, 0.5, 1)
    )
    torch.testing.assert_close(as_they_are.target, as_they_are.input, atol=1e-5, rtol=0)

    def off(batch):
        return (tone_features.luma(batch.target).mean((1, 2, 3)) - full_frames.MIDDLE_LUMA).abs()

    torch.testing.assert_close(off(half), 0.6 * off(as_they_are), atol=0.02, rtol=0)
    torch.testing.assert_close(off(whole), 0.2 * off(as_they_are), atol=0.02, rtol=0)


def test_boxes_say_where_crops_lie(clean):
    batch = DegradedSource(clean, DegradationConfig(untouched=1), 0, 32, view_px=128).crops(0, range(12))
    assert ((batch.boxes > -1e-5) & (batch.boxes < 1.00001)).all()
    for crop, view, box in zip(batch.input, batch.view, batch.boxes, strict=True):
        left, top, right, bottom = (box * 128).round().int().tolist()
        part = view[:, top : max(bottom, top + 1), left : max(right, left + 1)]
        assert (part.mean((1, 2)) - crop.mean((1, 2))).abs().max() < 0.1
