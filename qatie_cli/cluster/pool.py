"""A pool of Ray actors that enhances batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from qatie_cli.batch.outcomes import Status
from qatie_cli.cloud.items import Batch, Done, ItemOutcome
from qatie_cli.cloud.work import AT_ONCE, Job, Worker
from qatie_cli.cluster.actors import LOST, Actors, Workers

# Batches per Ray Dataset; the driver keeps them in the object store, about 8 MB. Each dataset gets a new pool: once an
# hour with 100 workers at 5 s a photo.
WINDOW = 4096
_ALONE = 10**9  # first number of single-photo batches


class Pool:
    """Runs batches on actors, each with its own engine."""

    def __init__(self, job: Job, workers: Workers, memory: int) -> None:
        """`memory` is what Ray reserves for an actor, in bytes."""
        self._actors = Actors(_worker, job, workers, job.threads, memory, AT_ONCE)
        self.workers = workers.most

    def run(self, batches: Iterator[Batch], on_done: Callable[[Done], bool]) -> None:
        """Enhance `batches`. Calls `on_done` in this thread for each finished batch, and stops when it returns False.

        A batch that Ray gives up on fails its photos. KeyboardInterrupt passes through; the actors then end.

        Raises:
            QatieError: the cluster is gone, or no worker can start on it.
        """
        while window := list(itertools.islice(batches, WINDOW)):
            left = {batch.number: batch for batch in window}
            tried, alone = 0, False
            while left and not (alone and tried == len(left)):
                if tried == len(left):  # none came back: each holds a photo that kills its worker
                    items = [item for batch in left.values() for item in batch.items]
                    left = {_ALONE + item.number: Batch(_ALONE + item.number, (item,)) for item in items}
                    alone = True
                tried = len(left)
                for done in self._actors.results(list(left.values())):
                    if left.pop(done.batch, None) is not None and not on_done(done):
                        return
            for batch in left.values():
                on_done(_lost(batch))


def _worker(job: Job) -> Callable[[Batch], Done]:
    return Worker(job).run


def _lost(batch: Batch) -> Done:
    return Done(
        batch.number,
        tuple(
            ItemOutcome(i.number, i.output, status=Status.FAILED, input_bytes=i.size, reason=f"{i.source}: {LOST}")
            for i in batch.items
        ),
    )
