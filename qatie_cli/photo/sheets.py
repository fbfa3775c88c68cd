"""Contact sheets: captioned pictures in a grid."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qatie_cli.photo import resize

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
    """A row of captioned pictures of equal size for each of `rows`, reduced to a long side of at most `longest`."""
    return stacked([side_by_side({c: resize.fit(p, longest, resize.AREA) for c, p in row.items()}) for row in rows])
