"""Row strips on several threads.

numba's own parallel loops are unsuitable: its workqueue layer aborts when two threads enter it at once, and its OpenMP
layer loads a second OpenMP beside PyTorch's.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from qatie_cli.threads import NUMBER_OF_USER, usable_cores

_SMALLEST = 1 << 14  # values; handing a strip to another thread takes as long as this many
_pools: dict[int, ThreadPoolExecutor] = {}


_number: contextvars.ContextVar[int] = contextvars.ContextVar("_number", default=0)


def number() -> int:
    """Threads that strips run on: those of the block of `limited`, else as many as libraries of the process take."""
    chosen = _number.get() or os.environ.get(NUMBER_OF_USER, "")
    return max(1, int(chosen)) if str(chosen).isdecimal() else usable_cores()


@contextlib.contextmanager
def limited(to: int) -> Iterator[None]:
    """Let strips of the calling thread run on `to` threads inside the block; 0 changes nothing."""
    before = _number.set(to or _number.get())
    try:
        yield
    finally:
        _number.reset(before)


def over_rows(rows: int, values: int, work: Callable[[int, int], object]) -> None:
    """Call `work(first, last)` for strips that cover the rows 0..rows, in several threads at once.

    Args:
        values: in all rows; a few are not worth a second thread.
    """
    threads = min(number(), max(1, values // _SMALLEST))
    step = -(-rows // threads)
    if threads == 1 or step >= rows:
        work(0, rows)
        return
    others = [_pool(threads).submit(work, first, min(first + step, rows)) for first in range(step, rows, step)]
    try:
        work(0, step)
    finally:
        for other in others:
            other.result()


def in_turn(work: Callable[[int, int], object], pieces: Sequence[tuple[int, int]]) -> None:
    """Call `work(first, last)` for every piece, as many at once as there are threads; within one, strips run alone."""
    threads = min(number(), len(pieces))
    waiting = iter(pieces)  # a list iterator hands out each element once, to any thread

    def serve() -> None:
        with limited(1):
            for first, last in waiting:
                work(first, last)

    others = [_pool(threads).submit(serve) for _ in range(threads - 1)]
    try:
        serve()
    finally:
        for other in others:
            other.result()


def pieces(first: int, last: int, rows: float, fewest: int) -> list[tuple[int, int]]:
    """Divide rows first..last into pieces of at most about `rows`, as many for each thread.

    Pieces made smaller for the threads have at least `fewest` rows.
    """
    height, threads = last - first, number()
    wanted = max(math.ceil(height / max(rows, 1)), 1)
    shared = math.ceil(wanted / threads) * threads
    wanted = max(wanted, min(shared, height // fewest))
    edges = [first + height * index // wanted for index in range(wanted + 1)]
    return list(itertools.pairwise(edges))


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, "kernels")
    return _pools[threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked process has no other threads
