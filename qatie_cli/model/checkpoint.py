"""The weights file: a .safetensors file with float tensors and a JSON header; loading executes nothing."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy

from qatie_cli import __version__, files, parsing
from qatie_cli.errors import WeightsError
from qatie_cli.model import tensors
from qatie_cli.model.config import ModelConfig
from qatie_cli.model.quantization.scheme import Activation, missing_points

if TYPE_CHECKING:  # imports torch
    from qatie_cli.model.whole import Model

FORMAT = 1
HEADER_KEY = "qatie"  # of the safetensors metadata; its value is the JSON header


@dataclass(frozen=True)
class Weights:
    """Everything a weights file holds.

    `state` are float32 arrays (`whole.arrays` makes them of tensors). `activations` maps each rounding point of the
    network to its scale and zero point; None means that the model was never calibrated and runs in float only.
    `recipe`, `data` and `metrics` record how it came to be.
    """

    config: ModelConfig
    state: dict[str, np.ndarray]
    activations: dict[str, Activation] | None = None
    recipe: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    def build(self) -> Model:
        """The float model in PyTorch, without gradients."""
        from qatie_cli.model import whole

        return whole.from_state(self.config, self.state)


def this_machine_versions() -> dict[str, str]:
    """Versions to record in a weights file that is written now."""
    torch = importlib.metadata.version("torch")
    return {"qatie": __version__, "torch": torch, "python": platform.python_version()}


def to_header(weights: Weights) -> dict:
    """All but the tensors, as plain values for JSON."""
    return {
        "format": FORMAT,
        "config": weights.config.to_table(),
        "activations": None
        if weights.activations is None
        else {name: [a.scale, a.zero_point] for name, a in weights.activations.items()},
        "recipe": weights.recipe,
        "data": weights.data,
        "metrics": weights.metrics,
        "versions": weights.versions,
    }


def write(path: Path, weights: Weights) -> None:
    """Write a weights file atomically."""
    header = to_header(weights)
    state = {name: np.ascontiguousarray(values, np.float32) for name, values in weights.state.items()}
    files.write_atomic(path, safetensors.numpy.save(state, {HEADER_KEY: json.dumps(header)}))


def read(path: Path) -> Weights:
    """Read and check a weights file.

    Raises:
        WeightsError: no such file, not a safetensors file, not a qatie file, of a newer format, or incomplete.
    """
    foreign = f"{path} is not a qatie weights file"
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise WeightsError(f"There is no weights file {path}.", "See `qatie weights list` for names.") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{foreign}: {error}.", "Use one written by `qatie train`.") from error
    try:
        header = parsing.from_json(metadata[HEADER_KEY])
        header["format"]
    except (KeyError, TypeError, ValueError):
        raise WeightsError(f"{foreign} (no qatie header).", "Use one written by `qatie train`.") from None
    return from_header(path, header, state)


def from_header(path: Path, header: dict, state: dict[str, np.ndarray]) -> Weights:
    """Check what was read from the file `path`: plain values as `to_header` gives them, and the tensors.

    Raises:
        WeightsError: of a newer format, or incomplete.
    """
    written = header.get("format")
    if written != FORMAT:
        raise WeightsError(f"{path} has format {written}; this qatie reads format {FORMAT}.", "Update qatie.")
    try:
        weights = Weights(
            config=ModelConfig.from_table(header["config"]),
            state=state,
            activations=_activations(header["activations"]),
            recipe=header["recipe"],
            data=header["data"],
            metrics=header["metrics"],
            versions=header["versions"],
        )
        tensors.check(weights.config, weights.state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} is damaged: {reason}.", "Copy or train it again.") from error
    if weights.activations is not None and (missing := missing_points(weights.config.network, weights.activations)):
        raise WeightsError(f"{path} is damaged: no range for {', '.join(missing)}.", "Copy or train it again.")
    if not all(np.isfinite(values).all() for values in state.values()):
        raise WeightsError(f"{path} is damaged: it holds NaN or infinite values.", "Copy or train it again.")
    return weights


def _activations(table: dict | None) -> dict[str, Activation] | None:
    if table is None:
        return None
    read = {name: Activation(float(scale), int(zero_point)) for name, (scale, zero_point) in table.items()}
    for name, a in read.items():
        if not (math.isfinite(a.scale) and a.scale > 0 and 0 <= a.zero_point <= 255):
            raise ValueError(f"range of {name} is {a}")
    return read
