"""Scores of the photos of a data set, read from their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qatie_cli import engines
from qatie_cli.data import paired
from qatie_cli.data.layouts import PairFiles
from qatie_cli.engines import Engine
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.evaluation import pairs
from qatie_cli.evaluation.pairs import Scores
from qatie_cli.model.checkpoint import Weights

Outcome = dict[str, Scores] | DataError | PhotoError  # scores by method, or why there are none


@dataclass(frozen=True)
class Measurement:
    """What is measured of each pair.

    Attributes:
        longest: photos with a longer side are reduced to it first.
        reduction: the factor by which the network sees photos reduced.
        baselines: methods measured beside the weights (`pairs.BASELINES`).
    """

    longest: int
    reduction: int
    baselines: tuple[str, ...]


def measurer(weights: Weights, engine: Engine, threads: int, how: Measurement) -> Callable[[PairFiles], Outcome]:
    """What scores pairs: on `engine`, and on the float engine with as many `threads`."""
    reference = None
    if engine.name != engines.FLOAT:
        reference = engines.load(weights, engines.FLOAT, threads=threads)

    def outcome(files: PairFiles) -> Outcome:
        try:
            pair = paired.load_pair(files, how.longest)
            return pairs.compare(pair, engine, reference, how.baselines, how.reduction)
        except (DataError, PhotoError) as error:
            return error

    return outcome
