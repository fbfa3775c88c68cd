"""Many photos: discover, plan, then work through the plan, one result per photo."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qatie_cli import photo
from qatie_cli.errors import PhotoError, QatieError, UsageError
from qatie_cli.files import TEMPORARY_PREFIX
from qatie_cli.photo import Photo

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


@dataclass(frozen=True)
class Options:
    """How outputs are named and written."""

    fmt: str = "keep"  # or a key of photo.FORMATS
    quality: int | None = None
    recursive: bool = True
    overwrite: bool = False
    strip_metadata: bool = False
    max_pixels: int = photo.MAX_PIXELS


@dataclass(frozen=True)
class Task:
    """One photo to be enhanced."""

    source: Path
    output: Path


@dataclass(frozen=True)
class Plan:
    """Everything decided before any work: what to do, what is done already, and names that are no photos."""

    tasks: tuple[Task, ...]
    done: tuple[Task, ...]
    not_photos: tuple[Path, ...]


class Status(Enum):
    """What became of a photo."""

    ENHANCED = "enhanced"
    FAILED = "failed"


@dataclass(frozen=True)
class Result:
    """One photo's outcome; `reason` says why it failed, `notes` what the output does not hold."""

    task: Task
    status: Status
    seconds: float
    megapixels: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()


def plan(inputs: Sequence[Path], out: Path, options: Options) -> Plan:
    """Decide every output before any work.

    A directory input keeps its tree below `out`; a file lands in `out` itself. One file and an `out` with a photo's
    suffix that is no directory names the output file.

    Raises:
        UsageError: an input does not exist, two inputs would have one output, or an output is an input.
    """
    for path in inputs:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    if len(inputs) == 1 and inputs[0].is_file() and photo.format_of_name(out) and not out.is_dir():
        return _split([_named(inputs[0], out, options)], [], options)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file.", "Name a folder with -o.")
    tasks, not_photos = [], []
    for path in inputs:
        if path.is_dir():
            for source in discover(path, options.recursive, exclude=out):
                relative = source.relative_to(path).parent
                tasks.append(Task(source, out / relative / photo.output_name(source, options.fmt)))
        elif photo.has_photo_suffix(path):
            tasks.append(Task(path, out / photo.output_name(path, options.fmt)))
        else:
            not_photos.append(path)
    _refuse_collisions(tasks)
    return _split(tasks, not_photos, options)


def _named(source: Path, out: Path, options: Options) -> Task:
    wanted = photo.format_of_name(out)
    if options.fmt not in ("keep", wanted):
        raise UsageError(f"-o {out.name} and --format {options.fmt} contradict each other.", "Leave one out.")
    task = Task(source, out)
    _refuse_collisions([task])
    return task


def discover(folder: Path, recursive: bool, exclude: Path) -> Iterator[Path]:
    """Photos below `folder`, sorted; hidden and system files, the folder `exclude` and symbolic loops left out.

    Where `exclude` is `folder` itself nothing is left out: the plan then refuses to write over the originals.
    """
    excluded = _identity(exclude)
    if excluded == _identity(folder):
        excluded = None
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = _identity(Path(parent))
        if here in seen or (here == excluded and here is not None):
            folders.clear()
            continue
        if here is not None:
            seen.add(here)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(names):
            path = Path(parent, name)
            hidden = name.startswith(".") or name.startswith(TEMPORARY_PREFIX) or name.lower() in _SYSTEM_FILES
            if not hidden and photo.has_photo_suffix(path) and path.is_file():
                yield path


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _refuse_collisions(tasks: Sequence[Task]) -> None:
    """Raise UsageError where outputs would replace each other (names compared without case) or an input."""
    sources = {_identity(t.source): t.source for t in tasks}
    taken: dict[str, Path] = {}
    for task in tasks:
        key = os.path.normcase(task.output.absolute()).casefold()
        if key in taken:
            raise UsageError(
                f"{taken[key]} and {task.source} would both become {task.output}.",
                "Enhance them into separate folders.",
            )
        taken[key] = task.source
        identity = _identity(task.output)
        if identity is not None and identity in sources:
            raise UsageError(f"{task.output} is one of the originals.", "Name another folder with -o.")


def _split(tasks: Sequence[Task], not_photos: Sequence[Path], options: Options) -> Plan:
    """Separate what is done: outputs appear whole or not at all, so one that exists and is not empty is complete."""
    done = [] if options.overwrite else [t for t in tasks if t.output.is_file() and t.output.stat().st_size > 0]
    finished = set(done)
    return Plan(tuple(t for t in tasks if t not in finished), tuple(done), tuple(not_photos))


def run(
    tasks: Sequence[Task],
    enhance: Callable[[Photo], Photo],
    options: Options,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Work through the tasks; a result follows each, and no bad photo ends the batch.

    A full disk does: the photos after it could not be written either.
    """
    for task in tasks:
        if should_stop():
            return
        began = time.monotonic()
        try:
            megapixels, notes = _one(task, enhance, options)
        except QatieError as error:
            yield Result(task, Status.FAILED, time.monotonic() - began, reason=error.one_line())
        except MemoryError:
            yield Result(task, Status.FAILED, time.monotonic() - began, reason="The memory is not enough for it.")
        except OSError as error:
            reason = f"{task.output} could not be written: {error.strerror or error}."
            yield Result(task, Status.FAILED, time.monotonic() - began, reason=reason)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return
        else:
            yield Result(task, Status.ENHANCED, time.monotonic() - began, megapixels, notes=notes)


def _one(task: Task, enhance: Callable[[Photo], Photo], options: Options) -> tuple[float, tuple[str, ...]]:
    source = photo.read(task.source, options.max_pixels)
    fmt = photo.format_of_name(task.output)
    if fmt is None:
        raise PhotoError(f"{task.output} has no suffix that qatie writes.")
    photo.check_encodable(source, fmt)
    enhanced = enhance(source)
    if options.strip_metadata:
        enhanced = enhanced.without_metadata()
    task.output.parent.mkdir(parents=True, exist_ok=True)
    photo.write(task.output, enhanced, fmt, options.quality)
    return source.megapixels, source.notes
