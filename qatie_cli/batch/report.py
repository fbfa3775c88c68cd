"""The machine-readable report of a run: one JSON object with a versioned schema.

    schema           1; incremented when a field is removed or changes its meaning
    qatie            version
    started          ISO 8601, UTC
    seconds          wall time of the run; `network_seconds` is the network's part of it
    interrupted      whether the run was interrupted
    engine, device, weights, strength
    counts           photos by status
    settings         what shapes an output, by digest
    photos           for each: input, output, status, reason, notes, width, height (of the output, pixels),
                     input_bytes, output_bytes, seconds {decode, network, encode}, settings (the digest of those that
                     the output was made with, or null), reduction (by which the network saw the photo reduced)

Status is enhanced, skipped (done before), failed, not begun, not a photo (by its name), or not searched (a folder of a
system's or another program's own, such as #recycle).
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli import __version__, files
from qatie_cli.batch.planning import Plan
from qatie_cli.batch.running import Result, Seconds, Status
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import QatieError
from qatie_cli.photo import formats

SCHEMA = 1
NOT_A_PHOTO = "not a photo"
NOT_SEARCHED = "not searched"


@dataclass(frozen=True)
class Run:
    """The report's fields about the run as a whole."""

    started: datetime.datetime
    seconds: float
    interrupted: bool
    engine: str
    device: str
    weights: str
    strength: float


def as_table(run: Run, plan: Plan, results: Sequence[Result], settings: Settings | None = None) -> dict:
    """The report as plain values for JSON; tasks without a result were not begun."""
    digest = None if settings is None else settings.digest
    reached = {result.task.source for result in results}
    done = [Result(task, Status.SKIPPED, reason="The output exists.") for task in plan.done]
    rest = [
        Result(task, Status.NOT_BEGUN, reason="The run was interrupted.")
        for task in plan.tasks
        if task.source not in reached
    ]
    photos = [_row(result, digest) for result in [*results, *done, *rest]]
    photos += [
        {"input": str(path), "output": None, "status": NOT_A_PHOTO, "reason": "Its suffix is not a photo's."}
        for path in plan.not_photos
    ]
    photos += [
        {"input": str(path), "output": None, "status": NOT_SEARCHED, "reason": "It is a system's or a program's own."}
        for path in plan.system_folders
    ]
    photos += [
        {"input": str(path), "output": None, "status": Status.FAILED.value, "reason": f"Cannot be searched: {reason}."}
        for path, reason in plan.unsearched
    ]
    return {
        "schema": SCHEMA,
        "qatie": __version__,
        **(dataclasses.asdict(run) | {"started": run.started.isoformat(timespec="seconds")}),
        "network_seconds": round(sum(result.seconds.network for result in results), 4),
        "counts": dict(collections.Counter(photo["status"] for photo in photos)),
        "settings": {} if settings is None else {settings.digest: dataclasses.asdict(settings)},
        "photos": photos,
    }


def _row(result: Result, settings: str | None) -> dict:
    has_output = result.status in (Status.ENHANCED, Status.SKIPPED)
    return {
        "input": str(result.task.source),
        "output": str(result.task.output),
        "status": result.status.value,
        "reason": result.reason,
        "notes": list(result.notes),
        "width": result.width,
        "height": result.height,
        "input_bytes": result.input_bytes,
        "output_bytes": result.output_bytes,
        "seconds": {name: round(value, 4) for name, value in _seconds(result.seconds).items()},
        "settings": settings if has_output else None,
        "reduction": result.reduction,
    }


def _seconds(seconds: Seconds) -> dict[str, float]:
    return dataclasses.asdict(seconds)


def check_writable(path: Path) -> None:
    """Raise QatieError if the report could not be written later."""
    if formats.has_photo_suffix(path):
        raise QatieError(f"{path} is named like a photo.", "Name a .json file with --report.")
    if files.is_special(path):
        return
    try:
        files.check_writable(path.parent)
    except OSError as error:
        raise QatieError(f"{path} cannot be written: {error.strerror or error}.", "Name another --report.") from error
    if path.is_dir():
        raise QatieError(f"{path} is a folder.", "Name a file with --report.")


def write(path: Path, content: dict) -> None:
    """Write the report, atomically to a regular file.

    Raises:
        OSError: it cannot be written.
    """
    files.write_atomic(path, encoded(content))


def encoded(content: dict) -> bytes:
    """The report's bytes."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # Names that are not valid UTF-8 become JSON escapes, which are read back as the name.
    return text.encode("utf-8", "backslashreplace")
