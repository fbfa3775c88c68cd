"""Training: tone stage, float stage and quantization-aware stage of one resumable run."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qatie_cli import checkpoint, degradation, evaluation, files, losses, metrics, model, pairs, quantization, tone
from qatie_cli.checkpoint import Weights
from qatie_cli.errors import DataError, Exit, QatieError, UsageError
from qatie_cli.losses import LossWeights
from qatie_cli.model import Model, ModelConfig
from qatie_cli.network import EXACT, NetworkConfig, Rounding
from qatie_cli.pairs import Batch, CleanPhotos
from qatie_cli.quantization import Activation, FakeQuantizer
from qatie_cli.tone import ToneConfig, apply_tone

CHECKPOINT_SECONDS = 120.0
CONFIG_FILE = "config.toml"
STATE_FILE = "resume.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns; two runs with equal recipes and photos give equal weights on a CPU."""

    width: int = 16
    tone: bool = True
    tone_steps: int = 3000  # the tone stage alone, on whole photos at thumbnail size
    steps: int = 2500  # the network in float, behind the finished tone stage
    qat_steps: int = 0  # the network with int8's rounding
    mixed_precision: bool = False  # bfloat16 convolutions in the float stage; twice as fast where the CPU has them
    batch: int = 16
    crop: int = 128
    tone_batch: int = 64
    tone_dropout: float = 0.0  # of the tone stage's pooled features
    tone_rate: float = 1e-3  # AdamW learning rates at the top of each stage's schedule
    rate: float = 2e-3
    qat_rate: float = 2e-4
    weight_decay: float = 1e-4
    warm_up: float = 0.05  # share of a stage
    clip: float = 1.0  # gradient norm
    ema: float = 0.998
    agreement: float = 1.0  # QAT only: L1 between the rounded and the float output of the same weights
    validation_share: float = 0.1
    validate_every: int = 500
    seed: int = 0
    loss: LossWeights = LossWeights()
    degradation: degradation.Recipe = degradation.Recipe()

    def __post_init__(self) -> None:
        if min(self.width, self.batch, self.tone_batch, self.validate_every) < 1:
            raise ValueError("width, batch sizes and the validation interval must be at least 1")
        if self.crop % 8 or self.crop < 32:
            raise ValueError(f"crops must be a multiple of 8 and at least 32 pixels wide, not {self.crop}")
        if min(self.tone_steps, self.steps, self.qat_steps) < 0:
            raise ValueError("numbers of steps cannot be negative")

    @property
    def stages(self) -> tuple[tuple[str, int], ...]:
        """Stages in their order with their numbers of steps."""
        tone_steps = self.tone_steps if self.tone else 0
        return (("tone", tone_steps), ("float", self.steps), ("qat", self.qat_steps))

    def to_table(self) -> dict:
        """Plain values, as in a TOML file."""
        table = dataclasses.asdict(self)
        return table | {"degradation": degradation.recipe_to_table(self.degradation)}

    def to_toml(self) -> str:
        """The recipe as a TOML file that `from_table` takes back."""
        table = self.to_table()
        lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, dict)]
        for section in (name for name, value in table.items() if isinstance(value, dict)):
            lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in table[section].items())]
        return "\n".join(lines) + "\n"

    @staticmethod
    def from_table(table: dict) -> Recipe:
        """The inverse of `to_table`; names left out keep their defaults.

        Raises:
            ValueError: a name that is none of a recipe, or a value of the wrong kind.
        """
        known = {f.name for f in dataclasses.fields(Recipe)}
        if unknown := sorted(set(table) - known):
            raise ValueError(f"unknown setting {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        values = dict(table)
        if "loss" in values:
            terms = {f.name for f in dataclasses.fields(LossWeights)}
            if unknown := sorted(set(values["loss"]) - terms):
                raise ValueError(f"unknown loss {', '.join(unknown)}; there are {', '.join(sorted(terms))}")
            values["loss"] = LossWeights(**values["loss"])
        if "degradation" in values:
            values["degradation"] = degradation.recipe_from_table(values["degradation"])
        return Recipe(**values)


@dataclass(frozen=True)
class Progress:
    """Where a run stands; `validation_db` is given at validation steps only."""

    stage: str
    step: int  # within the stage, counted from 1
    stage_steps: int
    run_step: int
    run_steps: int
    loss: float
    samples_per_second: float
    validation_db: float | None = None


@dataclass(frozen=True)
class Finished:
    """What a run left behind: its weights, and the validation table (a row for each kind of arithmetic)."""

    weights: Path
    table: tuple[evaluation.Row, ...]


class RunInterruptedError(QatieError):
    """The run was asked to stop; everything needed to go on is on disk."""

    exit_code = Exit.INTERRUPTED


# --- the state of a run -------------------------------------------------------------------------------------------


@dataclass
class _State:
    """What changes from step to step."""

    model: Model
    ema: Model
    optimizer: torch.optim.AdamW
    step: int = 0  # of the whole run
    activations: dict[str, Activation] | None = None
    best_db: float = -math.inf
    best_tone: dict[str, Tensor] | None = None  # the tone stage where validation was best: it overfits before its end
    history: list[dict] = field(default_factory=list)


def _optimizer(net: Model, recipe: Recipe, stage: str) -> torch.optim.AdamW:
    """AdamW over what the stage trains; its rate is set anew at every step."""
    net.requires_grad_(False)
    trained = (net.tone if stage == "tone" else net.network).requires_grad_(True)
    for p in net.parameters():
        p.grad = None
    return torch.optim.AdamW(trained.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)


def _rate(recipe: Recipe, stage: str, step: int, steps: int) -> float:
    """Learning rate of a stage's step (from 0): linear warm-up, then a cosine down to a hundredth."""
    top = {"tone": recipe.tone_rate, "float": recipe.rate, "qat": recipe.qat_rate}[stage]
    warm = max(1, round(recipe.warm_up * steps))
    if step < warm:
        return top * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return top * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _save_state(path: Path, state: _State, stage: str) -> None:
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"best_tone.{k}": v for k, v in (state.best_tone or {}).items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    header = {
        "step": state.step,
        "stage": stage,
        "best_db": state.best_db if math.isfinite(state.best_db) else None,
        "history": state.history,
        "activations": state.activations and {k: [a.scale, a.zero_point] for k, a in state.activations.items()},
    }
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    files.write_atomic(path, safetensors.torch.save(plain, {"state": json.dumps(header)}))


def _load_state(path: Path, recipe: Recipe, device: torch.device) -> tuple[_State, str]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["state"])
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} cannot be resumed from: {error}.", "Start a new run with another --out.") from error

    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

    net, ema = model.create(_config(recipe), recipe.seed), model.create(_config(recipe), recipe.seed)
    net.load_state_dict(part("model."))
    ema.load_state_dict(part("ema."))
    net, ema = net.to(device), ema.to(device).requires_grad_(False)
    optimizer = _optimizer(net, recipe, header["stage"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    activations = header["activations"] and {k: Activation(*v) for k, v in header["activations"].items()}
    best = -math.inf if header["best_db"] is None else header["best_db"]
    best_tone = {k: v.to(device) for k, v in part("best_tone.").items()} or None
    return _State(net, ema, optimizer, header["step"], activations, best, best_tone, header["history"]), header["stage"]


def _config(recipe: Recipe) -> ModelConfig:
    return ModelConfig(NetworkConfig(recipe.width), ToneConfig() if recipe.tone else None)


# --- the run ------------------------------------------------------------------------------------------------------


def train(
    photos: CleanPhotos,
    recipe: Recipe,
    out: Path,
    *,
    device: str = "cpu",
    init: Weights | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Train on good photos that the recipe's degradation makes phone-like; everything goes to the folder `out`.

    Raises:
        RunInterruptedError: `should_stop` said so; `resume` goes on from the very step.
        DataError: nothing to resume from, a resumed run has another recipe, or the loss is no number any more.
    """
    run = _Run(photos, recipe, out, torch.device(device), init, resume)
    for step, batch in run.batches():
        if should_stop():
            run.save()
            raise RunInterruptedError(f"Stopped at step {run.state.step} of {run.steps}.", "Go on with --resume.")
        on_progress(run.advance(step, batch))
    return run.finish()


class _Run:
    """One run: where it writes, what it learns from, and its state."""

    def __init__(
        self, photos: CleanPhotos, recipe: Recipe, out: Path, device: torch.device, init: Weights | None, resume: bool
    ) -> None:
        self.photos, self.recipe, self.out, self.device = photos, recipe, out, device
        self.steps = sum(count for _, count in recipe.stages)
        self.validation = pairs.validation_pairs(photos, recipe.degradation, recipe.seed)
        self.saved_at = time.monotonic()
        if resume:
            self.state, self.stage = self._resumed()
        else:
            self.state, self.stage = self._fresh(init)

    def _fresh(self, init: Weights | None) -> tuple[_State, str]:
        if (self.out / STATE_FILE).exists():
            raise DataError(f"{self.out} holds a run already.", "Go on with --resume, or name another --out.")
        self.out.mkdir(parents=True, exist_ok=True)
        files.write_atomic(self.out / CONFIG_FILE, self.recipe.to_toml())
        nets = []
        for _ in range(2):
            nets.append(model.create(_config(self.recipe), self.recipe.seed))
            if init is not None:
                if init.config != _config(self.recipe):
                    raise UsageError(
                        "The weights to start from are of another width or have other stages than the recipe.",
                        "Leave out --width, or name weights that fit.",
                    )
                nets[-1].load_state_dict(init.state)
        stage = self._stage_at(0)[0]
        net = nets[0].to(self.device)
        return _State(net, nets[1].to(self.device).requires_grad_(False), _optimizer(net, self.recipe, stage)), stage

    def _resumed(self) -> tuple[_State, str]:
        try:
            recorded = Recipe.from_table(tomllib.loads((self.out / CONFIG_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise DataError(f"There is no run in {self.out} to resume.", "Start one without --resume.") from None
        if recorded != self.recipe:
            raise DataError(f"The run in {self.out} has another recipe.", "Resume with the options it began with.")
        if not (self.out / STATE_FILE).exists():  # killed before its first checkpoint
            return self._fresh(None)
        return _load_state(self.out / STATE_FILE, self.recipe, self.device)

    def _stage_at(self, step: int) -> tuple[str, int, int]:
        """Stage, step within it and its length, of a step of the whole run."""
        for stage, count in self.recipe.stages:
            if step < count:
                return stage, step, count
            step -= count
        return stage, count, count

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """The steps still to do with their batches, prepared one ahead in another thread."""
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, self.state.step)
            for step in range(self.state.step, self.steps):
                batch = coming.result()
                if step + 1 < self.steps:
                    coming = ahead.submit(self._batch, step + 1)
                yield step, batch

    def _batch(self, step: int) -> Batch:
        r = self.recipe
        if self._stage_at(step)[0] == "tone":
            return pairs.tone_batch(self.photos, r.degradation, r.seed, step, r.tone_batch)
        return pairs.training_batch(self.photos, r.degradation, r.seed, step, r.batch, r.crop)

    def advance(self, step: int, batch: Batch) -> Progress:
        """One optimizer step, and what falls due with it: stage change, validation, checkpoint."""
        began = time.monotonic()
        stage, stage_step, stage_steps = self._stage_at(step)
        if stage != self.stage or (stage == "qat" and stage_step == 0):
            self._enter(stage)
        if stage == "qat" and stage_step == stage_steps // 2 and stage_step:
            # Ranges follow the weights once more, then stay frozen for the second half.
            self.state.activations = self._calibrated()
        loss = self._learn(batch, _rate(self.recipe, stage, stage_step, stage_steps))
        self.state.step = step + 1
        validation_db = None
        last_of_stage = stage_step + 1 == stage_steps
        if (stage_step + 1) % self.recipe.validate_every == 0 or last_of_stage:
            validation_db = self._validate(loss)
        if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS or last_of_stage:
            self.save()
        rate = len(batch.input) / max(time.monotonic() - began, 1e-6)
        return Progress(stage, stage_step + 1, stage_steps, step + 1, self.steps, loss, rate, validation_db)

    def _enter(self, stage: str) -> None:
        """Begin a stage: the averaged weights become the weights, the optimizer starts anew."""
        state = self.state
        if self.stage == "tone" and state.best_tone is not None:
            state.ema.tone.load_state_dict(state.best_tone)
            state.best_tone = None
        state.model.load_state_dict(state.ema.state_dict())
        state.best_db = -math.inf
        if stage == "qat":
            tones = self._calibration_photos()
            quantization.equalize(state.model.network, tones)
            state.activations = quantization.calibrate(state.model.network, tones)
            state.ema.load_state_dict(state.model.state_dict())
            checkpoint.write(self.out / "float.safetensors", self._weights(post_training=True))
        state.optimizer = _optimizer(state.model, self.recipe, stage)
        self.stage = stage

    def _learn(self, batch: Batch, rate: float) -> float:
        state, weights = self.state, self.recipe.loss
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        seen, target, thumbnail = (t.to(self.device) for t in (batch.input, batch.target, batch.thumbnail))
        if self.stage == "tone":
            # The only randomness of a step that is not in its batch: a function of the step, for resuming.
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                torch.manual_seed(self.recipe.seed + state.step)
                toned = apply_tone(seen, *state.model.tone(thumbnail, self.recipe.tone_dropout))
            loss = losses.l1(toned, target) + losses.local_mean(toned, target)
        else:
            base = state.model.toned(seen, thumbnail)
            reference = target if state.model.tone is None else losses.matched_tone(target, base)
            mixed = self.recipe.mixed_precision and self.stage == "float"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                residual = state.model.network(base, self._rounding())
            output = base + residual.float()
            loss = losses.total(weights, losses.terms(output, reference))
            if self.stage == "qat" and self.recipe.agreement:
                loss = loss + self.recipe.agreement * losses.l1(residual, state.model.network(base))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DataError(f"The loss is {value} at step {state.step}.", "Resume with a lower rate in the recipe.")
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in state.model.parameters() if p.grad is not None], self.recipe.clip)
        state.optimizer.step()
        with torch.no_grad():
            for averaged, p in zip(state.ema.parameters(), state.model.parameters(), strict=True):
                averaged.lerp_(p, 1 - self.recipe.ema)
        return value

    def _rounding(self) -> Rounding:
        return FakeQuantizer(self.state.activations) if self.stage == "qat" else EXACT

    @torch.no_grad()
    def _toned(self, photo_u8: np.ndarray) -> Tensor:
        """A photo (1, 3, H, W) as the network sees it."""
        x = torch.from_numpy(degradation.from_u8(photo_u8)).permute(2, 0, 1)[None].to(self.device)
        return self.state.ema.toned(x, tone.thumbnail(photo_u8).to(self.device))

    def _calibration_photos(self) -> list[Tensor]:
        made = pairs.calibration_photos(self.photos, self.recipe.degradation, self.recipe.seed)
        return [self._toned(p) for p in made]

    def _calibrated(self) -> dict[str, Activation]:
        return quantization.calibrate(self.state.ema.network, self._calibration_photos())

    @torch.no_grad()
    def _validate(self, loss: float) -> float:
        """Mean PSNR of the averaged weights on the validation photos; the best so far is kept as `best`."""
        scores = []
        rounding = self._rounding()
        for seen, target in self.validation:
            toned = self._toned(seen)
            output = toned if self.stage == "tone" else toned + self.state.ema.network(toned, rounding)
            scores.append(metrics.psnr(degradation.to_u8(output[0].permute(1, 2, 0).cpu().numpy()), target))
        score = float(np.mean(scores))
        self.state.history.append({"step": self.state.step, "stage": self.stage, "loss": loss, "validation_db": score})
        self._write_metrics()
        if score > self.state.best_db:
            self.state.best_db = score
            if self.stage == "tone":
                self.state.best_tone = {k: v.clone() for k, v in self.state.ema.tone.state_dict().items()}
            else:
                checkpoint.write(self.out / "best.safetensors", self._weights())
        return score

    def _write_metrics(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, ["step", "stage", "loss", "validation_db"])
        writer.writeheader()
        writer.writerows(self.state.history)
        files.write_atomic(self.out / "metrics.csv", text.getvalue())

    def _weights(self, post_training: bool = False, results: dict | None = None) -> Weights:
        stage = "post-training" if post_training else self.stage
        return Weights(
            config=_config(self.recipe),
            state=self.state.ema.state_dict(),
            activations=self.state.activations,
            recipe=self.recipe.to_table(),
            data={
                "folder": self.photos.folder.name,
                "training_photos": len(self.photos.training),
                "validation_photos": [p.name for p in self.photos.validation],
                "unsuitable_photos": len(self.photos.unsuitable),
            },
            metrics={"stage": stage, "step": self.state.step} | (results or {}),
            versions=checkpoint.this_machine_versions(),
        )

    def save(self) -> None:
        """Write the averaged weights and all that resuming needs."""
        checkpoint.write(self.out / "last.safetensors", self._weights())
        _save_state(self.out / STATE_FILE, self.state, self.stage)
        self.saved_at = time.monotonic()

    def finish(self) -> Finished:
        """Measure the finished weights as they will be used, and write them with their figures."""
        if self.stage == "float" and self.recipe.qat_steps == 0:
            tones = self._calibration_photos()
            quantization.equalize(self.state.ema.network, tones)
            self.state.activations = quantization.calibrate(self.state.ema.network, tones)
        before = checkpoint.read(self.out / "float.safetensors") if self.stage == "qat" else None
        rows = evaluation.closing_table(self._weights(), before, self.validation)
        final = self._weights(results={"validation": [dataclasses.asdict(row) for row in rows]})
        checkpoint.write(self.out / "last.safetensors", final)
        return Finished(self.out / "last.safetensors", rows)
