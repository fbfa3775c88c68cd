"""What kernels and their twins must agree on about the fine part of a tone map (`model.tone_map.ToneMap.fine`)."""

from __future__ import annotations

import numpy as np

HOLD, SLOPE, OFFSET = range(3)  # its planes
# A pixel is held back as far as it was decided where its luma rises by this much.
BRIGHTENED = 0.02
# Added local contrast approaches this change of luma, and fades out above this luma.
MOST_CONTRAST, NEARLY_WHITE = 0.16, 0.92
RISING, SOFTNESS, FADING = np.float32(1 / BRIGHTENED), np.float32(1 / MOST_CONTRAST), np.float32(1 / (1 - NEARLY_WHITE))
