"""Int8 ranges for imported weights that have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from qatie_cli.exchange.photos import at_most
from qatie_cli.model import whole
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import ModelConfig, NetworkConfig
from qatie_cli.model.quantization import calibration, equalization
from qatie_cli.model.quantization.equalization import Joined
from qatie_cli.model.quantization.rounding import keep_means
from qatie_cli.model.quantization.scheme import TANH_REACH

LONGEST_PX = 512
MOST_PHOTOS = 12
# Each photo is also used darker or brighter by one of these in turn, since phones' exposure varies more.
_GAINS = (0.4, 1.6, 0.6, 1.4, 0.5, 1.5, 0.3, 1.7)
# Chosen on the paper's published weights (c = 32): int8 reaches 41.1 dB to float on 20 unseen photos, 35.7 dB on the
# worst; training's settings reach 36.5 and 28.0. The steps are in weights/experiments.md.
_JOINED = Joined(balance=0.65, top=1.1)
_POWER = 4.0
RECIPE = {
    "balance": 0.5,
    "joined_balance": _JOINED.balance,
    "joined_top": _JOINED.top,
    "keep_means": True,
    "range_power": _POWER,
    "tanh_reach": TANH_REACH,
}


@torch.no_grad()
def calibrated(
    config: NetworkConfig,
    state: dict[str, Tensor],
    photos: Sequence[np.ndarray],
    on_step: Callable[[str], None] = lambda _: None,
) -> Weights:
    """Weights of a network without a tone stage, equalized and with int8 ranges from photos (H, W, 3) uint8.

    At most 12 photos are used, evenly spaced, at 512 pixels. The float network stays the same within 65 dB.
    """
    chosen = photos[:: -(-len(photos) // MOST_PHOTOS)]
    seen = [_seen(photo) for photo in chosen]
    seen += [(x * gain).clamp(0, 1) for x, gain in zip(seen, _GAINS * MOST_PHOTOS, strict=False)]
    model_config = ModelConfig(config, None)
    built = whole.from_state(model_config, {f"network.{name}": t.clone() for name, t in state.items()})
    on_step("equalizing channels")
    equalization.equalize(built.network, seen, RECIPE["balance"], _JOINED, both_signs=True, clip_rms=None)
    on_step("rounding weights")
    keep_means(built.network, seen)
    on_step("measuring ranges")
    activations = calibration.calibrate(built.network, seen, _POWER, clip_rms=None)
    return Weights(model_config, whole.arrays(built.state_dict()), activations)


def _seen(photo: np.ndarray) -> Tensor:
    """(1, 3, h, w) in 0..1, sides multiples of 8."""
    small = at_most(photo, LONGEST_PX).astype(np.float32) / 255
    return torch.from_numpy(small).permute(2, 0, 1)[None]
