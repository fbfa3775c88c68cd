"""The stages of a run: what each trains, on which samples, at which rate, and its transitions."""

from __future__ import annotations

import abc
import copy
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from qatie_cli.data.source import PairPixels, TrainingBatch
from qatie_cli.model import checkpoint, whole
from qatie_cli.model.network import EXACT, Network, Rounding
from qatie_cli.model.quantization import calibration, equalization
from qatie_cli.model.quantization.scheme import Activation
from qatie_cli.model.tone import ToneStage
from qatie_cli.model.whole import Model
from qatie_cli.training import results, validation
from qatie_cli.training.objective import NetworkObjective, ToneObjective
from qatie_cli.training.setting import RunInputs
from qatie_cli.training.state import State

Condition = Tensor | Rounding | None  # what an objective takes beside its samples


class Stage(abc.ABC):
    """One stage of a run."""

    name: ClassVar[str]

    def __init__(self, inputs: RunInputs, first: int, steps: int) -> None:
        """`first` is the step of the run that the stage begins with."""
        self.inputs, self.first, self.steps = inputs, first, steps
        self.recipe, self.source, self.group = inputs.recipe, inputs.source, inputs.setting.group

    # --- what it trains ---

    @property
    @abc.abstractmethod
    def batch_size(self) -> int:
        """Samples of a step, over all processes."""

    @property
    @abc.abstractmethod
    def micro_batch(self) -> int | None:
        """Samples whose gradients are computed at once, None for all that a process has."""

    @property
    @abc.abstractmethod
    def peak_rate(self) -> float:
        """Learning rate at the top of the schedule."""

    @abc.abstractmethod
    def samples(self, step: int) -> TrainingBatch:
        """This process's samples of a step of the run."""

    @abc.abstractmethod
    def names(self, step: int) -> list[str]:
        """The photos behind `samples`."""

    @abc.abstractmethod
    def trainable(self, model: Model) -> list[nn.Parameter]:
        """The parameters that the stage changes."""

    @abc.abstractmethod
    def objective(self, model: Model) -> nn.Module:
        """What the stage minimizes: a module of a batch and a condition."""

    @abc.abstractmethod
    def conditions(self, state: State, sizes: list[int]) -> list[Condition]:
        """The objective's second argument for each micro-batch, given their sizes."""

    def optimizer(self, model: Model) -> torch.optim.AdamW:
        """AdamW over the stage's parameters, all others frozen; the rate is set at every step."""
        model.requires_grad_(False)
        for p in model.parameters():
            p.grad = None
        chosen = self.trainable(model)
        for p in chosen:
            p.requires_grad_(True)
        decay = self.recipe.weight_decay
        return torch.optim.AdamW(chosen, lr=0.0, betas=(0.9, 0.99), eps=1e-7, weight_decay=decay)

    def learning_rate(self, step: int) -> float:
        """Rate of a step of the stage (from 0): linear warm-up, then a cosine down to a hundredth."""
        warm_up = max(1, round(self.recipe.warm_up * self.steps))
        if step < warm_up:
            return self.peak_rate * (step + 1) / warm_up
        share = (step - warm_up) / max(1, self.steps - warm_up)
        return self.peak_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    @property
    def ema_decay(self) -> float:
        """Decay of the moving average: over a tenth of the stage at most, so that a short stage leaves its start."""
        return min(self.recipe.ema, max(0.0, 1 - 10 / self.steps))

    def micro_batches(self, batch: TrainingBatch, state: State) -> list[tuple[TrainingBatch, Condition]]:
        """A process's samples cut into micro-batches, each with its condition."""
        size = self.micro_batch or len(batch.input)
        parts = batch.split(size)
        return list(zip(parts, self.conditions(state, [len(p.input) for p in parts]), strict=True))

    # --- what it changes when it begins, proceeds and ends ---

    def begins(self, state: State, step: int) -> bool:
        """Whether the stage has to be entered before its step (from 0)."""
        return state.stage != self.name

    def start(self, state: State, pairs: list[PairPixels]) -> None:  # noqa: B027 (a hook)
        """Called once before a run that starts from given weights; `pairs` are rank 0's validation photos."""

    def enter(self, state: State) -> None:  # noqa: B027 (a hook)
        """Called when the stage begins, after the averaged weights became the weights."""

    def resume(self, state: State) -> None:  # noqa: B027 (a hook)
        """Called when a run goes on within the stage."""

    def before_step(self, state: State, step: int) -> None:  # noqa: B027 (a hook)
        """Called before a step of the stage (from 0)."""

    def leave(self, state: State) -> None:  # noqa: B027 (a hook)
        """Called when the stage has ended, before the next begins."""

    def finish(self, state: State) -> str:
        """Called when the run ends with this stage; returns what its weights are recorded as."""
        self.leave(state)
        photos = validation.calibration_photos(state.ema, self.source)
        equalization.equalize(state.ema.network, photos)
        state.activations = calibration.calibrate(state.ema.network, photos)
        return "post-training"

    # --- how its weights are validated and kept ---

    def rounding(self, state: State) -> Rounding:
        """The arithmetic of the network in this stage."""
        return EXACT

    def scored(self, state: State) -> Rounding | None:
        """What validation applies: the network in this arithmetic, or with None the tone stage alone."""
        return self.rounding(state)

    def activations(self, state: State) -> dict[str, Activation] | None:
        """The ranges that the stage's weights are written with."""
        return state.activations

    def keep_best(self, state: State) -> None:
        """Called when validation is the best of the stage so far."""
        if self.group.leads:
            self.write_weights(state, results.BEST_FILE)

    def write_weights(self, state: State, name: str) -> None:
        """Write the averaged weights as they are to the run's folder."""
        written = results.weights(self.inputs, state, self.name, self.activations(state))
        checkpoint.write(self.inputs.setting.out / name, written)


