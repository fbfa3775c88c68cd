"""Measuring weights on pairs, executed on the engines that users run, and simple methods beside them.

PSNR is over all channels of 8-bit values, SSIM after Wang et al. 2004, the colour difference CIEDE2000 (the last two as
scikit-image computes them; see `qatie_cli.metrics`). Means are means over photos.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from qatie_cli import engines, metrics
from qatie_cli.engines import Engine
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.metrics import BEST_DB
from qatie_cli.model.checkpoint import Weights
from qatie_cli.photo.content import Photo

Pair = tuple[np.ndarray, np.ndarray]  # input and target, uint8 (H, W, 3)


@dataclass(frozen=True)
class Figures:
    """One photo's, or a mean's: output against target, and against the float output of the same weights.

    `aligned_db` is the PSNR after aligning tone (`metrics.tone_aligned`): noise and detail alone.
    """

    psnr_db: float
    ssim: float
    ciede2000: float
    aligned_db: float
    agreement_db: float | None = None


def figures(output: np.ndarray, target: np.ndarray, float_output: np.ndarray | None = None) -> Figures:
    """Figures of one output (H, W, 3) uint8; `float_output` is that of the float engine, None to leave it out."""
    aligned = np.clip(np.rint(metrics.tone_aligned(output, target)), 0, 255)
    return Figures(
        min(BEST_DB, metrics.psnr(output, target)),
        metrics.ssim(output, target),
        metrics.ciede2000(output, target),
        min(BEST_DB, metrics.psnr(aligned, target)),
        None if float_output is None else min(BEST_DB, metrics.psnr(output, float_output)),
    )


def mean(rows: Iterable[Figures]) -> Figures:
    """Means over photos."""
    rows = list(rows)
    agreements = [f.agreement_db for f in rows if f.agreement_db is not None]
    return Figures(
        *(float(np.mean([getattr(f, name) for f in rows])) for name in ("psnr_db", "ssim", "ciede2000", "aligned_db")),
        float(np.mean(agreements)) if agreements else None,
    )


# --- methods ------------------------------------------------------------------------------------------------------


def autocontrast(photo: np.ndarray) -> np.ndarray:
    """Each channel stretched to the full range, 1% of the pixels cut off at both ends (Pillow)."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(photo), cutoff=1))


def clahe(photo: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalization of the brightest channel (scikit-image, its defaults)."""
    from skimage.exposure import equalize_adapthist

    return np.rint(equalize_adapthist(photo) * 255).astype(np.uint8)


Method = Callable[[np.ndarray], np.ndarray]
BASELINES: dict[str, Method] = {"identity": lambda photo: photo, "autocontrast": autocontrast, "clahe": clahe}


def _enhanced(pixels: np.ndarray, engine: Engine, reduction: int = 1) -> np.ndarray:
    return Enhancer(engine, Effect(reduction=reduction))(Photo(pixels, "png")).pixels


def compare(
    pair: Pair, engine: Engine, reference: Engine | None, baselines: Sequence[str], reduction: int = 1
) -> dict[str, Figures]:
    """One photo's figures by method: the named baselines, then `float` (if `reference` is given), then the engine.

    `reduction` is the factor by which both see the photo reduced.
    """
    seen, target = pair
    found = {name: figures(BASELINES[name](seen), target) for name in baselines}
    float_output = None if reference is None else _enhanced(seen, reference, reduction)
    if float_output is not None:
        found[engines.FLOAT] = figures(float_output, target)
    return found | {engine.name: figures(_enhanced(seen, engine, reduction), target, float_output)}


def means(photos: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """Means over photos of every method."""
    return {method: mean(p[method] for p in photos) for method in photos[0]}


# --- the closing table of a run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Figures of one arithmetic on one engine, and the photo on which int8 strays furthest from its float."""

    name: str
    engine: str
    mean: Figures
    worst_agreement_db: float | None


def closing_table(
    final: Weights, post_training: Weights | None, start: Weights | None, pairs: list[Pair]
) -> tuple[Row, ...]:
    """Float, post-training int8 and QAT int8 of a finished run, int8 on each engine of this machine.

    Args:
        post_training: the weights as they were before quantization-aware training, None for a run without it.
        start: the weights that the run started from, if it did not start from random ones.
    """
    before = post_training or final
    rows = [] if start is None else _rows("start", start, [engines.resolve("auto")], pairs)[-1:]
    int8 = [name for name in engines.available() if name != engines.FLOAT]
    rows += _rows("float", before, [], pairs) + _rows("post-training", before, int8, pairs)[1:]
    if post_training is not None:
        rows += _rows("float after QAT", final, [], pairs) + _rows("QAT", final, int8, pairs)[1:]
    return tuple(rows)


def _rows(name: str, weights: Weights, int8: list[str], pairs: list[Pair]) -> list[Row]:
    """The float row, then one for each of the `int8` engines."""
    reference = engines.load(weights, engines.FLOAT)
    outputs = [_enhanced(seen, reference) for seen, _ in pairs]
    rows = [Row(name, engines.FLOAT, mean(figures(o, t) for o, (_, t) in zip(outputs, pairs, strict=True)), None)]
    if weights.activations is None:
        return rows
    known: dict[tuple[int, bytes], Figures] = {}  # engines often agree to the last bit
    for engine_name in int8:
        engine = engines.load(weights, engine_name)
        measured = []
        for index, (seen, target) in enumerate(pairs):
            output = _enhanced(seen, engine)
            key = (index, hashlib.blake2b(output.data).digest())
            if key not in known:
                known[key] = figures(output, target, outputs[index])
            measured.append(known[key])
        worst = min(f.agreement_db for f in measured)
        rows.append(Row(name, engine.name, mean(measured), worst))
    return rows
