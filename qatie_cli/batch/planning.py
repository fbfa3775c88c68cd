"""What a batch will do, decided before any work: which photos, which outputs, what is done already."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli.batch.journal import Journal
from qatie_cli.errors import UsageError
from qatie_cli.files import TEMPORARY_PREFIX
from qatie_cli.photo import formats

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}


@dataclass(frozen=True)
class Naming:
    """How outputs are found and called."""

    fmt: str = "keep"  # or a key of formats.FORMATS
    suffix: str = ""
    recursive: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Task:
    """One photo to be enhanced."""

    source: Path
    output: Path

    @property
    def in_place(self) -> bool:
        """Whether the output replaces the original."""
        return self.source == self.output


@dataclass(frozen=True)
class Plan:
    """Everything decided before any work: what to do, what is done already, and names that are no photos."""

    tasks: tuple[Task, ...]
    done: tuple[Task, ...]
    not_photos: tuple[Path, ...]


@dataclass(frozen=True)
class _Found:
    """A file of the inputs and where it will stand below the output folder."""

    source: Path
    relative: Path  # folder, relative to the output folder


def plan(inputs: Sequence[Path], out: Path, naming: Naming, listed: Sequence[Path] = ()) -> Plan:
    """Decide every output before any work.

    A directory input keeps its tree below `out`; a file lands in `out` itself. One file and an `out` with a photo's
    suffix that is no directory names the output file. Files of a list (`listed`) keep their relative path.

    Raises:
        UsageError: an input does not exist, two inputs would have one output, or an output is an input.
    """
    _refuse_missing([*inputs, *listed])
    if len(inputs) == 1 and not listed and inputs[0].is_file() and formats.format_of_name(out) and not out.is_dir():
        task = _named(inputs[0], out, naming)
        return _split([task], [], naming)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file.", "Name a folder with -o.")
    found, not_photos = _found(inputs, listed, naming, exclude=out)
    tasks = [Task(f.source, out / f.relative / formats.output_name(f.source, naming.fmt, naming.suffix)) for f in found]
    if naming.suffix:
        # Into their own folder, earlier results stand beside the photos they came from: they are no photos to enhance.
        results = {t.output for t in tasks}
        tasks = [t for t in tasks if not (t.source in results and t.source.stem.endswith(naming.suffix))]
    tasks = _told_apart(tasks, naming)
    _refuse_collisions(tasks)
    return _split(tasks, not_photos, naming)


def plan_in_place(inputs: Sequence[Path], naming: Naming, journal: Journal, listed: Sequence[Path] = ()) -> Plan:
    """Every photo becomes its own output; those that `journal` says were enhanced before are done.

    Raises:
        UsageError: an input does not exist.
    """
    _refuse_missing([*inputs, *listed])
    found, not_photos = _found(inputs, listed, naming, exclude=None)
    tasks = {}
    for each in found:
        source = each.source.resolve()  # a link stays a link: what it points to is replaced
        tasks[source] = Task(source, source)
    done = [] if naming.overwrite else [t for t in tasks.values() if journal.holds(t.source)]
    finished = set(done)
    return Plan(tuple(t for t in tasks.values() if t not in finished), tuple(done), tuple(not_photos))


def _refuse_missing(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
        if not path.is_dir() and not path.is_file():
            raise UsageError(f"{path} is neither a file nor a folder.", "For a pipe, use - and standard input.")


def _found(
    inputs: Sequence[Path], listed: Sequence[Path], naming: Naming, exclude: Path | None
) -> tuple[list[_Found], list[Path]]:
    found: dict[Path, _Found] = {}  # by path: a photo named twice is enhanced once
    not_photos = []
    for path in [*inputs, *listed]:
        relative = path.parent if path in listed and not path.is_absolute() and ".." not in path.parts else Path()
        if path.is_dir():
            for source, is_photo in discover(path, naming.recursive, exclude):
                if is_photo:
                    found.setdefault(source, _Found(source, relative / source.relative_to(path).parent))
                else:
                    not_photos.append(source)
        elif formats.has_photo_suffix(path):
            found.setdefault(path, _Found(path, relative))
        else:
            not_photos.append(path)
    return list(found.values()), not_photos


def _named(source: Path, out: Path, naming: Naming) -> Task:
    wanted = formats.format_of_name(out)
    if naming.fmt not in ("keep", wanted):
        raise UsageError(f"-o {out.name} and --format {naming.fmt} contradict each other.", "Leave one out.")
    task = Task(source, out)
    _refuse_collisions([task])
    return task


def discover(folder: Path, recursive: bool, exclude: Path | None) -> Iterator[tuple[Path, bool]]:
    """Files below `folder`, sorted, and whether each is named like a photo.

    Hidden and system files, the folder `exclude` and symbolic loops are left out. Where `exclude` is `folder` itself
    nothing is left out: the plan then refuses to write over the originals.
    """
    excluded = None if exclude is None else _identity(exclude)
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
            if not hidden and path.is_file():
                yield path, formats.has_photo_suffix(path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _key(output: Path) -> str:
    """Equal for names that a file system may take for the same."""
    return os.path.normcase(output.absolute()).casefold()


def _told_apart(tasks: Sequence[Task], naming: Naming) -> list[Task]:
    """Where a change of format gives two photos one name, the changed one keeps its source's whole name: a.heic.jpg."""
    outputs = Counter(_key(task.output) for task in tasks)
    return [
        Task(task.source, task.output.with_name(formats.long_output_name(task.source, naming.fmt, naming.suffix)))
        if outputs[_key(task.output)] > 1 and task.output.suffix != task.source.suffix
        else task
        for task in tasks
    ]


def _refuse_collisions(tasks: Sequence[Task]) -> None:
    """Raise UsageError where outputs would replace each other (names compared without case) or an input."""
    sources = {_identity(t.source): t.source for t in tasks}
    taken: dict[str, Path] = {}
    for task in tasks:
        key = _key(task.output)
        if key in taken:
            raise UsageError(
                f"{taken[key]} and {task.source} would both become {task.output}.",
                "Enhance them into separate folders.",
            )
        taken[key] = task.source
        identity = _identity(task.output)
        if identity is not None and identity in sources:
            raise UsageError(
                f"{task.output} is one of the originals.", "Name another folder with -o, or use --suffix or --in-place."
            )


def _split(tasks: Sequence[Task], not_photos: Sequence[Path], naming: Naming) -> Plan:
    """Separate what is done: outputs appear whole or not at all, so one that exists and is not empty is complete."""
    done = [] if naming.overwrite else [t for t in tasks if is_done(t)]
    finished = set(done)
    return Plan(tuple(t for t in tasks if t not in finished), tuple(done), tuple(not_photos))


def is_done(task: Task) -> bool:
    """Whether the output is there, whole."""
    try:
        return task.output.is_file() and task.output.stat().st_size > 0
    except OSError:
        return False
