"""One large run: plan on disk, workers, counts, report."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from qatie_cli import files, parsing
from qatie_cli.batch import pace, report
from qatie_cli.batch import planning as local_planning
from qatie_cli.batch.made import FOLDER, Ledger
from qatie_cli.batch.outcomes import Seconds, Status
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Writing, remove_stale
from qatie_cli.batch.session import Estimate
from qatie_cli.batch.settings import Settings
from qatie_cli.cloud import planning, sampling, scratch
from qatie_cli.cloud.items import Batch, Done, ItemOutcome
from qatie_cli.cloud.planning import Places
from qatie_cli.cloud.record import Merger, Record
from qatie_cli.cloud.table import DONE, REFUSED, TODO, Row, Table
from qatie_cli.errors import Exit, QatieError
from qatie_cli.storage import stores, urls
from qatie_cli.storage.patience import StoreError

_SILENT_BATCHES = 3  # in a row without an answer from a store end the run
MOST_NAMED = 20  # failures listed at the end; the report has all
_LISTED_TO_CHECK = 16
_UNSEARCHED = "unsearched"


@dataclass(frozen=True)
class Request:
    """What a run is asked to do: `batch.session.Request` with URLs.

    `local`: all places are folders that every worker can access, so photos are not copied.
    """

    places: Places
    naming: Naming
    writing: Writing
    settings: Settings
    local: bool = False


class Executor(Protocol):
    """Runs batches: in this process, or on a cluster."""

    workers: int

    def run(self, batches: Iterator[Batch], on_done: Callable[[Done], bool]) -> None:
        """Enhance `batches`. Calls `on_done` in this thread for each, and stops when it returns False."""


@contextlib.contextmanager
def opened(request: Request) -> Iterator[Session]:
    """Plan a run; nothing is written yet.

    Raises:
        UsageError: it cannot be planned.
        StoreError: a store cannot be listed.
    """
    with scratch.folder() as folder:
        table = Table(folder / "plan.sqlite")
        try:
            yield Session(request, table)
        finally:
            table.close()


class Session:
    """A planned run: `prepare`, then `run` at most once. Its memory does not grow with the number of photos."""

    def __init__(self, request: Request, table: Table) -> None:
        self.request, self.table = request, table
        self.name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._record = Record(request.places.out, request.settings, self.name)
        if request.local:
            self.out, self.begun_on = _plan_files(request, table)
        else:
            self.out = planning.plan(request.places, request.naming, table, self._record)
            self.begun_on = self._record.begun_on
        if request.naming.overwrite:
            self.begun_on = ""  # nothing stays as it is
        self.todo, self.done, self.refused = (table.count(state) for state in (TODO, DONE, REFUSED))
        self.counts: Counter[Status] = Counter()
        refused = next(table.pages(REFUSED), [])[:MOST_NAMED]
        self.failures = [row.source for row in refused]  # the first that failed
        self.megapixels = self.network_seconds = 0.0
        self.repeated = 0  # requests that were retried
        self.workers: set[str] = set()  # that finished a batch
        self.interrupted = self.stopped = False
        self._silent = 0
        self._started, self._began = datetime.datetime.now(datetime.UTC), time.monotonic()
        self._ended: float | None = None

    # --- before -------------------------------------------------------------------------------------------------------

    def estimate(self, share: float = 1.0) -> Estimate:
        """Estimate the run from a sample of headers; `share` is the number of machines like this one."""
        megapixels, unreadable = sampling.estimate(self.table, self.todo)
        known = pace.remembered()
        return Estimate(megapixels, unreadable, (known or pace.TYPICAL) * share, measured=known is not None)

    def prepare(self) -> None:
        """Check that outputs can be written.

        Raises:
            QatieError: they cannot.
        """
        if not self.todo:
            return
        try:
            if self.request.local:
                files.check_writable(urls.to_path(self.out))
                for page in self.table.pages(TODO):
                    remove_stale([local_planning.Task(urls.to_path(r.source), urls.to_path(r.output)) for r in page])
                return
            probe = urls.join(self.out, f"{FOLDER}/probe-{self.name}")
            stores.of(probe).put(probe, b"")
            stores.of(probe).remove([probe])
        except (OSError, StoreError) as error:
            reason = error.one_line() if isinstance(error, QatieError) else f"{error.strerror or error}."
            name = urls.people_s(self.out)
            raise QatieError(f"{name} is not writable: {reason}", "Choose another with -o.") from error

    def places(self) -> list[str]:
        """What every worker must have access to: inputs, output folder, and a part of the list."""
        return [*self.request.places.inputs, *self.request.places.listed[:_LISTED_TO_CHECK], self.out]

    # --- at work ------------------------------------------------------------------------------------------------------

    def run(self, executor: Executor, on_outcome: Callable[[ItemOutcome], None]) -> None:
        """Enhance the plan's photos; `on_outcome` is called for each, in this thread.

        KeyboardInterrupt passes through after the workers have stopped.
        """
        self._began = time.monotonic()
        merger = Merger(self._record)

        def on_done(done: Done) -> bool:
            self.repeated += done.repeated
            self.workers.add(done.worker)
            self._keep(done.outcomes, on_outcome)
            with contextlib.suppress(StoreError):  # the files of the batches remain, with the same content
                merger.add(done)
            self._silent = self._silent + 1 if done.unreachable else 0
            self.stopped = self.stopped or self._silent >= _SILENT_BATCHES or self._had_no_room(done)
            return not self.stopped

        try:
            executor.run(self.table.batches(), on_done)
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        finally:
            self._ended = time.monotonic()
            with contextlib.suppress(StoreError):
                merger.merge()
        pace.remember(self.megapixels / max(1, executor.workers), self.seconds)

    @staticmethod
    def _had_no_room(done: Done) -> bool:
        return any(outcome.status is Status.NOT_BEGUN for outcome in done.outcomes)

    def _keep(self, outcomes: Iterable[ItemOutcome], on_outcome: Callable[[ItemOutcome], None]) -> None:
        kept = []
        for outcome in outcomes:
            if outcome.status is Status.NOT_BEGUN:
                continue
            self.counts[outcome.status] += 1
            self.network_seconds += outcome.seconds.network
            if outcome.status is Status.ENHANCED:
                self.megapixels += outcome.megapixels
            elif outcome.status is Status.FAILED and len(self.failures) < MOST_NAMED:
                self.failures.append(self.table.source(outcome.number))
            kept.append((outcome.number, json.dumps(dataclasses.asdict(outcome))))
            on_outcome(outcome)
        self.table.keep(kept)

    # --- after --------------------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """From the beginning to the end of `run`, or until now."""
        return (self._ended or time.monotonic()) - self._began

    @property
    def reached(self) -> int:
        """Number of photos with an outcome."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """Number of photos that failed, including refused ones."""
        return self.counts[Status.FAILED] + self.refused

    @property
    def not_begun(self) -> int:
        """Number of photos that the run did not reach."""
        return self.todo - self.reached

    @property
    def unsearched(self) -> int:
        """Number of folders that could not be listed."""
        return self.table.count_others(_UNSEARCHED)

    def bytes_of(self, output: str) -> int | None:
        """The size of an output that existed when the run was planned."""
        if self.request.local:
            path = urls.to_path(output)
            return path.stat().st_size if path.is_file() else None
        return self.table.there([output]).get(output, (None, ""))[0]

    def exit_code(self) -> Exit:
        """The exit code of the run, unless it was interrupted."""
        if not self.failed and not self.not_begun and not self.unsearched and (self.reached or self.done):
            return Exit.OK
        some = self.counts[Status.ENHANCED] or self.done or self.refused
        return Exit.SOME_FAILED if some else Exit.NOTHING_DONE

    def report(self, engine: str, device: str, weights: str, strength: float) -> Iterator[bytes]:
        """The report of the run so far (`batch.report`), in parts."""
        started, seconds = self._started, round(self.seconds, 4)
        run = report.Run(started, seconds, self.interrupted, engine, device, weights, strength)
        counts: Counter[str] = Counter({status.value: number for status, number in self.counts.items()})
        counts[Status.FAILED.value] += self.refused + self.unsearched
        counts[Status.SKIPPED.value] += self.done
        counts[Status.NOT_BEGUN.value] += self.not_begun
        for kind in (report.NOT_A_PHOTO, report.NOT_SEARCHED):
            counts[kind] += self.table.count_others(kind)
        content = report.head(run, self.network_seconds, dict(+counts), self.request.settings)
        return report.parts(content, self._rows())

    def _rows(self) -> Iterator[dict]:
        digest = self.request.settings.digest
        for row in self._all(REFUSED):
            yield _report_row(row, ItemOutcome(row.number, row.output, status=Status.FAILED, reason=row.reason), digest)
        for row in self._all(TODO):
            if row.outcome is not None:
                yield _report_row(row, outcome_of(row.outcome), digest)
        for row in self._all(DONE):
            skipped = ItemOutcome(row.number, row.output, status=Status.SKIPPED, reason=report.DONE_BEFORE)
            yield _report_row(row, skipped, digest)
        for row in self._all(TODO):
            if row.outcome is None:
                rest = ItemOutcome(row.number, row.output, status=Status.NOT_BEGUN, reason=report.INTERRUPTED)
                yield _report_row(row, rest, digest)
        for kind in (report.NOT_A_PHOTO, report.NOT_SEARCHED):
            yield from (report.other(kind, urls.people_s(url)) for url, _ in self.table.others(kind))
        for url, reason in self.table.others(_UNSEARCHED):
            yield report.other(Status.FAILED.value, urls.people_s(url), f"Cannot be searched: {reason}.")

    def _all(self, state: str) -> Iterator[Row]:
        for page in self.table.pages(state):
            yield from page


def _report_row(row: Row, outcome: ItemOutcome, digest: str) -> dict:
    return report.row(urls.people_s(row.source), urls.people_s(outcome.output), outcome, digest)


def outcome_of(text: str) -> ItemOutcome:
    """Decode an outcome kept in the table."""
    fields = parsing.from_json(text)
    fields |= {"status": Status(fields["status"]), "seconds": Seconds(**fields["seconds"])}
    return ItemOutcome(**fields | {"notes": tuple(fields["notes"])})


def _plan_files(request: Request, table: Table) -> tuple[str, str]:
    """Plan local folders by `batch.planning`; returns the output folder and the engine of its outputs."""
    places, out = request.places, urls.to_path(request.places.out)
    ledger = Ledger(local_planning.folder_of(out), request.settings)
    inputs, listed = (tuple(map(urls.to_path, urls_)) for urls_ in (places.inputs, places.listed))
    plan = local_planning.plan(inputs, out, request.naming, listed, ledger)
    table.add_planned(_planned(task, TODO, plan.again.get(task, "")) for task in plan.tasks)
    table.add_planned(_planned(task, DONE) for task in plan.done)
    table.add_planned(_planned(refused.task, REFUSED, refused.reason) for refused in plan.refused)
    for kind, paths in ((report.NOT_A_PHOTO, plan.not_photos), (report.NOT_SEARCHED, plan.system_folders)):
        for path in paths:
            table.add_other(kind, urls.of_path(path))
    for path, reason in plan.unsearched:
        table.add_other(_UNSEARCHED, urls.of_path(path), reason)
    return urls.of_path(local_planning.folder_of(out)), ledger.begun_on()


def _planned(task: local_planning.Task, state: str, reason: str = "") -> Row:
    alpha = None if task.with_alpha is None else urls.of_path(task.with_alpha)
    try:
        size = task.source.stat().st_size
    except OSError:  # reported when it is read
        size = 0
    return Row(0, urls.of_path(task.source), size, "", urls.of_path(task.output), alpha, state, reason)
