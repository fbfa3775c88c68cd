"""Drawn pages: what screenshots, scans and blank walls look like to the tone stage, which shall leave them alone.

Good photos have a few dark and a few bright parts. A stage that has seen nothing else takes white paper for an
overexposed photo and grays it.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.tone import THUMBNAIL_PX

_FINER = 4  # pages are drawn at so many times the thumbnail's size, then averaged, as thumbnails are
_BLANK_SHARE = 0.1  # fields of one colour, of any brightness
_DARK_SHARE = 0.3
_WHITE_SHARE = 0.7  # of the light pages: paper of exactly 1


def draw_page(rng: np.random.Generator) -> np.ndarray:
    """A page (64, 64, 3) float32 in 0..1: paper, up to three panels in colour, up to 40 lines of text."""
    if rng.random() < _BLANK_SHARE:
        colour = np.clip(rng.random() + rng.uniform(-0.1, 0.1, 3), 0, 1)
        return np.broadcast_to(colour.astype(np.float32), (THUMBNAIL_PX, THUMBNAIL_PX, 3)).copy()
    dark = rng.random() < _DARK_SHARE
    paper, ink = rng.uniform(0, 0.2 if dark else 0.15), rng.uniform(0, 0.35)
    if not dark and rng.random() < _WHITE_SHARE:
        paper = 0.0
    paper, ink = (paper, 1 - ink) if dark else (1 - paper, ink)
    side = _FINER * THUMBNAIL_PX
    page = np.full((side, side, 3), paper, np.float32)
    page += rng.uniform(-0.03, 0.03, 3).astype(np.float32) * (0 < paper < 1)
    for _ in range(rng.integers(0, 4)):
        rows, columns = (slice(*sorted(rng.integers(0, side, 2))) for _ in range(2))
        page[rows, columns] = 0.5 * page[rows, columns] + 0.5 * rng.random(3, np.float32)
    height, coverage = rng.integers(2, 8), rng.uniform(0.2, 0.8)
    left = rng.integers(4, side // 4)
    tops = range(int(rng.integers(0, 40)), side - height, int(rng.integers(height + 2, 5 * height)))
    for top in tops[: rng.integers(41)]:
        line = page[top : top + height, left : rng.integers(side // 2, side)]
        line[rng.random(line.shape[:2]) < coverage] = ink
    page = np.clip(page, 0, 1)
    return page.reshape(THUMBNAIL_PX, _FINER, THUMBNAIL_PX, _FINER, 3).mean((1, 3))
