"""The state of a run, and the file that it is resumed from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qatie_cli import files, parsing
from qatie_cli.errors import DataError
from qatie_cli.model import whole, widening
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import ModelConfig
from qatie_cli.model.network import EXACT, Rounding
from qatie_cli.model.quantization.fake import FakeQuantizer
from qatie_cli.model.quantization.scheme import Activation
from qatie_cli.model.whole import Model
from qatie_cli.training.recipe import Recipe

STATE_FILE = "resume.safetensors"
_UNUSABLE = (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass
class State:
    """Weights, their moving average, the optimizer, and the best found so far."""

    model: Model
    ema: Model
    optimizer: torch.optim.AdamW
    stage: str
    step: int = 0  # of the whole run
    activations: dict[str, Activation] | None = None
    best_db: float = -math.inf  # of the stage
    best_tone: dict[str, Tensor] | None = None  # tone stage at its best validation: it overfits before its end
    history: list[dict[str, object]] = field(default_factory=list)

    @property
    def rounding(self) -> Rounding:
        """Rounding to the ranges, none where there are no ranges yet."""
        return EXACT if self.activations is None else FakeQuantizer(self.activations)


def fits(start: ModelConfig, recipe: Recipe) -> bool:
    """Whether a run can start from weights: the same network, or one of a divisor of its width, which is widened.

    A tone stage of another kind is trained from scratch, as is a network that the recipe does not keep.
    """
    wanted = recipe.config
    if not recipe.keep_network:
        return start.tone == wanted.tone
    width = wanted.network.width
    same = replace(start.network, width=width) == wanted.network and width % start.network.width == 0
    return same and (start.tone is None) == (wanted.tone is None)


def models(recipe: Recipe, init: Weights | None, device: torch.device) -> tuple[Model, Model]:
    """The model to train and its moving average before the first step; `init` None starts from random weights."""
    trained, average = (whole.create(recipe.config, recipe.seed) for _ in range(2))
    if init is not None:
        given = _given(init, recipe)
        for model in (trained, average):
            model.load_state_dict(model.state_dict() | given)
    return trained.to(device), average.to(device).requires_grad_(False)


def _given(init: Weights, recipe: Recipe) -> dict[str, Tensor]:
    """The tensors that a run takes from its initial weights: network and tone stage, each unless it is trained anew."""
    if recipe.keep_network and init.config.network != recipe.config.network:
        init = widening.widened(init, recipe.width, recipe.seed)
    given, wanted = (config.tone and config.tone.learnt for config in (init.config, recipe.config))
    kept = {"network": recipe.keep_network, "tone": given == wanted}
    return {name: torch.as_tensor(values) for name, values in init.state.items() if kept[name.partition(".")[0]]}


def save(path: Path, state: State, fingerprint: str) -> None:
    """Write a checkpoint atomically; `fingerprint` identifies the photos."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"best_tone.{k}": v for k, v in (state.best_tone or {}).items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    ranges = state.activations
    header = {
        "step": state.step,
        "stage": state.stage,
        "best_db": state.best_db if math.isfinite(state.best_db) else None,
        "history": state.history,
        "activations": None if ranges is None else {k: [a.scale, a.zero_point] for k, a in ranges.items()},
        "fingerprint": fingerprint,
    }
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    files.write_atomic(path, safetensors.torch.save(plain, {"state": json.dumps(header)}))


@dataclass(frozen=True)
class SavedState:
    """A state as `save` wrote it."""

    path: Path
    stage: str
    header: dict[str, Any]
    tensors: dict[str, Tensor]

    def restore(self, state: State, device: torch.device) -> None:
        """Bring a new state of the same stage to where the run was.

        Raises:
            DataError: the file does not fit the run.
        """
        try:
            self._restore(state, device)
        except _UNUSABLE as error:
            raise _refused(self.path, error) from error

    def _restore(self, state: State, device: torch.device) -> None:
        header = self.header
        state.model.load_state_dict(self._part("model."))
        state.ema.load_state_dict(self._part("ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in self._part("optimizer.").items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
        groups = state.optimizer.state_dict()["param_groups"]
        state.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        state.step = header["step"]
        ranges = header["activations"]
        state.activations = None if ranges is None else {k: Activation(*v) for k, v in ranges.items()}
        state.best_db = -math.inf if header["best_db"] is None else header["best_db"]
        state.best_tone = {k: v.to(device) for k, v in self._part("best_tone.").items()} or None
        state.history = header["history"]

    def _part(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def read(path: Path, fingerprint: str) -> SavedState:
    """Read a state file.

    Raises:
        DataError: it is damaged, or the run was trained on other photos.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = parsing.from_json(file.metadata()["state"])
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 (not a mapping)
        same_photos, stage = header["fingerprint"] == fingerprint, str(header["stage"])
    except _UNUSABLE as error:
        raise _refused(path, error) from error
    if not same_photos:
        raise DataError(
            "The photos differ from those that the run was started with.",
            "Restore them, or start a new run with another --out.",
        )
    return SavedState(path, stage, header, tensors)


def _refused(path: Path, error: Exception) -> DataError:
    return DataError(f"Cannot resume from {path}: {error}.", "Start a new run with another --out.")
