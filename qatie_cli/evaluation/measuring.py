"""Scores of the photos of a data set, read from their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import engines
from qatie_cli.data import paired
from qatie_cli.data.layouts import PairFiles
from qatie_cli.engines import Engine
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.evaluation import pairs
from qatie_cli.evaluation.pairs import Scores
from qatie_cli.model.checkpoint import Weights
from qatie_cli.photo import decoding
from qatie_cli.photo.content import Photo

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
            pixels, target = paired.load_pair(files, how.longest)
            pair = as_read(files.input, pixels), target
            return pairs.compare(pair, engine, reference, how.baselines, how.reduction)
        except (DataError, PhotoError) as error:
            return error

    return outcome


def as_read(path: Path, pixels: np.ndarray) -> Photo:
    """The photo (H, W, 3) uint8 in sRGB, with what its file tells of its compression unless it was reduced since."""
    photo = decoding.read(path)
    if photo.components is None or not np.array_equal(photo.pixels, pixels):
        return Photo(pixels, "png")
    return Photo(pixels, "jpeg", jpeg=photo.jpeg, components=photo.components, turn=photo.turn)
