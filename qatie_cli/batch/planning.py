"""The plan of a batch: which photos become which files, and which are already done."""

from __future__ import annotations

import functools
import os
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from qatie_cli.batch import listing
from qatie_cli.batch.journal import Journal
from qatie_cli.batch.made import Found, Ledger, State
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import UsageError
from qatie_cli.photo import discovery, formats, unreadable
from qatie_cli.photo.discovery import identity


@dataclass(frozen=True)
class Naming:
    """How inputs are searched and outputs named."""

    fmt: str = formats.KEEP  # or a key of formats.FORMATS
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


class Originals:
    """The photos of a plan, which no output may replace.

    Checked when planning and again before a file is replaced: a path such as new/../photos resolves only once the run
    has created `new`.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def refusal(self, output: Path) -> str:
        """Why `output` may not be written; empty if it is not an original."""
        here = identity(output)
        if here is None or here not in self._identities:
            return ""
        return f"{output} is one of the originals. Choose another folder with -o, or use --suffix."

    @functools.cached_property
    def _identities(self) -> set[tuple[int, int] | None]:
        return {identity(task.source) for task in self._tasks}


@dataclass(frozen=True)
class Refused:
    """A task that fails before it begins, and why: one line with the next step."""

    task: Task
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a batch will do.

    Attributes:
        refused: photos that cannot be enhanced as asked; the others are.
        again: of `tasks`, those whose output was made before, and why it is made again.
        not_photos: files without a photo's suffix.
        unsearched: folders that could not be listed, with the reason.
        system_folders: folders of a system's or another program's own, which are left out.
    """

    tasks: tuple[Task, ...]
    done: tuple[Task, ...]
    refused: tuple[Refused, ...] = ()
    again: Mapping[Task, str] = field(default_factory=dict)
    not_photos: tuple[Path, ...] = ()
    unsearched: tuple[tuple[Path, str], ...] = ()
    system_folders: tuple[Path, ...] = ()


@dataclass
class _Found:
    """What the inputs contain; each photo with its folder relative to the output folder."""

    photos: dict[Path, Path] = field(default_factory=dict)  # a photo named twice is enhanced once
    refused: dict[Path, str] = field(default_factory=dict)  # photos and entries of a list, and why
    not_photos: list[Path] = field(default_factory=list)
    unsearched: list[tuple[Path, str]] = field(default_factory=list)
    system_folders: list[Path] = field(default_factory=list)

    def plan(
        self,
        tasks: Sequence[Task],
        done: Sequence[Task],
        refused: Sequence[Refused],
        again: Mapping[Task, str] = MappingProxyType({}),
    ) -> Plan:
        """The plan of these tasks, with what was found beside them."""
        entries = [Refused(Task(path, path), reason) for path, reason in self.refused.items()]
        return Plan(
            tuple(tasks),
            tuple(done),
            (*entries, *refused),
            again,
            tuple(self.not_photos),
            tuple(self.unsearched),
            tuple(self.system_folders),
        )


def plan(
    inputs: Sequence[Path], out: Path, naming: Naming, listed: Sequence[Path] = (), ledger: Ledger | None = None
) -> Plan:
    """Decide every output.

    A directory input keeps its tree below `out`; a file lands in `out` itself. One file and an `out` with a photo's
    suffix that is no directory names the output file. Files of a list (`listed`) keep their relative path. Entries of a
    list that do not exist are refused one by one, and so are photos that would replace each other, an original, or a
    file that the `ledger` does not know as qatie's. Without a ledger every output that exists is done.

    Raises:
        UsageError: an input does not exist, `out` cannot be used, or every photo is refused for its output.
    """
    kinds = [_kind(path) for path in inputs]
    try:
        out_is_folder = out.is_dir()
        out_is_file = out.exists() and not out_is_folder
    except OSError as error:
        raise UsageError(
            f"{out} cannot be used: {error.strerror or error}.", "Choose another folder with -o."
        ) from error
    if formats.format_of_name(out) and not out_is_folder:
        if kinds != [_FILE] or listed:
            raise UsageError(f"{out} names one photo, but there are several inputs.", "Give a folder with -o.")
        return _split(_Found(), [_named(inputs[0], out, naming)], naming, ledger)
    if out_is_file:
        raise UsageError(f"{out} is a file.", "Give a folder with -o.")
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
    tasks = _with_places_for_alpha(tasks, naming)
    return _split(found, tasks, naming, ledger)


