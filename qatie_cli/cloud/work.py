"""A worker: it loads an engine once, then downloads, enhances and uploads batches of photos."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qatie_cli.batch.made import Ledger
from qatie_cli.batch.outcomes import Outcome, Result, Status
from qatie_cli.batch.planning import Task
from qatie_cli.batch.running import Previews, Runner, Writing
from qatie_cli.batch.settings import Settings
from qatie_cli.cloud import record, scratch
from qatie_cli.cloud.items import Batch, Done, Item, ItemOutcome
from qatie_cli.cloud.record import Record
from qatie_cli.enhance import memory
from qatie_cli.errors import QatieError
from qatie_cli.photo import apart, formats
from qatie_cli.photo.discovery import GALLERY_FOLDER
from qatie_cli.storage import patience, stores, urls
from qatie_cli.storage.patience import StoreError

if TYPE_CHECKING:  # imports NumPy and the kernels, which planning does not need
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.model.checkpoint import Weights

AT_ONCE = 2  # batches of a worker: one in the network, one in transfer
_TRANSFERS = 8  # concurrent transfers of a batch
_NAME = "qatie-scratch"  # of scratch files: keys may be longer than file names may be


class PreviewFiles(Protocol):
    """Makes previews in a folder (`gallery.making.PreviewMaker`)."""

    changes: dict[Path, float]
    missing: dict[Path, str]


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know of a run.

    Attributes:
        out: URL of the output folder.
        run: a name that sorts by time.
        engine: the same for every worker, never `auto`: engines differ in rounding.
        max_memory: bytes for the worker's process; None allows 60% of what is free.
        local: every worker can access sources and outputs as files, so nothing is copied.
        previews: makes a preview maker from a folder and a function that names outputs; None for no gallery.
    """

    out: str
    run: str
    settings: Settings
    writing: Writing
    weights: Weights
    engine: str
    threads: int = 0
    device: str = "cpu"
    max_memory: int | None = None
    local: bool = False
    previews: Callable[[Path, Callable[[Task], str]], Previews] | None = None


class Worker:
    """Enhances batches; called from up to `AT_ONCE` threads."""

    def __init__(self, job: Job, enhancer: Enhancer | None = None) -> None:
        """`enhancer`: None loads the job's engine.

        Raises:
            QatieError: the engine does not exist here.
        """
        self._job, self._enhancer = job, enhancer or enhancer_of(job)
        self._record = Record(job.out, job.settings, job.run, job.engine)
        self._budget = memory.Budget(memory.available(job.max_memory))
        self._reader = _SharedReader()
        self._ledger = Ledger(urls.to_path(job.out), job.settings) if job.local else None
        if self._ledger is not None:
            self._ledger.engine = job.engine
        self._runners: set[Runner] = set()
        self._lock, self._stopped = threading.Lock(), False
        scratch.remove_stale()
        self._name = f"{socket.gethostname()}-{os.getpid()}"

    def run(self, batch: Batch) -> Done:
        """Enhance a batch; a photo's error becomes its outcome."""
        try:
            done = self._run_here(batch) if self._job.local else self._run_in_scratch(batch)
        except Exception as error:  # the record or the scratch folder cannot be written
            done = Done(batch.number, tuple(_failed(item, error) for item in batch.items))
        return dataclasses.replace(done, repeated=patience.repeated.taken(), worker=self._name)

    def stop(self) -> None:
        """Make `run` return soon: photos that have not reached the network are not begun."""
        with self._lock:
            self._stopped = True
            for runner in self._runners:
                runner.stop()

    def close(self) -> None:
        """End the worker's reader process."""
        self._reader.end()

    # --- local files --------------------------------------------------------------------------------------------------

    def _run_here(self, batch: Batch) -> Done:
        job, out = self._job, urls.to_path(self._job.out)
        tasks = {_task(item): item for item in batch.items}
        maker = self._maker(out / GALLERY_FOLDER, lambda task: task.output.relative_to(out).as_posix())
        writing = dataclasses.replace(job.writing, ledger=self._ledger, settings=job.settings)
        results = self._enhance(list(tasks), writing, maker)
        numbers = {item.source: item for item in batch.items}
        outcomes = [_outcome(numbers[urls.of_path(r.task.source)], r, maker) for r in results]
        return Done(batch.number, tuple(outcomes))

    # --- files in stores ----------------------------------------------------------------------------------------------

    def _run_in_scratch(self, batch: Batch) -> Done:
        before, lines = self._record.begun(batch)
        outcomes = list(before.values())
        left = [item for item in batch.items if item.source not in before]
        with scratch.folder() as folder, ThreadPoolExecutor(_TRANSFERS) as transfers:
            fetched = list(transfers.map(lambda item: self._fetch(item, folder), left))
            outcomes += [outcome for outcome in fetched if outcome is not None]
            items = {
                _scratch_task(item, folder): item
                for item, outcome in zip(left, fetched, strict=True)
                if outcome is None
            }
            by_source = {task.source: item for task, item in items.items()}
            gallery = folder / GALLERY_FOLDER
            maker = self._maker(gallery, lambda task: self._gallery_name(by_source[task.source], task))
            writing = dataclasses.replace(self._job.writing, overwrite=True)
            made: dict[Item, tuple[ItemOutcome, Path]] = {}
            for result in self._enhance(list(items), writing, maker):
                item = by_source[result.task.source]
                outcome = _in_words_of_the_store(item, result, _outcome(item, result, maker))
                if outcome.status is Status.ENHANCED:
                    made[item] = outcome, result.task.output
                else:
                    outcomes.append(outcome)
            lines += b"".join(self._record.line(item, o, path.read_bytes()) for item, (o, path) in made.items())
            if made:
                self._record.write(batch, lines)
            outcomes += transfers.map(lambda pair: self._put(pair[0], *pair[1]), made.items())
            outcomes = self._put_previews(gallery, outcomes, transfers)
        return Done(batch.number, tuple(sorted(outcomes, key=lambda outcome: outcome.number)), lines)

    def _fetch(self, item: Item, folder: Path) -> ItemOutcome | None:
        """Download a photo to the scratch folder; returns an outcome if that fails."""
        target = _scratch_task(item, folder).source
        try:
            target.parent.mkdir(parents=True)
            stores.of(item.source).fetch(item.source, target)
            changed = target.stat().st_size != item.size
            if not changed and stores.md5_of(item.version):
                changed = record.md5(target.read_bytes()) != item.version
            if changed:
                raise StoreError(f"{item.source} was changed since it was listed.", "Run the same command again.")
        except (StoreError, OSError) as error:
            return _failed(item, error)
        return None

    def _put(self, item: Item, outcome: ItemOutcome, path: Path) -> ItemOutcome:
        fmt = formats.format_of_name(path)
        try:
            stores.of(outcome.output).put(outcome.output, path, f"image/{fmt}")
        except (StoreError, OSError) as error:
            return dataclasses.replace(_failed(item, error), seconds=outcome.seconds, input_bytes=outcome.input_bytes)
        return outcome

    def _gallery_name(self, item: Item, task: Task) -> str:
        output = item.output if item.with_alpha is None or task.output.suffix != ".png" else item.with_alpha
        return urls.below(output, self._job.out) or output

    def _put_previews(
        self, folder: Path, outcomes: list[ItemOutcome], transfers: ThreadPoolExecutor
    ) -> list[ItemOutcome]:
        if not folder.is_dir():
            return outcomes
        base = urls.join(self._job.out, GALLERY_FOLDER)
        puts = [
            transfers.submit(stores.of(base).put, urls.join(base, p.name), p, "image/webp") for p in folder.iterdir()
        ]
        errors = [put.exception() for put in puts]
        lost = next((str(error) for error in errors if error is not None), "")
        return [dataclasses.replace(o, previews_lack=lost) if lost and o.change is not None else o for o in outcomes]

    # --- both ---------------------------------------------------------------------------------------------------------

    def _maker(self, folder: Path, name_of: Callable[[Task], str]) -> Previews | None:
        return None if self._job.previews is None else self._job.previews(folder, name_of)

    def _enhance(self, tasks: Sequence[Task], writing: Writing, maker: Previews | None) -> list[Result]:
        enhancer = self._enhancer
        network, refinement = enhancer.engine.network.bytes_per_pixel, enhancer.effect.refinement_of
        runner = Runner(enhancer, writing, network, None, refinement, maker, self._reader, self._budget)
        results: list[Result] = []
        with self._lock:
            self._runners.add(runner)
            if self._stopped:
                runner.stop()
        try:
            runner.run(tasks, results.append)
        finally:
            with self._lock:
                self._runners.discard(runner)
        return results


