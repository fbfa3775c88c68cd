"""The throughput of the last run on this machine, for estimates."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from qatie_cli import files, parsing
from qatie_cli.home import user_folder

TYPICAL = 2.5  # megapixels a second of two cores without int8 instructions, decoding and encoding included
_FEWEST_MEGAPIXELS = 20.0  # of a run that is remembered: start-up dominates shorter ones


def remembered() -> float | None:
    """Megapixels per second of the last run that was long enough, or None."""
    try:
        value = float(parsing.from_json(_file().read_text(encoding="utf-8"))["megapixels_per_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if value > 0 else None


def remember(megapixels: float, seconds: float) -> None:
    """Remember a run's throughput; errors are ignored."""
    if megapixels < _FEWEST_MEGAPIXELS or seconds <= 0:
        return
    with contextlib.suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(_file(), json.dumps({"megapixels_per_s": megapixels / seconds}) + "\n")


def _file() -> Path:
    return user_folder() / "pace.json"
