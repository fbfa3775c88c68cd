"""The gallery of an output folder: previews made while a batch runs, and the page."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qatie_cli import files
from qatie_cli.batch.outcomes import Result, Status
from qatie_cli.batch.planning import Plan, Task
from qatie_cli.errors import QatieError, UsageError
from qatie_cli.gallery import entries, links, making, overview, page, previews
from qatie_cli.gallery.entries import Entry, Failure, LastRun, Provenance
from qatie_cli.gallery.making import PreviewMaker
from qatie_cli.photo import decoding, discovery
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import GALLERY_FOLDER, GALLERY_PAGE

_SECONDS_BETWEEN_PAGES = 20  # during a run, or
_TIMES_BETWEEN_PAGES = 20  # share of the time since the last one: writing 20,000 photos takes seconds


def exists(out: Path) -> bool:
    """Whether `out` has a gallery of an earlier run."""
    ours = page.is_ours(out / GALLERY_PAGE, page.GALLERY)
    return ours and (out / GALLERY_FOLDER / "entries.json").is_file()


def check(out: Path, plan: Plan) -> None:
    """Raise QatieError if a plan's gallery could not be written. Call it before the batch."""
    folder = out / GALLERY_FOLDER
    page.check_replaceable(out / GALLERY_PAGE, page.GALLERY, "-o")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the gallery's previews go there.", "Remove it.")
    for task in plan.tasks:
        if folder in task.output.parents:
            raise UsageError(f"{task.output} would be among the gallery's own files.", "Choose another folder with -o.")


