"""The training loop: samples, optimizer steps, stage changes, validation and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from qatie_cli import files
from qatie_cli.data.source import PairPixels, TrainingBatch
from qatie_cli.errors import DataError, Exit, QatieError
from qatie_cli.evaluation import pairs
from qatie_cli.model import checkpoint
from qatie_cli.model.network import Rounding
from qatie_cli.training import ahead, reporting, results, stages, validation
from qatie_cli.training import state as states
from qatie_cli.training.reporting import Events, NoEvents, Progress
from qatie_cli.training.setting import RunInputs
from qatie_cli.training.stages import Stage
from qatie_cli.training.state import STATE_FILE, State

CHECKPOINT_SECONDS = 120.0
BATCH_FILE = "not-a-number.safetensors"


@dataclass(frozen=True)
class Finished:
    """The result of a run: its weights, and the closing validation table."""

    weights: Path
    table: tuple[pairs.EngineScores, ...]


class RunInterruptedError(QatieError):
    """The run was asked to stop; its checkpoint is on disk."""

    exit_code = Exit.INTERRUPTED


class TrainingLoop:
    """One process's part of a run."""

    def __init__(self, inputs: RunInputs, resume: bool) -> None:
        setting = inputs.setting
        self.inputs, self.recipe, self.source, self.setting = inputs, inputs.recipe, inputs.source, setting
        self.out, self.group, self.device = setting.out, setting.group, setting.device
        self.stages = stages.build(inputs)
        self.steps = sum(stage.steps for stage in self.stages)
        self.pairs: list[PairPixels] = self.source.validation() if self.group.leads else []
        self.saved_at = time.monotonic()
        if self.group.leads:
            files.remove_stale(self.out)
        # A run killed before its first checkpoint has no state file.
        self.stage, self.state = self._resumed() if resume and (self.out / STATE_FILE).exists() else self._begun()
        self._set_objective()
        tensorboard = setting.tensorboard and self.group.leads
        self.events: Events = reporting.TensorBoard(self.out, self.state.step + 1) if tensorboard else NoEvents()

    # --- beginning and resuming ---

    def _begun(self) -> tuple[Stage, State]:
        stage, init = self._stage_at(0), self.setting.init
        state = self._new_state(stage)
        if init is not None and init.config == self.recipe.config and self.recipe.keep_network:
            state.activations = init.activations
        return stage, state

    def _resumed(self) -> tuple[Stage, State]:
        saved = states.read(self.out / STATE_FILE, self.source.fingerprint)
        stage = next((s for s in self.stages if s.name == saved.stage), self.stages[0])
        state = self._new_state(stage)
        saved.restore(state, self.device)
        if state.step > stage.first:
            stage.resume(state)
        return stage, state

    def _new_state(self, stage: Stage) -> State:
        model, ema = states.models(self.recipe, self.setting.init, self.device)
        return State(model, ema, stage.optimizer(model), stage.name)

    def _stage_at(self, step: int) -> Stage:
        """The stage of a step of the run."""
        return next((s for s in self.stages if step < s.first + s.steps), self.stages[-1])

    def _set_objective(self) -> None:
        """Make the module whose gradients the stage needs."""
        self.objective: nn.Module = self.group.wrap(self.stage.objective(self.state.model), self.device)
        self.trained = self.stage.trainable(self.state.model)

    # --- steps ---

    def run(self, on_progress: Callable[[Progress], None], should_stop: Callable[[], bool]) -> Finished:
        """Run the remaining steps, then the closing validation."""
        if not self.state.history and self.setting.init is not None and self.steps:
            on_progress(self._validate_start())
        try:
            for step, batch in self._batches(should_stop):
                on_progress(self._advance(step, batch))
            return self._finish()
        finally:
            self.events.close()

    def _batches(self, should_stop: Callable[[], bool]) -> Iterator[tuple[int, TrainingBatch]]:
        """The remaining steps with this process's samples."""
        steps = range(self.state.step, self.steps)
        with contextlib.closing(ahead.prepared(self._samples, steps, self.setting.workers)) as batches:
            for step, batch in zip(steps, batches, strict=True):
                if self._any_stops(should_stop()):
                    self._save()
                    raise RunInterruptedError(f"Stopped at step {step} of {self.steps}.", "Continue with --resume.")
                yield step, batch

    def _samples(self, step: int) -> TrainingBatch:
        return self._stage_at(step).samples(step)

    def _any_stops(self, asked: bool) -> bool:
        """Whether any process was asked to stop, since all stop together."""
        return bool(self.group.mean(torch.tensor(float(asked), device=self.device)) > 0)

    def _advance(self, step: int, batch: TrainingBatch) -> Progress:
        """One optimizer step, with stage change, validation and checkpoint when due."""
        began = time.monotonic()
        state, stage = self.state, self._stage_at(step)
        stage_step = step - stage.first
        if stage.begins(state, stage_step):
            self._enter(stage)
        stage.before_step(state, stage_step)
        rate = stage.learning_rate(stage_step)
        loss, terms = self._learn(batch, rate)
        state.step = step + 1
        validation_db = None
        last_of_stage = stage_step + 1 == stage.steps
        if (stage_step + 1) % self.recipe.validate_every == 0 or last_of_stage:
            validation_db = self._validate({"learning_rate": rate, "loss": loss} | terms)
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS or last_of_stage:
            self._save()
        seconds = max(time.monotonic() - began, 1e-6)
        self.events.write(
            state.step, {"loss": loss, "learning_rate": rate} | {f"loss/{k}": v for k, v in terms.items()}
        )
        return Progress(
            stage.name,
            stage_step + 1,
            stage.steps,
            step + 1,
            self.steps,
            loss,
            terms,
            stage.batch_size / seconds,
            validation_db,
        )

    def _enter(self, stage: Stage) -> None:
        """Begin a stage: the averaged weights become the weights, the optimizer is reset."""
        state = self.state
        self.stage.leave(state)
        self.group.broadcast_parameters(state.ema)
        state.model.load_state_dict(state.ema.state_dict())
        state.best_db = -math.inf
        self.stage, state.stage = stage, stage.name
        stage.enter(state)
        state.optimizer = stage.optimizer(state.model)
        self._set_objective()

    def _learn(self, batch: TrainingBatch, rate: float) -> tuple[float, dict[str, float]]:
        """One step at a learning rate; returns the loss and its terms, averaged over the processes."""
        state = self.state
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        here = batch.to(self.device)
        state.optimizer.zero_grad(set_to_none=True)
        parts = self.stage.micro_batches(here, state)
        sums: list[Tensor] = []
        names: list[str] = []
        for number, (part, condition) in enumerate(parts, 1):
            with self.group.gradient_sync(self.objective, number == len(parts)):
                loss, terms = self.objective(part, condition)
                share = len(part.input) / len(here.input)
                (loss * share).backward()
            names = list(terms)
            sums.append(share * torch.stack([loss.detach(), *(t.detach() for t in terms.values())]))
        means: list[float] = self.group.mean(functools.reduce(torch.add, sums)).tolist()
        if not math.isfinite(means[0]):
            self._stop_on_nan(batch, means[0])
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip))
        if not math.isfinite(norm):
            self._stop_on_nan(batch, norm)
        state.optimizer.step()
        if not bool(torch.stack([torch.isfinite(p).all() for p in self.trained]).all()):
            self._stop_on_nan(batch, math.nan)
        average = get_ema_multi_avg_fn(self.stage.ema_decay)
        average(list(state.ema.parameters()), list(state.model.parameters()), None)
        return means[0], dict(zip(names, means[1:], strict=True))

    def _stop_on_nan(self, batch: TrainingBatch, value: float) -> None:
        """Stop at a NaN or infinite loss, gradient or weight, and keep the batch that caused it."""
        step, stage = self.state.step, self.stage
        names = stage.names(step)
        # Copies: the input of full frames is the view, and a safetensors file cannot hold shared tensors.
        tensors = {name: getattr(batch, name) for name in ("input", "target", "restored", "view", "boxes")}
        path = self.out / (BATCH_FILE if self.group.leads else f"{self.group.rank}-{BATCH_FILE}")
        header = {"stage": stage.name, "step": str(step), "photos": json.dumps(names)}
        files.write_atomic(path, safetensors.torch.save({k: t.clone() for k, t in tensors.items()}, header))
        raise DataError(
            f"The loss or its gradient is {value} at step {step} ({stage.name} stage); the batch is in {path}.",
            f"Start a new run with a lower rate, or without the photos in it ({names[0]}, ...).",
        )

    # --- validation, checkpoints, results ---

    def _validate_start(self) -> Progress:
        """Score the given weights, whole and as far as the first stage trains them."""
        score = self._record(self.stage.rounding(self.state), {})
        self.stage.start(self.state, self.pairs)
        first = self._stage_at(0)
        return Progress(first.name, 0, first.steps, 0, self.steps, math.nan, {}, 0.0, score)

    def _validate(self, trained: Mapping[str, float]) -> float:
        """Score the averaged weights; keep them if they are the best of the stage."""
        score = self._record(self.stage.scored(self.state), trained)
        if score > self.state.best_db:
            self.state.best_db = score
            self.stage.keep_best(self.state)
        return score

    def _record(self, rounding: Rounding | None, trained: Mapping[str, float]) -> float:
        """Score the averaged weights, and write metrics and a preview."""
        state = self.state
        scored = validation.score(state.ema, self.pairs, rounding)
        psnr_db = self.group.broadcast(scored.psnr_db)
        state.history.append({"step": state.step, "stage": state.stage, "validation_db": psnr_db} | dict(trained))
        if self.group.leads:
            reporting.write_metrics(self.out, state.history)
            reporting.write_preview(self.out, state.step, self.pairs, scored.outputs)
            self.events.write(state.step, {"validation_db": psnr_db})
        return psnr_db

    def _save(self) -> None:
        """Write the averaged weights and all that resuming needs."""
        if self.group.leads:
            self.stage.write_weights(self.state, results.LAST_FILE)
            states.save(self.out / STATE_FILE, self.state, self.source.fingerprint)
        self.saved_at = time.monotonic()

    def _finish(self) -> Finished:
        """Measure the finished weights on every engine, and write them with their figures."""
        state, path = self.state, self.out / results.LAST_FILE
        recorded_as = self.stage.finish(state)
        if not self.group.leads:
            return Finished(path, ())
        quantized = results.weights(self.inputs, state, recorded_as, state.activations)
        before = checkpoint.read(self.out / results.FLOAT_FILE) if recorded_as == "qat" else None
        rows = pairs.closing_table(quantized, before, self.setting.init, list(self.pairs))
        table = [dataclasses.asdict(row) for row in rows]
        checkpoint.write(path, results.weights(self.inputs, state, recorded_as, state.activations, table))
        return Finished(path, rows)
