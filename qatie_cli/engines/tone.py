"""The tone stage on PyTorch, for the engines that are PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.model import tone
from qatie_cli.model.tone import ToneStage
from qatie_cli.model.tone_map import ToneMap


@dataclass(frozen=True)
class ToneDecision:
    """The tone stage; called with a whole photo (H, W, 3), uint8 or uint16, it decides the photo's tone map."""

    stage: ToneStage

    def __call__(self, pixels_hwc: np.ndarray) -> ToneMap:
        """The tone map of a whole photo (H, W, 3), uint8 or uint16."""
        return tone.decide(self.stage, pixels_hwc)
