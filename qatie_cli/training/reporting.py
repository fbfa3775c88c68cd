"""What a run reports: its progress, metrics.csv, before/after pictures, TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from qatie_cli import files, installation
from qatie_cli.data.source import PairPixels
from qatie_cli.errors import UsageError
from qatie_cli.photo import sheets

METRICS_FILE = "metrics.csv"
PREVIEW_FOLDER = "previews"
EVENTS_FOLDER = "events"
PREVIEWS = 4  # validation photos on each preview
_PREVIEW_PX = 480
_FIRST_COLUMNS = ["step", "stage", "learning_rate", "loss", "validation_db"]


@dataclass(frozen=True)
class Progress:
    """The progress of a run; `validation_db` only at validation steps. Step 0 is the start."""

    stage: str
    step: int  # within the stage, counted from 1
    stage_steps: int
    run_step: int
    run_steps: int
    loss: float
    terms: Mapping[str, float]
    samples_per_second: float
    validation_db: float | None = None


class Events(Protocol):
    """Where scalars go during a run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record values of a step of the run."""

    def close(self) -> None:
        """Finish writing."""


class NoEvents:
    """Discards everything."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


def check_tensorboard() -> None:
    """Raise UsageError where TensorBoard is not installed."""
    if not installation.has("tensorboard"):
        raise UsageError("TensorBoard is not installed.", f"Run: {installation.extra('tensorboard')}")


class TensorBoard:
    """TensorBoard's event files in RUN/events."""

    def __init__(self, out: Path, step: int) -> None:
        """`step` is the next one: later events of an interrupted run are superseded."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / EVENTS_FOLDER), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def write_metrics(out: Path, history: list[dict[str, object]]) -> None:
    """Write a row for every validation so far; loss terms that a stage lacks are empty.

    The table is rewritten every time, since stages add columns and a resumed run drops rows after its checkpoint.
    """
    terms = sorted({name for row in history for name in row} - set(_FIRST_COLUMNS))
    columns = [*_FIRST_COLUMNS, *terms]
    files.write_csv(out / METRICS_FILE, columns, ([row.get(name, "") for name in columns] for row in history))


def write_preview(out: Path, step: int, pairs: Sequence[PairPixels], outputs: Sequence[np.ndarray]) -> None:
    """One picture of input, output and target of the first few validation photos."""
    folder = out / PREVIEW_FOLDER
    folder.mkdir(exist_ok=True)
    rows = [
        {"input": pair.input, f"step {step}": output, "target": pair.target}
        for pair, output in zip(pairs, outputs, strict=True)
    ]
    sheet = Image.fromarray(sheets.contact_sheet(rows[:PREVIEWS], _PREVIEW_PX))
    with files.atomic_path(folder / f"{step:06d}.jpg") as temporary:
        sheet.save(temporary, "JPEG", quality=90)
