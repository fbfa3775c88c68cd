"""One run from its first step to its weights: stages, steps, validation, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from qatie_cli import files, metrics
from qatie_cli.data import degradation
from qatie_cli.data.sampling import Batch
from qatie_cli.data.source import Source
from qatie_cli.errors import DataError, Exit, QatieError, UsageError
from qatie_cli.evaluation import pairs
from qatie_cli.model import checkpoint, tone
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import EXACT, Rounding
from qatie_cli.model.quantization import calibration, equalization
from qatie_cli.model.quantization.scheme import Activation, FakeQuantizer
from qatie_cli.training import reporting
from qatie_cli.training import state as states
from qatie_cli.training.distributed import Team
from qatie_cli.training.objective import NetworkObjective, ToneObjective
from qatie_cli.training.recipe import Recipe
from qatie_cli.training.reporting import Events, NoEvents
from qatie_cli.training.state import STATE_FILE, State

CHECKPOINT_SECONDS = 120.0
CONFIG_FILE = "config.toml"
BATCH_FILE = "not-a-number.safetensors"


@dataclass(frozen=True)
class Progress:
    """Where a run stands; `validation_db` is given at validation steps only. Step 0 stands for the start."""

    stage: str
    step: int  # within the stage, counted from 1
    stage_steps: int
    run_step: int
    run_steps: int
    loss: float
    terms: Mapping[str, float]
    samples_per_second: float
    validation_db: float | None = None


@dataclass(frozen=True)
class Finished:
    """What a run left behind: its weights, and the validation table."""

    weights: Path
    table: tuple[pairs.EngineScores, ...]


@dataclass(frozen=True)
class Setting:
    """Where a run takes place: processes, device, folder, and what it starts from.

    `notes` are recorded beside the recipe: the folders and options that a resumed run must share.
    """

    out: Path
    team: Team = Team()
    device: torch.device = torch.device("cpu")
    init: Weights | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    tensorboard: bool = False


class RunInterruptedError(QatieError):
    """The run was asked to stop; everything needed to go on is on disk."""

    exit_code = Exit.INTERRUPTED


def recorded(out: Path) -> tuple[Recipe, dict[str, str]]:
    """Recipe and notes of the run in `out`.

    Raises:
        DataError: there is none, or its record is damaged.
    """
    try:
        table = tomllib.loads((out / CONFIG_FILE).read_text(encoding="utf-8"))
        notes = table.pop("run", {})
        return Recipe.from_table(table), notes
    except OSError:
        raise DataError(f"There is no run in {out} to resume.", "Start one without --resume.") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{out / CONFIG_FILE} is damaged: {error}.", "Start a new run with another --out.") from error


def check(recipe: Recipe, setting: Setting, resume: bool) -> None:
    """Find out before any photo is read whether a run can begin, or go on.

    Raises:
        DataError: the folder cannot be written, holds a run already, or holds none to resume.
        UsageError: the batches cannot be shared by the team, or the weights to start from do not fit the recipe.
    """
    for batch in (recipe.batch, recipe.tone_batch):
        setting.team.rows(batch)
    if recipe.micro_batch is not None and len(setting.team.rows(recipe.batch)) % recipe.micro_batch:
        raise UsageError(
            f"A process's share of the batch does not divide into parts of {recipe.micro_batch}.",
            "Choose another micro_batch.",
        )
    init = setting.init
    if init is not None and not states.fits(init.config, recipe.config):
        raise UsageError(
            "The recipe's width is no multiple of that of the weights to start from, or it has other stages.",
            "Leave out --width, or name weights that fit.",
        )
    if resume:
        before, notes = recorded(setting.out)
        if before != recipe or notes != dict(setting.notes):
            raise DataError(
                f"The run in {setting.out} has another recipe or other data.", "Resume with the options it began with."
            )
        return
    if setting.team.share((setting.out / STATE_FILE).exists()):
        raise DataError(f"{setting.out} holds a run already.", "Go on with --resume, or name another --out.")
    try:
        files.check_writable(setting.out)
    except OSError as error:
        raise DataError(f"{setting.out} cannot be written to: {error.strerror}.", "Name another --out.") from error
    if setting.tensorboard:
        reporting.check_tensorboard()


def train(
    source: Source,
    recipe: Recipe,
    setting: Setting,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Train on `source`; everything goes to the folder `setting.out`. All processes of a team call it alike.

    Raises:
        RunInterruptedError: `should_stop` said so; `resume` goes on from the very step.
        DataError: nothing to resume from, a resumed run has another recipe or other photos, the loss is no number any
            more, or the folder cannot be written.
    """
    check(recipe, setting, resume)
    try:
        run = _Run(source, recipe, setting, resume)
        try:
            for step, batch in run.batches(should_stop, on_progress):
                on_progress(run.advance(step, batch))
            return run.finish()
        finally:
            run.events.close()
    except OSError as error:
        raise DataError(
            f"{setting.out} could not be written: {error.strerror or error}.", "Make room, then go on with --resume."
        ) from error
    except RuntimeError as error:
        if setting.team.size == 1:
            raise
        # What PyTorch says where another process of the team is gone.
        raise DataError(
            f"Process {setting.team.rank} lost the others: {str(error).splitlines()[0]}.", "Their messages say why."
        ) from error


