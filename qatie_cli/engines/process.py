"""Settings of the whole process that the network needs while it computes; each is put back when its block ends.

PyTorch has one quantized engine and one number of threads for the process, not one for each caller. One lock guards
both, so blocks of different threads follow each other. Inside a block the rest of the process sees the changed setting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

from qatie_cli.threads import NUMBER_OF_USER, usable_cores

_LOCK = threading.RLock()


@contextlib.contextmanager
def quantized_engine(name: str) -> Iterator[None]:
    """Make `name` PyTorch's quantized engine inside the block."""
    with _LOCK:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = name
        try:
            yield
        finally:
            torch.backends.quantized.engine = before


@contextlib.contextmanager
def threads(number: int) -> Iterator[int]:
    """Let PyTorch compute on `number` threads inside the block; 0 leaves its own choice and takes no lock.

    Yields the number of threads inside.
    """
    if not number:
        yield torch.get_num_threads()
        return
    with _LOCK:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield number
        finally:
            torch.set_num_threads(before)


def bounded(number: int) -> int:
    """`number` of threads; for 0, PyTorch's own choice, the usable cores where these are fewer and nobody has chosen.

    PyTorch knows nothing of CPU quotas.
    """
    if number or NUMBER_OF_USER in os.environ:
        return number
    cores = usable_cores()
    return cores if cores < torch.get_num_threads() else 0
