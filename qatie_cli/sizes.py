"""Parsing of sizes of memory (1.5GB) and of photos (12MP, 1920x1080)."""

from __future__ import annotations

import re
from fractions import Fraction

from qatie_cli.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIDES = range(8, 50_001)
_FEWEST_PIXELS, _MOST_PIXELS = 1e4, 1e9


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 1.5GB, 800M or 2GiB.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"\s*([0-9]{0,12}\.?[0-9]{1,12})\s*([KMGT]?I?)B?\s*", text.upper())
    if not found or (size := int(Fraction(found[1]) * _UNITS.get(found[2], 0))) <= 0:
        raise UsageError(f"Invalid size '{text}'.", "Write it as 1.5GB, 800MB or 2GiB.")
    return size


def parse_photo_size(text: str) -> tuple[int, int] | float:
    """Width and height of `1920x1080`, or the number of pixels of `12MP`.

    Raises:
        UsageError: it is neither, or out of range.
    """
    plain = text.lower().strip()
    if sides := _sides(plain):
        if all(side in _SIDES for side in sides):
            return sides
    elif found := re.fullmatch(r"([0-9]{0,12}\.?[0-9]{1,12}) ?mp", plain):
        pixels = float(found[1]) * 1e6
        if _FEWEST_PIXELS <= pixels <= _MOST_PIXELS:
            return pixels
    raise UsageError(f"Invalid size '{text}'.", "Write it as 12MP or 1920x1080.")


def parse_model_size(text: str, multiple: int) -> tuple[int, int]:
    """Height and width of `1080x1920`, both multiples of `multiple`.

    Raises:
        UsageError: it is none.
    """
    sides = _sides(text.lower().strip())
    if sides is None or any(side <= 0 or side % multiple for side in sides):
        raise UsageError(f"Invalid size '{text}'.", f"Write height x width in multiples of {multiple}, as 1080x1920.")
    return sides


def _sides(text: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    return (int(found[1]), int(found[2])) if found else None
