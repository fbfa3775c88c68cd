"""Which photos were replaced in place, so that none is enhanced twice."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qatie_cli import files, parsing
from qatie_cli.batch.claims import Claim, Claims
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import QatieError


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """Open the journal at `path` exclusively: two processes would enhance each photo twice.

    Raises:
        QatieError: another process holds it, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a")
    except OSError as error:
        raise QatieError(
            f"{path.parent} is not writable: {error.strerror or error}.",
            "qatie records replaced photos there; set QATIE_HOME to another folder.",
        ) from error
    with lock:
        if not files.try_lock(lock):
            raise QatieError("Another qatie process is replacing photos in place.", "Wait until it has finished.")
        yield Journal(path)


@dataclass(frozen=True)
class _Replaced:
    """One line of the journal: the file that replaced a photo."""

    size: int
    time_ns: int
    sha256: str  # empty in journals of early versions, like the settings
    settings: str  # digest
    engine: str = ""


class Journal:
    """A file with a line for each photo that was replaced: its path, what it became, and the settings' digest.

    A line is written before the photo is replaced. If the process ends in between, that line does not match the file,
    and an earlier one may. If only the time differs, the digest decides: copies, restored backups and some file systems
    change times.
    """

    def __init__(self, path: Path) -> None:
        self.engine = ""  # for photos replaced from now on
        self._path = path
        self._claims = Claims(path.with_suffix(".claims"))
        self._known: dict[str, list[_Replaced]] = {}  # by path, oldest first
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            lines = []
        for line in lines:
            try:
                row = parsing.from_json(line)
                made = _Replaced(
                    row["size"],
                    row["mtime_ns"],
                    row.get("sha256", ""),
                    row.get("settings", ""),
                    str(row.get("engine", "")),
                )
                self._known.setdefault(row["path"], []).append(made)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # an incomplete line after a kill or a power cut

    def holds(self, photo: Path) -> bool:
        """Whether the photo was written by an earlier run and is unchanged since."""
        return self._fitting(photo) is not None

    def differs(self, photo: Path, settings: Settings | None) -> bool:
        """Whether a recorded photo is known to have been written with other settings."""
        made = self._fitting(photo)
        return settings is not None and made is not None and made.settings not in ("", settings.digest)

    def engine_of(self, photo: Path) -> str:
        """The engine that a recorded photo was enhanced on; empty where that is not known."""
        made = self._fitting(photo)
        return "" if made is None else made.engine

    def _fitting(self, photo: Path) -> _Replaced | None:
        """The record of the current content, if there is one."""
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
        """Record durably that the file `content` is about to replace `photo`.

        Raises:
            OSError: the journal cannot be written; the photo must then stay as it is.
        """
        status = content.stat()
        digest = "" if settings is None else settings.digest
        made = _Replaced(status.st_size, status.st_mtime_ns, files.sha256(content), digest, self.engine)
        row = {"path": str(photo), "size": made.size, "mtime_ns": made.time_ns, "sha256": made.sha256}
        files.append_line(self._path, json.dumps(row | {"settings": digest, "engine": self.engine}).encode())
        self._known.setdefault(str(photo), []).append(made)

    def claim(self, photo: Path, wait: bool, stop: Callable[[], bool]) -> Claim | None:
        """The right to replace `photo` (`Claims.take`)."""
        return self._claims.take(str(photo), wait, stop)

    def remove_stale_claims(self, photos: Iterable[Path]) -> None:
        """Remove the claims of killed processes on `photos`, which were replaced."""
        self._claims.remove_stale(map(str, photos))
