"""From a network's output to the residual."""

from __future__ import annotations

import numpy as np


def less_photo(output: np.ndarray, photo_u8_hwc: np.ndarray | None, top: int, bottom: int) -> np.ndarray:
    """The residual (h, W, 3) of a network whose `output` is the enhanced photo's rows top..bottom.

    Where there is no photo the output is the residual.
    """
    if photo_u8_hwc is not None:
        output = output - photo_u8_hwc[top:bottom] * np.float32(1 / 255)
    return output