def folder_of(out: Path) -> Path:
    """The folder that outputs go to, where `out` may also name the one output."""
    return out.parent if formats.format_of_name(out) and not out.is_dir() else out


def plan_in_place(
    inputs: Sequence[Path],
    naming: Naming,
    journal: Journal,
    listed: Sequence[Path] = (),
    settings: Settings | None = None,
) -> Plan:
    """Plan to replace every photo; those that `journal` records as enhanced are done.

    A link that is named is followed: its target is replaced. A link in a folder is followed only if its target is named
    as well, or lies in a folder that is.
    Photos that were enhanced with other settings are refused, since their originals are gone.

    Raises:
        UsageError: an input does not exist.
    """
    for path in inputs:
        _kind(path)
    found = _search(inputs, listed, naming, exclude=None, follow_links=False)
    # Path.exists raises where a name is too long.
    _refuse_links_out(found, [path for path in (*inputs, *listed) if os.path.exists(path)])  # noqa: PTH110
    sources = dict.fromkeys(source.resolve() for source in found.photos)  # a link's target is replaced, the link stays
    tasks = [Task(source, source) for source in sources]
    done = [t for t in tasks if not naming.overwrite and journal.holds(t.source)]
    refused = [Refused(t, _IN_PLACE_BEFORE.format(t.source)) for t in done if journal.differs(t.source, settings)]
    without = {t.source for t in done}
    otherwise = {refusal.task.source for refusal in refused}
    left = [t for t in tasks if t.source not in without]
    return found.plan(left, [t for t in done if t.source not in otherwise], refused)


def _refuse_links_out(found: _Found, named: Sequence[Path]) -> None:
    """Refuse links in folders whose target is neither named nor in a folder that is."""
    known, places = set(named), {path.resolve() for path in named}
    for photo in [p for p in found.photos if p.is_symlink() and p not in known]:
        target = photo.resolve()
        if not places & {target, *target.parents}:
            del found.photos[photo]
            found.refused[photo] = (
                f"{photo} is a link to {target}, outside the folder; it is left alone. Name that file."
            )


_IN_PLACE_BEFORE = (
    "{} was already enhanced in place with other settings, and its original is gone. --overwrite enhances it again."
)
_FILE, _FOLDER = "file", "folder"


