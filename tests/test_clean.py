"""Good photos as training data: which are taken, how they are split, and what the stages see of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from qatie_cli.data import clean as clean_photos
from qatie_cli.data import degradation, sampling, splitting
from qatie_cli.data.clean import DegradedSource
from qatie_cli.data.degradation import DegradationConfig, ParameterRange
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError
from qatie_cli.model.tone import LUMA


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


def test_crops_reach_from_native_pixels_to_the_whole_frame():
    rng = np.random.default_rng(0)
    sides = [
        right - left for left, _, right, _ in (sampling.crop_box((900, 600), (0, 0, 1, 1), 64, rng) for _ in range(500))
    ]
    assert min(sides) < 70
    assert np.mean(np.isclose(sides, 600)) == pytest.approx(sampling.WHOLE_SHARE, abs=0.06)


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


def test_what_is_no_target_is_seen_untouched_by_the_tone_stage_alone(tmp_path, coffee):
    for name in ("a", "b", "c", "d"):
        Image.fromarray(coffee[:, :: 1 - 2 * (name > "b")]).save(tmp_path / f"{name}.png")
    Image.fromarray((coffee * 0.15).astype(np.uint8)).save(tmp_path / "dark.png")
    Image.fromarray(coffee[:20, :20]).save(tmp_path / "small.png")
    photos = clean_photos.load(tmp_path, Store(10**9), 0.2, 0)
    assert [p.name for p in photos.extreme] == ["dark.png"]
    assert photos.too_small == ("small.png",)
    source = DegradedSource(photos, DegradationConfig(untouched=0.5, extreme=0.6, pages=0, middle=0.9), 0, 32)
    rows = range(48)
    names, batch = source.full_frame_names(0, rows), source.full_frames(0, rows)
    dark = torch.tensor([name == "dark.png" for name in names])
    untouched = (batch.input == batch.target).all(3).all(2).all(1)
    assert 6 < int(dark.sum()) < 24
    assert bool(untouched[dark].all())
    assert "dark.png" not in source.crop_names(0, rows)
    # Untouched photos keep their own tone, the other targets come to the middle.
    luma = (batch.target * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1).mean((1, 2))
    assert (luma[dark] < 0.2).all()
    assert (luma[~untouched] - degradation.MIDDLE_LUMA).abs().mean() < 0.03
    assert (luma[untouched & ~dark] - degradation.MIDDLE_LUMA).abs().mean() > 0.05


def test_drawn_pages_are_shown_as_they_are(clean):
    source = DegradedSource(clean, DegradationConfig(untouched=1, extreme=0, pages=0.5), 0, 32)
    batch = source.full_frames(0, range(64))
    assert torch.equal(batch.input, batch.target)
    assert batch.target.min() >= 0
    assert batch.target.max() <= 1
    drawn = [name == "a drawn page" for name in source.full_frame_names(0, range(64))]
    assert 20 < sum(drawn) < 44
    luma = (batch.target * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1)
    pages = [values for values, is_page in zip(luma, drawn, strict=True) if is_page]
    assert sum(float(values.quantile(0.9)) > 0.8 for values in pages) > 0.4 * len(pages)  # paper is light, mostly
    assert sum(float(values.quantile(0.9)) < 0.4 for values in pages) >= 1  # or dark
    light = [values for values in pages if float(values.median()) > 0.8]
    assert sum(float(values.min()) < 0.5 for values in light) > 0.5 * len(light)  # letters are seen, not washed out
    assert torch.equal(source.full_frames(0, range(5, 9)).target, batch.target[5:9])
    with pytest.raises(ValueError, match="more than 1"):
        DegradationConfig(extreme=0.6, pages=0.5)
