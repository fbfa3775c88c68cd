"""The inputs of a run: folder, processes, device, initial weights, recipe and photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from qatie_cli.data.source import Source
from qatie_cli.model.checkpoint import Weights
from qatie_cli.training.distributed import ProcessGroup
from qatie_cli.training.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """A run's folder, processes, device and initial weights.

    `notes` are recorded beside the recipe: the folders and options that a resumed run must share.
    """

    out: Path
    group: ProcessGroup = ProcessGroup()
    device: torch.device = torch.device("cpu")
    init: Weights | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    tensorboard: bool = False
    workers: int = 0  # processes that prepare samples; with 0 a thread does


@dataclass(frozen=True)
class RunInputs:
    """Everything that decides what a run does."""

    source: Source
    recipe: Recipe
    setting: Setting
