"""Which photos were replaced in place, so that none is enhanced twice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from qatie_cli import files, parsing
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import QatieError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """The journal at `path`, for one process at a time: two would enhance each photo twice.

    Raises:
        QatieError: another process has it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a")
    except OSError as error:
        raise QatieError(
            f"{path.parent} cannot be written to: {error.strerror or error}.",
            "qatie records there which photos it replaced; set QATIE_HOME to another folder.",
        ) from error
    with lock:
        if not files.try_lock(lock):
            raise QatieError("Another qatie is replacing photos in place.", "Wait until it is done.")
        yield Journal(path)


class Journal:
    """A file with a line for each photo that was replaced: path, size and time of the new content, settings' digest.

    A line is written before the photo is replaced. Should the process end between the two, the line does not fit the
    photo that is still the old one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int]] = {}
        self._settings: dict[str, str] = {}  # digests; earlier versions recorded none
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                entry = parsing.from_json(line)
                self._known[entry["path"]] = (entry["size"], entry["mtime_ns"])
                self._settings[entry["path"]] = entry.get("settings", "")
            except (ValueError, KeyError, TypeError):
                continue  # a line that a killed process left half-written

    def holds(self, photo: Path) -> bool:
        """Whether the photo was written by an earlier run and is unchanged since."""
        try:
            status = photo.stat()
        except OSError:
            return False
        return self._known.get(str(photo)) == (status.st_size, status.st_mtime_ns)

    def differs(self, photo: Path, settings: Settings | None) -> bool:
        """Whether a photo that it holds was written with other settings, as far as that is known."""
        recorded = self._settings.get(str(photo), "")
        return settings is not None and recorded not in ("", settings.digest)

    def record(self, photo: Path, content: Path, settings: Settings | None = None) -> None:
        """Note that the file `content` is about to replace `photo`, on disk before this returns.

        Raises:
            OSError: the journal cannot be written; the photo must then stay as it is.
        """
        status = content.stat()
        digest = "" if settings is None else settings.digest
        entry = {"path": str(photo), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "settings": digest}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}\n")  # the first newline ends what a killed process may have left
            file.flush()
            os.fsync(file.fileno())
        self._known[str(photo)] = (status.st_size, status.st_mtime_ns)
        self._settings[str(photo)] = digest
