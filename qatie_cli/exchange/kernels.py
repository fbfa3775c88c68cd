"""The network's convolutions and rounding points as exports take them, in float or in the int8 engines' integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from qatie_cli.model.network import Network, fold_upsample
from qatie_cli.model.quantization.integers import IntegerConv, integer_convs
from qatie_cli.model.quantization.scheme import Activation, activation_at

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Kernel:
    """The constants of a convolution.

    `weight` (out, in, h, w) is float32, or int8 where `scales` (out) are given; `bias` (out) is float. The keys are the
    names of the weights' tensors that these are, empty where they are derived from them.
    """

    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: int = 0
    scales: Tensor | None = None
    weight_key: str = ""
    bias_key: str = ""

    @staticmethod
    def of(module: nn.Module, name: str, prefix: str) -> Kernel:
        """The convolution `name` of a module as it is; `prefix` is what names of the module's tensors begin with."""
        layer, key = module.get_submodule(name), prefix + name
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        stride, padding = layer.stride[0], int(layer.padding[0])
        return Kernel(layer.weight, layer.bias, stride, padding, None, f"{key}.weight", f"{key}.bias")

    def integer_bias(self, scale: float) -> tuple[Tensor, Tensor]:
        """int32 bias and its scales (out), for an input of this scale.

        Sums of products have the product of both scales; only a bias in these is added in integers.
        """
        assert self.scales is not None
        scales = self.scales * scale
        return (self.bias.double() / scales.double()).round().clamp(_INT32.min, _INT32.max).int(), scales


@dataclass(frozen=True)
class Arithmetic:
    """Float, or int8 where the `activations` of calibrated weights are given."""

    network: Network
    activations: dict[str, Activation] | None
    convs: dict[str, IntegerConv]

    @staticmethod
    def of(network: Network, activations: dict[str, Activation] | None) -> Arithmetic:
        return Arithmetic(network, activations, {} if activations is None else integer_convs(network))

    @property
    def int8(self) -> bool:
        return self.activations is not None

    def at(self, point: str) -> Activation | None:
        """How tensors are stored at the rounding point; None in float."""
        return None if self.activations is None else activation_at(point, self.activations)

    def kernel(self, name: str) -> Kernel:
        """The convolution `name` of the network; those over upsampled tensors with the upsampling folded in."""
        folded = name.endswith(".up")
        if self.int8:
            conv = self.convs[name]
            weight, key = (centred(conv.weight), "") if folded else (conv.weight, f"network.{name}.weight")
            return Kernel(weight, conv.bias, conv.stride, conv.padding, conv.scales, key)
        kernel = Kernel.of(self.network, name, prefix="network.")
        if not folded:
            return kernel
        return Kernel(centred(fold_upsample(kernel.weight)), kernel.bias.repeat(4), kernel.stride, kernel.padding)


def centred(folded: Tensor) -> Tensor:
    """Kernels (4 * out, in, 2, 2) of `fold_upsample` as (4 * out, in, 3, 3), filled up with zeros.

    With a padding of 1 the phases then lie in place, where `network.interleave` has to cut them to size. The
    network takes 3% longer so in onnxruntime; but OpenVINO 2026.4 cannot compile the integers with the cuts.
    """
    phases = folded.unflatten(0, (2, 2, -1))
    kernels = folded.new_zeros(*phases.shape[:4], 3, 3)
    for p in (0, 1):
        for q in (0, 1):
            kernels[p, q, :, :, p : p + 2, q : q + 2] = phases[p, q]
    return kernels.flatten(0, 2)
