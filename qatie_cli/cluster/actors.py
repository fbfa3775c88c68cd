"""Pools of Ray actors, each of which loads once what it works with; through Ray Data."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qatie_cli import chatter
from qatie_cli.cluster.nodes import Node
from qatie_cli.errors import QatieError, UsageError

_MOST_WORKERS = 100_000
# Ray's retries of a row whose actor died. Ray takes up to a minute to notice a dead node; rows sent there use up their
# retries at once.
_RETRIES = 3
LOST = "Every worker that tried it died."

J = TypeVar("J")
T = TypeVar("T")
R = TypeVar("R")


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


@dataclass(frozen=True)
class Actors(Generic[J, T, R]):
    """A pool of actors.

    Attributes:
        make: called by each actor with `job`, once; returns what the actor does with a row, in up to `at_once` threads.
        threads, memory: what Ray reserves for an actor; memory in bytes.
    """

    make: Callable[[J], Callable[[T], R]]
    job: J
    workers: Workers
    threads: int
    memory: int
    at_once: int

    def results(self, rows: Sequence[T]) -> Iterator[R]:
        """The results of rows as they are ready. A row whose actors all died has none.

        Raises:
            QatieError: the cluster is gone, or no actor can start on it.
        """
        import ray

        _be_quiet()
        pickled = [{"row": pickle.dumps(row)} for row in rows]
        with warnings.catch_warnings():  # for `max_task_retries`, which has no replacement yet
            warnings.simplefilter("ignore", DeprecationWarning)
            dataset = self._mapped(ray.data.from_items(pickled, override_num_blocks=len(pickled)), len(pickled))
        try:
            with chatter.hidden():  # Ray's C++ log lines
                for row in dataset.iter_rows():
                    yield pickle.loads(row["result"])
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise QatieError(
                f"The connection to the cluster was lost: {reason.rstrip('.')}.", "Run the same command to resume."
            ) from None

    def _mapped(self, dataset: Any, rows: int) -> Any:
        import ray

        return dataset.map_batches(
            _Actor,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(self.workers.least, rows),  # more would load engines for nothing
                max_size=min(self.workers.most, rows),
                max_tasks_in_flight_per_actor=self.at_once + 1,
                max_concurrent_calls_per_actor=self.at_once,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(self.make, self.job),
            num_cpus=self.threads,
            memory=self.memory,
            max_task_retries=_RETRIES,
        )


class _Actor:
    """A Ray actor."""

    def __init__(self, make: Callable[[Any], Callable[[Any], Any]], job: Any) -> None:
        from qatie_cli import threads
        from qatie_cli.enhance import memory

        threads.bound_spin()
        memory.keep_together(bounded=True)
        chatter.separate_python()
        self._call = make(job)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        return {"result": [pickle.dumps(self._call(pickle.loads(row))) for row in rows["row"]]}


def _be_quiet() -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # rows without a result are found by whoever asked for them
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
