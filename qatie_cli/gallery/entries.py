"""What a gallery remembers from run to run: OUT/.gallery/entries.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from qatie_cli import files

_SCHEMA = 1


@dataclass(frozen=True)
class Making:
    """What made photos better; `weights` is a name, no path."""

    weights: str
    arithmetic: str  # "float" or "int8 on ENGINE"
    strength: float

    def in_words(self) -> str:
        """One line of it."""
        return f"{self.weights}, {self.arithmetic}, strength {self.strength:g}"


@dataclass(frozen=True)
class Entry:
    """One photo in the gallery.

    `name` is the output's path relative to OUT, with slashes, `source` the original's; `size` and `time_ns` are the
    output file's when its previews were made, by which a later change shows. `change` is in percent
    (`previews.change`). What an earlier run without gallery made has neither seconds nor making.
    """

    name: str
    source: str
    width: int
    height: int
    size: int
    time_ns: int
    change: float
    seconds: float | None = None
    making: Making | None = None
    notes: tuple[str, ...] = ()

    def fits(self, output: Path) -> bool:
        """Whether the output is still what the previews show."""
        try:
            status = output.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.time_ns)


@dataclass(frozen=True)
class Failure:
    """A photo that could not be enhanced, by its path relative to OUT, and the reason."""

    source: str
    reason: str


@dataclass(frozen=True)
class LastRun:
    """The last run that enhanced photos; `not_begun` counts photos that an interruption left."""

    when: str  # ISO 8601, UTC
    photos: int
    megapixels: float
    seconds: float
    not_begun: int = 0


@dataclass
class Remembered:
    """Everything in the file: entries by name, failures by source."""

    entries: dict[str, Entry] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    last: LastRun | None = None


def read(path: Path) -> Remembered:
    """What earlier runs left; nothing where that is missing, damaged or of another version (it is made anew then)."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["schema"] != _SCHEMA:
            return Remembered()
        entries = [_entry(row) for row in table["photos"]]
        failures = [Failure(**row) for row in table["failed"]]
        last = LastRun(**table["last"]) if table["last"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Remembered()
    return Remembered({e.name: e for e in entries}, {f.source: f for f in failures}, last)


def _entry(row: dict) -> Entry:
    making = Making(**row["making"]) if row["making"] else None
    return Entry(**(row | {"making": making, "notes": tuple(row["notes"])}))


def write(path: Path, remembered: Remembered) -> None:
    """Write the file in one step.

    Raises:
        OSError: it cannot be written.
    """
    table = {
        "schema": _SCHEMA,
        "photos": [dataclasses.asdict(entry) for entry in remembered.entries.values()],
        "failed": [dataclasses.asdict(failure) for failure in remembered.failures.values()],
        "last": dataclasses.asdict(remembered.last) if remembered.last else None,
    }
    files.write_atomic(path, json.dumps(table, separators=(",", ":")) + "\n")
