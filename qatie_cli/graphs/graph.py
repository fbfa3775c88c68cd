"""The network and the tone stage as graphs, written once for all formats.

Each function follows one of `qatie_cli.model` and names it. The formats' backends write the operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from qatie_cli.errors import WeightsError
from qatie_cli.graphs.kernels import Arithmetic
from qatie_cli.graphs.operators import Operators, T
from qatie_cli.graphs.tone_applying import Stage, contrasted, toned
from qatie_cli.graphs.tone_deciding import decided
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import NORM_EPS, SIZE_MULTIPLE
from qatie_cli.model.folding import fold_tail


def check(weights: Weights, int8: bool, size: tuple[int, int] | None) -> None:
    """Raise unless `size` (height, width; None for any) and the weights allow an export.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if size is not None and any(side < 1 or side % SIZE_MULTIPLE for side in size):
        raise ValueError(f"height and width must be positive multiples of {SIZE_MULTIPLE}, not {size}")
    if int8 and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Export them as float, or finish their training.")


def enhanced(ops: Operators[T], weights: Weights, arithmetic: Arithmetic, photo: T, view: T | None) -> T:
    """From photo to enhanced photo in 0..1, as `enhance.pixels` does it; `view` where there is a tone stage."""
    decision = None
    if weights.config.tone is None:
        base = ops.clamp(ops.real(photo))
    else:
        assert view is not None
        stage = Stage.of(weights)
        decision = decided(ops, stage, ops.real(view))
        base = toned(ops, stage, decision, photo)
    # What the network sees is 8 bit; the integers round it so themselves.
    seen = base if arithmetic.int8 else ops.round_to_8_bit(base)
    result = ops.clamp(ops.add(base, residual(ops, arithmetic, seen)))
    return result if decision is None or decision.fine is None else contrasted(ops, result, decision.fine)


# --- the network --------------------------------------------------------------------------------------------------


def residual(ops: Operators[T], arithmetic: Arithmetic, photo: T) -> T:
    """`Network.forward`: the residual of a toned photo, nominal range -1..1."""
    residual = arithmetic.config.residual
    if not residual:
        photo = ops.store(photo, arithmetic.at("photo"))
    features = Blocks(ops, arithmetic).features(photo)
    output = ops.conv_shuffle(ops.real(features), *fold_tail(arithmetic.state))
    return output if residual else ops.sub(output, ops.real(photo))


@dataclass(frozen=True)
class Blocks(Generic[T]):
    """`Network.features`, block by block.

    What only moves values is stored once more at the point of what it moves: that changes no value, and lets a runtime
    move bytes.
    """

    ops: Operators[T]
    arithmetic: Arithmetic

    def features(self, photo: T) -> T:
        """`Network.features`: a toned photo to the features that the tail reads."""
        x, pair1 = self.gate("down1", self.ops.store(photo, self.arithmetic.at("photo")))
        encoded1 = self._refine("refine1", x)
        x, pair2 = self.gate("down2", encoded1)
        encoded2 = self._refine("refine2", x)
        x = self._refine("bottleneck", self.halved(encoded2))
        x = self._refine("decode2", self._fuse("fuse2", x, encoded2, pair2))
        return self._refine("decode1", self._fuse("fuse1", x, encoded1, pair1))

    def halved(self, encoded: T) -> T:
        """The deepest encoder features at half their size, as the bottleneck takes them."""
        return self.ops.max_pool(encoded, self.arithmetic.at("refine2.out"))

    def _conv(self, name: str, x: T, point: str) -> T:
        return self.ops.conv(x, self.arithmetic.kernel(name), self.arithmetic.at(point))

    def gate(self, name: str, x: T) -> tuple[T, T]:
        """`network.Gate`: the product, and the pair."""
        ops, at = self.ops, self.arithmetic.at
        pair = self._conv(f"{name}.pair", x, f"{name}.pre")
        pair = ops.tanh(pair, at(f"{name}.tanh"))
        channels = len(self.arithmetic.state[f"network.{name}.pair.bias"]) // 2
        a, b = ops.halves(pair, channels, at(f"{name}.tanh"))
        return ops.mul(a, b, at(f"{name}.product")), pair

    def _refine(self, name: str, x: T) -> T:
        if name in self.arithmetic.config.plain:
            return self.plain(name, x)
        ops, at = self.ops, self.arithmetic.at
        local = ops.real(self.local(name, x))
        keys = f"network.{name}.norm.weight", f"network.{name}.norm.bias"
        gain, offset = (ops.parameter(key, self.arithmetic.state[key]) for key in keys)
        normed = ops.store(ops.instance_norm(local, gain, offset, NORM_EPS), at(f"{name}.norm"))
        normed = ops.leaky(normed, at(f"{name}.y"))
        return self.refined(name, ops.concat([normed, self.side(name, x)], at(f"{name}.y")))

    def plain(self, name: str, x: T) -> T:
        """`network.Plain`."""
        return self.ops.leaky(self.local(name, x), self.arithmetic.at(f"{name}.out"))

    def local(self, name: str, x: T) -> T:
        """The branch of a refinement block that goes on to its norm."""
        return self._conv(f"{name}.local", x, f"{name}.local")

    def side(self, name: str, x: T) -> T:
        """Its other branch."""
        return self._conv(f"{name}.side", x, f"{name}.y")

    def refined(self, name: str, y: T) -> T:
        """The rest of a refinement block, from both branches, concatenated."""
        ops, at = self.ops, self.arithmetic.at
        out = y
        for part in ("inner", "outer"):
            out = self._conv(f"{name}.{part}", out, f"{name}.{part}")
            out = ops.leaky(out, at(f"{name}.{part}_leaky"))
        shortcut = self._conv(f"{name}.shortcut", y, f"{name}.shortcut")
        return ops.add(out, shortcut, at(f"{name}.out"))

    def _fuse(self, name: str, deep: T, encoded: T, pair: T) -> T:
        ops, at = self.ops, self.arithmetic.at
        phases = self.phases(name, deep)
        up = ops.phases_to_space(phases, at(f"{name}.up"))
        # All three parts have the scale of the gates, so that joining them costs no resolution.
        joined = ops.concat([up, ops.store(encoded, at(f"{name}.encoded")), pair], at(f"{name}.encoded"))
        return self.reduced(name, joined)

    def phases(self, name: str, deep: T) -> T:
        """The upsampled features of a `network.Fuse` in their four phases."""
        return self._conv(f"{name}.up", deep, f"{name}.up")

    def reduced(self, name: str, joined: T) -> T:
        """Its last convolution."""
        return self._conv(f"{name}.reduce", joined, f"{name}.reduced")
