"""Lock files of the photos in progress.

A lock ends with its process. A file that is neither empty nor locked was left by a process that died while working on
the photo, perhaps because of it: the photo is suspect until its output is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from qatie_cli import files

_SECONDS_BETWEEN_TRIES = 0.1
_HELD = b"held\n"


@dataclass(frozen=True)
class Claim:
    """The right to make an output. `suspect`: a process died while working on its photo."""

    path: Path
    file: IO[str]
    suspect: bool = False

    def give_up(self, made: bool = True) -> None:
        """Release it. A suspect photo whose output is not `made` stays suspect."""
        if made or not self.suspect:
            with contextlib.suppress(OSError):
                os.ftruncate(self.file.fileno(), 0)  # Windows removes no open file
                self.path.unlink(missing_ok=True)
        self.file.close()


class Claims:
    """The claims in a folder. Safe to call from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str, wait: bool, stop: Callable[[], bool]) -> Claim | None:
        """The right to make the output of this name, or None while another process has it.

        Args:
            wait: retry until `stop` returns true, instead of giving up at once.

        Raises:
            OSError: the file cannot be created.
        """
        path = self._path(name)
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a")
            if files.try_lock(file):
                with contextlib.suppress(OSError):
                    status = os.fstat(file.fileno())
                    if path.stat().st_ino == status.st_ino:
                        with contextlib.suppress(OSError):  # a full disk; after a crash the photo is not suspect
                            os.write(file.fileno(), _HELD)
                        return Claim(path, file, suspect=status.st_size > 0)
                file.close()  # its last owner has removed it
                continue
            file.close()
            if not wait or stop():
                return None
            time.sleep(_SECONDS_BETWEEN_TRIES)

    def remove_stale(self, made: Iterable[str]) -> None:
        """Remove the claims of processes that died: empty ones, and those of outputs that are `made`."""
        try:
            left = set(self._folder.iterdir())
        except OSError:
            return
        done = {self._path(name) for name in made} if left else set()
        for path in left:
            with contextlib.suppress(OSError), path.open("a") as file:
                if files.try_lock(file) and (path in done or not os.fstat(file.fileno()).st_size):
                    path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.sha256(os.fsencode(name)).hexdigest()[:24]