class _Run:
    """One run: where it writes, what it learns from, and its state."""

    def __init__(self, source: Source, recipe: Recipe, setting: Setting, resume: bool) -> None:
        self.source, self.recipe, self.setting = source, recipe, setting
        self.out, self.team, self.device = setting.out, setting.team, setting.device
        self.steps = sum(count for _, count in recipe.stages)
        self.validation = source.validation() if self.team.leads else []
        self.saved_at = time.monotonic()
        self.state = self._resumed() if resume else self._fresh()
        ranges = self.state.activations
        self.rounding: Rounding = EXACT if ranges is None else FakeQuantizer(ranges)
        self._prepare()
        watched = setting.tensorboard and self.team.leads
        self.events: Events = reporting.TensorBoard(self.out, self.state.step + 1) if watched else NoEvents()

    # --- beginning and going on ---

    def _fresh(self) -> State:
        if self.team.leads:
            files.remove_stale(self.out)
            files.write_atomic(self.out / CONFIG_FILE, self._config())
        return self._begun()

    def _config(self) -> str:
        notes = "\n".join(f"{name} = {_toml_text(value)}" for name, value in self.setting.notes.items())
        return self.recipe.to_toml() + (f"\n[run]\n{notes}\n" if notes else "")

    def _begun(self) -> State:
        init = self.setting.init
        begun = states.fresh(self.recipe, init, self._stage_at(0)[0], self.device)
        begun.activations = init.activations if init is not None and init.config == self.recipe.config else None
        return begun

    def _resumed(self) -> State:
        if self.team.leads:
            files.remove_stale(self.out)
        if not (self.out / STATE_FILE).exists():  # killed before its first checkpoint
            return self._begun()
        return states.load(self.out / STATE_FILE, self.recipe, self.source.fingerprint, self.device)

    def _stage_at(self, step: int) -> tuple[str, int, int]:
        """Stage, step within it and its length, of a step of the whole run."""
        for stage, count in self.recipe.stages:
            if step < count:
                return stage, step, count
            step -= count
        return stage, count, count

    # --- batches ---

    def batches(
        self, should_stop: Callable[[], bool], on_progress: Callable[[Progress], None]
    ) -> Iterator[tuple[int, Batch]]:
        """The steps still to do with this process's part of their batches, prepared one ahead in another thread."""
        if not self.state.history and self.setting.init is not None and self.steps:
            on_progress(self._start())
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, self.state.step)
            for step in range(self.state.step, self.steps):
                batch = coming.result()
                if step + 1 < self.steps:
                    coming = ahead.submit(self._batch, step + 1)
                if self._all_stop(should_stop()):
                    self.save()
                    raise RunInterruptedError(f"Stopped at step {step} of {self.steps}.", "Go on with --resume.")
                yield step, batch

    def _all_stop(self, wanted: bool) -> bool:
        """Whether any process of the team was asked to stop: they stop together."""
        return bool(self.team.mean(torch.tensor(float(wanted), device=self.device)) > 0)

    def _batch(self, step: int) -> Batch:
        if self._stage_at(step)[0] == "tone":
            return self.source.wholes(step, self.team.rows(self.recipe.tone_batch))
        return self.source.crops(step, self.team.rows(self.recipe.batch))

    # --- steps ---

    def advance(self, step: int, batch: Batch) -> Progress:
        """One optimizer step, and what falls due with it: stage change, validation, checkpoint."""
        began = time.monotonic()
        state = self.state
        stage, stage_step, stage_steps = self._stage_at(step)
        if stage != state.stage or (stage == "qat" and stage_step == 0):
            self._enter(stage)
        if stage == "qat" and stage_step == stage_steps // 2 and stage_step:
            # Ranges follow the weights once more, then stay frozen for the second half.
            self._take_ranges(self._calibrated())
        rate = _rate(self.recipe, stage, stage_step, stage_steps)
        # Over no more than a tenth of the stage, so that the average of a short one is not where it began.
        loss, terms = self._learn(batch, rate, min(self.recipe.ema, max(0.0, 1 - 10 / stage_steps)))
        state.step = step + 1
        validation_db = None
        last_of_stage = stage_step + 1 == stage_steps
        if (stage_step + 1) % self.recipe.validate_every == 0 or last_of_stage:
            validation_db = self._validate({"learning_rate": rate, "loss": loss} | terms)
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS or last_of_stage:
            self.save()
        seconds = max(time.monotonic() - began, 1e-6)
        samples = self.recipe.tone_batch if stage == "tone" else self.recipe.batch
        self.events.write(
            state.step, {"loss": loss, "learning_rate": rate} | {f"loss/{k}": v for k, v in terms.items()}
        )
        return Progress(
            stage, stage_step + 1, stage_steps, step + 1, self.steps, loss, terms, samples / seconds, validation_db
        )

    def _enter(self, stage: str) -> None:
        """Begin a stage: the averaged weights become the weights, the optimizer starts anew."""
        state = self.state
        if state.stage == "tone" and state.best_tone is not None:
            state.ema.tone.load_state_dict(state.best_tone)
            state.best_tone = None
        self.team.share_tensors(state.ema)
        state.model.load_state_dict(state.ema.state_dict())
        state.best_db = -math.inf
        state.stage = stage
        if stage == "qat":
            photos = self._calibration_photos()
            equalization.equalize(state.model.network, photos)
            self.team.share_tensors(state.model)
            self._take_ranges(calibration.calibrate(state.model.network, photos))
            state.ema.load_state_dict(state.model.state_dict())
            if self.team.leads:
                checkpoint.write(self.out / "float.safetensors", self._weights("post-training"))
        state.optimizer = states.optimizer(state.model, self.recipe, stage)
        self._prepare()

    def _prepare(self) -> None:
        """Make the module whose gradients the stage needs."""
        state = self.state
        tones = state.stage == "tone"
        made = ToneObjective(state.model) if tones else NetworkObjective(state.model, self.recipe, state.stage)
        self.objective = self.team.wrap(made, self.device)
        self.trained = [p for p in made.parameters() if p.requires_grad]

    def _take_ranges(self, ranges: dict[str, Activation]) -> None:
        self.state.activations = self.team.share(ranges)
        self.rounding = FakeQuantizer(self.state.activations)

    def _learn(self, batch: Batch, rate: float, kept: float) -> tuple[float, dict[str, float]]:
        """One step at a learning rate; `kept` is the share of the averaged weights that stays."""
        state = self.state
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        here = Batch(*(t.to(self.device) for t in (batch.input, batch.target, batch.thumbnail)))
        state.optimizer.zero_grad(set_to_none=True)
        parts = self._parts(here)
        sums, terms = 0, ()
        for number, (part, other) in enumerate(parts, 1):
            with self.team.averaging(self.objective, number == len(parts)):
                loss, terms = self.objective(part, other)
                share = len(part.input) / len(here.input)
                (loss * share).backward()
            sums = sums + share * torch.stack([loss.detach(), *(t.detach() for t in terms.values())])
        found = self.team.mean(sums).tolist()
        if not math.isfinite(found[0]):
            self._give_up(batch, found[0])
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip))
        if not math.isfinite(norm):
            self._give_up(batch, norm)
        state.optimizer.step()
        if not all(bool(torch.isfinite(p).all()) for p in self.trained):
            self._give_up(batch, math.nan)
        with torch.no_grad():
            for averaged, p in zip(state.ema.parameters(), state.model.parameters(), strict=True):
                averaged.lerp_(p, 1 - kept)
        return found[0], dict(zip(terms, found[1:], strict=True))

    def _parts(self, batch: Batch) -> list[tuple[Batch, Tensor | Rounding | None]]:
        """The batch in the recipe's micro-batches, each with what else its objective takes.

        The tone stage's larger batches are cut into as many parts.
        """
        recipe, tones = self.recipe, self.state.stage == "tone"
        whole = len(batch.input)
        size = whole if recipe.micro_batch is None else recipe.micro_batch
        if tones and recipe.micro_batch is not None:
            size = max(1, recipe.tone_batch * size // recipe.batch)
        tensors = (t.split(size) for t in (batch.input, batch.target, batch.thumbnail))
        parts = [Batch(*part) for part in zip(*tensors, strict=True)]
        if not tones:
            return [(part, self.rounding if self.state.stage == "qat" else EXACT) for part in parts]
        kept = self._dropout()
        return list(zip(parts, [None] * len(parts) if kept is None else kept.split(size), strict=True))

    def _dropout(self) -> Tensor | None:
        """This process's part of the tone stage's dropout, a function of the step: for resuming, and for teams."""
        share = self.recipe.tone_dropout
        if not share:
            return None
        generator = torch.Generator().manual_seed(self.recipe.seed + self.state.step)
        drawn = torch.rand(self.recipe.tone_batch, self.state.model.tone.features, generator=generator)
        rows = self.team.rows(self.recipe.tone_batch)
        return ((drawn >= share) / (1 - share))[rows.start : rows.stop].to(self.device)

    def _give_up(self, batch: Batch, loss: float) -> None:
        """Keep the batch whose loss is no number, and say so."""
        state, recipe = self.state, self.recipe
        rows = self.team.rows(recipe.tone_batch if state.stage == "tone" else recipe.batch)
        names = self.source.names(state.step, rows, state.stage)
        # Copies: of whole photos the input is the thumbnail, and a file takes no tensor twice.
        tensors = {name: getattr(batch, name).clone() for name in ("input", "target", "thumbnail")}
        path = self.out / (BATCH_FILE if self.team.leads else f"{self.team.rank}-{BATCH_FILE}")
        described = {"stage": state.stage, "step": str(state.step), "photos": json.dumps(names)}
        files.write_atomic(path, safetensors.torch.save(tensors, described))
        raise DataError(
            f"The loss or its gradient is {loss} at step {state.step} ({state.stage} stage); the batch is in {path}.",
            f"Start anew with a lower rate in the recipe, or without the photos it shows ({names[0]}, ...).",
        )

    # --- looking at photos ---

    @torch.no_grad()
    def _toned(self, photo_u8: np.ndarray) -> Tensor:
        """A photo (1, 3, H, W) as the network sees it."""
        x = torch.from_numpy(degradation.from_u8(photo_u8)).permute(2, 0, 1)[None].to(self.device)
        return self.state.ema.toned(x, tone.thumbnail(photo_u8).to(self.device))

    def _calibration_photos(self) -> list[Tensor]:
        return [self._toned(p) for p in self.source.calibration()]

    def _calibrated(self) -> dict[str, Activation]:
        return calibration.calibrate(self.state.ema.network, self._calibration_photos())

    @torch.no_grad()
    def _output(self, photo_u8: np.ndarray, whole: bool) -> np.ndarray:
        """What the averaged weights make of a photo: the whole model, or the tone stage alone."""
        toned = self._toned(photo_u8)
        if whole:
            toned = toned + self.state.ema.network(toned, self.rounding if self.state.stage == "qat" else EXACT)
        return degradation.to_u8(toned[0].permute(1, 2, 0).cpu().numpy())

    def _start(self) -> Progress:
        """How good the weights are that the run starts from."""
        score = self._validate({}, whole=True)
        if self.state.stage == "tone":  # and its tone stage alone, which the first stage has to better
            self.state.best_db = self.team.share(self._score(whole=False)[0])
            self.state.best_tone = {k: v.clone() for k, v in self.state.ema.tone.state_dict().items()}
        stage, _, stage_steps = self._stage_at(0)
        return Progress(stage, 0, stage_steps, 0, self.steps, math.nan, {}, 0.0, score)

    def _score(self, whole: bool) -> tuple[float, list[np.ndarray]]:
        """Mean PSNR on the validation photos, and the outputs; the leader's alone."""
        outputs = [self._output(seen, whole) for seen, _ in self.validation]
        if not outputs:
            return math.nan, outputs
        scores = [metrics.psnr(output, target) for output, (_, target) in zip(outputs, self.validation, strict=True)]
        return float(np.mean(np.minimum(scores, metrics.BEST_DB))), outputs

    def _validate(self, learnt: dict[str, float], whole: bool | None = None) -> float:
        """Mean PSNR of the averaged weights on the validation photos; the best so far is kept as `best`."""
        state = self.state
        score, outputs = self._score(state.stage != "tone" if whole is None else whole)
        score = self.team.share(score)
        state.history.append({"step": state.step, "stage": state.stage, "validation_db": score} | learnt)
        if self.team.leads:
            reporting.write_metrics(self.out, state.history)
            shown = zip(self.validation, outputs, strict=True)
            rows = [(seen, output, target) for (seen, target), output in shown][: reporting.PREVIEWS]
            reporting.write_preview(self.out, state.step, rows)
            self.events.write(state.step, {"validation_db": score})
        if learnt and score > state.best_db:
            state.best_db = score
            if state.stage == "tone":
                state.best_tone = {k: v.clone() for k, v in state.ema.tone.state_dict().items()}
            elif self.team.leads:
                checkpoint.write(self.out / "best.safetensors", self._weights())
        return score

    # --- writing ---

    def _weights(self, stage: str | None = None, results: dict | None = None) -> Weights:
        return Weights(
            config=self.recipe.config,
            state=self.state.ema.state_dict(),
            activations=self.state.activations if (stage or self.state.stage) != "float" else None,
            recipe=self.recipe.to_table(),
            data=self.source.summary | {"run": _named(self.setting.notes)},
            metrics={"stage": stage or self.state.stage, "step": self.state.step} | (results or {}),
            versions=checkpoint.this_machine_versions(),
        )

    def save(self) -> None:
        """Write the averaged weights and all that resuming needs."""
        if self.team.leads:
            checkpoint.write(self.out / "last.safetensors", self._weights())
            states.save(self.out / STATE_FILE, self.state, self.source.fingerprint)
        self.saved_at = time.monotonic()

    def finish(self) -> Finished:
        """Measure the finished weights as they will be used, and write them with their figures."""
        state = self.state
        stage = state.stage
        if self.recipe.qat_steps == 0:
            if stage == "tone" and state.best_tone is not None:
                state.ema.tone.load_state_dict(state.best_tone)
            photos = self._calibration_photos()
            equalization.equalize(state.ema.network, photos)
            state.activations = calibration.calibrate(state.ema.network, photos)
            stage = "post-training"
        path = self.out / "last.safetensors"
        if not self.team.leads:
            return Finished(path, ())
        before = checkpoint.read(self.out / "float.safetensors") if stage == "qat" else None
        rows = pairs.closing_table(self._weights(stage), before, self.setting.init, self.validation)
        table = [dataclasses.asdict(row) for row in rows]
        checkpoint.write(path, self._weights(stage, {"validation": table}))
        return Finished(path, rows)


def _rate(recipe: Recipe, stage: str, step: int, steps: int) -> float:
    """Learning rate of a stage's step (from 0): linear warm-up, then a cosine down to a hundredth."""
    top = {"tone": recipe.tone_rate, "float": recipe.rate, "qat": recipe.qat_rate}[stage]
    warm = max(1, round(recipe.warm_up * steps))
    if step < warm:
        return top * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return top * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _named(notes: Mapping[str, str]) -> dict[str, str]:
    """Notes without this machine's folders: weights travel."""
    return {key: Path(value).name if Path(value).is_absolute() else value for key, value in notes.items()}


def _toml_text(value: str) -> str:
    """A TOML basic string."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return f'"{escaped}"'
