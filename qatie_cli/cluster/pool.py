"""A pool of Ray actors that enhances batches, through Ray Data."""

from __future__ import annotations

import itertools
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qatie_cli import chatter
from qatie_cli.batch.outcomes import Status
from qatie_cli.cloud.items import Batch, Done, ItemOutcome
from qatie_cli.cloud.work import AT_ONCE, Job, Worker
from qatie_cli.cluster.nodes import Node
from qatie_cli.errors import QatieError, UsageError

# Batches per Ray Dataset; the driver keeps them in the object store, about 8 MB. Each dataset gets a new pool: once an
# hour with 100 workers at 5 s a photo.
WINDOW = 4096
_MOST_WORKERS = 100_000
# Ray's retries of a batch whose worker died. Ray takes up to a minute to notice a dead node; batches sent there use up
# their retries at once, and `run` gives them to a new pool.
_RETRIES = 3
_ALONE = 10**9  # first number of single-photo batches
_LOST = "Every worker that tried it died."


@dataclass(frozen=True)
class Workers:
    """Minimum and maximum number of actors."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Parse `4` or `2:8`.

        Raises:
            UsageError: `text` is neither.
        """
        first, colon, last = text.partition(":")
        numbers = (first, last if colon else first)
        are_numbers = all(n.isascii() and n.isdigit() and 0 < int(n) <= _MOST_WORKERS for n in numbers)
        if not are_numbers or int(first) > int(numbers[1]):
            raise UsageError(f"Invalid number of workers '{text}'.", "Use a number such as 4, or MIN:MAX such as 2:8.")
        return cls(int(first), int(numbers[1]))

    @classmethod
    def filling(cls, nodes: Sequence[Node], threads: int, memory: int) -> Workers:
        """As many as fit on these nodes.

        Raises:
            UsageError: not one fits.
        """
        room = sum(_room(node, threads, memory) for node in nodes)
        check_room(nodes, threads, memory)
        return cls(room, room)


def _room(node: Node, threads: int, memory: int) -> int:
    return int(min(node.cpus // threads, node.memory // memory if memory else math.inf))


def check_room(nodes: Sequence[Node], threads: int, memory: int) -> None:
    """Raise UsageError if no node can hold a worker: Ray would wait for one forever."""
    if not any(_room(node, threads, memory) for node in nodes):
        largest = max(nodes, key=lambda node: (node.memory, node.cpus))
        raise UsageError(
            f"A worker needs {threads} CPU and {memory / 1e6:,.0f} MB; the largest node, {largest.name}, offers Ray "
            f"{largest.cpus:g} CPU and {largest.memory / 1e6:,.0f} MB.",
            "Lower --threads or --max-memory.",
        )


class Pool:
    """Runs batches on actors, each with its own engine."""

    def __init__(self, job: Job, workers: Workers, memory: int) -> None:
        """`memory` is what Ray reserves for an actor, in bytes."""
        self._job, self._range, self._memory = job, workers, memory
        self.workers = workers.most

    def run(self, batches: Iterator[Batch], on_done: Callable[[Done], bool]) -> None:
        """Enhance `batches`. Calls `on_done` in this thread for each finished batch, and stops when it returns False.

        A batch that Ray gives up on fails its photos. KeyboardInterrupt passes through; the actors then end.

        Raises:
            QatieError: the cluster is gone, or no worker can start on it.
        """
        _be_quiet()
        while window := list(itertools.islice(batches, WINDOW)):
            left = {batch.number: batch for batch in window}
            tried, alone = 0, False
            while left and not (alone and tried == len(left)):
                if tried == len(left):  # none came back: each holds a photo that kills its worker
                    items = [item for batch in left.values() for item in batch.items]
                    left = {_ALONE + item.number: Batch(_ALONE + item.number, (item,)) for item in items}
                    alone = True
                tried = len(left)
                for done in self._dones(list(left.values())):
                    if left.pop(done.batch, None) is not None and not on_done(done):
                        return
            for batch in left.values():
                on_done(_lost(batch))

    def _dones(self, window: Sequence[Batch]) -> Iterator[Done]:
        import ray

        rows = [{"batch": pickle.dumps(batch)} for batch in window]
        with warnings.catch_warnings():  # for `max_task_retries`, which has no replacement yet
            warnings.simplefilter("ignore", DeprecationWarning)
            dataset = self._mapped(ray.data.from_items(rows, override_num_blocks=len(rows)))
        try:
            with chatter.hidden():  # Ray's C++ log lines
                for row in dataset.iter_rows():
                    yield pickle.loads(row["done"])
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise QatieError(
                f"The connection to the cluster was lost: {reason.rstrip('.')}.", "Run the same command to resume."
            ) from None

    def _mapped(self, dataset: Any) -> Any:
        import ray

        return dataset.map_batches(
            _Actor,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                min_size=self._range.least,
                max_size=self._range.most,
                max_tasks_in_flight_per_actor=AT_ONCE + 1,
                max_concurrent_calls_per_actor=AT_ONCE,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(self._job,),
            num_cpus=self._job.threads,
            memory=self._memory,
            max_task_retries=_RETRIES,
        )


class _Actor:
    """A Ray actor that holds a worker."""

    def __init__(self, job: Job) -> None:
        from qatie_cli import threads
        from qatie_cli.enhance import memory

        threads.bound_spin()
        memory.keep_together(bounded=True)
        chatter.separate_python()
        self._worker = Worker(job)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        return {"done": [pickle.dumps(self._worker.run(pickle.loads(batch))) for batch in rows["batch"]]}


def _be_quiet() -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # `run` reports the batches that did not come back
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _lost(batch: Batch) -> Done:
    return Done(
        batch.number,
        tuple(
            ItemOutcome(i.number, i.output, status=Status.FAILED, input_bytes=i.size, reason=f"{i.source}: {_LOST}")
            for i in batch.items
        ),
    )
