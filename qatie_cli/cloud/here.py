"""Batches worked on in this process, one after the other, with reading and putting beside the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from qatie_cli.cloud.items import Batch, Done
from qatie_cli.cloud.work import AT_ONCE, Worker


class Here:
    """Runs a worker of this process."""

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, batches: Iterator[Batch], on_done: Callable[[Done], bool]) -> None:
        """Work on `batches`; `on_done` is called for each, in this thread and in their order, until it says no.

        KeyboardInterrupt passes through after the photos in hand are put or given up.
        """
        waiting: deque[Future[Done]] = deque()

        def first() -> Done:
            done = waiting[0].result()  # an interruption while it waits leaves it there
            waiting.popleft()
            return done

        with ThreadPoolExecutor(AT_ONCE, "batch") as pool:
            try:
                for batch in batches:
                    waiting.append(pool.submit(self._worker.run, batch))
                    if len(waiting) > AT_ONCE and not on_done(first()):
                        break
                while waiting:
                    on_done(first())
            except BaseException:
                self._worker.stop()
                while waiting:
                    on_done(first())
                raise
            finally:
                self._worker.close()
