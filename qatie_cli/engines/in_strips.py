"""A part of the network run strip by strip, several strips at once."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qatie_cli.kernels import threads

# Values of the largest tensors of all strips that run at once, and of one strip at least. What a strip computes beyond
# its own rows took a tenth more time with 1 << 21 values than with 1 << 22, and a quarter more with 1 << 20.
STRIP_VALUES, FEWEST_VALUES = 1 << 23, 1 << 20


@dataclass(frozen=True)
class Input:
    """What a part of the network reads: an array (H, W, C), `scale` rows for each one that strips are counted in."""

    whole: np.ndarray
    scale: int


def in_strips(
    part: Callable[..., Sequence[np.ndarray]], inputs: Sequence[Input], reach: int, widest: int
) -> list[np.ndarray]:
    """Run a part of the network strip by strip and concatenate its outputs.

    Args:
        part: from rows of every input to rows of every output.
        reach: rows (of the coarsest of inputs and outputs) beyond its own that a strip's outputs depend on.
        widest: values of the part's largest tensor for each of these rows.
    """
    height = inputs[0].whole.shape[0] // inputs[0].scale
    whole: list[np.ndarray] = []
    lock = threading.Lock()

    def work(top: int, bottom: int) -> None:
        first, last = max(0, top - reach), min(height, bottom + reach)
        outputs = part(*(x.whole[first * x.scale : last * x.scale] for x in inputs))
        scales = [x.shape[0] // (last - first) for x in outputs]
        with lock:
            if not whole:
                sizes = zip(outputs, scales, strict=True)
                whole.extend(np.empty((height * scale, *x.shape[1:]), x.dtype) for x, scale in sizes)
        for kept, x, scale in zip(whole, outputs, scales, strict=True):
            kept[top * scale : bottom * scale] = x[(top - first) * scale : (bottom - first) * scale]

    values = max(FEWEST_VALUES, STRIP_VALUES // threads.number())
    threads.in_turn(work, pieces(0, height, values / widest, 2 * reach))
    return whole


def pieces(first: int, last: int, rows: float, fewest: int) -> list[tuple[int, int]]:
    """Pieces of rows first..last, of about so many each; more where threads would go without one, but not tiny ones."""
    height = last - first
    number = max(math.ceil(height / rows), min(threads.number(), height // fewest), 1)
    edges = [first + height * index // number for index in range(number + 1)]
    return list(itertools.pairwise(edges))
