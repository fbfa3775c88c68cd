"""Contact sheets: captioned pictures in a grid."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION_PX = 28


def side_by_side(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Photos of equal size (H, W, 3) uint8 in a row, each under its caption."""
    height, width = next(iter(columns.values())).shape[:2]
    canvas = Image.new("RGB", (width * len(columns), height + CAPTION_PX), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=CAPTION_PX * 0.6)
    for index, (caption, pixels) in enumerate(columns.items()):
        canvas.paste(Image.fromarray(pixels), (index * width, CAPTION_PX))
        pen.text((index * width + 8, 4), caption, fill="black", font=font)
    return np.asarray(canvas)


def stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Sheets (H, W, 3) uint8 below each other, left-aligned on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    return np.concatenate(padded)


def contact_sheet(rows: list[dict[str, np.ndarray]], longest: int = 320) -> np.ndarray:
    """One row of captioned pictures for each of `rows`, every picture reduced to a long side of at most `longest`."""
    small = []
    for row in rows:
        height, width = next(iter(row.values())).shape[:2]
        scale = min(1.0, longest / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        reduced = {c: np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BOX)) for c, p in row.items()}
        small.append(side_by_side(reduced))
    return stacked(small)
