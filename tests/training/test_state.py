"""What a run begins with."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_runs import TINY

from qatie_cli.model import whole, widening
from qatie_cli.model.checkpoint import Weights
from qatie_cli.training import state

OTHER_TONE = {"tone_bins": 16}


def _weights(recipe) -> Weights:
    made = whole.create(recipe.config, seed=1)
    return Weights(recipe.config, whole.arrays(made.state_dict()))


@pytest.mark.parametrize("keeps_network", [True, False])
@pytest.mark.parametrize("keeps_tone", [True, False])
def test_a_run_takes_what_it_keeps_from_its_initial_weights_and_nothing_else(keeps_network, keeps_tone):
    given = _weights(TINY)
    recipe = dataclasses.replace(TINY, keep_network=keeps_network, **({} if keeps_tone else OTHER_TONE))
    drawn = whole.create(recipe.config, recipe.seed).state_dict()
    for model in state.models(recipe, given, torch.device("cpu")):
        for name, tensor in model.state_dict().items():
            kept = keeps_tone if name.startswith("tone.") else keeps_network
            assert torch.equal(tensor, torch.as_tensor(given.state[name]) if kept else drawn[name]), name


def test_a_narrower_network_is_widened_even_where_the_tone_stage_is_another():
    given = _weights(TINY)
    recipe = dataclasses.replace(TINY, width=2 * TINY.width, **OTHER_TONE)
    wide = widening.widened(given, recipe.width, recipe.seed).state
    for model in state.models(recipe, given, torch.device("cpu")):
        for name, tensor in model.network.state_dict(prefix="network.").items():
            assert torch.equal(tensor, torch.as_tensor(wide[name])), name
