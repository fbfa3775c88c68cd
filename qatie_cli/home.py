"""The user's data folder, for what outlives a run."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def user_folder() -> Path:
    """`$QATIE_HOME`, or the platform's user data folder."""
    return Path(os.environ.get("QATIE_HOME") or platformdirs.user_data_dir("qatie", appauthor=False))
