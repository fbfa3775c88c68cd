"""Which photos were replaced in place, so that none is enhanced twice."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Replaced:
    """One line: what a photo became."""

    size: int
    time_ns: int
    sha256: str  # earlier versions recorded none, and no settings
    settings: str  # digest


class Journal:
    """A file with a line for each photo that was replaced: its path, what it became, and the settings' digest.

    A line is written before the photo is replaced. Should the process end between the two, the line does not fit the
    photo that is still the old one, and an earlier line may. Where only the time differs the digest decides: copies,
    restored backups and some file systems change it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[_Replaced]] = {}  # by path, oldest first
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            lines = []
        for line in lines:
            try:
                row = parsing.from_json(line)
                made = _Replaced(row["size"], row["mtime_ns"], row.get("sha256", ""), row.get("settings", ""))
                self._known.setdefault(row["path"], []).append(made)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a line that a killed process or a power cut left half-written

    def holds(self, photo: Path) -> bool:
        """Whether the photo was written by an earlier run and is unchanged since."""
        return self._fitting(photo) is not None

    def differs(self, photo: Path, settings: Settings | None) -> bool:
        """Whether a photo that it holds was written with other settings, as far as that is known."""
        made = self._fitting(photo)
        return settings is not None and made is not None and made.settings not in ("", settings.digest)

    def _fitting(self, photo: Path) -> _Replaced | None:
        """The record of the very content that is there."""
        with contextlib.suppress(OSError):
            there = photo.stat()
            of_size = [made for made in reversed(self._known.get(str(photo), [])) if made.size == there.st_size]
            for made in of_size:
                if made.time_ns == there.st_mtime_ns:
                    return made
            digest = files.sha256(photo) if of_size else ""
            return next((made for made in of_size if digest and made.sha256 == digest), None)
        return None

    def record(self, photo: Path, content: Path, settings: Settings | None = None) -> None:
        """Note that the file `content` is about to replace `photo`, on disk before this returns.

        Raises:
            OSError: the journal cannot be written; the photo must then stay as it is.
        """
        status = content.stat()
        digest = "" if settings is None else settings.digest
        made = _Replaced(status.st_size, status.st_mtime_ns, files.sha256(content), digest)
        row = {"path": str(photo), "size": made.size, "mtime_ns": made.time_ns, "sha256": made.sha256}
        files.append_line(self._path, json.dumps(row | {"settings": digest}).encode())
        self._known.setdefault(str(photo), []).append(made)
