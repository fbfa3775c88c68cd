"""Which photos a batch enhances, into which files, and which of them are done already."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qatie_cli.batch.journal import Journal
from qatie_cli.errors import UsageError
from qatie_cli.photo import discovery, formats
from qatie_cli.photo.discovery import identity


@dataclass(frozen=True)
class Naming:
    """How inputs are searched and outputs named."""

    fmt: str = "keep"  # or a key of formats.FORMATS
    suffix: str = ""
    recursive: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Task:
    """One photo to enhance.

    `with_alpha` replaces `output` for a HEIC photo that turns out to have transparent parts: HEIC becomes JPEG by
    default, which cannot hold them.
    """

    source: Path
    output: Path
    with_alpha: Path | None = None

    @property
    def in_place(self) -> bool:
        """Whether the output replaces the original."""
        return self.source == self.output


@dataclass(frozen=True)
class Plan:
    """What a batch will do.

    `not_photos` are files without a photo's suffix; `unsearched` are folders that could not be listed, with the reason.
    """

    tasks: tuple[Task, ...]
    done: tuple[Task, ...]
    not_photos: tuple[Path, ...] = ()
    unsearched: tuple[tuple[Path, str], ...] = ()


@dataclass
class _Found:
    """What the inputs hold; each photo with its folder relative to the output folder."""

    photos: dict[Path, Path] = field(default_factory=dict)  # a photo named twice is enhanced once
    not_photos: list[Path] = field(default_factory=list)
    unsearched: list[tuple[Path, str]] = field(default_factory=list)


def plan(inputs: Sequence[Path], out: Path, naming: Naming, listed: Sequence[Path] = ()) -> Plan:
    """Decide every output.

    A directory input keeps its tree below `out`; a file lands in `out` itself. One file and an `out` with a photo's
    suffix that is no directory names the output file. Files of a list (`listed`) keep their relative path.

    Raises:
        UsageError: an input does not exist, two inputs would have one output, or an output is an input.
    """
    kinds = [_kind(path) for path in inputs]
    try:
        out_is_folder = out.is_dir()
        out_is_file = out.exists() and not out_is_folder
    except OSError as error:
        raise UsageError(f"{out} cannot be used: {error.strerror or error}.", "Name another folder with -o.") from error
    if kinds == [_FILE] and not listed and formats.format_of_name(out) and not out_is_folder:
        return _split([_named(inputs[0], out, naming)], _Found(), naming)
    if out_is_file:
        raise UsageError(f"{out} is a file.", "Name a folder with -o.")
    found = _search(inputs, listed, naming, exclude=out)
    tasks = [
        Task(source, out / relative / formats.output_name(source, naming.fmt, naming.suffix))
        for source, relative in found.photos.items()
    ]
    if naming.suffix:
        # With a suffix, earlier outputs may lie beside their originals: they are not inputs.
        results = {t.output for t in tasks}
        tasks = [t for t in tasks if not (t.source in results and t.source.stem.endswith(naming.suffix))]
    tasks = _told_apart(tasks, naming)
    _refuse_collisions(tasks)
    tasks = _with_places_for_alpha(tasks, naming)
    return _split(tasks, found, naming)


def plan_in_place(inputs: Sequence[Path], naming: Naming, journal: Journal, listed: Sequence[Path] = ()) -> Plan:
    """Every photo becomes its own output; those that `journal` says were enhanced before are done.

    Raises:
        UsageError: an input does not exist.
    """
    for path in inputs:
        _kind(path)
    found = _search(inputs, listed, naming, exclude=None)
    sources = dict.fromkeys(source.resolve() for source in found.photos)  # a link's target is replaced, the link stays
    tasks = [Task(source, source) for source in sources]
    done = {t for t in tasks if not naming.overwrite and journal.holds(t.source)}
    left = tuple(t for t in tasks if t not in done)
    return Plan(left, tuple(done), tuple(found.not_photos), tuple(found.unsearched))


def read_list(content: bytes) -> tuple[Path, ...]:
    """The paths of a list: a line each, or ended by NUL as `find -print0` does."""
    names = content.split(b"\0") if b"\0" in content else content.replace(b"\r\n", b"\n").split(b"\n")
    return tuple(Path(os.fsdecode(name)) for name in names if name)


_FILE, _FOLDER = "file", "folder"


def _kind(path: Path) -> str:
    """Whether an input is a file or a folder; UsageError where it is neither."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"There is no file or folder {path}.") from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be used: {reason}.", "Check its name and permissions.") from error
    if stat.S_ISDIR(mode):
        return _FOLDER
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is neither a file nor a folder.", "For a pipe, use - and standard input.")
    return _FILE


