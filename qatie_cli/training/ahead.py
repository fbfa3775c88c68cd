"""Prefetching of samples by a thread, or by processes for fast GPUs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from qatie_cli.data.source import TrainingBatch

Prepare = Callable[[int], TrainingBatch]  # the samples of a step, a function of the step alone


def prepared(prepare: Prepare, steps: Sequence[int], workers: int = 0) -> Generator[TrainingBatch, None, None]:
    """The samples of `steps`, in order.

    Args:
        workers: processes that prepare them, several steps at once; 0 prepares one step ahead in a thread. The samples
            are the same either way.
    """
    if workers and steps:
        loader = DataLoader(_Steps(prepare, steps), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        yield from loader
        return
    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(prepare, step) for step in steps[:1]]
        for following in (*steps[1:], None):
            if not coming:
                return
            batch = coming.pop().result()
            if following is not None:
                coming.append(thread.submit(prepare, following))
            yield batch


@dataclass(frozen=True)
class _Steps(Dataset[TrainingBatch]):
    """A run's remaining steps, as PyTorch's loader reads them."""

    prepare: Prepare
    steps: Sequence[int]

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> TrainingBatch:
        torch.set_num_threads(1)  # one core a worker
        return self.prepare(self.steps[index])


def _as_it_is(batch: Any) -> Any:
    return batch
