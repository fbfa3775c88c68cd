"""A wider network that does what a narrower one does, to go on from (Net2Net, Chen, Goodfellow and Shlens 2016)."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from qatie_cli.model import whole
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import Fuse, Gate, Network, Plain, Refine, bias_of

# How far apart the copies of a channel begin, as a share of their weights' deviation: equal copies would stay equal.
_APART = 0.3


def widened(start: Weights, width: int, seed: int) -> Weights:
    """Weights of `width`, a multiple of that of `start`, whose float network gives the same residual up to rounding.

    Every channel of every feature map is there `width` / old width times. What a convolution takes from the copies of a
    channel sums to what it took from the channel, split at random. The ranges of int8 are left out.

    Raises:
        ValueError: `width` is no multiple.
    """
    narrow = start.config.network.width
    if width % narrow:
        raise ValueError(f"width {width} is not a multiple of {narrow}")
    config = dataclasses.replace(start.config, network=dataclasses.replace(start.config.network, width=width))
    wide, old = whole.create(config, seed), whole.from_state(start.config, dict(start.state))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        _widen(wide.network, old.network, width // narrow, generator)
    tones = {name: values for name, values in start.state.items() if name.startswith("tone.")}
    return dataclasses.replace(start, config=config, state=whole.arrays(wide.state_dict()) | tones, activations=None)


def _widen(wide: Network, old: Network, times: int, generator: torch.Generator) -> None:
    """Fill `wide`; a concatenation is widened part by part, so that each part's copies stay together."""

    def fill(name: str, seen: int = 1, made: int = 1) -> None:
        """Convolution `name` that sees `seen` maps concatenated and makes `made` (0: the photo's channels)."""
        layer, source = cast(nn.Conv2d, wide.get_submodule(name)), cast(nn.Conv2d, old.get_submodule(name))
        weight = source.weight if not seen else _split(source.weight, seen, times, generator)
        layer.weight.copy_(_copies(weight, made, times))
        bias_of(layer).copy_(_copies(bias_of(source), made, times))

    for name, block in old.named_modules():
        if isinstance(block, Gate):
            fill(f"{name}.pair", seen=0 if name == "down1" else 1, made=2)
        elif isinstance(block, Refine):
            for layer, seen in (("local", 1), ("side", 1), ("inner", 2), ("outer", 1), ("shortcut", 2)):
                fill(f"{name}.{layer}", seen)
            norm = cast(nn.InstanceNorm2d, wide.get_submodule(f"{name}.norm"))
            norm.weight.copy_(_copies(block.norm.weight, 1, times))
            norm.bias.copy_(_copies(block.norm.bias, 1, times))
        elif isinstance(block, Plain):
            fill(f"{name}.local")
        elif isinstance(block, Fuse):
            fill(f"{name}.up")
            fill(f"{name}.reduce", seen=4)  # upsampled, encoded, and the gates' pair
    fill("up")
    fill("head", made=0)


def _copies(values: Tensor, parts: int, times: int) -> Tensor:
    """Output channels (the first axis), `times` over within each of `parts` equal parts; as they are for no parts."""
    return torch.cat([part for chunk in values.chunk(parts) for part in [chunk] * times]) if parts else values


def _split(weight: Tensor, parts: int, times: int, generator: torch.Generator) -> Tensor:
    """Weights (out, in, h, w) shared out to `times` copies of the inputs, within each of `parts` equal parts."""
    split = []
    for chunk in weight.chunk(parts, dim=1):
        apart = torch.randn(times, *chunk.shape, generator=generator) * (_APART * float(chunk.std()))
        split += list(chunk / times + apart - apart.mean(0))
    return torch.cat(split, dim=1)
