"""A widened network begins where the narrower one stands, and its copies can part."""

from __future__ import annotations

import numpy as np
import pytest
from samples import EVERY_NETWORK, as_tensor

from qatie_cli.model import whole, widening


def network_of(weights):
    return whole.from_state(weights.config, dict(weights.state)).network


@EVERY_NETWORK
@pytest.mark.parametrize("times", [2, 3])
def test_a_widened_network_gives_the_same_residual(weights, astronaut, times):
    wide = widening.widened(weights, times * weights.config.network.width, seed=0)
    photo = as_tensor(astronaut[:128, :192])
    before, after = network_of(weights)(photo), network_of(wide)(photo)
    assert before.abs().max() > 0.05
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=2e-5)


def test_widening_keeps_the_tone_stage_and_drops_the_ranges(weights):
    wide = widening.widened(weights, 16, seed=0)
    assert wide.config.network.width == 16
    assert wide.config.tone == weights.config.tone
    assert all(np.array_equal(wide.state[n], t) for n, t in weights.state.items() if n.startswith("tone."))
    assert wide.activations is None


def test_copies_of_a_channel_can_part(weights, astronaut):
    network = network_of(widening.widened(weights, 16, seed=0)).requires_grad_(True)
    network(as_tensor(astronaut[:64, :64])).square().sum().backward()
    first, second = network.decode1.local.weight.grad.chunk(2)
    assert (first - second).abs().max() > 0.1 * first.abs().max()


def test_a_width_that_is_no_multiple_is_refused(weights):
    with pytest.raises(ValueError, match="not a multiple"):
        widening.widened(weights, 12, seed=0)
