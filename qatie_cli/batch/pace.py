"""How fast this machine was the last time, for an estimate before the next."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from qatie_cli import files
from qatie_cli.home import user_folder

TYPICAL = 2.5  # megapixels a second of two cores without int8 instructions, decoding and encoding included
_FEWEST_MEGAPIXELS = 20.0  # a run must have had, for its start-up not to count


def remembered() -> float | None:
    """Megapixels a second of the last long enough run, or None."""
    try:
        value = float(json.loads(_file().read_text(encoding="utf-8"))["megapixels_per_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if value > 0 else None


def remember(megapixels: float, seconds: float) -> None:
    """Keep a run's pace; where it cannot be kept, nothing is lost."""
    if megapixels < _FEWEST_MEGAPIXELS or seconds <= 0:
        return
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(_file(), json.dumps({"megapixels_per_s": megapixels / seconds}) + "\n")


def _file() -> Path:
    return user_folder() / "pace.json"
