"""Drawn training samples: pages, walls and nights for the tone stage, rough surfaces for the network."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from qatie_cli.data.full_frames import Kind
from qatie_cli.data.screens import screen
from qatie_cli.model.config import GLOBAL_VIEW_PX, THUMBNAIL_PX
from qatie_cli.model.view import averaged_px, subsampled
from qatie_cli.photo.colour import LUMA

_SIDE = 2 * GLOBAL_VIEW_PX  # pages are drawn at this size and averaged down like photos
_BLANK_SHARE = 0.1  # fields of one colour, of any brightness
_DARK_SHARE = 0.4
_WHITE_SHARE = 0.7  # of the light pages: paper of exactly 1
_STROKES = (1, 2, 4, 16, 16)  # pixels: text from thin letters to words that are one bar

_FINEST_PX, _COARSEST_PX = 0.5, 1.3  # standard deviation of a bump's height
_LONGEST = 3.0  # ratio of a bump's length to its width
_LEAST_COVERED, _MOST_COVERED = -1.0, 1.5  # heights below this many standard deviations are flat
_ROUNDEST, _STEEPEST = 0.7, 1.5  # exponent of the height above the flat part


def page(rng: np.random.Generator, side: int = THUMBNAIL_PX) -> np.ndarray:
    """A page's view (side, side, 3) float32 in 0..1: paper, up to four panels in colour, up to 40 lines of text.

    Screenshots, scans and blank walls must keep their tone. A tone stage trained only on good photos takes white paper
    for overexposure and grays it.
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
    for _ in range(rng.integers(0, 5)):
        rows, columns = (slice(*sorted(rng.integers(0, _SIDE, 2))) for _ in range(2))
        cover = rng.choice((0.5, 1.0))
        sheet[rows, columns] = (1 - cover) * sheet[rows, columns] + cover * rng.random(3, np.float32)
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


def flat(rng: np.random.Generator, side: int = THUMBNAIL_PX) -> np.ndarray:
    """A wall or fog, (side, side, 3) float32 in 0..1: smooth, of little contrast, a quarter with a pool of light."""
    shade = _smooth(rng, 3, side)
    shade = (shade - shade.min()) / np.ptp(shade)
    level, contrast = rng.uniform(0.1, 0.9), rng.uniform(0, 0.4)
    colour = 1 + rng.uniform(-0.12, 0.12, 3)
    light = level * (1 - contrast * shade)
    if rng.random() < 0.25:
        x, y = _positions(side)
        light = light + rng.uniform(0.1, 1.1 - level) * _spot(x, y, rng.random(), rng.random(), rng.uniform(0.04, 0.25))
    return _finished(light[..., None] * colour, rng, 0.01)


def night(rng: np.random.Generator, side: int = THUMBNAIL_PX) -> np.ndarray:
    """A night, a sunset or the blue hour, (side, side, 3) float32 in 0..1: a smooth sky, dark land, lamps or a low sun.

    Nights and silhouettes must stay dark; target photos contain neither.
    """
    x, y = _positions(side)
    sunset, blue_hour = rng.random() < 0.35, rng.random() < 0.4
    if blue_hour:
        above = _tint(rng, rng.uniform(0.03, 0.25), 0.2) * (0.6, 0.95, 1.8)
        below = above * rng.uniform(1, 2.5) * (rng.uniform(1, 2.2), 1.1, 0.9)
    elif sunset:
        above = _tint(rng, rng.uniform(0.1, 0.6), 0.4) * (0.85, 1, 1.2)
        below = _tint(rng, rng.uniform(0.5, 1.0), 0.2) * (1.3, 1, 0.6)
    else:
        above, below = _tint(rng, rng.uniform(0.01, 0.3), 0.7), _tint(rng, rng.uniform(0.01, 0.3), 0.7)
    horizon = rng.uniform(0.35, 1.1) if rng.random() < 0.8 else 2.0  # 2: all of it is sky
    fall = np.clip(y / min(1, horizon), 0, 1) ** rng.uniform(0.6, 3)
    clouds = 1 + rng.uniform(0, 0.15) * _smooth(rng, int(rng.integers(3, 9)), side)
    scene = (above + (below - above) * fall[..., None]) * clouds[..., None]
    land = _land(rng, y, horizon, side)
    texture = 1 + rng.uniform(0, 0.3) * _smooth(rng, int(rng.integers(4, 40)), side)
    ground = _tint(rng, rng.uniform(0.01, 0.18), 0.3) * texture[..., None]
    scene = scene * (1 - land) + ground * land
    if blue_hour or (not sunset and rng.random() < 0.3):
        scene = _with_structures(rng, scene, x, y)
    if blue_hour or not sunset or rng.random() < 0.3:
        for _ in range(rng.integers(0, 40)):
            height = rng.random() if rng.random() < 0.3 else rng.uniform(min(horizon, 0.8) - 0.15, 1)
            radius = rng.uniform(0.003, 0.02) * (5 if rng.random() < 0.05 else 1)
            lamp = np.clip(_tint(rng, 1, 0.3) * (1.1, 1, 0.8), 0, 2)
            scene = scene + rng.uniform(0.3, 1.5) * _spot(x, y, rng.random(), height, radius)[..., None] * lamp
    elif rng.random() < 0.5:
        height, radius = min(horizon, 1) - rng.uniform(0, 0.3), rng.uniform(0.02, 0.2)
        scene = scene + _spot(x, y, rng.random(), height, radius)[..., None] * (1 - land) * (1.0, 0.8, 0.5)
    return _finished(scene, rng, 0.02)


