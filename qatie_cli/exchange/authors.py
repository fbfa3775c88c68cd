"""The paper's network from its layers in running order, as the authors' files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qatie_cli.model.config import NetworkConfig


class UnfitError(ValueError):
    """The tensors are not those of the paper's network; the message says which differ."""


@dataclass(frozen=True)
class Layer:
    """A convolution: `weight` (out, in, h, w) and `bias` (out)."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Affine:
    """Gain and offset (C) of a norm."""

    gain: Tensor
    offset: Tensor


Shape = tuple[int, int, int]  # of a convolution: out, in, side of the kernel

CONVOLUTIONS = 35
NORMS = 5
_PAPER = NetworkConfig()


def width_of(first: Sequence[int]) -> int:
    """The base width, from the shape of a first convolution's weight.

    Raises:
        UnfitError: it does not take three channels.
    """
    if len(first) != 4 or first[1] != 3 or first[0] < 1:
        raise UnfitError(f"its first convolution has the shape {tuple(first)}")
    return first[0]


def in_order(
    convolutions: Sequence[Layer], norms: Sequence[Affine], kind: NetworkConfig = _PAPER
) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and state of our network, from layers in the order in which the network runs them.

    The width is told by the layers, everything else by `kind`. Within a refinement block layers are recognised by
    shape, since converters order its branches differently.

    Raises:
        UnfitError: these are not the paper's layers.
    """
    wanted = CONVOLUTIONS - 4 * len(kind.plain), NORMS - len(kind.plain)
    if (len(convolutions), len(norms)) != wanted:
        raise UnfitError(
            f"it has {len(convolutions)} convolutions and {len(norms)} instance norms, not {wanted[0]} and {wanted[1]}"
        )
    c = width_of(convolutions[0].weight.shape)
    layers = _Layers(convolutions, norms, kind)
    layers.gate("down1", 3, c)
    layers.refine("refine1", c, c)
    layers.gate("down2", c, 2 * c)
    layers.refine("refine2", 2 * c, 2 * c)
    layers.refine("bottleneck", 2 * c, 4 * c)
    for fuse, after, deep, channels in (("fuse2", "decode2", 4 * c, 2 * c), ("fuse1", "decode1", 2 * c, c)):
        layers.place({f"{fuse}.up": (channels, deep, 3), f"{fuse}.reduce": (channels, 4 * channels, 1)})
        layers.refine(after, channels, channels)
    layers.place({"up": (c, c, 3), "head": (3, c, 3)})
    for name, t in layers.state.items():
        if not bool(torch.isfinite(t).all()):
            raise UnfitError(f"{name} holds NaN or infinite values")
    return replace(kind, width=c), {name: t.float().contiguous() for name, t in layers.state.items()}


class _Layers:
    """Takes layers in running order, and puts them into `state` under their names here."""

    def __init__(self, convolutions: Sequence[Layer], norms: Sequence[Affine], kind: NetworkConfig) -> None:
        self.state: dict[str, Tensor] = {}
        self._left, self._norms, self._plain = list(convolutions), iter(norms), kind.plain

    def gate(self, name: str, i: int, o: int) -> None:
        """The two convolutions of a gate, as one."""
        a, b = self._take({f"{name} a": (o, i, 3), f"{name} b": (o, i, 3)}).values()
        self.state[f"{name}.pair.weight"] = torch.cat([a.weight, b.weight])
        self.state[f"{name}.pair.bias"] = torch.cat([a.bias, b.bias])

    def refine(self, name: str, i: int, o: int) -> None:
        """A refinement block, or the convolution in its place."""
        if name in self._plain:
            self.place({f"{name}.local": (o, i, 3)})
            return
        shapes = {"local": (i, i, 3), "side": (i, i, 1), "inner": (o, 2 * i, 3), "shortcut": (o, 2 * i, 1)}
        self.place({f"{name}.{part}": shape for part, shape in (shapes | {"outer": (o, o, 3)}).items()})
        affine = next(self._norms)
        if len(affine.gain) != i:
            raise UnfitError(f"the norm of {name} has {len(affine.gain)} channels, not {i}")
        self.state[f"{name}.norm.weight"], self.state[f"{name}.norm.bias"] = affine.gain, affine.offset

    def place(self, group: dict[str, Shape]) -> None:
        """The next layers, one for each name."""
        for name, layer in self._take(group).items():
            self.state[f"{name}.weight"], self.state[f"{name}.bias"] = layer.weight, layer.bias

    def _take(self, group: dict[str, Shape]) -> dict[str, Layer]:
        """The next layers by name; equal shapes in the order of the names."""
        layers, found = [self._left.pop(0) for _ in group], {}
        for name, shape in group.items():
            fitting = [layer for layer in layers if _shape(layer) == shape]
            if not fitting:
                raise UnfitError(f"no convolution {_written(shape)} at {name}")
            found[name] = fitting[0]
            layers = [layer for layer in layers if layer is not fitting[0]]
        return found


def _shape(layer: Layer) -> Shape:
    out, into, height, width = layer.weight.shape
    return (out, into, height if height == width else -1)


def _written(shape: Shape) -> str:
    return f"{shape[1]} -> {shape[0]}, {shape[2]}x{shape[2]}"
