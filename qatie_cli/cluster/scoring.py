"""Scores of a data set's photos, measured on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qatie_cli import engines
from qatie_cli.cluster.actors import LOST, Actors, Workers, check_room
from qatie_cli.cluster.nodes import Node
from qatie_cli.data.layouts import PairFiles
from qatie_cli.errors import DataError
from qatie_cli.evaluation import measuring
from qatie_cli.evaluation.measuring import Measurement, Outcome
from qatie_cli.model.checkpoint import Weights
from qatie_cli.photo import decoding

# Measured: 0.96 GB for square photos of 1024 pixels, PyTorch and the float engine included.
_PROCESS_BYTES = 500 << 20
_PIXEL_BYTES = 700
_LARGEST_OF = 64  # pairs, whose headers are read


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; `engine` is the same for every worker, never `auto`."""

    weights: Weights
    engine: str
    threads: int
    how: Measurement


def outcomes(
    job: Job,
    files: Sequence[PairFiles],
    machines: Sequence[Node],
    workers: Workers | None,
    on_one: Callable[[str], None],
) -> list[Outcome]:
    """The scores of pairs, in their order; `on_one` is called with the name of each as it is ready.

    Raises:
        UsageError: no node has room for a worker.
        QatieError: the cluster is gone.
    """
    needed = _worker_bytes(files, job.how.longest)
    check_room(machines, job.threads, needed)
    chosen = workers or Workers.filling(machines, job.threads, needed)
    found: dict[int, Outcome] = {}
    # Workers have folders of their own to be in.
    rows = [(n, PairFiles(one.name, one.input.absolute(), one.target.absolute())) for n, one in enumerate(files)]
    for number, outcome in Actors(_numbered, job, chosen, job.threads, needed, 1).results(rows):
        found[number] = outcome
        on_one(files[number].name)
    return [found.get(n, DataError(f"{one.name}: {LOST}")) for n, one in enumerate(files)]


def _numbered(job: Job) -> Callable[[tuple[int, PairFiles]], tuple[int, Outcome]]:
    engine = engines.load(job.weights, job.engine, threads=job.threads)
    measure = measuring.measurer(job.weights, engine, job.threads, job.how)
    return lambda numbered: (numbered[0], measure(numbered[1]))


def _worker_bytes(files: Sequence[PairFiles], longest: int) -> int:
    headers = [decoding.header(one.input) for one in files[:: -(-len(files) // _LARGEST_OF)]]
    decoded = max((header.decode_bytes for header in headers if header), default=0)
    return _PROCESS_BYTES + _PIXEL_BYTES * longest**2 + 2 * decoded