class ToneTraining(Stage):
    """The tone stage alone, on whole photos at thumbnail size."""

    name = "tone"

    @property
    def batch_size(self) -> int:
        return self.recipe.tone_batch

    @property
    def micro_batch(self) -> int | None:
        # As many micro-batches as the network's batch has.
        if self.recipe.micro_batch is None:
            return None
        return max(1, self.recipe.tone_batch * self.recipe.micro_batch // self.recipe.batch)

    @property
    def peak_rate(self) -> float:
        return self.recipe.tone_rate

    def samples(self, step: int) -> TrainingBatch:
        return self.source.full_frames(step, self.group.rows(self.batch_size))

    def names(self, step: int) -> list[str]:
        return self.source.full_frame_names(step, self.group.rows(self.batch_size))

    def trainable(self, model: Model) -> list[nn.Parameter]:
        return list(_tone(model).parameters())

    def objective(self, model: Model) -> nn.Module:
        return ToneObjective(_tone(model), self.recipe.tone_smoothness)

    def conditions(self, state: State, sizes: list[int]) -> list[Condition]:
        kept = self._dropout(state)
        return [None] * len(sizes) if kept is None else list(kept.split(sizes))

    def _dropout(self, state: State) -> Tensor | None:
        """This process's rows of the dropout mask: a function of the step, so that runs can be resumed and shared."""
        share = self.recipe.tone_dropout
        if not share:
            return None
        generator = torch.Generator().manual_seed(self.recipe.seed + state.step)
        uniform = torch.rand(self.batch_size, _tone(state.model).features, generator=generator)
        rows = self.group.rows(self.batch_size)
        return ((uniform >= share) / (1 - share))[rows.start : rows.stop].to(self.inputs.setting.device)

    def start(self, state: State, pairs: list[PairPixels]) -> None:
        """Score the given tone stage, to keep it unless training improves it."""
        state.best_db = self.group.broadcast(validation.score(state.ema, pairs, None).psnr_db)
        state.best_tone = _copied(_tone(state.ema))

    def leave(self, state: State) -> None:
        """Continue from the best validation: the tone stage overfits a few hundred photos before its end."""
        if state.best_tone is not None:
            _tone(state.ema).load_state_dict(state.best_tone)
            state.best_tone = None

    def scored(self, state: State) -> Rounding | None:
        return None

    def keep_best(self, state: State) -> None:
        kept = copy.deepcopy(_tone(state.ema))
        if self.recipe.tone_colour < 1:
            kept.keep_colours(self.recipe.tone_colour)
        if self.recipe.tone_cast < 1:
            kept.keep_casts(self.recipe.tone_cast)
        if self.recipe.tone_gains:
            kept.keep_gains(self.recipe.tone_gains)
        state.best_tone = _copied(kept)


class FloatTraining(Stage):
    """The network in float, behind the finished tone stage."""

    name = "float"

    @property
    def batch_size(self) -> int:
        return self.recipe.batch

    @property
    def micro_batch(self) -> int | None:
        return self.recipe.micro_batch

    @property
    def peak_rate(self) -> float:
        return self.recipe.rate

    def samples(self, step: int) -> TrainingBatch:
        return self.source.crops(step, self.group.rows(self.batch_size))

    def names(self, step: int) -> list[str]:
        return self.source.crop_names(step, self.group.rows(self.batch_size))

    def trainable(self, model: Model) -> list[nn.Parameter]:
        """All parameters but the biases before a norm, which cancels them.

        Their gradient is rounding noise, which Adam would turn into full steps.
        """
        cancelled = {id(block.local.bias) for block in model.network.refinements()}
        return [p for p in model.network.parameters() if id(p) not in cancelled]

    def objective(self, model: Model) -> nn.Module:
        return NetworkObjective(model, self.recipe.loss, mixed=self.recipe.mixed_precision)

    def conditions(self, state: State, sizes: list[int]) -> list[Condition]:
        return [self.rounding(state)] * len(sizes)

    def activations(self, state: State) -> dict[str, Activation] | None:
        return None


class QatTraining(FloatTraining):
    """Quantization-aware: the network with int8's rounding."""

    name = "qat"
    _teacher: Network | None = None  # the network as the stage began

    @property
    def peak_rate(self) -> float:
        return self.recipe.qat_rate

    def objective(self, model: Model) -> nn.Module:
        recipe = self.recipe
        return NetworkObjective(
            model,
            recipe.loss,
            agreement=recipe.agreement,
            teacher=self._teacher,
            distillation=recipe.distillation,
            mixed=recipe.mixed_precision,
        )

    def begins(self, state: State, step: int) -> bool:
        return state.stage != self.name or step == 0  # a run that begins with this stage needs ranges, too

    def enter(self, state: State) -> None:
        """Equalize, calibrate, and keep the post-training weights to compare with and to learn from."""
        photos = validation.calibration_photos(state.ema, self.source)
        equalization.equalize(state.model.network, photos)
        self.group.broadcast_parameters(state.model)
        state.activations = self.group.broadcast(calibration.calibrate(state.model.network, photos))
        state.ema.load_state_dict(state.model.state_dict())
        if self.recipe.distillation:
            self._teacher = copy.deepcopy(state.ema.network)
        if self.group.leads:
            post_training = results.weights(self.inputs, state, "post-training", state.activations)
            checkpoint.write(self.inputs.setting.out / results.FLOAT_FILE, post_training)

    def resume(self, state: State) -> None:
        """Read the network that the stage started from, if it is the teacher."""
        if not self.recipe.distillation:
            return
        begun = checkpoint.read(self.inputs.setting.out / results.FLOAT_FILE)
        self._teacher = whole.from_state(begun.config, begun.state).network.to(self.inputs.setting.device)

    def before_step(self, state: State, step: int) -> None:
        """Recalibrate ranges once, halfway; after that they stay frozen."""
        if step and step == self.steps // 2:
            photos = validation.calibration_photos(state.ema, self.source)
            state.activations = self.group.broadcast(calibration.calibrate(state.ema.network, photos))

    def finish(self, state: State) -> str:
        return self.name if self.steps else super().finish(state)

    def rounding(self, state: State) -> Rounding:
        return state.rounding

    def activations(self, state: State) -> dict[str, Activation] | None:
        return state.activations


def build(inputs: RunInputs) -> tuple[Stage, ...]:
    """The three stages of a run in order; a stage may have no steps."""
    kinds = {kind.name: kind for kind in (ToneTraining, FloatTraining, QatTraining)}
    stages: list[Stage] = []
    first = 0
    for name, steps in inputs.recipe.stages:
        stages.append(kinds[name](inputs, first, steps))
        first += steps
    return tuple(stages)


def _copied(stage: ToneStage) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in stage.state_dict().items()}


def _tone(model: Model) -> ToneStage:
    assert model.tone is not None, "a model without a tone stage has no steps of it"
    return model.tone
