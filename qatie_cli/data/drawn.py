"""Drawn training samples: pages for the tone stage, rough surfaces for the network."""

from __future__ import annotations

import math

import numpy as np

from qatie_cli.model.tone import GLOBAL_VIEW_PX, THUMBNAIL_PX, averaged_px, subsampled

_SIDE = 2 * GLOBAL_VIEW_PX  # pages are drawn so large, then averaged down as photos are
_BLANK_SHARE = 0.1  # fields of one colour, of any brightness
_DARK_SHARE = 0.3
_WHITE_SHARE = 0.7  # of the light pages: paper of exactly 1
_STROKES = (1, 2, 4, 16, 16)  # pixels: text from thin letters to words that are one bar

_FINEST_PX, _COARSEST_PX = 0.5, 1.3  # standard deviation of a bump's height
_LONGEST = 3.0  # ratio of a bump's length to its width
_LEAST_COVERED, _MOST_COVERED = -1.0, 1.5  # heights below this many standard deviations are flat
_ROUNDEST, _STEEPEST = 0.7, 1.5  # exponent of the height above the flat part


def page(rng: np.random.Generator, side: int = THUMBNAIL_PX) -> np.ndarray:
    """A page's view (side, side, 3) float32 in 0..1: paper, up to three panels in colour, up to 40 lines of text.

    Screenshots, scans and blank walls must keep their tone. Good photos have few dark and few bright parts; a tone
    stage trained on nothing else takes white paper for an overexposed photo and grays it.
    """
    if rng.random() < _BLANK_SHARE:
        colour = np.clip(rng.random() + rng.uniform(-0.1, 0.1, 3), 0, 1)
        return np.broadcast_to(colour.astype(np.float32), (side, side, 3)).copy()
    dark = rng.random() < _DARK_SHARE
    paper, ink = rng.uniform(0, 0.2 if dark else 0.15), rng.uniform(0, 0.35)
    if not dark and rng.random() < _WHITE_SHARE:
        paper = 0.0
    paper, ink = (paper, 1 - ink) if dark else (1 - paper, ink)
    sheet = np.full((_SIDE, _SIDE, 3), paper, np.float32)
    sheet += rng.uniform(-0.03, 0.03, 3).astype(np.float32) * (0 < paper < 1)
    for _ in range(rng.integers(0, 4)):
        rows, columns = (slice(*sorted(rng.integers(0, _SIDE, 2))) for _ in range(2))
        sheet[rows, columns] = 0.5 * sheet[rows, columns] + 0.5 * rng.random(3, np.float32)
    height, coverage, stroke = rng.integers(4, 16), rng.uniform(0.2, 0.9), rng.choice(_STROKES)
    left = rng.integers(8, _SIDE // 4)
    tops = range(int(rng.integers(0, 80)), _SIDE - height, int(height * rng.uniform(1.5, 4) + 2))
    for top in tops[: rng.integers(41)]:
        line = sheet[top : top + height, left : rng.integers(_SIDE // 2, _SIDE)]
        line[_strokes(line.shape[:2], coverage, stroke, rng)] = ink
    averaged = averaged_px(side)
    finer = _SIDE // averaged
    view = np.clip(sheet, 0, 1).reshape(averaged, finer, averaged, finer, 3).mean((1, 3))
    return subsampled(view, side)


def _strokes(shape: tuple[int, int], coverage: float, stroke: int, rng: np.random.Generator) -> np.ndarray:
    """Where a line of text has ink: thin strokes differ from row to row, thick ones are bars of the line's height."""
    rows, columns = shape[0] if stroke < 4 else 1, -(-shape[1] // stroke)
    inked = (rng.random((rows, columns)) < coverage).repeat(stroke, axis=1)[:, : shape[1]]
    return np.broadcast_to(inked, shape)


def surface(rng: np.random.Generator, side: int) -> np.ndarray:
    """Shading (side, side) float32 of a rough surface lit from one side: mean 0, standard deviation 1, tileable.

    Plaster, paper and leather are as faint, as fine and as gray as noise. They differ by structure: bumps with one
    direction, bright towards the light and dark behind it. Sharp, contrasty training photos contain few of them.
    """
    width, stretch = rng.uniform(_FINEST_PX, _COARSEST_PX), rng.uniform(1, _LONGEST)
    direction, light = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    flat, power = rng.uniform(_LEAST_COVERED, _MOST_COVERED), rng.uniform(_ROUNDEST, _STEEPEST)
    rows, columns = np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij")
    along = columns * math.cos(direction) + rows * math.sin(direction)
    across = rows * math.cos(direction) - columns * math.sin(direction)
    # A Gaussian filter in the Fourier domain; then the slope towards the light.
    bumps = np.exp(-2 * (math.pi * width) ** 2 * ((stretch * along) ** 2 + across**2))
    slope = 2j * math.pi * (columns * math.cos(light) + rows * math.sin(light))
    height = _filtered(rng.standard_normal((side, side)), bumps)
    raised = np.maximum(height / height.std() - flat, 0) ** power
    shade = _filtered(raised, slope)
    return (shade / shade.std()).astype(np.float32)  # a slope has mean 0


def _filtered(plane: np.ndarray, response: np.ndarray) -> np.ndarray:
    return np.fft.irfft2(np.fft.rfft2(plane) * response, plane.shape)
