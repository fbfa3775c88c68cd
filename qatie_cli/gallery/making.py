"""Previews of photos, made while a batch has their pixels in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qatie_cli.batch.planning import Task
from qatie_cli.errors import PhotoError, QatieError
from qatie_cli.gallery import links, overview, previews
from qatie_cli.photo.content import Photo


class PreviewMaker:
    """Writes the previews of photos into `folder`. Its methods are called in the batch's threads.

    Attributes:
        changes: how much each output whose previews are made differs from its original, in percent.
        missing: outputs whose previews could not be made, and why. A preview that fails never fails its photo.
    """

    def __init__(self, folder: Path, name_of: Callable[[Task], str]) -> None:
        """`name_of` tells the output's name in the gallery."""
        self._folder, self._name_of = folder, name_of
        self._lock = threading.Lock()
        self.changes: dict[Path, float] = {}
        self.missing: dict[Path, str] = {}

    def reduced(self, photo: Photo) -> np.ndarray | None:
        """The preview of a decoded photo, (h, w, 3 or 4) uint8; None if that fails."""
        try:
            return previews.reduced(photo)
        except Exception:  # `keep` reports it
            return None

    def keep(self, task: Task, before: np.ndarray | None, photo: Photo) -> None:
        """Write the previews of a photo whose output is written."""
        try:
            if before is None:
                raise PhotoError("The original could not be reduced.")
            self.write(task, before, previews.reduced(photo))
        except Exception as error:
            with self._lock:
                self.missing[task.output] = reason(error)

    def write(self, task: Task, before: np.ndarray, after: np.ndarray) -> None:
        """Write a pair of previews.

        Raises:
            OSError: the folder cannot be written to.
        """
        key = links.key_of(self._name_of(task))
        for side, pixels in zip(overview.SIDES, (before, after), strict=True):
            previews.write(self._folder, key, side, pixels)
        with self._lock:
            self.changes[task.output] = previews.change(before, after)


def reason(error: Exception) -> str:
    """Why a preview is missing, in one line."""
    if isinstance(error, QatieError):
        return error.one_line()
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
