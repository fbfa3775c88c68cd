"""Batches enhanced in this process; transfers overlap the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from qatie_cli.cloud.items import Batch, Done
from qatie_cli.cloud.work import AT_ONCE, Worker


class Here:
    """Runs batches on a worker in this process."""

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, batches: Iterator[Batch], on_done: Callable[[Done], bool]) -> None:
        """Enhance `batches`. Calls `on_done` in this thread for each, in order, and stops when it returns False.

        KeyboardInterrupt passes through after the current photos are uploaded or given up.
        """
        waiting: deque[Future[Done]] = deque()

        def first() -> Done:
            done = waiting[0].result()  # if interrupted, it stays in the queue
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
