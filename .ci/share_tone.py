"""Weights of one network with the tone stage of other weights."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights

_STAGE = "tone."


def shared(network: Weights, tone: Weights) -> Weights:
    """`network`'s tensors and int8 ranges behind the tone stage of `tone`; what both came from is recorded."""
    state = {name: tensor for name, tensor in network.state.items() if not name.startswith(_STAGE)}
    state |= {name: tensor for name, tensor in tone.state.items() if name.startswith(_STAGE)}
    config = dataclasses.replace(network.config, tone=tone.config.tone)
    data = network.data | {"tone": {"recipe": tone.recipe, "data": tone.data}}
    return dataclasses.replace(network, config=config, state=state, data=data)


def main() -> None:
    """Two files in, one out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path, help="weights file whose network is kept")
    parser.add_argument("tone", type=Path, help="weights file whose tone stage is taken")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    checkpoint.write(given.out, shared(checkpoint.read(given.network), checkpoint.read(given.tone)))


if __name__ == "__main__":
    main()