def enhancer_of(job: Job) -> Enhancer:
    """The engine of a job, with its effect.

    Raises:
        QatieError: the engine does not exist here.
    """
    from qatie_cli import engines
    from qatie_cli.enhance.photos import Effect, Enhancer

    engine = engines.load(job.weights, job.engine, job.device, job.threads)
    return Enhancer(engine, Effect(job.settings.strength, job.settings.fast))


class _SharedReader(apart.Reader):
    """A reader shared by several runners."""

    def close(self) -> None:
        """Do nothing: the process serves the next runner."""

    def end(self) -> None:
        """End its process."""
        super().close()


def _task(item: Item) -> Task:
    alpha = None if item.with_alpha is None else urls.to_path(item.with_alpha)
    return Task(urls.to_path(item.source), urls.to_path(item.output), alpha)


def _scratch_task(item: Item, folder: Path) -> Task:
    def place(side: str, url: str) -> Path:
        _, dot, suffix = urls.name(url).rpartition(".")
        return folder / side / str(item.number) / f"{_NAME}{dot}{suffix}"

    alpha = None if item.with_alpha is None else place("out", item.with_alpha)
    return Task(place("in", item.source), place("out", item.output), alpha)


def _outcome(item: Item, result: Result, maker: Previews | None) -> ItemOutcome:
    is_alpha = item.with_alpha is not None and result.task.output.suffix.lower() == ".png"
    output = item.with_alpha if is_alpha and item.with_alpha else item.output
    shared = {f.name: getattr(result, f.name) for f in dataclasses.fields(Outcome)}
    change, lack = None, ""
    if maker is not None:
        change = getattr(maker, "changes", {}).get(result.task.output)
        lack = getattr(maker, "missing", {}).get(result.task.output, "")
    return ItemOutcome(item.number, output, change=change, previews_lack=lack, **shared)


def _in_words_of_the_store(item: Item, result: Result, outcome: ItemOutcome) -> ItemOutcome:
    """The outcome with URLs instead of scratch files in its messages."""

    def told(text: str) -> str:
        for path, url in ((result.task.source, item.source), (result.task.output, outcome.output)):
            text = text.replace(str(path), urls.people_s(url)).replace(path.name, urls.name(url))
        return text

    return dataclasses.replace(outcome, reason=told(outcome.reason), notes=tuple(map(told, outcome.notes)))


def _failed(item: Item, error: Exception) -> ItemOutcome:
    reason = error.one_line() if isinstance(error, QatieError) else f"{item.source}: {error}"
    silent = isinstance(error, StoreError) and error.unreachable
    return ItemOutcome(
        item.number, item.output, status=Status.FAILED, input_bytes=item.size, reason=reason, unreachable=silent
    )
