"""ExecuTorch programs: computing what the float engine computes; int8 is refused in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FINE, LOCAL, random_weights

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import UsageError
from qatie_cli.exchange import runtimes
from qatie_cli.exchange.formats import build
from qatie_cli.model.config import OPTIONS, ToneConfig


def test_int8_and_any_size_are_refused_in_plain_words(weights):
    with pytest.raises(UsageError, match="float only"):
        build(weights, "executorch", int8=True, size=(64, 96))
    with pytest.raises(UsageError, match="fixed size"):
        build(weights, "executorch", int8=False, size=None)


@pytest.mark.parametrize(
    ("tone", "without"),
    [
        (ToneConfig(channels=0, bins=16, quantiles=True), ""),
        (ToneConfig(channels=4), ""),
        (LOCAL, ""),
        (FINE, ""),
        (None, ""),
    ]
    + [(None, option) for option in OPTIONS],
)
def test_float_is_the_float_engine(tone, without, astronaut):
    pytest.importorskip("executorch")
    weights = random_weights([astronaut], 4, tone, without)
    photo = np.ascontiguousarray(astronaut[:64, :96])
    computed = runtimes.executorch(build(weights, "executorch", int8=False, size=(64, 96)), photo)
    assert metrics.psnr(computed, enhance(photo, engines.load(weights, "float"))) > 60
