"""Stages of a training run: what each leaves to the next one, and when int8's ranges follow the weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_runs import TINY, train
from torch import Tensor

from qatie_cli.model import checkpoint, whole
from qatie_cli.training import loop


def test_what_a_stage_leaves_is_the_moving_average_of_its_weights(clean, tmp_path, monkeypatch):
    """To the next stage, where validation was best, and at the end."""
    recipe = dataclasses.replace(
        TINY,
        tone_steps=0,
        steps=20,
        qat_steps=20,
        validate_every=20,
        ema=0.9,
        rate=1e-2,
        qat_rate=1e-2,
        distillation=0.0,
    )
    name = "network.head.weight"  # equalization leaves it as it is
    trained: dict[str, list[Tensor]] = {"float": [], "qat": []}
    learn = loop.TrainingLoop._learn

    def remembered(self, batch, rate):
        of_stage, model = trained[self.stage.name], self.state.model
        if not of_stage:
            of_stage.append(model.state_dict()[name].clone())
        result = learn(self, batch, rate)
        of_stage.append(model.state_dict()[name].clone())
        return result

    monkeypatch.setattr(loop.TrainingLoop, "_learn", remembered)
    train(clean, recipe, tmp_path / "run")
    average = {}
    for stage, weights in trained.items():
        average[stage] = weights[0]
        for after_step in weights[1:]:  # over a tenth of the stage at most: 1 - 10 / 20, not 0.9
            average[stage] = 0.5 * average[stage] + 0.5 * after_step
        assert (average[stage] - weights[-1]).abs().max() > 1e-4
    torch.testing.assert_close(trained["qat"][0], average["float"])
    for file, stage in (("float", "float"), ("best", "qat"), ("last", "qat")):
        written = checkpoint.read(tmp_path / "run" / f"{file}.safetensors").state
        torch.testing.assert_close(torch.from_numpy(written[name]), average[stage])


def test_ranges_follow_the_weights_halfway_through_qat_and_stay(clean, tmp_path, monkeypatch):
    """Neither validation nor a checkpoint moves them."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)  # weights are written after every step
    ranges = []

    def look(progress):
        if progress.stage == "qat":
            ranges.append(checkpoint.read(tmp_path / "run" / "last.safetensors").activations)

    recipe = dataclasses.replace(TINY, qat_steps=8, validate_every=1, qat_rate=1e-2)
    done = train(clean, recipe, tmp_path / "run", on_progress=look)
    first, second = ranges[:4], ranges[4:]
    assert all(found == first[0] for found in first)
    assert all(found == second[0] for found in second)
    assert first[0] != second[0]
    assert checkpoint.read(done.weights).activations == second[0]


def test_distillation_keeps_the_network_at_what_the_float_stage_left(clean, tmp_path):
    """Agreement alone is had by a network that changes less; the float stage's output is not."""

    def drift(distillation: float) -> float:
        recipe = dataclasses.replace(
            TINY, tone_steps=0, steps=20, qat_steps=30, rate=1e-3, qat_rate=2e-3, ema=0.0, distillation=distillation
        )
        recipe = dataclasses.replace(recipe, agreement=0.0, validate_every=30)
        run = tmp_path / str(distillation)
        train(clean, recipe, run)
        begun, ended = (checkpoint.read(run / f"{name}.safetensors") for name in ("float", "last"))
        photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        outputs = [whole.from_state(w.config, w.state).network(photo) for w in (begun, ended)]
        return float((outputs[0] - outputs[1]).abs().mean())

    strong, none = drift(20.0), drift(0.0)
    assert strong < 0.7 * none, (strong, none)


def test_the_optimizer_sees_gradients_of_at_most_the_norm_of_the_recipe(clean, tmp_path, monkeypatch):
    norms: dict[float, list[float]] = {1e-3: [], 1e6: []}
    step = torch.optim.AdamW.step
    for clip, found in norms.items():

        def remembered(self, *given, into=found):
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            into.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
            return step(self, *given)

        monkeypatch.setattr(torch.optim.AdamW, "step", remembered)
        recipe = dataclasses.replace(TINY, tone_steps=0, steps=2, qat_steps=0, validate_every=2, clip=clip)
        train(clean, recipe, tmp_path / f"{clip}")
    assert norms[1e-3] == pytest.approx([1e-3] * 2, rel=1e-3)
    assert min(norms[1e6]) > 0.01
