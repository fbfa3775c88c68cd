"""The integers that an engine runs on: convolutions with rounded weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from qatie_cli.model.network import Fuse, Network, fold_upsample
from qatie_cli.model.quantization.scheme import integer_weight


@dataclass(frozen=True)
class IntegerConv:
    """One convolution in integers: int8 `weight` (out, in, h, w) in -64..63, `scales` (out), float `bias` (out)."""

    weight: Tensor
    scales: Tensor
    bias: Tensor
    stride: int
    padding: int


def integer_convs(network: Network) -> dict[str, IntegerConv]:
    """Every convolution that runs in integers, by the name of its rounding point."""
    convs = {}
    for name, block in network.named_children():
        for part, layer in block.named_children():
            if not isinstance(layer, nn.Conv2d):
                continue
            assert layer.bias is not None
            weight, bias, padding = layer.weight, layer.bias.detach(), int(layer.padding[0])
            if isinstance(block, Fuse) and part == "up":
                weight, bias = fold_upsample(weight), bias.repeat(4)
            values, scales = integer_weight(weight)
            convs[f"{name}.{part}"] = IntegerConv(values, scales, bias, layer.stride[0], padding)
    return convs
