"""The record of an output folder: what each output was made from, and which are being made.

OUT/.qatie/made.jsonl has a line for every output, written and flushed before the output appears: its name, size, time
and digest, its source with size and time, the digest of the settings and the engine. Lines are only ever appended, each
by one write, so that a killed run leaves whole lines and several runs may write at once. An output is recognised by
size and time, or by its digest if only the time differs, as after a copy.

OUT/.qatie/claims has a locked file for every photo in progress (`claims`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from qatie_cli import files, parsing
from qatie_cli.batch.claims import Claim, Claims
from qatie_cli.batch.settings import CHANGED, Settings

FOLDER = ".qatie"
_REDO = "Use --overwrite to redo it, or another folder with -o."


class State(Enum):
    """The state of an output."""

    MISSING = auto()
    DONE = auto()  # made from this source with these settings
    STALE = auto()  # made from another version or with other settings, and unchanged since: `Found.reason` says which
    LEFT = auto()  # must not be replaced; `Found.reason` says why


@dataclass(frozen=True)
class Found:
    """The state of an output, and the reason to leave it alone or to make it again."""

    state: State
    reason: str = ""


@dataclass(frozen=True)
class _Made:
    """One line: an output and what it was made from."""

    size: int
    time_ns: int
    content: str  # digest
    source: str  # relative to the folder
    source_size: int
    source_time_ns: int
    settings: str  # digest


class Ledger:
    """The record of an output folder. Safe to call from several threads."""

    def __init__(self, out: Path, settings: Settings) -> None:
        self.settings = settings
        self.engine = ""  # for outputs made from now on
        self._digest = settings.digest
        self._base = os.fspath(out.absolute())
        self._path = out / FOLDER / "made.jsonl"
        self._claims = Claims(out / FOLDER / "claims")
        self._known: dict[str, list[_Made]] = {}  # by name, oldest first; after a crash any of them may be current
        self._engines: dict[str, str] = {}  # by name, of outputs with these settings; the last made is the last here
        self._told: dict[str, dict] = {}  # settings that the file spells out, by digest
        self._read = 0  # bytes of the file
        self._lock = threading.Lock()

    # --- what is there ------------------------------------------------------------------------------------------------

    def find(self, output: Path, source: Path) -> Found:
        """The state of `output`, as the output of `source`."""
        try:
            there = output.stat()
        except OSError:
            return Found(State.MISSING)
        if not there.st_size or not stat.S_ISREG(there.st_mode):
            return Found(State.MISSING)  # an empty file of another program; a folder fails on writing
        with self._lock:
            self._catch_up()
            known = self._known.get(self._name(output), [])
        made = _fitting(known, output, there)
        if made is None:
            why = "was changed since qatie made it" if known else "exists, and qatie has no record of making it"
            return Found(State.LEFT, f"{output} {why}; it stays as it is. {_REDO}")
        seen = _seen(source)
        if made.source != self._relative(source):
            origin = Path(os.path.normpath(os.path.join(self._base, made.source)))  # noqa: PTH118 (as relpath made it)
            if seen is not None and _seen(origin) is not None and not _same(origin, source):
                return Found(State.LEFT, f"{output} was made from another photo, {made.source}. {_REDO}")
        if made.settings != self._digest:
            return Found(State.STALE, self.settings.unlike(self._told.get(made.settings)))
        current = (made.source_size, made.source_time_ns) == seen
        return Found(State.DONE) if current else Found(State.STALE, CHANGED)

    def _catch_up(self) -> None:
        """Read the lines that were appended since the last call, here or by another run."""
        try:
            if self._path.stat().st_size == self._read:
                return
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
        except OSError:
            return
        whole = added[: added.rfind(b"\n") + 1]  # the rest is still being written
        self._read += len(whole)
        for line in whole.split(b"\n"):
            try:
                row = parsing.from_json(line)
                if "are" in row:
                    self._told[str(row["settings"])] = dict(row["are"])
                    continue
                size, time_ns, content = row["made"]
                source, source_size, source_time_ns = row["from"]
                made = _Made(size, time_ns, content, os.fspath(source), source_size, source_time_ns, row["settings"])
                self._known.setdefault(row["output"], []).append(made)
                if made.settings == self._digest:
                    self._engines.pop(row["output"], None)
                    self._engines[row["output"]] = str(row.get("engine", ""))
            except (ValueError, KeyError, TypeError):
                continue  # an incomplete line of a killed run

    def begun_on(self) -> str:
        """The engine of the last output with these settings that is still there; empty where that is not known."""
        with self._lock:
            self._catch_up()
            made = reversed(self._engines.items())
            return next((engine for name, engine in made if os.path.lexists(os.path.join(self._base, name))), "")  # noqa: PTH118

    # --- what is made -------------------------------------------------------------------------------------------------

    def record(self, output: Path, source: Path, seen: tuple[int, int], content: Path) -> None:
        """Record durably that the file `content` is about to become `output`.

        Args:
            seen: size and time of the source when it was read.

        Raises:
            OSError: the record cannot be written; the output must then not appear.
        """
        status = content.stat()
        made = [status.st_size, status.st_mtime_ns, _digest(content)]
        row: dict[str, object] = {
            "output": self._name(output),
            "made": made,
            "from": [self._relative(source), *seen],
            "settings": self._digest,
            "engine": self.engine,
        }
        with self._lock:
            self._catch_up()
            if self._digest not in self._told:
                self._append({"settings": self._digest, "are": dataclasses.asdict(self.settings)})
            self._append(row)

    def _append(self, row: dict[str, object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.append_line(self._path, json.dumps(row, separators=(",", ":")).encode("utf-8", "surrogatepass"))

    # --- who makes what -----------------------------------------------------------------------------------------------

    def claim(self, output: Path, wait: bool, stop: Callable[[], bool]) -> Claim | None:
        """The right to make `output` (`Claims.take`)."""
        return self._claims.take(self._name(output), wait, stop)

    def remove_stale_claims(self, outputs: Iterable[Path]) -> None:
        """Remove the claims of killed processes on `outputs`, which exist."""
        self._claims.remove_stale(map(self._name, outputs))

    # --- names --------------------------------------------------------------------------------------------------------

    def _name(self, output: Path) -> str:
        return os.path.relpath(output.absolute(), self._base).replace(os.sep, "/")

    def _relative(self, source: Path) -> str:
        """The source's path relative to the folder, which may be shared, so that it reveals little of this machine."""
        try:
            return os.path.relpath(source.absolute(), self._base).replace(os.sep, "/")
        except ValueError:  # another drive
            return source.absolute().as_posix()


def _fitting(known: list[_Made], output: Path, there: os.stat_result) -> _Made | None:
    """The record of the current file, if there is one."""
    of_size = [made for made in reversed(known) if made.size == there.st_size]
    for made in of_size:
        if made.time_ns == there.st_mtime_ns:
            return made
    if of_size:
        try:
            content = _digest(output)
        except OSError:
            return None
        return next((made for made in of_size if made.content == content), None)
    return None


def _seen(source: Path) -> tuple[int, int] | None:
    try:
        status = source.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _same(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
