"""The state of a run: what changes from step to step, and the file it is resumed from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from qatie_cli import files
from qatie_cli.errors import DataError
from qatie_cli.model import whole, widening
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import Activation
from qatie_cli.model.whole import Model, ModelConfig
from qatie_cli.training.recipe import Recipe

STATE_FILE = "resume.safetensors"


@dataclass
class State:
    """Weights, their average, the optimizer, and what was found so far."""

    model: Model
    ema: Model
    optimizer: torch.optim.AdamW
    stage: str
    step: int = 0  # of the whole run
    activations: dict[str, Activation] | None = None
    best_db: float = -math.inf  # of the stage
    best_tone: dict[str, Tensor] | None = None  # the tone stage where validation was best: it overfits before its end
    history: list[dict] = field(default_factory=list)


def optimizer(net: Model, recipe: Recipe, stage: str) -> torch.optim.AdamW:
    """AdamW over what the stage trains; its rate is set anew at every step.

    Biases in front of a norm, which takes them away again, stay as they are: their gradient is rounding noise, and Adam
    makes steps of full length of it.
    """
    net.requires_grad_(False)
    for p in net.parameters():
        p.grad = None
    trained = (net.tone if stage == "tone" else net.network).requires_grad_(True)
    if stage != "tone":
        for block in net.network.refinements():
            block.local.bias.requires_grad_(False)
    chosen = [p for p in trained.parameters() if p.requires_grad]
    return torch.optim.AdamW(chosen, lr=0.0, betas=(0.9, 0.99), eps=1e-7, weight_decay=recipe.weight_decay)


def fits(start: ModelConfig, wanted: ModelConfig) -> bool:
    """Whether a run can start from weights: a network of the same width, or of a part of it, which is widened.

    A tone stage of another kind is learnt anew.
    """
    return wanted.network.width % start.network.width == 0 and (start.tone is None) == (wanted.tone is None)


def fresh(recipe: Recipe, start: Weights | None, stage: str, device: torch.device) -> State:
    """A state before the first step; `start` are the weights to begin with, None for random ones."""
    nets = [whole.create(recipe.config, recipe.seed) for _ in range(2)]
    if start is not None:
        if start.config.network != recipe.config.network:
            start = widening.widened(start, recipe.width, recipe.seed)
        same = start.config.tone == recipe.config.tone
        tensors = start.state if same else {n: t for n, t in start.state.items() if not n.startswith("tone.")}
        for net in nets:
            tones = {} if same else {n: t for n, t in net.state_dict().items() if n.startswith("tone.")}
            net.load_state_dict(tensors | tones)
    trained, average = (net.to(device) for net in nets)
    return State(trained, average.requires_grad_(False), optimizer(trained, recipe, stage), stage)


def save(path: Path, state: State, fingerprint: str) -> None:
    """Write all that resuming needs in one step; `fingerprint` is that of the photos."""
    tensors = {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.state_dict().items()}
    tensors |= {f"best_tone.{k}": v for k, v in (state.best_tone or {}).items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    header = {
        "step": state.step,
        "stage": state.stage,
        "best_db": state.best_db if math.isfinite(state.best_db) else None,
        "history": state.history,
        "activations": state.activations and {k: [a.scale, a.zero_point] for k, a in state.activations.items()},
        "fingerprint": fingerprint,
    }
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    files.write_atomic(path, safetensors.torch.save(plain, {"state": json.dumps(header)}))


def load(path: Path, recipe: Recipe, fingerprint: str, device: torch.device) -> State:
    """The state of a run as `save` wrote it.

    Raises:
        DataError: the file cannot be used, or the run learnt from other photos.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["state"])
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 (not a mapping)
        if header["fingerprint"] != fingerprint:
            raise DataError(
                "The photos are not those that the run began with.",
                "Bring them back, or start anew with another --out.",
            )
        return _restored(header, tensors, recipe, device)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be resumed from: {error}.", "Start a new run with another --out.") from error


def _restored(header: dict, tensors: dict[str, Tensor], recipe: Recipe, device: torch.device) -> State:
    def part(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

    state = fresh(recipe, None, header["stage"], device)
    state.model.load_state_dict(part("model."))
    state.ema.load_state_dict(part("ema."))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = value
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    state.step = header["step"]
    state.activations = header["activations"] and {k: Activation(*v) for k, v in header["activations"].items()}
    state.best_db = -math.inf if header["best_db"] is None else header["best_db"]
    state.best_tone = {k: v.to(device) for k, v in part("best_tone.").items()} or None
    state.history = header["history"]
    return state
