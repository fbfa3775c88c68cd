"""Data-parallel training: every process computes part of each batch, and all hold the same weights.

`torchrun` starts the processes and describes the group in environment variables; without it there is one process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qatie_cli.errors import UsageError

_T = TypeVar("_T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank among `size` processes; rank 0 leads: it validates, writes and reports."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is rank 0."""
        return self.rank == 0

    def rows(self, batch: int) -> range:
        """This process's samples of a batch.

        Raises:
            UsageError: the batch does not divide evenly.
        """
        if batch % self.size:
            raise UsageError(
                f"A batch of {batch} does not divide evenly among {self.size} processes.",
                f"Make it a multiple of {self.size}.",
            )
        part = batch // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with gradients averaged over the processes; unchanged for a single process."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def gradient_sync(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
        """Context of a backward pass: of several micro-batches, only the last averages gradients over the processes."""
        if last or not isinstance(module, DistributedDataParallel):
            return contextlib.nullcontext()
        return module.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        """Element by element, the mean over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def broadcast(self, value: _T) -> _T:
        """Rank 0's value, in every process."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def broadcast_parameters(self, module: nn.Module) -> None:
        """Give every process rank 0's parameters."""
        if self.size > 1:
            for p in module.parameters():
                dist.broadcast(p.data, src=0)


def from_environment() -> ProcessGroup:
    """The group that torchrun describes in this process's environment; a group of one without torchrun."""
    rank, size, local_rank, local_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    return ProcessGroup(rank, size, local_rank, local_size)


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[ProcessGroup, torch.device]]:
    """Join the group; yields it and this process's device, on CUDA one GPU for each process of a machine."""
    group = from_environment()
    where = torch.device(f"cuda:{group.local_rank}" if device == "cuda" else device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if group.size == 1:
        yield group, where
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield group, where
    finally:
        dist.destroy_process_group()
