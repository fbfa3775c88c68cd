"""Row strips on as many threads as PyTorch has.

numba's own parallel loops are no choice: its workqueue layer ends the process when two threads enter it at once, and
its OpenMP layer brings a second OpenMP beside PyTorch's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

_SMALLEST = 1 << 14  # values; handing a strip to another thread takes as long as this many
_pools: dict[int, ThreadPoolExecutor] = {}


def over_rows(rows: int, values: int, work: Callable[[int, int], object]) -> None:
    """Call `work(first, last)` for strips that cover the rows 0..rows, in several threads at once.

    Args:
        values: in all rows; a few are not worth a second thread.
    """
    threads = min(torch.get_num_threads(), max(1, values // _SMALLEST))
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


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, "kernels")
    return _pools[threads]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # a forked process has no threads but its own
