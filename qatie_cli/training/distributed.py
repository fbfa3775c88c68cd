"""Processes that train together: each computes a part of every batch, all hold the same weights.

`torchrun` starts them and tells each its place by environment variables; without it there is one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qatie_cli.errors import UsageError


@dataclass(frozen=True)
class Team:
    """This process's place among `size`; rank 0 leads: it validates and writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine

    @property
    def leads(self) -> bool:
        """Whether this process writes what there is to write."""
        return self.rank == 0

    def rows(self, batch: int) -> range:
        """This process's samples of a batch.

        Raises:
            UsageError: the batch does not divide evenly.
        """
        if batch % self.size:
            raise UsageError(
                f"A batch of {batch} cannot be shared evenly by {self.size} processes.",
                f"Make it a multiple of {self.size}.",
            )
        part = batch // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module, its gradients averaged over all processes where there are several."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def averaging(self, module: nn.Module, last: bool) -> contextlib.AbstractContextManager:
        """Around a backward pass: gradients are averaged over the processes after the last of several only."""
        return contextlib.nullcontext() if self.size == 1 or last else module.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        """Element by element, the mean over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def share(self, value: object) -> object:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def share_tensors(self, module: nn.Module) -> None:
        """Give every process the leader's parameters."""
        if self.size > 1:
            for p in module.parameters():
                dist.broadcast(p.data, src=0)


@contextlib.contextmanager
def join(device: str) -> Iterator[tuple[Team, torch.device]]:
    """This process's team, as torchrun set it up, and its device: on CUDA, one for each process of a machine."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device(f"cuda:{local}" if device == "cuda" else device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    if size == 1:
        yield Team(), where
        return
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), size, local), where
    finally:
        dist.destroy_process_group()
