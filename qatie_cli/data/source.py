"""What a training run asks of its photos, wherever they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from qatie_cli.data.sampling import Batch

Pair = tuple[np.ndarray, np.ndarray]  # input and target, uint8 (H, W, 3)


class Source(Protocol):
    """Pairs to learn from, split into those to learn from and those to validate on.

    Everything it gives is a function of its arguments and of the photos alone, so that a resumed run sees what the
    whole one saw, and processes that share a batch see its parts: `rows` are the samples of it that are asked for.
    """

    @property
    def summary(self) -> dict:
        """What the weights file records of the data."""

    @property
    def fingerprint(self) -> str:
        """Changes with the photos that take part."""

    @property
    def validation_names(self) -> list[str]:
        """The photos that are validated on."""

    @property
    def crop(self) -> int:
        """Side of the crops in pixels: that asked for, or less where the photos are smaller."""

    def crops(self, step: int, rows: Sequence[int]) -> Batch:
        """Crops and their thumbnails."""

    def wholes(self, step: int, rows: Sequence[int]) -> Batch:
        """Whole photos at thumbnail size, for the tone stage."""

    def names(self, step: int, rows: Sequence[int], stage: str) -> list[str]:
        """The photos behind the samples."""

    def validation(self) -> list[Pair]:
        """Whole photos of at most 640 px, sides multiples of 8; always the same ones."""

    def calibration(self) -> list[np.ndarray]:
        """Inputs (H, W, 3) uint8 of photos to learn from, at most 640 px, sides multiples of 8, to find ranges on."""
