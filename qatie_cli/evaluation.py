"""Measuring weights on pairs, executed on the engines that users run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qatie_cli import engines, metrics
from qatie_cli.checkpoint import Weights
from qatie_cli.engines import Engine
from qatie_cli.enhance import enhance

Pair = tuple[np.ndarray, np.ndarray]  # input and target, uint8 (H, W, 3)
BEST_DB = 99.0  # stands for the infinite PSNR of equal photos, so that means stay finite


@dataclass(frozen=True)
class Figures:
    """One photo's, or the mean's: output against target, and against the float output of the same weights."""

    psnr_db: float
    ssim: float
    agreement_db: float | None


def measure(engine: Engine, reference: Engine | None, pair: Pair) -> Figures:
    """Figures of one pair; `reference` is the float engine of the same weights, None to leave the agreement out."""
    seen, target = pair
    output = enhance(seen, engine)
    agreement = None if reference is None else min(BEST_DB, metrics.psnr(output, enhance(seen, reference)))
    return Figures(min(BEST_DB, metrics.psnr(output, target)), metrics.ssim(output, target), agreement)


def mean(figures: Iterable[Figures]) -> Figures:
    """Means over photos."""
    rows = list(figures)
    agreements = [f.agreement_db for f in rows if f.agreement_db is not None]
    return Figures(
        float(np.mean([f.psnr_db for f in rows])),
        float(np.mean([f.ssim for f in rows])),
        float(np.mean(agreements)) if agreements else None,
    )


@dataclass(frozen=True)
class Row:
    """Figures of one arithmetic, means over the photos, and the photo on which int8 strays furthest from float."""

    name: str
    mean: Figures
    worst_agreement_db: float | None


def closing_table(final: Weights, post_training: Weights | None, pairs: list[Pair]) -> tuple[Row, ...]:
    """Float, post-training int8 and QAT int8 of a finished run, each int8 row on the engine that `auto` takes.

    `post_training` are the weights as they were before quantization-aware training, None for a run without it.
    """
    before = post_training or final
    rows = [_row("float", before, engines.FLOAT, pairs), _row("post-training int8", before, "auto", pairs)]
    if post_training is not None:
        rows.append(_row("float of the QAT weights", final, engines.FLOAT, pairs))
        rows.append(_row("QAT int8", final, "auto", pairs))
    return tuple(rows)


def _row(name: str, weights: Weights, engine: str, pairs: list[Pair]) -> Row:
    runs = engines.load(weights, engine)
    reference = None if runs.name == engines.FLOAT else engines.load(weights, engines.FLOAT)
    figures = [measure(runs, reference, pair) for pair in pairs]
    agreements = [f.agreement_db for f in figures if f.agreement_db is not None]
    label = name if reference is None else f"{name} ({runs.name})"
    return Row(label, mean(figures), min(agreements) if agreements else None)


def compare(name: str, pair: Pair, engine: Engine, reference: Engine | None) -> dict[str, float | str]:
    """One photo's figures before and after, and after aligning tone (`metrics.tone_aligned`), by name.

    The aligned figures show noise and detail alone: whether enhancing cost any.
    """
    seen, target = pair
    output = enhance(seen, engine)
    row: dict[str, float | str] = {"photo": name}
    for when, picture in (("input", seen), ("output", output)):
        aligned = np.clip(np.rint(metrics.tone_aligned(picture, target)), 0, 255)
        row[f"{when}_psnr_db"] = min(BEST_DB, metrics.psnr(picture, target))
        row[f"{when}_ssim"] = metrics.ssim(picture, target)
        row[f"{when}_aligned_db"] = min(BEST_DB, metrics.psnr(aligned, target))
    if reference is not None:
        float_output = enhance(seen, reference)
        row["agreement_db"] = min(BEST_DB, metrics.psnr(output, float_output))
        row["float_psnr_db"] = min(BEST_DB, metrics.psnr(float_output, target))
    return row


def summarize(rows: list[dict[str, float | str]]) -> dict[str, float]:
    """Means over photos of every figure."""
    names = [name for name in rows[0] if name != "photo"]
    return {name: float(np.mean([row[name] for row in rows])) for name in names}
