"""Training: deterministic, resumable, and it learns."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qatie_cli import checkpoint, degradation, engines, losses, metrics, pairs, training
from qatie_cli.degradation import Knob
from qatie_cli.enhance import enhance
from qatie_cli.errors import DataError, UsageError
from qatie_cli.training import Recipe

TINY = Recipe(
    width=4,
    tone_steps=3,
    steps=6,
    qat_steps=4,
    batch=2,
    crop=32,
    tone_batch=2,
    validate_every=3,
    validation_share=0.2,
    tone_dropout=0.5,
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory, astronaut, coffee) -> pairs.CleanPhotos:
    folder = tmp_path_factory.mktemp("clean")
    for index, photo in enumerate((coffee, astronaut, coffee[:, ::-1], astronaut[:, ::-1], coffee[:300])):
        Image.fromarray(np.ascontiguousarray(photo)).resize((160, 120)).save(folder / f"{index}.png")
    return pairs.load_clean(folder, TINY.validation_share, TINY.seed)


def _same(a: Path, b: Path) -> bool:
    first, second = checkpoint.read(a), checkpoint.read(b)
    equal = all(torch.equal(first.state[name], t) for name, t in second.state.items())
    return equal and first.activations == second.activations


@pytest.mark.parametrize("stops", [[2], [3], [5, 11], [9], [1, 2, 3, 4]])
def test_a_run_stopped_anywhere_ends_as_the_whole_one(clean, tmp_path, stops):
    whole = training.train(clean, TINY, tmp_path / "whole")
    for index, stop in enumerate([*stops, 10**6]):
        steps = []
        try:
            training.train(
                clean,
                TINY,
                tmp_path / "parts",
                resume=index > 0,
                on_progress=steps.append,
                should_stop=lambda stop=stop, steps=steps: bool(steps) and steps[-1].run_step >= stop,
            )
        except training.RunInterruptedError as stopped:
            assert stopped.exit_code == 130
            assert steps[-1].run_step == stop
    assert _same(whole.weights, tmp_path / "parts" / "last.safetensors")


def test_a_run_killed_after_its_checkpoint_ends_as_the_whole_one(clean, tmp_path, monkeypatch):
    """SIGKILL leaves the last checkpoint and no more."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    whole = training.train(clean, TINY, tmp_path / "whole")

    def kill(progress):
        if progress.run_step == 8:
            raise MemoryError  # any way out that saves nothing

    with pytest.raises(MemoryError):
        training.train(clean, TINY, tmp_path / "killed", on_progress=kill)
    training.train(clean, TINY, tmp_path / "killed", resume=True)
    assert _same(whole.weights, tmp_path / "killed" / "last.safetensors")


def test_the_closing_table_compares_float_post_training_and_qat(clean, tmp_path):
    table = training.train(clean, TINY, tmp_path / "run").table
    assert [row.name.split(" (")[0] for row in table] == [
        "float",
        "post-training int8",
        "float of the QAT weights",
        "QAT int8",
    ]
    for row in table:
        assert row.mean.psnr_db > 5
        assert (row.mean.agreement_db is None) == ("float" in row.name)


def test_validation_and_the_last_half_of_qat_leave_ranges_alone(clean, tmp_path):
    ranges = []

    def look(progress):
        if progress.stage == "qat":
            path = tmp_path / "run" / "best.safetensors"
            ranges.append(checkpoint.read(path).activations if progress.validation_db else None)

    recipe = dataclasses.replace(TINY, qat_steps=8, validate_every=1)
    done = training.train(clean, recipe, tmp_path / "run", on_progress=look)
    frozen = checkpoint.read(done.weights).activations
    assert checkpoint.read(tmp_path / "run" / "best.safetensors").activations in ranges
    assert frozen is not None


def test_training_learns_to_undo_a_fixed_exposure(clean, tmp_path):
    never = Knob(0, 0, 0)
    only_dark = degradation.Recipe(
        untouched=0, exposure=Knob(1, -1.0, -1.0), white_balance=Knob(0, 1, 1), gamma=Knob(0, 1, 1), blur=never,
        shot_noise=never, read_noise=never, contrast=Knob(0, 1, 1), haze=never, saturation=Knob(0, 1, 1), smear=never,
        sharpen=never, jpeg=Knob(0, 55, 95),
    )  # fmt: skip
    recipe = dataclasses.replace(TINY, tone_steps=60, steps=2, qat_steps=0, tone_rate=1e-2, ema=0.9, tone_batch=8)
    recipe = dataclasses.replace(recipe, degradation=only_dark)
    done = training.train(clean, recipe, tmp_path / "run")
    engine = engines.load(checkpoint.read(done.weights), "float")
    for seen, target in pairs.validation_pairs(clean, only_dark, 0):
        assert metrics.psnr(enhance(seen, engine), target) > metrics.psnr(seen, target) + 3


def test_the_network_learns_detail(clean):
    """A few steps on one batch of noise bring it nearer to the target."""
    noisy = dataclasses.replace(degradation.Recipe(), untouched=0.0, read_noise=Knob(1, 0.02, 0.02))
    batch = pairs.training_batch(clean, noisy, 0, 0, 4, 32)
    from qatie_cli import network

    net = network.create(network.NetworkConfig(8), torch.Generator().manual_seed(0))
    reference = losses.matched_tone(batch.target, batch.input)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(60):
        loss = losses.l1(batch.input + net(batch.input), reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * losses.l1(batch.input, reference)


def test_batches_are_a_function_of_seed_and_step(clean):
    first, again, other = (pairs.training_batch(clean, degradation.Recipe(), 0, step, 2, 32) for step in (4, 4, 5))
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.thumbnail, again.thumbnail)
    assert not torch.equal(first.target, other.target)