def _search(inputs: Sequence[Path], listed: Sequence[Path], naming: Naming, exclude: Path | None) -> _Found:
    found = _Found()

    def add(source: Path, relative: Path) -> None:
        if formats.has_photo_suffix(source):
            found.photos.setdefault(source, relative)
        else:
            found.not_photos.append(source)

    for path in inputs:
        if path.is_dir():
            _search_folder(path, Path(), naming, exclude, found)
        else:
            add(path, Path())
    for path in listed:  # entries that are missing or no photos fail one by one
        relative = path.parent if not path.is_absolute() and ".." not in path.parts else Path()
        if os.path.isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
            _search_folder(path, relative / path.name, naming, exclude, found)
        else:
            add(path, relative)
    return found


def _search_folder(folder: Path, relative: Path, naming: Naming, exclude: Path | None, found: _Found) -> None:
    here = discovery.find(folder, recursive=naming.recursive, exclude=exclude)
    for photo in here.photos:
        found.photos.setdefault(photo, relative / photo.relative_to(folder).parent)
    found.not_photos.extend(here.others)
    found.unsearched.extend(here.unsearched)


def _named(source: Path, out: Path, naming: Naming) -> Task:
    wanted = formats.format_of_name(out)
    if naming.fmt not in ("keep", wanted):
        raise UsageError(f"-o {out.name} and --format {naming.fmt} contradict each other.", "Leave one out.")
    task = Task(source, out)
    _refuse_collisions([task])
    return task


def _key(output: Path) -> str:
    """Equal for names that some file system treats as the same."""
    return os.path.normcase(output.absolute()).casefold()


def _told_apart(tasks: Sequence[Task], naming: Naming) -> list[Task]:
    """Resolve clashes that come from a change of format by keeping the source's suffix in the name: a.heic.jpg."""
    outputs = Counter(_key(task.output) for task in tasks)
    return [
        Task(task.source, task.output.with_name(formats.long_output_name(task.source, naming.fmt, naming.suffix)))
        if outputs[_key(task.output)] > 1 and task.output.suffix != task.source.suffix
        else task
        for task in tasks
    ]


def _with_places_for_alpha(tasks: Sequence[Task], naming: Naming) -> list[Task]:
    taken = {_key(task.output) for task in tasks}
    made = []
    for task in tasks:
        png = task.output.with_suffix(".png")
        by_default = naming.fmt == "keep" and formats.format_of_name(task.source) == "heic"
        made.append(Task(task.source, task.output, png) if by_default and _key(png) not in taken else task)
    return made


def _refuse_collisions(tasks: Sequence[Task]) -> None:
    """Raise UsageError where outputs would replace each other (names compared without case) or an input."""
    sources = {identity(t.source): t.source for t in tasks}
    taken: dict[str, Path] = {}
    for task in tasks:
        key = _key(task.output)
        if key in taken:
            raise UsageError(
                f"{taken[key]} and {task.source} would both become {task.output}.",
                "Enhance them into separate folders.",
            )
        taken[key] = task.source
        found = identity(task.output)
        if found is not None and found in sources:
            raise UsageError(
                f"{task.output} is one of the originals.", "Name another folder with -o, or use --suffix or --in-place."
            )


def _split(tasks: Sequence[Task], found: _Found, naming: Naming) -> Plan:
    """Separate the tasks that are done: outputs are written atomically, so a non-empty one is complete."""
    done = [] if naming.overwrite else [t for t in tasks if is_done(t)]
    finished = set(done)
    left = tuple(t for t in tasks if t not in finished)
    return Plan(left, tuple(done), tuple(found.not_photos), tuple(found.unsearched))


def is_done(task: Task) -> bool:
    """Whether the output exists."""
    return any(_is_complete(path) for path in (task.output, task.with_alpha) if path is not None)


def _is_complete(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
