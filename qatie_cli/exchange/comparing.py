"""How imported weights agree with the float network of their file, and how the file itself does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.exchange import runtimes
from qatie_cli.model.checkpoint import Weights


@dataclass(frozen=True)
class Agreement:
    """PSNR in dB to the float network, over photos."""

    name: str
    mean: float
    worst: float


def agreements(
    weights: Weights,
    exact: Weights,
    photos: Sequence[np.ndarray],
    published: Path | None = None,
    threads: int = 1,
    on_photo: Callable[[], None] = lambda: None,
) -> list[Agreement]:
    """Agreement with the float engine on `exact`: of `weights` on every engine, and of the TFLite file `published`.

    Photos are (H, W, 3) uint8; where `published` is given, of the size that it takes.

    Raises:
        DataError: LiteRT refuses the file.
    """
    reference = engines.load(exact, engines.FLOAT)
    names = engines.available() if weights.activations is not None else (engines.FLOAT,)
    ready = [engines.load(weights, name) for name in names]
    found: dict[str, list[float]] = {}
    for photo in photos:
        expected = enhance(photo, reference)
        outputs = {engine.name: enhance(photo, engine) for engine in ready}
        if published is not None:
            outputs[published.name] = runtimes.litert(published, photo, threads)
        for name, output in outputs.items():
            found.setdefault(name, []).append(metrics.finite_psnr(output, expected))
        on_photo()
    return [Agreement(name, float(np.mean(values)), min(values)) for name, values in found.items()]
