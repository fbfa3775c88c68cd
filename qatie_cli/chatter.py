"""Keeps C libraries' messages, such as a decoder's warnings, off standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_STDERR = 2  # C libraries write to the descriptor
_LOCK = threading.Lock()
_python_has_its_own = False
_hiding = 0  # open blocks
_kept = -1  # descriptor 2 before the first block


def separate_python() -> None:
    """Move Python's standard error to a descriptor of its own, so that `hidden` can redirect descriptor 2.

    Only for the command line: code that holds the old `sys.stderr` is silenced along with the C libraries.
    """
    global _python_has_its_own  # noqa: PLW0603
    try:
        if _python_has_its_own or sys.stderr.fileno() != _STDERR:
            return
        own = os.fdopen(os.dup(_STDERR), "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)
    except (OSError, ValueError, AttributeError):  # closed or not a real file
        return
    sys.stderr.flush()
    sys.stderr = own
    _python_has_its_own = True


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Discard output to descriptor 2. Does nothing unless `separate_python` was called.

    Blocks of several threads may overlap: the first redirects, the last restores.
    """
    global _hiding, _kept  # noqa: PLW0603
    if not _python_has_its_own:
        yield
        return
    with _LOCK:
        if not _hiding:
            _kept = os.dup(_STDERR)
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), _STDERR)
        _hiding += 1
    try:
        yield
    finally:
        with _LOCK:
            _hiding -= 1
            if not _hiding:
                os.dup2(_kept, _STDERR)
                os.close(_kept)
