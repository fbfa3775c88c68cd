"""The state of a gallery between runs: OUT/.gallery/entries.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qatie_cli import files, parsing

_SCHEMA = 1
_PROVENANCE_KEY = "making"  # name in the file, which predates the class


@dataclass(frozen=True)
class Provenance:
    """Weights, engine and strength of an enhanced photo; `weights` is a name, not a path."""

    weights: str
    arithmetic: str  # "float" or "int8 on ENGINE"
    strength: float

    def in_words(self) -> str:
        """One line for the page."""
        return f"{self.weights}, {self.arithmetic}, strength {self.strength:g}"


@dataclass(frozen=True)
class Entry:
    """A photo in the gallery.

    `name` and `source` are the paths of output and original relative to OUT, with slashes. `size` and `time_ns` are
    those of the output file when its previews were made; if they differ, the previews are stale. `change` is in percent
    (`previews.change`). Outputs of an earlier run without gallery have neither `seconds` nor `provenance`.
    """

    name: str
    source: str
    width: int
    height: int
    size: int
    time_ns: int
    change: float
    seconds: float | None = None
    provenance: Provenance | None = None
    notes: tuple[str, ...] = ()

    def fits(self, output: Path) -> bool:
        """Whether the previews still show the output."""
        try:
            status = output.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.time_ns)


@dataclass(frozen=True)
class Failure:
    """A photo that could not be enhanced: its path relative to OUT, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class LastRun:
    """The last run that enhanced photos; `not_begun` counts the photos left by an interruption."""

    when: str  # ISO 8601, UTC
    photos: int
    megapixels: float
    seconds: float
    not_begun: int = 0


@dataclass
class Remembered:
    """The whole file: entries by name, failures by source."""

    entries: dict[str, Entry] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    last: LastRun | None = None


def read(path: Path) -> Remembered:
    """The state of earlier runs; empty, to be rebuilt, if it is missing, damaged or of another version."""
    try:
        table = parsing.from_json(path.read_text(encoding="utf-8"))
        if table["schema"] != _SCHEMA:
            return Remembered()
        entries = [_entry(row) for row in table["photos"]]
        failures = [Failure(**row) for row in table["failed"]]
        last = LastRun(**table["last"]) if table["last"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Remembered()
    return Remembered({e.name: e for e in entries}, {f.source: f for f in failures}, last)


def _entry(row: dict[str, Any]) -> Entry:
    made = row.pop(_PROVENANCE_KEY)
    return Entry(**row | {"provenance": Provenance(**made) if made else None, "notes": tuple(row["notes"])})


def _row(entry: Entry) -> dict[str, Any]:
    row = dataclasses.asdict(entry)
    return row | {_PROVENANCE_KEY: row.pop("provenance")}


def write(path: Path, remembered: Remembered) -> None:
    """Write the file atomically.

    Raises:
        OSError: it cannot be written.
    """
    table = {
        "schema": _SCHEMA,
        "photos": [_row(entry) for entry in remembered.entries.values()],
        "failed": [dataclasses.asdict(failure) for failure in remembered.failures.values()],
        "last": dataclasses.asdict(remembered.last) if remembered.last else None,
    }
    files.write_atomic(path, json.dumps(table, separators=(",", ":")) + "\n")
