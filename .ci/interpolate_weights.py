"""Interpolate weights between the beginning and the end of a run's QAT stage.

A short run that mends one thing forgets others; between both ends (Wortsman et al., arXiv 2109.01903) much of either is
kept. Weights and ranges are both interpolated: the stage equalized the channels before its first step, so the two ends
have the same units.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import Activation


def between(begin: Weights, end: Weights, share: float) -> Weights:
    """Weights that lie `share` (0 to 1) of the way from `begin` to `end`."""

    def activation(name: str) -> Activation:
        ends = zip(begin.activations[name].ends, end.activations[name].ends, strict=True)
        return Activation.covering(*((1 - share) * first + share * last for first, last in ends))

    return dataclasses.replace(
        end,
        state={name: begin.state[name] + share * (tensor - begin.state[name]) for name, tensor in end.state.items()},
        activations={name: activation(name) for name in end.activations},
        data=end.data | {"between": {"share": share}},
        metrics={name: end.metrics[name] for name in ("stage", "step")},  # the validation figures are the end's alone
    )


def main() -> None:
    """Read both ends from the run folder, write one file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="run folder, with float.safetensors and last.safetensors")
    parser.add_argument("share", type=float, help="how far the result lies towards the end, 0 to 1")
    parser.add_argument("out", type=Path, help="weights file to write")
    given = parser.parse_args()
    begin, end = (checkpoint.read(given.run / f"{name}.safetensors") for name in ("float", "last"))
    checkpoint.write(given.out, between(begin, end, given.share))


if __name__ == "__main__":
    main()
