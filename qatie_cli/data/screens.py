"""Drawn app screens, which the tone stage must leave alone: bars, cards, buttons, text, light and dark."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from qatie_cli.model.config import THUMBNAIL_PX
from qatie_cli.model.view import averaged_px, subsampled
from qatie_cli.photo import resize

_SIDE = 512  # screens are drawn at this size and averaged down like photos
_MARGIN = 16
Colour = tuple[int, int, int]


def screen(rng: np.random.Generator, side: int = THUMBNAIL_PX) -> np.ndarray:
    """A screenshot's view, (side, side, 3) float32 in 0..1."""
    dark = rng.random() < 0.5
    back = _background(rng, dark)
    ink = _gray(int(rng.integers(170, 256) if dark else rng.integers(0, 110)))
    picture = Image.new("RGB", (_SIDE, _SIDE), back)
    draw = ImageDraw.Draw(picture)
    bar = int(rng.integers(0, 70))
    if bar > 15:
        draw.rectangle((0, 0, _SIDE, bar), fill=_vivid(rng))
    if rng.random() < 0.3:
        draw.rectangle((0, _SIDE - 50, _SIDE, _SIDE), fill=_vivid(rng) if rng.random() < 0.5 else back)
    card_share, button_share = rng.choice((0.0, 0.0, 0.1, 0.3)), rng.uniform(0, 0.4)
    scale = rng.uniform(0.6, 2.5)
    # Small letters are blended with the background, as their anti-aliased edges are.
    text = ink if scale >= 1.6 else _mixed(ink, back)
    y = bar + int(rng.integers(8, 40))
    while y < _SIDE - 60:
        kind = rng.random()
        if kind < card_share:
            y += _card(draw, y, rng) + 8
        elif kind < card_share + button_share:
            y += _button(draw, y, rng) + 10
        else:
            y += _line(draw, y, int(10 * scale), text, rng) + 2
    averaged = np.asarray(resize.to_square(picture, averaged_px(side)), np.float32) / 255
    return np.ascontiguousarray(subsampled(averaged, side))


def _background(rng: np.random.Generator, dark: bool) -> Colour:
    """Nearly gray; half of the light ones are white."""
    if not dark and rng.random() < 0.5:
        return 255, 255, 255
    level = rng.integers(0, 50) if dark else rng.integers(225, 256)
    red, green, blue = (int(v) for v in np.clip(level + rng.integers(-4, 5, 3), 0, 255))
    return red, green, blue


def _card(draw: ImageDraw.ImageDraw, y: int, rng: np.random.Generator) -> int:
    """A picture of a few colours; returns its height."""
    size = int(rng.integers(40, 160))
    x = int(rng.integers(8, _SIDE - size))
    draw.rectangle((x, y, x + size, y + size), fill=_vivid(rng))
    for _ in range(rng.integers(2, 6)):
        left, right = sorted(int(v) for v in rng.integers(x, x + size + 1, 2))
        top, bottom = sorted(int(v) for v in rng.integers(y, y + size + 1, 2))
        draw.ellipse((left, top, right, bottom), fill=_vivid(rng))
    return size


def _button(draw: ImageDraw.ImageDraw, y: int, rng: np.random.Generator) -> int:
    height = int(rng.integers(20, 70))
    x = int(rng.integers(8, _SIDE // 2))
    draw.rounded_rectangle((x, y, x + int(rng.integers(60, _SIDE - x)), y + height), 8, fill=_vivid(rng))
    return height


def _line(draw: ImageDraw.ImageDraw, y: int, height: int, colour: Colour, rng: np.random.Generator) -> int:
    """A line of words as bars; returns its height with the space below."""
    x, end = _MARGIN, int(rng.integers(60, _SIDE - _MARGIN))
    while x < end:
        length = int(rng.integers(2, 9) * 0.4 * height)
        draw.rectangle((x, y + height // 4, min(end, x + length), y + height), fill=colour)
        x += length + max(1, height // 2)
    return int(height * rng.uniform(1.5, 2.5))


def _vivid(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return red, green, blue


def _gray(level: int) -> Colour:
    return level, level, level


def _mixed(ink: Colour, back: Colour) -> Colour:
    red, green, blue = (int(0.45 * a + 0.55 * b) for a, b in zip(ink, back, strict=True))
    return red, green, blue
