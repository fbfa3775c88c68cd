"""Drawn pages: what screenshots, scans and blank walls look like to the tone stage, which shall leave them alone.

Good photos have a few dark and a few bright parts. A stage that has seen nothing else takes white paper for an
overexposed photo and grays it.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.model.tone import THUMBNAIL_PX, VIEW_PX, points

_FINER = 2  # pages are drawn at so many times the size of a thumbnail's view, then averaged, as photos are
_SIDE = _FINER * VIEW_PX
_BLANK_SHARE = 0.1  # fields of one colour, of any brightness
_DARK_SHARE = 0.3
_WHITE_SHARE = 0.7  # of the light pages: paper of exactly 1
_STROKES = (1, 2, 4, 16, 16)  # pixels: text from thin letters to words that are one bar


def draw_page(rng: np.random.Generator) -> np.ndarray:
    """A page's thumbnail (64, 64, 3) float32 in 0..1: paper, up to three panels in colour, up to 40 lines of text."""
    if rng.random() < _BLANK_SHARE:
        colour = np.clip(rng.random() + rng.uniform(-0.1, 0.1, 3), 0, 1)
        return np.broadcast_to(colour.astype(np.float32), (THUMBNAIL_PX, THUMBNAIL_PX, 3)).copy()
    dark = rng.random() < _DARK_SHARE
    paper, ink = rng.uniform(0, 0.2 if dark else 0.15), rng.uniform(0, 0.35)
    if not dark and rng.random() < _WHITE_SHARE:
        paper = 0.0
    paper, ink = (paper, 1 - ink) if dark else (1 - paper, ink)
    page = np.full((_SIDE, _SIDE, 3), paper, np.float32)
    page += rng.uniform(-0.03, 0.03, 3).astype(np.float32) * (0 < paper < 1)
    for _ in range(rng.integers(0, 4)):
        rows, columns = (slice(*sorted(rng.integers(0, _SIDE, 2))) for _ in range(2))
        page[rows, columns] = 0.5 * page[rows, columns] + 0.5 * rng.random(3, np.float32)
    height, coverage, stroke = rng.integers(4, 16), rng.uniform(0.2, 0.9), rng.choice(_STROKES)
    left = rng.integers(8, _SIDE // 4)
    tops = range(int(rng.integers(0, 80)), _SIDE - height, int(height * rng.uniform(1.5, 4) + 2))
    for top in tops[: rng.integers(41)]:
        line = page[top : top + height, left : rng.integers(_SIDE // 2, _SIDE)]
        line[_strokes(line.shape[:2], coverage, stroke, rng)] = ink
    view = np.clip(page, 0, 1).reshape(VIEW_PX, _FINER, VIEW_PX, _FINER, 3).mean((1, 3))
    return points(view)


def _strokes(shape: tuple[int, int], coverage: float, stroke: int, rng: np.random.Generator) -> np.ndarray:
    """Where a line of text has ink: thin strokes differ from row to row, thick ones are bars of the line's height."""
    rows, columns = shape[0] if stroke < 4 else 1, -(-shape[1] // stroke)
    inked = (rng.random((rows, columns)) < coverage).repeat(stroke, axis=1)[:, : shape[1]]
    return np.broadcast_to(inked, shape)