class Album:
    """Collects a run's photos. `reduced` and `keep` are called in the batch's threads, the rest in one thread.

    A preview that fails never fails its photo; `missing` names it.
    """

    def __init__(self, out: Path, plan: Plan, provenance: Provenance, max_pixels: int) -> None:
        self._out, self._plan, self._provenance, self._max_pixels = out, plan, provenance, max_pixels
        self._folder = out / GALLERY_FOLDER
        self._state = self._folder / "entries.json"
        self._began, self._when = time.monotonic(), datetime.datetime.now(datetime.UTC)
        self._maker = PreviewMaker(self._folder, self._name)
        self._entries: dict[str, Entry] = {}
        self._results: list[Result] = []
        self._made_elsewhere: list[Task] = []
        self._seconds = 0.0  # until the last photo
        self._page_due = time.monotonic() + _SECONDS_BETWEEN_PAGES
        self.missing = self._maker.missing  # outputs without preview, and why

    @property
    def path(self) -> Path:
        """The page."""
        return self._out / GALLERY_PAGE

    def reduced(self, photo: Photo) -> np.ndarray | None:
        """As `PreviewMaker.reduced`."""
        return self._maker.reduced(photo)

    def keep(self, task: Task, before: np.ndarray | None, photo: Photo) -> None:
        """As `PreviewMaker.keep`."""
        self._maker.keep(task, before, photo)

    # --- in the run's own thread ---------------------------------------------------------------------------------

    def add(self, result: Result) -> None:
        """Record a photo's result; the page is rewritten from time to time."""
        self._results.append(result)
        self._seconds = time.monotonic() - self._began
        if result.status is Status.SKIPPED:
            self._made_elsewhere.append(result.task)
        change = self._maker.changes.pop(result.task.output, None)
        if result.status is Status.ENHANCED and change is not None:
            size = result.width, result.height
            self._enter(result.task, size, change, round(result.seconds.total, 3), self._provenance, result.notes)
        began = time.monotonic()
        if began > self._page_due:
            try:
                self.write()
            except OSError as error:  # reported at the end of the run
                self.missing[self.path] = making.reason(error)
            ended = time.monotonic()
            self._page_due = ended + max(_SECONDS_BETWEEN_PAGES, _TIMES_BETWEEN_PAGES * (ended - began))

    def _enter(
        self,
        task: Task,
        size: tuple[int, int],
        change: float,
        seconds: float | None = None,
        provenance: Provenance | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        try:
            status = task.output.stat()
        except OSError:
            return  # deleted meanwhile
        name, change = self._name(task), round(change, 3)
        source, stamp = links.relative(task.source, self._out), (status.st_size, status.st_mtime_ns)
        self._entries[name] = Entry(name, source, *size, *stamp, change, seconds, provenance, notes)

    def catch_up(self, on_photo: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make missing previews of photos enhanced earlier; `on_photo` gets how many are done and the total.

        Originals and outputs that cannot be read are named in `missing`.
        """
        files.remove_stale(self._folder)
        known = entries.read(self._state).entries
        done = [_where_it_is(task) for task in (*self._plan.done, *self._made_elsewhere)]
        left = [task for task in done if not self._is_shown(task, known)]
        for index, task in enumerate(left):
            on_photo(index, len(left))
            try:
                photo = decoding.read(task.output, self._max_pixels)
                size, after = (photo.pixels.shape[1], photo.pixels.shape[0]), previews.reduced(photo)
                del photo  # never hold two whole photos
                self._maker.write(task, previews.reduced(decoding.read(task.source, self._max_pixels)), after)
                self._enter(task, size, self._maker.changes.pop(task.output))
            except (QatieError, OSError, ValueError, RuntimeError, MemoryError) as error:
                self.missing[task.output] = making.reason(error)

    def _is_shown(self, task: Task, known: dict[str, Entry]) -> bool:
        entry = known.get(self._name(task))
        return entry is not None and entry.fits(task.output) and self._has_previews(entry.name)

    def _has_previews(self, name: str) -> bool:
        key = links.key_of(name)
        return all(path.is_file() for side in overview.SIDES for path in previews.paths(self._folder, key, side))

    def _name(self, task: Task) -> str:
        return task.output.relative_to(self._out).as_posix()

    def write(self) -> None:
        """Write the page and the state for the next run, each atomically.

        Entries of earlier runs stay as long as their outputs exist, failures until the photo succeeds or is deleted.

        Raises:
            OSError: one of them cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        old = entries.read(self._state)
        merged = old.entries | self._entries
        kept = {n: e for n, e in merged.items() if e.fits(self._out / n) and self._has_previews(n)}
        for name in old.entries.keys() - kept.keys():
            self._forget(name)
        names = sorted(kept, key=discovery.natural)
        failures = self._failures(old.failures, kept)
        remembered = entries.Remembered({n: kept[n] for n in names}, failures, self._last_run(old.last))
        entries.write(self._state, remembered)
        page.write(self.path, overview.page_of(self._out, remembered))
        self.missing.pop(self.path, None)

    def _forget(self, name: str) -> None:
        """Remove the previews of a deleted output; those of a changed one are overwritten later."""
        if not (self._out / name).exists():
            for side in overview.SIDES:
                for path in previews.paths(self._folder, links.key_of(name), side):
                    path.unlink(missing_ok=True)

    def _failures(self, old: dict[str, Failure], kept: dict[str, Entry]) -> dict[str, Failure]:
        shown = {entry.source for entry in kept.values()}
        tried = {links.relative(result.task.source, self._out): result for result in self._results}
        found = {
            s: f for s, f in old.items() if s not in tried and s not in shown and links.place(s, self._out).exists()
        }
        found |= {s: Failure(s, _in_short(r)) for s, r in tried.items() if r.status is Status.FAILED}
        for refused in self._plan.refused:
            source = links.relative(refused.task.source, self._out)
            found[source] = Failure(
                source, _in_short(Result(refused.task, status=Status.FAILED, reason=refused.reason))
            )
        for path, reason in self._plan.unsearched:
            source = links.relative(path, self._out)
            found[source] = Failure(source, f"It cannot be searched: {reason}.")
        return dict(sorted(found.items(), key=lambda item: discovery.natural(item[0])))

    def _last_run(self, old: LastRun | None) -> LastRun | None:
        enhanced = [r for r in self._results if r.status is Status.ENHANCED]
        begun = sum(r.status is not Status.NOT_BEGUN for r in self._results)
        left = len(self._plan.tasks) - begun
        if not enhanced and not left:
            return old and dataclasses.replace(old, not_begun=0)
        return LastRun(
            self._when.isoformat(timespec="seconds"),
            len(enhanced),
            round(sum(r.megapixels for r in enhanced), 2),
            round(self._seconds, 1),
            left,
        )


def _where_it_is(task: Task) -> Task:
    """The task with its actual output: a photo with transparency may have been written as PNG."""
    if task.with_alpha is not None and not task.output.exists():
        return dataclasses.replace(task, output=task.with_alpha, with_alpha=None)
    return task


def _in_short(result: Result) -> str:
    """The reason for a failure, with file names instead of paths, since the page may be shared."""
    task, reason = result.task, result.reason
    source = str(task.source)
    if reason.startswith(f"{source} "):
        reason = f"It {reason.removeprefix(source).lstrip()}"
    reason = reason.removeprefix(f"{source}: ")
    for path in (task.source, task.output, task.output.parent):
        if len(path.parts) > 1:
            reason = reason.replace(str(path), path.name)
    return reason
