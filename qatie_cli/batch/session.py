"""One run over photos: request, plan, results and report."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli import files
from qatie_cli.batch import journal, pace, planning, report
from qatie_cli.batch.made import Ledger
from qatie_cli.batch.outcomes import Result, Status
from qatie_cli.batch.planning import Naming, Plan
from qatie_cli.batch.running import Previews, Runner, Writing, remove_stale
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import Exit, QatieError
from qatie_cli.home import user_folder
from qatie_cli.photo import decoding

if TYPE_CHECKING:  # imports torch, which a plan can do without
    from qatie_cli.engines import Engine
    from qatie_cli.enhance.photos import Enhancer


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Args:
        inputs: photos and folders.
        out: where outputs go, as `planning.plan` takes it; None replaces the originals.
        listed: more inputs, which keep their relative path below `out`.
        max_memory: bytes for the whole process; None allows 60% of what is free.
        settings: what determines the outputs; recorded, and compared with earlier runs. None treats every existing
            output as done and records nothing.
    """

    inputs: tuple[Path, ...]
    out: Path | None
    naming: Naming = Naming()
    writing: Writing = Writing()
    listed: tuple[Path, ...] = ()
    max_memory: int | None = None
    settings: Settings | None = None


@dataclass(frozen=True)
class Estimate:
    """What a plan would take: `speed` is in megapixels a second, as `measured` here or typical of two cores."""

    megapixels: float
    unreadable: int
    speed: float
    measured: bool

    @property
    def seconds(self) -> float:
        """Wall time of the run."""
        return self.megapixels / self.speed


@contextlib.contextmanager
def opened(request: Request) -> Iterator[Session]:
    """Plan a run; nothing is written yet. In place, other processes cannot start one until the block ends.

    Raises:
        UsageError: `planning` says why the request cannot be planned.
        QatieError: another process replaces photos in place.
    """
    with contextlib.ExitStack() as until_done:
        settings = request.settings
        writing = dataclasses.replace(request.writing, overwrite=request.naming.overwrite, settings=settings)
        if request.out is None:
            replaced = until_done.enter_context(journal.opened(user_folder() / "in-place.jsonl"))
            plan = planning.plan_in_place(request.inputs, request.naming, replaced, request.listed, settings)
            writing = dataclasses.replace(writing, journal=replaced)
        else:
            ledger = None if settings is None else Ledger(planning.folder_of(request.out), settings)
            plan = planning.plan(request.inputs, request.out, request.naming, request.listed, ledger)
            writing = dataclasses.replace(writing, ledger=ledger)
        yield Session(request, plan, writing)


