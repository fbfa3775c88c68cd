"""The network's convolutions and rounding points as graphs take them, in float or in the int8 engines' integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import NetworkConfig
from qatie_cli.model.folding import centred, fold_upsample
from qatie_cli.model.quantization.integers import IntegerConv, integer_convs
from qatie_cli.model.quantization.scheme import Activation, activation_at

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class Kernel:
    """The constants of a convolution.

    `weight` (out, in, h, w) is float32, or int8 where `scales` (out) are given; `bias` (out) is float. The keys are the
    names of the weights' tensors that these are, empty where they are derived from them.
    """

    weight: np.ndarray
    bias: np.ndarray
    stride: int = 1
    padding: int = 0
    scales: np.ndarray | None = None
    weight_key: str = ""
    bias_key: str = ""

    @staticmethod
    def of(state: Mapping[str, np.ndarray], name: str, stride: int = 1) -> Kernel:
        """The convolution `name` of a weights file as it is, padded so that a stride of 1 keeps the size."""
        keys = f"{name}.weight", f"{name}.bias"
        weight, bias = (state[key] for key in keys)
        return Kernel(weight, bias, stride, weight.shape[2] // 2, None, *keys)

    def integer_bias(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """int32 bias and its scales (out), for an input of this scale.

        Sums of products have the product of both scales; only a bias in these is added in integers.
        """
        assert self.scales is not None
        scales = self.scales * np.float32(scale)
        steps = np.rint(self.bias.astype(np.float64) / scales.astype(np.float64))
        return steps.clip(_INT32.min, _INT32.max).astype(np.int32), scales


@dataclass(frozen=True)
class Arithmetic:
    """Float, or int8 where there are `activations`; `config` and `state` are the weights file's."""

    config: NetworkConfig
    state: Mapping[str, np.ndarray]
    activations: dict[str, Activation] | None
    convs: dict[str, IntegerConv]

    @staticmethod
    def of(weights: Weights, int8: bool) -> Arithmetic:
        """The arithmetic of `weights`: their integers and ranges if `int8`."""
        convs = integer_convs(weights.state) if int8 else {}
        return Arithmetic(weights.config.network, weights.state, weights.activations if int8 else None, convs)

    @property
    def int8(self) -> bool:
        """Whether convolutions run in integers."""
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
        kernel = Kernel.of(self.state, f"network.{name}", stride=2 if name.endswith(".pair") else 1)
        if not folded:
            return kernel
        return Kernel(centred(fold_upsample(kernel.weight)), np.tile(kernel.bias, 4), kernel.stride, kernel.padding)