def _kind(path: Path) -> str:
    """Whether an input is a file or a folder; UsageError where it is neither."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"There is no file or folder {path}.", _hint_of_missing(path)) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be used: {reason}.", "Check its name and permissions.") from error
    if stat.S_ISDIR(mode):
        return _FOLDER
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is neither a file nor a folder.", "For a pipe, use - and standard input.")
    return _FILE


def _hint_of_missing(path: Path) -> str:
    if any(sign in str(path) for sign in "*?["):
        return "The pattern matches no file. Give the folder instead: all its photos are enhanced."
    return "Check its spelling."


def _search(
    inputs: Sequence[Path], listed: Sequence[Path], naming: Naming, exclude: Path | None, follow_links: bool = True
) -> _Found:
    found = _Found()

    def add(source: Path, relative: Path) -> None:
        if formats.has_photo_suffix(source):
            found.photos.setdefault(source, relative)
        elif (why := unreadable.named(source)) is not None:
            found.refused[source] = why.one_line()
        else:
            found.not_photos.append(source)

    def search(folder: Path, relative: Path) -> None:
        here = discovery.find(folder, recursive=naming.recursive, exclude=exclude, follow_links=follow_links)
        for photo in here.photos:
            found.photos.setdefault(photo, relative / photo.relative_to(folder).parent)
        found.not_photos.extend(here.others)
        found.unsearched.extend(here.unsearched)
        found.system_folders.extend(here.system_folders)

    for path in inputs:
        if path.is_dir():
            search(path, Path())
        else:
            add(path, Path())
    for path in listed:
        relative = path.parent if not path.is_absolute() and ".." not in path.parts else Path()
        if not os.path.lexists(path):
            found.refused[path] = listing.missing(path)
        elif not os.path.isdir(path):  # noqa: PTH112 (Path's raises where a name is too long)
            add(path, relative)
        elif listing.names_everything(path):
            found.refused[path] = f"{path} in a list is not searched. Give it as an input if you mean all of it."
        else:
            search(path, relative / path.name)
    return found


def _named(source: Path, out: Path, naming: Naming) -> Task:
    wanted = formats.format_of_name(out)
    if naming.fmt != formats.KEEP and formats.output_format(source, naming.fmt) != wanted:
        raise UsageError(f"-o {out.name} and --format {naming.fmt} contradict each other.", "Leave one out.")
    return Task(source, out)


def _key(output: Path) -> str:
    return folded(os.path.normcase(output.absolute()))


def folded(name: str) -> str:
    """Equal for names that some file system treats as equal: differing in case, or (macOS) in composed accents."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


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
        by_default = naming.fmt == formats.KEEP and formats.format_of_name(task.source) == "heic"
        made.append(Task(task.source, task.output, png) if by_default and _key(png) not in taken else task)
    return made


def _split(found: _Found, tasks: Sequence[Task], naming: Naming, ledger: Ledger | None) -> Plan:
    """Separate refused and finished tasks from the rest.

    Raises:
        UsageError: every photo is refused for its name.
    """
    refused = _refused(tasks)
    if tasks and len(refused) == len(tasks):
        raise UsageError(refused[0].reason)
    without = {refusal.task for refusal in refused}
    left: list[Task] = []
    done: list[Task] = []
    again: dict[Task, str] = {}
    for task in tasks:
        if task in without:
            continue
        there = Found(State.MISSING) if naming.overwrite else state_of(task, ledger)
        if there.state is State.LEFT:
            refused.append(Refused(task, there.reason))
        else:
            (done if there.state is State.DONE else left).append(task)
        if there.state is State.STALE:
            again[task] = there.reason
    return found.plan(left, done, refused, again)


def _refused(tasks: Sequence[Task]) -> list[Refused]:
    """The tasks whose output is an original, or another task's output (`_key`)."""
    originals = Originals(tasks)
    sharing: dict[str, list[Task]] = {}
    for task in tasks:
        sharing.setdefault(_key(task.output), []).append(task)
    refused = []
    for task in tasks:
        others = [other for other in sharing[_key(task.output)][:2] if other is not task]
        if reason := originals.refusal(task.output):
            refused.append(Refused(task, reason))
        elif others:
            refused.append(Refused(task, _both(task, others[0])))
    return refused


def _both(task: Task, other: Task) -> str:
    """The reason for a clash of outputs, with a command that gives this photo its own folder."""
    folder = task.source.absolute().parent.name
    if folder in ("", other.source.absolute().parent.name):
        folder = f"{folder}-{task.source.stem}"
    command = f"qatie enhance {shlex.quote(str(task.source))} -o {shlex.quote(str(task.output.parent / folder))}"
    return f"{task.source} and {other.source} would both become {task.output}. Enhance it on its own: {command}"


def state_of(task: Task, ledger: Ledger | None) -> Found:
    """The state of a task's output, or of its PNG for photos with transparency."""
    places = [path for path in (task.output, task.with_alpha) if path is not None]
    if ledger is None:  # outputs are written atomically, so one that is not empty is complete
        return Found(State.DONE if any(map(_is_complete, places)) else State.MISSING)
    found = [ledger.find(path, task.source) for path in places]
    found.sort(key=lambda there: there.state is State.MISSING)  # the one that is there, if one is
    return next((there for there in found if there.state is State.DONE), found[0])


def _is_complete(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
