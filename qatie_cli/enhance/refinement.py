"""How the network sees a photo."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Refinement:
    """How the network sees a photo, and how much of its residual is applied.

    Attributes:
        reduction: the factor by which it is reduced.
        share: 0..1 of the residual that is applied.
        tile_side: of the tiles that bound memory, a multiple of 8; None for the whole photo at once.
    """

    reduction: int = 1
    share: float = 1.0
    tile_side: int | None = None
