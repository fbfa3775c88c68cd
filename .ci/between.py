"""Weights between the beginning and the end of a run's QAT stage: python .ci/between.py RUN SHARE OUT.

A short run that mends one thing forgets others; between both ends (Wortsman et al., arXiv 2109.01903) much of either is
kept. SHARE is how far the result lies towards the end, 0..1. Weights and ranges are both averaged: the stage equalized
the channels before its first step, so the two ends have the same units.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from qatie_cli.model import checkpoint
from qatie_cli.model.quantization.scheme import Activation

run, share, out = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
begin, end = (checkpoint.read(run / f"{name}.safetensors") for name in ("float", "last"))


def mean(a: Activation, b: Activation) -> Activation:
    """The range whose ends lie between those of two ranges."""
    low, high = ((1 - share) * first + share * last for first, last in zip(a.ends, b.ends, strict=True))
    return Activation.covering(low, high)


made = dataclasses.replace(
    end,
    state={name: begin.state[name].lerp(tensor, share) for name, tensor in end.state.items()},
    activations={name: mean(begin.activations[name], a) for name, a in end.activations.items()},
    data=end.data | {"between": {"share": share}},
    metrics={name: end.metrics[name] for name in ("stage", "step")},  # the validation figures are the end's alone
)
checkpoint.write(out, made)
