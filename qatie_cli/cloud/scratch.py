"""Scratch folders; the next run removes those of killed runs."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from qatie_cli import files

_PREFIX, _LOCK = "qatie-scratch-", ".lock"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Make a folder that is locked while in use, and removed with its content afterwards.

    Raises:
        OSError: it cannot be created.
    """
    made = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
    with made as name, Path(name, _LOCK).open("a") as lock:
        files.try_lock(lock)
        yield Path(name)


def remove_stale() -> None:
    """Remove folders left by killed processes on this machine."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), path.open("a") as lock:
            if files.try_lock(lock):
                shutil.rmtree(path.parent, ignore_errors=True)