def test_crops_reach_from_native_pixels_to_the_whole_frame():
    rng = np.random.default_rng(0)
    sides = [
        right - left for left, _, right, _ in (pairs._crop_box((900, 600), (0, 0, 1, 1), 64, rng) for _ in range(500))
    ]
    assert min(sides) < 70
    assert np.mean(np.isclose(sides, 600)) == pytest.approx(pairs.WHOLE_SHARE, abs=0.06)


def test_the_split_depends_on_names_and_seed_only():
    names = [f"{i}.jpg" for i in range(50)]
    held_out = pairs.validation_names(names, 0.1, seed=0)
    assert len(held_out) == 5
    assert pairs.validation_names(names[::-1], 0.1, seed=0) == held_out
    assert pairs.validation_names(names, 0.1, seed=1) != held_out


def test_no_validation_photo_is_learnt_from(clean):
    assert clean.validation
    assert not {p.name for p in clean.training} & {p.name for p in clean.validation}


def test_too_few_photos_are_refused_with_the_number_needed(tmp_path, coffee):
    Image.fromarray(coffee).save(tmp_path / "a.png")
    Image.fromarray(coffee // 8).save(tmp_path / "dark.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    with pytest.raises(DataError) as refused:
        pairs.load_clean(tmp_path, 0.1, 0)
    assert "1 usable photos; training needs 4" in str(refused.value)
    assert "1 could not be read; 1 are too dark" in refused.value.hint


def test_resuming_with_another_recipe_or_nothing_is_refused(clean, tmp_path):
    with pytest.raises(DataError, match="no run"):
        training.train(clean, TINY, tmp_path / "none", resume=True)
    training.train(clean, dataclasses.replace(TINY, qat_steps=0), tmp_path / "run")
    with pytest.raises(DataError, match="another recipe"):
        training.train(clean, TINY, tmp_path / "run", resume=True)
    with pytest.raises(DataError, match="holds a run"):
        training.train(clean, TINY, tmp_path / "run")


def test_weights_of_another_width_are_no_start(clean, tmp_path, weights):
    with pytest.raises(UsageError, match="another width"):
        training.train(clean, TINY, tmp_path / "run", init=weights)


def test_recipes_survive_their_table():
    recipe = Recipe(width=24, loss=losses.LossWeights(l1=2.0), degradation=degradation.Recipe(untouched=0.5))
    assert Recipe.from_table(recipe.to_table()) == recipe
    assert Recipe.from_table(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize(
    "table", [{"speed": 1}, {"loss": {"gan": 1}}, {"degradation": {"rain": [1, 0, 1]}}, {"crop": 30}]
)
def test_recipes_that_make_no_sense_are_refused(table):
    with pytest.raises(ValueError, match=r"unknown|multiple of 8"):
        Recipe.from_table(table)


def test_matching_tone_removes_a_curve_and_keeps_detail(astronaut):
    target = torch.from_numpy(astronaut[:128, :128].astype(np.float32) / 255).permute(2, 0, 1)[None]
    darker = 0.8 * target**1.1
    assert losses.l1(target, darker) > 0.05
    assert losses.l1(losses.matched_tone(target, darker), darker) < 0.004


@pytest.mark.parametrize("term", [losses.l1, losses.local_mean, losses.gradient, losses.dissimilarity])
def test_losses_are_zero_for_equal_photos_and_grow_with_the_error(term):
    torch.manual_seed(0)
    photo, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    values = [float(term(photo + s * noise, photo)) for s in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


def test_the_gradient_does_not_see_tone():
    torch.manual_seed(0)
    photo = torch.rand(1, 3, 32, 32)
    assert losses.l1(photo + 0.1, photo) > 0.09
    assert losses.gradient(photo + 0.1, photo) < 1e-6


def test_ssim_of_loss_and_metric_agree(astronaut, coffee):
    a = astronaut[:256, :256]
    b = np.clip(a + np.random.default_rng(0).normal(0, 12, a.shape), 0, 255).astype(np.uint8)
    as_tensor = [torch.from_numpy(x.astype(np.float32) / 255).permute(2, 0, 1)[None] for x in (a, b)]
    assert 1 - float(losses.dissimilarity(*as_tensor)) == pytest.approx(metrics.ssim(a, b), abs=0.03)


def test_the_tone_stage_goes_on_from_where_validation_was_best(clean, tmp_path, monkeypatch):
    """It overfits a few hundred photos before its steps are done."""
    scores = iter([20.0, 25.0, 21.0])
    monkeypatch.setattr(training.metrics, "psnr", lambda *_: next(scores))
    seen = []

    def look(progress):
        seen.append(progress)
        if progress.stage == "tone" and progress.step == 2:
            run.append({k: v.clone() for k, v in training_state().ema.tone.state_dict().items()})

    run: list[dict] = []
    states = []
    original = training._Run.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        states.append(self)

    def training_state():
        return states[-1].state

    monkeypatch.setattr(training._Run, "__init__", remember)
    recipe = dataclasses.replace(TINY, tone_steps=3, steps=1, qat_steps=0, validate_every=1)
    with pytest.raises(StopIteration):  # the float stage asks for a fourth score
        training.train(clean, recipe, tmp_path / "run", on_progress=look)
    kept = training_state().ema.tone.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in run[0].items())
