"""Training: deterministic, resumable, and it learns."""

from __future__ import annotations

import csv
import dataclasses
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import TINY, train

from qatie_cli import engines, metrics
from qatie_cli.data.clean import DegradedSource
from qatie_cli.data.degradation import DegradationConfig, ParameterRange
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import DataError, QatieError, UsageError
from qatie_cli.model import checkpoint, network, whole
from qatie_cli.model.config import OPTIONS, NetworkConfig
from qatie_cli.model.quantization.fake import FakeQuantizer
from qatie_cli.training import ahead, loop, losses, stages
from qatie_cli.training import run as training
from qatie_cli.training import state as states
from qatie_cli.training.distributed import ProcessGroup
from qatie_cli.training.objective import NetworkObjective
from qatie_cli.training.recipe import Recipe
from qatie_cli.training.run import Setting


def _same(a: Path, b: Path) -> bool:
    first, second = checkpoint.read(a), checkpoint.read(b)
    equal = all(np.array_equal(first.state[name], t) for name, t in second.state.items())
    return equal and first.activations == second.activations


@pytest.fixture(scope="module")
def whole_run(clean, tmp_path_factory) -> training.Finished:
    """A run that nothing interrupted."""
    return train(clean, TINY, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("stops", [[2], [3], [5, 11], [9], [1, 2, 3, 4]])
def test_a_run_stopped_anywhere_ends_as_the_whole_one(clean, tmp_path, whole_run, stops):
    for index, stop in enumerate([*stops, 10**6]):
        steps = []
        try:
            train(
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
    assert _same(whole_run.weights, tmp_path / "parts" / "last.safetensors")


def test_a_run_killed_after_its_checkpoint_ends_as_the_whole_one(clean, tmp_path, whole_run, monkeypatch):
    """SIGKILL leaves the last checkpoint and no more."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)

    def kill(progress):
        if progress.run_step == 8:
            raise KeyboardInterrupt  # any way out that saves nothing

    with pytest.raises(KeyboardInterrupt):
        train(clean, TINY, tmp_path / "killed", on_progress=kill)
    train(clean, TINY, tmp_path / "killed", resume=True)
    assert _same(whole_run.weights, tmp_path / "killed" / "last.safetensors")


def test_the_closing_table_compares_float_post_training_and_qat(whole_run):
    table = whole_run.table
    int8 = [name for name in engines.available_for(checkpoint.read(whole_run.weights)) if name != "float"]
    expected = [("float", "float"), *(("post-training", name) for name in int8)]
    expected += [("float after QAT", "float"), *(("QAT", name) for name in int8)]
    assert [(row.name, row.engine) for row in table] == expected
    for row in table:
        assert row.mean.psnr_db > 5
        assert 0 < row.mean.ciede2000 < 60
        assert (row.mean.agreement_db is None) == (row.engine == "float")


def test_training_learns_to_undo_a_fixed_exposure(clean, tmp_path):
    never, factor = ParameterRange(0, 0, 0), ParameterRange(0, 1, 1)
    only_dark = DegradationConfig(
        untouched=0, exposure=ParameterRange(1, -1.0, -1.0), white_balance=factor, gamma=factor, blur=never,
        shot_noise=never, read_noise=never, contrast=factor, haze=never, saturation=factor, denoise_blur=never,
        sharpen=never, jpeg=ParameterRange(0, 55, 95),
    )  # fmt: skip
    recipe = dataclasses.replace(TINY, tone_steps=60, steps=2, qat_steps=0, tone_rate=1e-2, ema=0.9, tone_batch=8)
    recipe = dataclasses.replace(recipe, degradation=only_dark)
    done = train(clean, recipe, tmp_path / "run")
    engine = engines.load(checkpoint.read(done.weights), "float")
    for seen, target in DegradedSource(clean, only_dark, 0, 32).validation():
        assert metrics.psnr(enhance(seen, engine), target) > metrics.psnr(seen, target) + 3


def test_the_network_learns_detail(clean):
    """A few steps on one batch of noise bring it nearer to the target."""
    noisy = dataclasses.replace(DegradationConfig(), untouched=0.0, read_noise=ParameterRange(1, 0.02, 0.02))
    batch = DegradedSource(clean, noisy, 0, 32).crops(0, range(4))
    net = network.create(NetworkConfig(8), torch.Generator().manual_seed(0))
    reference = losses.matched_tone(batch.target, batch.input)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(60):
        loss = losses.l1(batch.input + net(batch.input), reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * losses.l1(batch.input, reference)


def test_resuming_with_another_recipe_or_nothing_is_refused(clean, tmp_path):
    with pytest.raises(DataError, match="no run"):
        train(clean, TINY, tmp_path / "none", resume=True)
    train(clean, dataclasses.replace(TINY, qat_steps=0), tmp_path / "run")
    with pytest.raises(DataError, match="another recipe"):
        train(clean, TINY, tmp_path / "run", resume=True)
    with pytest.raises(DataError, match="holds a run"):
        train(clean, TINY, tmp_path / "run")


def test_weights_of_another_width_are_no_start(clean, tmp_path, weights):
    with pytest.raises(UsageError, match="do not fit the recipe"):
        train(clean, TINY, tmp_path / "run", init=weights)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_ablation_is_trained_through_every_stage(option, clean, tmp_path):
    done = train(clean, dataclasses.replace(TINY, **{option: False}), tmp_path / "run")
    written = checkpoint.read(done.weights)
    assert written.config.network == NetworkConfig(4, **{option: False})
    assert written.metrics["stage"] == "qat"
    assert written.activations is not None
    assert written.recipe[option] is False


@pytest.mark.parametrize("option", OPTIONS)
def test_weights_of_another_kind_of_network_are_no_start(option, clean, tmp_path, weights):
    recipe = dataclasses.replace(TINY, width=weights.config.network.width, **{option: False})
    with pytest.raises(UsageError, match="do not fit the recipe"):
        train(clean, recipe, tmp_path / "run", init=weights)


def test_weights_record_names_and_no_paths(clean, tmp_path):
    recipe = dataclasses.replace(TINY, tone_steps=0, steps=2, qat_steps=0)
    source = DegradedSource(clean, recipe.degradation, recipe.seed, recipe.crop)
    notes = {"clean": str(tmp_path / "photos"), "folders": "input/target"}
    training.train(source, recipe, Setting(tmp_path / "run", notes=notes))
    written = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert written.data["run"] == {"clean": "photos", "folders": "input/target"}


def test_recipes_survive_their_table():
    recipe = Recipe(
        width=24,
        residual=False,
        encoder_refiner=False,
        loss=losses.LossWeights(l1=2.0),
        degradation=DegradationConfig(untouched=0.5),
    )
    assert Recipe.from_table(recipe.to_table()) == recipe
    assert Recipe.from_table(tomllib.loads(recipe.to_toml())) == recipe


@pytest.mark.parametrize(
    "table",
    [
        {"speed": 1},
        {"loss": {"gan": 1}},
        {"degradation": {"rain": [1, 0, 1]}},
        {"degradation": {"smear": [0.25, 0.3, 0.7]}},
        {"crop": 30},
        {"seed": -1},
        {"weight_decay": -0.1},
        {"clip": float("inf")},
        {"longest": 64},
        {"width": "16"},
    ],
)
def test_recipes_that_make_no_sense_are_refused(table):
    with pytest.raises(ValueError, match=r"unknown|must|cannot|wrong type|is now called"):
        Recipe.from_table(table)


def test_the_tone_stage_goes_on_from_where_validation_was_best(clean, tmp_path, monkeypatch):
    """It overfits a few hundred photos before its steps are done."""
    scores = iter([20.0, 25.0, 21.0])
    monkeypatch.setattr(metrics, "psnr", lambda *_: next(scores))
    seen = []

    def look(progress):
        seen.append(progress)
        if progress.stage == "tone" and progress.step == 2:
            run.append({k: v.clone() for k, v in training_state().ema.tone.state_dict().items()})

    run: list[dict] = []
    states = []
    original = loop.TrainingLoop.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        states.append(self)

    def training_state():
        return states[-1].state

    monkeypatch.setattr(loop.TrainingLoop, "__init__", remember)
    recipe = dataclasses.replace(TINY, tone_steps=3, steps=1, qat_steps=0, validate_every=1)
    with pytest.raises(StopIteration):  # the float stage asks for a fourth score
        train(clean, recipe, tmp_path / "run", on_progress=look)
    kept = training_state().ema.tone.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in run[0].items())


def test_training_goes_on_from_given_weights_and_keeps_them_where_nothing_is_better(clean, tmp_path):
    """The tone stage's best includes where it began: a rate that ruins it leaves the start."""
    first = train(clean, dataclasses.replace(TINY, qat_steps=0), tmp_path / "first")
    start = checkpoint.read(first.weights)
    ruinous = dataclasses.replace(TINY, tone_rate=0.3, tone_steps=3, steps=0, qat_steps=0, ema=0.0, tone_dropout=0.0)
    seen = []
    again = train(clean, ruinous, tmp_path / "again", init=start, on_progress=seen.append)
    assert (seen[0].step, seen[0].run_step) == (0, 0)
    assert seen[-1].validation_db < seen[0].validation_db - 0.5
    kept = checkpoint.read(again.weights)
    assert all(np.array_equal(kept.state[n], start.state[n]) for n in start.state if n.startswith("tone."))
    assert again.table[0].name == "start"


def test_a_new_network_is_trained_behind_a_given_tone_stage(clean, tmp_path):
    tone_only = dataclasses.replace(TINY, steps=0, qat_steps=0)
    start = checkpoint.read(train(clean, tone_only, tmp_path / "tone").weights)
    wider = dataclasses.replace(TINY, width=2 * TINY.width, keep_network=False, tone_steps=0, steps=0, qat_steps=0)
    new = checkpoint.read(train(clean, wider, tmp_path / "wider", init=start).weights)
    tone = [name for name in start.state if name.startswith("tone.")]
    assert tone and all(np.array_equal(new.state[name], start.state[name]) for name in tone)
    gate = "network.down1.pair.weight"  # no equalization changes it
    drawn = whole.arrays(whole.create(wider.config, wider.seed).state_dict())
    assert np.allclose(new.state[gate], drawn[gate])
    other = dataclasses.replace(wider, tone_bins=16)
    with pytest.raises(UsageError, match="tone stage"):
        train(clean, other, tmp_path / "other", init=start)


def test_the_trained_tone_stage_keeps_a_share_of_its_colours(clean, tmp_path):
    recipe = dataclasses.replace(TINY, tone_steps=3, steps=0, qat_steps=0, tone_rate=1e-2, ema=0.0)
    whole, none = (
        checkpoint.read(train(clean, dataclasses.replace(recipe, tone_colour=share), tmp_path / str(share)).weights)
        for share in (1.0, 0.0)
    )
    apart = [np.ptp(w.state["tone.decide.bias"][: 3 * 17].reshape(3, 17), axis=0).max() for w in (whole, none)]
    assert apart[0] > 1e-3 and apart[1] < 1e-6


def test_the_trained_tone_stage_keeps_a_share_of_its_casts(clean, tmp_path):
    recipe = dataclasses.replace(TINY, tone_steps=3, steps=0, qat_steps=0, tone_rate=1e-2, ema=0.0)
    whole, none = (
        checkpoint.read(train(clean, dataclasses.replace(recipe, tone_cast=share), tmp_path / str(share)).weights)
        for share in (1.0, 0.0)
    )
    rows = [w.state["tone.decide.bias"][3 * 17 :].reshape(3, 3).sum(1) for w in (whole, none)]
    assert np.ptp(rows[0]) > 1e-3 and np.ptp(rows[1]) < 1e-6


def test_the_trained_tone_stage_keeps_shares_of_its_gains(clean, tmp_path):
    recipe = dataclasses.replace(
        TINY, tone_steps=3, steps=0, qat_steps=0, tone_rate=1e-2, ema=0.0, tone_channels=4, tone_grid=16
    )
    shares = (0.0, 0.5, *[1.0] * 6)
    whole, part = (
        checkpoint.read(train(clean, dataclasses.replace(recipe, tone_gains=asked), tmp_path / name).weights).state
        for name, asked in (("whole", ()), ("part", shares))
    )
    for name in ("tone.gains.bias", "tone.gains.weight"):
        assert np.abs(whole[name]).max() > 0
        factors = np.reshape(shares, (-1, *[1] * (whole[name].ndim - 1)))
        np.testing.assert_allclose(part[name], factors * whole[name], rtol=1e-6)


def test_a_run_leaves_metrics_and_pictures(whole_run):
    folder = whole_run.weights.parent
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    steps = [(row["stage"], int(row["step"])) for row in rows]
    assert steps == [("tone", 3), ("float", 6), ("float", 9), ("qat", 12), ("qat", 13)]
    assert float(rows[-1]["agreement"]) > 0
    assert rows[0]["ssim"] == "" and float(rows[1]["ssim"]) > 0
    previews = sorted((folder / "previews").iterdir())
    assert [p.name for p in previews] == ["000003.jpg", "000006.jpg", "000009.jpg", "000012.jpg", "000013.jpg"]
    assert Image.open(previews[0]).width >= 3 * 160


def test_a_nan_loss_stops_the_run_and_keeps_the_batch(clean, tmp_path):
    from safetensors import safe_open

    recipe = dataclasses.replace(TINY, tone_steps=0)
    source = DegradedSource(clean, recipe.degradation, recipe.seed, recipe.crop)
    whole = source.crops

    def poisoned(step, rows):
        batch = whole(step, rows)
        if step == 2:
            batch.restored[0, 0, 0, 0] = torch.nan
        return batch

    source.crops = poisoned
    with pytest.raises(DataError, match=r"is nan at step 2 \(float stage\)") as refused:
        training.train(source, recipe, Setting(tmp_path / "run"))
    assert source.crop_names(2, range(2))[0] in refused.value.hint
    with safe_open(tmp_path / "run" / loop.BATCH_FILE, "pt") as kept:
        assert torch.isnan(kept.get_tensor("restored")).sum() == 1
        assert json.loads(kept.metadata()["photos"]) == source.crop_names(2, range(2))


def test_a_full_disk_is_reported(clean, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(states, "save", full)
    with pytest.raises(DataError, match="could not be written: No space left on device") as refused:
        train(clean, TINY, tmp_path / "run")
    assert "--resume" in refused.value.hint


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
        MemoryError(),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_out_of_memory_says_what_to_lower(clean, tmp_path, monkeypatch, error, processes):
    """Not that other processes were lost."""

    class Greedy(torch.nn.Module):
        def forward(self, batch, condition):
            raise error

    monkeypatch.setattr(stages.ToneTraining, "objective", lambda self, model: Greedy())
    # A group of two of which only this process exists: what talks to the other is left out.
    monkeypatch.setattr(ProcessGroup, "broadcast", lambda self, value: value)
    monkeypatch.setattr(ProcessGroup, "mean", lambda self, values: values)
    monkeypatch.setattr(ProcessGroup, "wrap", lambda self, module, device: module)
    source = DegradedSource(clean, TINY.degradation, TINY.seed, TINY.crop)
    with pytest.raises(QatieError, match="Out of memory") as refused:
        training.train(source, TINY, Setting(tmp_path / "run", ProcessGroup(0, processes)))
    for name in ("batch", "micro_batch", "crop"):
        assert name in refused.value.hint
    assert "\n" not in refused.value.one_line()


def test_a_lost_process_is_reported_and_a_fault_of_the_program_is_not_hidden(clean, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, batch, condition):
            raise RuntimeError("Connection closed by peer\nand more")

    monkeypatch.setattr(stages.ToneTraining, "objective", lambda self, model: Broken())
    monkeypatch.setattr(ProcessGroup, "broadcast", lambda self, value: value)
    monkeypatch.setattr(ProcessGroup, "mean", lambda self, values: values)
    monkeypatch.setattr(ProcessGroup, "wrap", lambda self, module, device: module)
    source = DegradedSource(clean, TINY.degradation, TINY.seed, TINY.crop)
    with pytest.raises(DataError, match="Process 0 lost the others: Connection closed by peer"):
        training.train(source, TINY, Setting(tmp_path / "two", ProcessGroup(0, 2)))
    with pytest.raises(RuntimeError, match="Connection closed"):
        training.train(source, TINY, Setting(tmp_path / "one"))


def test_other_photos_are_no_continuation(clean, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(training.RunInterruptedError):
        train(clean, TINY, tmp_path / "run", should_stop=lambda: True)
    fewer = dataclasses.replace(clean, training=clean.training[1:])
    with pytest.raises(DataError, match="differ from those that the run was started with"):
        train(fewer, TINY, tmp_path / "run", resume=True)


def test_biases_that_a_norm_takes_away_stay_as_they_are(clean, tmp_path):
    """Their gradient is rounding noise, of which Adam makes full steps: runs would drift apart."""
    recipe = dataclasses.replace(TINY, tone_steps=0, qat_steps=0, steps=3)
    stopped = iter([False, False, False])
    train(clean, recipe, tmp_path / "run", should_stop=lambda: next(stopped))
    from safetensors.torch import load_file

    from qatie_cli.model import whole

    begun, ended = whole.create(recipe.config, recipe.seed), load_file(tmp_path / "run" / "resume.safetensors")
    assert torch.equal(begun.network.refine1.local.bias, ended["model.network.refine1.local.bias"])
    assert not torch.equal(begun.network.refine1.outer.bias, ended["model.network.refine1.outer.bias"])


def test_what_is_rounded_in_training_is_what_int8_computes(clean, tmp_path):
    from samples import as_tensor

    from qatie_cli.model.quantization.fake import FakeQuantizer

    done = checkpoint.read(train(clean, dataclasses.replace(TINY, steps=40, qat_steps=10), tmp_path / "run").weights)
    net = done.build().network
    photo = np.asarray(clean.store.get(clean.validation[0].path).image)[:96, :128]
    expected = net(as_tensor(photo), FakeQuantizer(done.activations))[0].permute(1, 2, 0).numpy()
    for name in engines.available_for(done)[1:]:
        engine = engines.load(done, name).network
        got = engine.residual(engine.features(photo), 0, photo.shape[0])
        assert -10 * np.log10(np.mean((got - expected) ** 2)) > 50, name


def test_processes_share_a_batch_evenly_or_say_so():
    assert [list(ProcessGroup(rank, 2).rows(4)) for rank in (0, 1)] == [[0, 1], [2, 3]]
    with pytest.raises(UsageError, match="batch of 5 does not divide evenly among 2"):
        ProcessGroup(0, 2).rows(5)


@pytest.mark.parametrize("stage", ["tone_rate", "rate", "qat_rate"])
def test_a_step_that_ruins_the_weights_is_noticed_before_they_are_saved(clean, tmp_path, stage):
    recipe = dataclasses.replace(TINY, **{stage: 1e30}, warm_up=0.0)
    with pytest.raises(DataError, match="the batch is in"):
        train(clean, recipe, tmp_path / "run")
    assert (tmp_path / "run" / loop.BATCH_FILE).is_file()
    for path in (tmp_path / "run").glob("*.safetensors"):
        if path.name not in (loop.BATCH_FILE, "resume.safetensors"):
            checkpoint.read(path)  # refuses what is not finite


def test_micro_batches_learn_what_the_batch_learns(clean, tmp_path):
    recipe = dataclasses.replace(TINY, tone_steps=0, qat_steps=0, steps=2, ema=0.0)
    whole, parts = (
        checkpoint.read(train(clean, dataclasses.replace(recipe, micro_batch=size), tmp_path / str(size)).weights)
        for size in (None, 1)
    )
    assert all(np.abs(tensor - whole.state[name]).max() < 2e-4 for name, tensor in parts.state.items())
    with pytest.raises(ValueError, match="not a multiple"):
        dataclasses.replace(recipe, micro_batch=4)


def test_bfloat16_brings_the_gradient_of_rounded_networks_hardly_off_course(weights, clean):
    batch = DegradedSource(clean, TINY.degradation, 0, 64).crops(0, range(4))
    gradients, totals = [], []
    for mixed in (False, True):
        net = whole.from_state(weights.config, dict(weights.state))
        objective = NetworkObjective(net.requires_grad_(True), TINY.loss, agreement=TINY.agreement, mixed=mixed)
        loss, terms = objective(batch, FakeQuantizer(weights.activations))
        loss.backward()
        assert float(terms["agreement"].detach()) > 0
        gradients.append(torch.cat([p.grad.flatten() for p in net.network.parameters()]))
        totals.append(float(loss.detach()))
    assert totals[1] == pytest.approx(totals[0], rel=0.02)
    assert not torch.equal(*gradients)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.97


def test_workers_prepare_the_same_samples(clean):
    source = DegradedSource(clean, TINY.degradation, TINY.seed, TINY.crop)

    def samples(step):
        return source.crops(step, range(2))

    for workers in (0, 2):
        prepared = list(ahead.prepared(samples, range(3, 8), workers))
        assert len(prepared) == 5
        for step, batch in zip(range(3, 8), prepared, strict=True):
            assert torch.equal(batch.input, samples(step).input)
    assert list(ahead.prepared(samples, range(0))) == []


def test_weights_record_what_they_came_from(clean, tmp_path):
    first = dataclasses.replace(TINY, qat_steps=0)
    train(clean, first, tmp_path / "first")
    begun = checkpoint.read(tmp_path / "first" / "last.safetensors")
    second = dataclasses.replace(TINY, tone_steps=0, steps=1, qat_steps=0)
    train(clean, second, tmp_path / "second", init=begun)
    made = checkpoint.read(tmp_path / "second" / "last.safetensors")
    assert made.data["before"]["recipe"] == begun.recipe
    train(clean, dataclasses.replace(second, seed=5), tmp_path / "third", init=made)
    third = checkpoint.read(tmp_path / "third" / "last.safetensors")
    assert third.data["before"]["before"]["recipe"] == begun.recipe
