"""What a run leaves for people to look at: metrics.csv, before/after pictures, TensorBoard events."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from qatie_cli import files
from qatie_cli.errors import UsageError
from qatie_cli.photo import sheets

METRICS_FILE = "metrics.csv"
PREVIEW_FOLDER = "previews"
EVENTS_FOLDER = "events"
PREVIEWS = 4  # validation photos on each preview
_PREVIEW_PX = 480
_FIRST_COLUMNS = ["step", "stage", "learning_rate", "loss", "validation_db"]


class Events(Protocol):
    """Where scalars go while a run proceeds."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record values of a step of the run."""

    def close(self) -> None:
        """Nothing follows."""


class NoEvents:
    """Nobody watches."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


def check_tensorboard() -> None:
    """Raise UsageError where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("TensorBoard is not installed.", "Run: pip install 'qatie[tensorboard]'")


class TensorBoard:
    """TensorBoard's event files in RUN/events."""

    def __init__(self, out: Path, step: int) -> None:
        """`step` is the one that comes next: what an interrupted run wrote from it on is superseded."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / EVENTS_FOLDER), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def write_metrics(out: Path, history: list[dict]) -> None:
    """Every validation of the run so far, one row each; a loss term is empty in stages that do not have it."""
    terms = sorted({name for row in history for name in row} - set(_FIRST_COLUMNS))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_FIRST_COLUMNS, *terms], restval="")
    writer.writeheader()
    writer.writerows(history)
    files.write_atomic(out / METRICS_FILE, text.getvalue())


def write_preview(out: Path, step: int, rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """One picture of input, output and target, (H, W, 3) uint8 each, of some validation photos."""
    folder = out / PREVIEW_FOLDER
    folder.mkdir(exist_ok=True)
    named = [dict(zip(("input", f"step {step}", "target"), row, strict=True)) for row in rows]
    sheet = Image.fromarray(sheets.contact_sheet(named, _PREVIEW_PX))
    with files.atomic_path(folder / f"{step:06d}.jpg") as temporary:
        sheet.save(temporary, "JPEG", quality=90)