class Session:
    """A planned run: `prepare`, then `run` at most once. `refused` failed before, `results` grows while it runs."""

    def __init__(self, request: Request, plan: Plan, writing: Writing) -> None:
        self.plan = plan
        self.refused = tuple(Result(r.task, status=Status.FAILED, reason=r.reason) for r in plan.refused)
        self.results: list[Result] = []
        self.megapixels = 0.0  # enhanced so far, in millions of pixels
        self.interrupted = False
        self._request, self._writing = request, writing
        self._started, self._began = datetime.datetime.now(datetime.UTC), time.monotonic()
        self._ended: float | None = None

    def estimate(self) -> Estimate:
        """Estimate the run from the photos' headers."""
        headers = [decoding.header(task.source) for task in self.plan.tasks]
        megapixels = sum(header.width * header.height / 1e6 for header in headers if header)
        known = pace.remembered()
        return Estimate(megapixels, headers.count(None), known or pace.TYPICAL, measured=known is not None)

    def prepare(self) -> None:
        """Check that outputs can be written, and remove what killed runs left beside them.

        Raises:
            QatieError: the output folder cannot be made or written to.
        """
        out = self._request.out
        if self.plan.tasks and out is not None:
            folder = planning.folder_of(out)
            try:
                files.check_writable(folder)
            except OSError as error:
                raise QatieError(
                    f"{folder} is not writable: {error.strerror or error}.", "Choose another folder with -o."
                ) from error
        remove_stale([*self.plan.tasks, *self.plan.done])
        done = [path for task in self.plan.done for path in (task.output, task.with_alpha) if path is not None]
        for record in (self._writing.ledger, self._writing.journal):
            if record is not None:
                record.remove_stale_claims(done)

    @property
    def begun_on(self) -> str:
        """The engine of existing outputs with the same settings, which stay as they are; empty if unknown.

        A single photo written to a named file is not a batch.
        """
        ledger, replaced, out = self._writing.ledger, self._writing.journal, self._request.out
        if self._writing.overwrite or (out is not None and planning.folder_of(out) != out):
            return ""
        if ledger is not None:
            return ledger.begun_on()
        known = () if replaced is None else (replaced.engine_of(task.output) for task in reversed(self.plan.done))
        return next(filter(None, known), "")

    @property
    def pixels_if_one(self) -> int | None:
        """Number of pixels, if there is one photo and its header can be read; else None."""
        headers = [decoding.header(task.source) for task in self.plan.tasks] if len(self.plan.tasks) == 1 else []
        return headers[0].width * headers[0].height if headers and headers[0] else None

    def run(self, enhancer: Enhancer, on_result: Callable[[Result], None], previews: Previews | None = None) -> None:
        """Enhance the plan's photos; `on_result` is called for each, in this thread and in their order.

        KeyboardInterrupt passes through after the photo being written is written or gone.
        """

        def keep(result: Result) -> None:
            self.results.append(result)
            self.megapixels += result.megapixels if result.status is Status.ENHANCED else 0
            on_result(result)

        for record in (self._writing.ledger, self._writing.journal):
            if record is not None:
                record.engine = enhancer.engine.name
        most, refinement = self._request.max_memory, enhancer.effect.refinement_of
        try:
            with contextlib.nullcontext() if most is not None else enhancer.engine.reusing_memory():
                pixel_bytes = enhancer.engine.network.bytes_per_pixel  # more while memory is kept
                Runner(enhancer, self._writing, pixel_bytes, most, refinement, previews).run(self.plan.tasks, keep)
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        finally:
            self._ended = time.monotonic()
        pace.remember(self.megapixels, self.seconds)

    @property
    def seconds(self) -> float:
        """From the beginning to the end of `run`, or until now."""
        return (self._ended or time.monotonic()) - self._began

    def with_status(self, status: Status | str) -> list[Result]:
        """The results with this status (or its value); refused photos count as failed."""
        return [result for result in (*self.refused, *self.results) if result.status == status]

    @property
    def not_begun(self) -> int:
        """Number of photos that the run did not reach."""
        return len(self.plan.tasks) - len(self.results) + len(self.with_status(Status.NOT_BEGUN))

    @property
    def skipped(self) -> int:
        """Number of outputs that existed."""
        return len(self.plan.done) + len(self.with_status(Status.SKIPPED))

    def exit_code(self) -> Exit:
        """The exit code of the run, unless it was interrupted."""
        well = not self.refused and all(r.status in (Status.ENHANCED, Status.SKIPPED) for r in self.results)
        if well and not self.plan.unsearched and (self.results or self.plan.done):
            return Exit.OK
        some = self.with_status(Status.ENHANCED) or self.plan.done or self.refused
        return Exit.SOME_FAILED if some else Exit.NOTHING_DONE

    def report(self, engine: Engine | None, weights: str, strength: float) -> list[bytes]:
        """The report of the run so far (`batch.report`); `engine` is None if there was nothing to do."""
        run = report.Run(
            started=self._started,
            seconds=round(self.seconds, 4),
            interrupted=self.interrupted,
            engine="" if engine is None else engine.name,
            device="" if engine is None else engine.device,
            weights=weights,
            strength=strength,
        )
        table = report.as_table(run, self.plan, [*self.refused, *self.results], self._request.settings)
        return [report.encoded(table)]
