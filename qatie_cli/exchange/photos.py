"""Selection and size of the photos that models are calibrated and checked on; photos are (H, W, 3) uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.model.config import SIZE_MULTIPLE
from qatie_cli.photo import resize

CHECKED_PX = 768  # long side of photos that agreement is measured on
_FEWEST_TO_HOLD_OUT = 8


@dataclass(frozen=True)
class Split:
    """Photos by name: those to calibrate int8 on and those to measure on, which are the same ones where `shared`."""

    calibration: dict[str, np.ndarray]
    check: dict[str, np.ndarray]

    @property
    def shared(self) -> bool:
        """Whether the same photos calibrate and check."""
        return self.calibration.keys() == self.check.keys()


def split(photos: dict[str, np.ndarray]) -> Split:
    """Every fourth photo to measure on, the others to calibrate on; all for both where there are fewer than 8."""
    names = list(photos)
    if len(names) < _FEWEST_TO_HOLD_OUT:
        return Split(photos, photos)
    held_out = names[3::4]
    return Split({n: photos[n] for n in names if n not in held_out}, {n: photos[n] for n in held_out})


def at_most(photo: np.ndarray, longest: int) -> np.ndarray:
    """The photo with a long side of at most `longest` and sides that are multiples of 8."""
    height, width = photo.shape[:2]
    scale = min(1.0, longest / max(height, width))
    height, width = (max(SIZE_MULTIPLE, round(s * scale / SIZE_MULTIPLE) * SIZE_MULTIPLE) for s in (height, width))
    return resize.to_size(photo, (width, height))


def for_check(photo: np.ndarray, sides: tuple[int, int] | None) -> np.ndarray:
    """The photo as a model of this height and width takes it, turned where it lies the other way; None is any size."""
    if sides is None:
        return at_most(photo, CHECKED_PX)
    landscape = photo.shape[0] < photo.shape[1]
    turned = photo if landscape == (sides[0] < sides[1]) else np.ascontiguousarray(np.rot90(photo))
    return resize.to_size(turned, (sides[1], sides[0]))
