"""Scoring weights on pairs of photos, on the engines that users run, against simple baselines.

The metrics are those of `qatie_cli.metrics`. Means are means over photos.
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
from qatie_cli.model.checkpoint import Weights
from qatie_cli.photo.content import Photo

InputTarget = tuple[np.ndarray, np.ndarray]  # uint8 (H, W, 3) each


@dataclass(frozen=True)
class Scores:
    """Output against target, of one photo or as means.

    `aligned_db` is PSNR after tone alignment (`metrics.tone_aligned`): noise and detail alone. `agreement_db` is PSNR
    to the float output of the same weights.
    """

    psnr_db: float
    ssim: float
    ciede2000: float
    aligned_db: float
    agreement_db: float | None = None


def score(output: np.ndarray, target: np.ndarray, float_output: np.ndarray | None = None) -> Scores:
    """Scores of an output (H, W, 3) uint8; `float_output` is the float engine's, None to skip the agreement."""
    aligned = np.clip(np.rint(metrics.tone_aligned(output, target)), 0, 255)
    return Scores(
        metrics.finite_psnr(output, target),
        metrics.ssim(output, target),
        metrics.ciede2000(output, target),
        metrics.finite_psnr(aligned, target),
        None if float_output is None else metrics.finite_psnr(output, float_output),
    )


def mean(photos: Iterable[Scores]) -> Scores:
    """Means over photos."""
    photos = list(photos)
    agreements = [s.agreement_db for s in photos if s.agreement_db is not None]
    return Scores(
        float(np.mean([s.psnr_db for s in photos])),
        float(np.mean([s.ssim for s in photos])),
        float(np.mean([s.ciede2000 for s in photos])),
        float(np.mean([s.aligned_db for s in photos])),
        float(np.mean(agreements)) if agreements else None,
    )


# --- baselines ----------------------------------------------------------------------------------------------------


def autocontrast(photo: np.ndarray) -> np.ndarray:
    """Each channel stretched to the full range, 1% of the pixels clipped at both ends (Pillow)."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(photo), cutoff=1))


def clahe(photo: np.ndarray) -> np.ndarray:
    """Contrast-limited adaptive histogram equalization of the brightest channel (scikit-image, its defaults)."""
    from skimage.exposure import equalize_adapthist

    return np.rint(equalize_adapthist(photo) * 255).astype(np.uint8)


Method = Callable[[np.ndarray], np.ndarray]
BASELINES: dict[str, Method] = {"identity": lambda photo: photo, "autocontrast": autocontrast, "clahe": clahe}


def _enhanced(photo: Photo, engine: Engine, reduction: int = 1) -> np.ndarray:
    return Enhancer(engine, Effect(reduction=reduction))(photo).pixels


def compare(
    pair: tuple[Photo, np.ndarray],
    engine: Engine,
    reference: Engine | None,
    baselines: Sequence[str],
    reduction: int = 1,
) -> dict[str, Scores]:
    """A photo's scores by method: the named baselines, then `float` (if `reference` is given), then the engine.

    Args:
        pair: the input, (H, W, 3) uint8 in sRGB, and its target.
        reduction: the factor by which both engines see the photo reduced.
    """
    seen, target = pair
    found = {name: score(BASELINES[name](seen.pixels), target) for name in baselines}
    float_output = None if reference is None else _enhanced(seen, reference, reduction)
    if float_output is not None:
        found[engines.FLOAT] = score(float_output, target)
    return found | {engine.name: score(_enhanced(seen, engine, reduction), target, float_output)}


def means(photos: Sequence[dict[str, Scores]]) -> dict[str, Scores]:
    """Means over photos of every method."""
    return {method: mean(p[method] for p in photos) for method in photos[0]}


# --- the final table of a training run ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineScores:
    """A row of the table: mean scores of weights on an engine, and int8's agreement with float on the worst photo."""

    name: str
    engine: str
    mean: Scores
    worst_agreement_db: float | None


def closing_table(
    final: Weights, post_training: Weights | None, start: Weights | None, pairs: list[InputTarget]
) -> tuple[EngineScores, ...]:
    """Float, post-training int8 and QAT int8 of a finished run, int8 on every engine of this machine.

    Args:
        post_training: the weights before quantization-aware training, None for a run without it.
        start: the weights that the run was initialized with, None for random ones.
    """
    before = post_training or final
    rows = [] if start is None else _rows("start", start, _int8(start)[-1:], pairs)[-1:]
    int8 = _int8(final)
    rows += _rows("float", before, [], pairs) + _rows("post-training", before, int8, pairs)[1:]
    if post_training is not None:
        rows += _rows("float after QAT", final, [], pairs) + _rows("QAT", final, int8, pairs)[1:]
    return tuple(rows)


def _int8(weights: Weights) -> list[str]:
    """The int8 engines that run `weights`; those without PyTorch, which `auto` prefers, come last."""
    return [name for name in engines.available_for(weights) if name != engines.FLOAT]


def _rows(name: str, weights: Weights, int8: list[str], pairs: list[InputTarget]) -> list[EngineScores]:
    """The float row, then one for each of the `int8` engines."""
    reference = engines.load(weights, engines.FLOAT)
    photos = [Photo(seen, "png") for seen, _ in pairs]
    outputs = [_enhanced(photo, reference) for photo in photos]
    float_scores = mean(score(output, target) for output, (_, target) in zip(outputs, pairs, strict=True))
    rows = [EngineScores(name, engines.FLOAT, float_scores, None)]
    if weights.activations is None:
        return rows
    known: dict[tuple[int, bytes], Scores] = {}  # engines often give the same bits
    for engine_name in int8:
        engine = engines.load(weights, engine_name)
        measured = []
        for index, (photo, (_, target)) in enumerate(zip(photos, pairs, strict=True)):
            output = _enhanced(photo, engine)
            key = (index, hashlib.blake2b(output.data).digest())
            if key not in known:
                known[key] = score(output, target, outputs[index])
            measured.append(known[key])
        worst = min(s.agreement_db for s in measured if s.agreement_db is not None)
        rows.append(EngineScores(name, engine.name, mean(measured), worst))
    return rows