def _with_structures(rng: np.random.Generator, scene: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Up to eight masts, towers and fronts that stand in the picture: two in three floodlit, the others dark."""
    side = x.shape[0]
    for _ in range(rng.integers(0, 9)):
        width = 0.01 + rng.uniform(0, 0.5) ** 3
        inside = (abs(x - rng.random()) < width / 2) & (y > rng.uniform(0.1, 0.9))
        texture = 1 + rng.uniform(0, 0.4) * _smooth(rng, int(rng.integers(side // 8, side // 2)), side)
        if rng.random() < 2 / 3:
            lit = _tint(rng, rng.uniform(0.15, 0.9), 0.15) * (1.15, 1, 0.7)
            texture = texture * (1 - rng.uniform(0, 0.8) * (1 - y))  # lamps stand on the ground
        else:
            lit = _tint(rng, rng.uniform(0.005, 0.08), 0.2)
        scene = np.where(inside[..., None], lit * np.maximum(texture, 0)[..., None], scene)
    return scene


def _land(rng: np.random.Generator, y: np.ndarray, horizon: float, side: int) -> np.ndarray:
    """Share (side, side, 1) of land in each pixel: an uneven skyline, two in five of houses."""
    bends = int(rng.integers(2, 40))
    heights = horizon + rng.normal(0, rng.uniform(0, 0.12), bends)
    skyline = np.interp(np.linspace(0, 1, side), np.linspace(0, 1, bends), heights)
    if rng.random() < 0.4:
        width = max(1, side // 16)
        skyline = skyline[::width].repeat(width)[:side]
    return np.clip((y - skyline[None]) * side + 0.5, 0, 1)[..., None]


def _positions(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of every pixel, (side, side) in 0..1."""
    along = np.linspace(0, 1, side)
    return np.broadcast_to(along[None], (side, side)), np.broadcast_to(along[:, None], (side, side))


def _spot(x: np.ndarray, y: np.ndarray, at_x: float, at_y: float, radius: float) -> np.ndarray:
    return np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * radius**2))


def _smooth(rng: np.random.Generator, cells: int, side: int) -> np.ndarray:
    """A smooth random field (side, side) of `cells` independent values a side."""
    values = torch.from_numpy(rng.standard_normal((1, 1, cells, cells)))
    return F.interpolate(values, size=(side, side), mode="bicubic", align_corners=False)[0, 0].numpy()


def _tint(rng: np.random.Generator, luma: float, most: float) -> np.ndarray:
    """A colour of that luma whose channels differ by up to `most`."""
    colour = 1 + rng.uniform(-most, most, 3)
    return luma * colour / (colour @ np.array(LUMA))


def _finished(scene: np.ndarray, rng: np.random.Generator, most_noise: float) -> np.ndarray:
    noise = rng.standard_normal(scene.shape) * rng.uniform(0, most_noise)
    return np.clip(scene + noise, 0, 1).astype(np.float32)


def _strokes(shape: tuple[int, int], coverage: float, stroke: int, rng: np.random.Generator) -> np.ndarray:
    """Where a line of text has ink: thin strokes differ from row to row, thick ones are bars of the line's height."""
    rows, columns = shape[0] if stroke < 4 else 1, -(-shape[1] // stroke)
    inked = (rng.random((rows, columns)) < coverage).repeat(stroke, axis=1)[:, : shape[1]]
    return np.broadcast_to(inked, shape)


def surface(rng: np.random.Generator, side: int) -> np.ndarray:
    """Shading (side, side) float32 of a rough surface lit from one side: mean 0, standard deviation 1, tileable.

    Plaster, paper and leather are as faint, fine and gray as noise, but structured: directed bumps, bright towards the
    light and dark behind it. Sharp, contrasty training photos contain few of them.
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


# The drawing function of each kind of full frame.
PICTURES: dict[Kind, Callable[[np.random.Generator, int], np.ndarray]] = {
    Kind.PAGE: page,
    Kind.SCREEN: screen,
    Kind.FLAT: flat,
    Kind.NIGHT: night,
}
