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
                     the output was made with, or null), reduction (by which the network saw the photo reduced),
                     restored (whether it was a coarse JPEG, whose blocks were taken out)

Status is enhanced, skipped (done before), failed, not begun, not a photo (by its name), or not searched (a folder of a
system's or another program's own, such as #recycle).
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli import __version__, files
from qatie_cli.batch.outcomes import Outcome, Result, Status
from qatie_cli.batch.planning import Plan
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import QatieError
from qatie_cli.photo import formats

SCHEMA = 1
NOT_A_PHOTO = "not a photo"
NOT_SEARCHED = "not searched"
DONE_BEFORE, INTERRUPTED = "The output exists.", "The run was interrupted."
_WHY = {NOT_A_PHOTO: "Its suffix is not a photo's.", NOT_SEARCHED: "It is a system's or a program's own."}


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
    done = [Result(task, status=Status.SKIPPED, reason=DONE_BEFORE) for task in plan.done]
    rest = [
        Result(task, status=Status.NOT_BEGUN, reason=INTERRUPTED) for task in plan.tasks if task.source not in reached
    ]
    photos = [row(r.task.source, r.task.output, r, digest) for r in [*results, *done, *rest]]
    photos += [other(NOT_A_PHOTO, path) for path in plan.not_photos]
    photos += [other(NOT_SEARCHED, path) for path in plan.system_folders]
    photos += [other(Status.FAILED.value, path, f"Cannot be searched: {reason}.") for path, reason in plan.unsearched]
    counts = dict(collections.Counter(photo["status"] for photo in photos))
    network = sum(result.seconds.network for result in results)
    return head(run, network, counts, settings) | {"photos": photos}


def head(run: Run, network_seconds: float, counts: dict[str, int], settings: Settings | None) -> dict:
    """A report without its photos."""
    return {
        "schema": SCHEMA,
        "qatie": __version__,
        **(dataclasses.asdict(run) | {"started": run.started.isoformat(timespec="seconds")}),
        "network_seconds": round(network_seconds, 4),
        "counts": counts,
        "settings": {} if settings is None else {settings.digest: dataclasses.asdict(settings)},
    }


def row(source: object, output: object, result: Outcome, settings: str | None) -> dict:
    """A photo of the report; `settings` is the run's digest."""
    has_output = result.status in (Status.ENHANCED, Status.SKIPPED)
    return {
        "input": str(source),
        "output": str(output),
        "status": result.status.value,
        "reason": result.reason,
        "notes": list(result.notes),
        "width": result.width,
        "height": result.height,
        "input_bytes": result.input_bytes,
        "output_bytes": result.output_bytes,
        "seconds": {name: round(value, 4) for name, value in dataclasses.asdict(result.seconds).items()},
        "settings": settings if has_output else None,
        "reduction": result.reduction,
        "restored": result.restored,
    }


def other(status: str, place: object, reason: str = "") -> dict:
    """A row of the report for a file or folder that is not enhanced."""
    return {"input": str(place), "output": None, "status": status, "reason": reason or _WHY[status]}


def check_writable(path: Path) -> None:
    """Raise QatieError if the report could not be written later."""
    if formats.has_photo_suffix(path):
        raise QatieError(f"{path} is named like a photo.", "Give a .json file with --report.")
    if files.is_special(path):
        return
    try:
        files.check_writable(path.parent)
    except OSError as error:
        raise QatieError(f"{path} cannot be written: {error.strerror or error}.", "Choose another --report.") from error
    if path.is_dir():
        raise QatieError(f"{path} is a folder.", "Give a file with --report.")


def write(path: Path, parts: Iterable[bytes]) -> None:
    """Write the report, atomically to a regular file.

    Raises:
        OSError: it cannot be written.
    """
    if files.is_special(path):
        files.write_atomic(path, b"".join(parts))
        return
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def encoded(content: dict) -> bytes:
    """The report's bytes."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    # Names that are not valid UTF-8 become JSON escapes, which are read back as the name.
    return text.encode("utf-8", "backslashreplace")


def parts(content: dict, photos: Iterable[dict]) -> Iterator[bytes]:
    """What `encoded` returns for `content` with these photos, in parts: the photos need not fit into memory."""
    yield encoded(content).removesuffix(b"\n}\n") + b',\n "photos": ['
    for index, photo in enumerate(photos):
        yield (b"," if index else b"") + b"\n  " + encoded(photo).rstrip().replace(b"\n", b"\n  ")
    yield b"\n ]\n}\n"
