"""The number formats of the compiled network: int8 or float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from qatie_cli.engines import pointwise
from qatie_cli.engines.compiled_convs import Conv, floats, integers
from qatie_cli.engines.norms import Norm, Norms, float_norm, rescaling
from qatie_cli.kernels.threads import over_rows
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.moments import Moments, Sums
from qatie_cli.model.quantization.scheme import activation_at


@dataclass(frozen=True)
class Branches:
    """Both branches of a block, (h, w, C), and the norm of the local one."""

    local: np.ndarray
    side: np.ndarray
    norm: Norm


class Arithmetic(Protocol):
    """How features are stored, and the single-threaded steps between convolutions.

    `kind` is the type of features, `tail_kind` that of the tail's input. Bytes are the measured peak of `features` per
    pixel of the photo and unit of width: 1.75 values are kept between norms, and strips take the rest, which is less
    for large photos.
    """

    kind: type
    tail_kind: type
    bytes_per_pixel_and_width: float

    @property
    def convs(self) -> Mapping[str, Conv]:
        """The convolutions by name, including the `tail`."""

    def nothing(self, point: str) -> int:
        """The stored value of 0 at a point of the network."""

    def norm(self, block: str, local: np.ndarray, moments: Moments) -> Norm:
        """The norm and activation of a block with the local branch `local` (h, w, C)."""

    def photo(self, pixels: np.ndarray, out: np.ndarray) -> None:
        """Write rows of a photo (h, w, 3) uint8 into `out` (h, w + 2, 4), except its outer columns."""

    def join(self, entered: Branches, rows: slice, out: np.ndarray) -> None:
        """Concatenate rows of both branches, the local one normalized, into `out` (h, w + 2, 2 C) without its edges."""

    def fuse(self, number: int, phases: np.ndarray, encoded: np.ndarray, out: np.ndarray) -> None:
        """Concatenate interleaved phases and `encoded` (h + 2, w + 2, C) without its frame into `out`."""

    def before_tail(self, x: np.ndarray, out: np.ndarray) -> None:
        """Convert the last block's features to the tail's input format, into `out`."""


class Integers:
    """The int8 scheme."""

    kind: type = np.uint8
    tail_kind: type = np.int16
    bytes_per_pixel_and_width: float = 3.0

    def __init__(self, weights: Weights) -> None:
        activations = weights.activations
        assert activations is not None
        self.convs, self._join = integers(weights)
        self._at = lambda point: activation_at(point, activations)
        self._norms = Norms(weights)
        self._rescaled = {number: rescaling(number, activations) for number in (1, 2)}

    def nothing(self, point: str) -> int:
        return self._at(point).zero_point

    def norm(self, block: str, local: np.ndarray, moments: Moments) -> Norm:
        return self._norms.norm(block, local, moments)

    def photo(self, pixels: np.ndarray, out: np.ndarray) -> None:
        from qatie_cli.kernels.features import widened

        widened(pixels, out)

    def join(self, entered: Branches, rows: slice, out: np.ndarray) -> None:
        norm = entered.norm
        if norm.factors is None:
            assert norm.tables is not None
            pointwise.join(entered.local[rows], norm.tables, entered.side[rows], out, margin=1)
        else:
            self._join(entered.local[rows], entered.side[rows], norm, out[:, 1:-1])

    def fuse(self, number: int, phases: np.ndarray, encoded: np.ndarray, out: np.ndarray) -> None:
        pointwise.fuse(phases, encoded, self._rescaled[number], out[..., :0], out, margin=1)

    def before_tail(self, x: np.ndarray, out: np.ndarray) -> None:
        from qatie_cli.kernels.features import centred

        centred(x, np.int16(self.nothing("decode1.out")), out)


class Floats:
    """float32, as in training."""

    kind: type = np.float32
    tail_kind: type = np.float32
    bytes_per_pixel_and_width: float = 9.0

    def __init__(self, weights: Weights) -> None:
        self.convs, self._join = floats(weights)
        self._state = weights.state

    def nothing(self, point: str) -> int:
        return 0

    def norm(self, block: str, local: np.ndarray, moments: Moments) -> Norm:
        gain, offset = (self._state[f"network.{block}.norm.{part}"] for part in ("weight", "bias"))
        return float_norm(gain, offset, *moments(block, local, _sums))

    def photo(self, pixels: np.ndarray, out: np.ndarray) -> None:
        from qatie_cli.kernels.floats import widened

        widened(pixels, out)

    def join(self, entered: Branches, rows: slice, out: np.ndarray) -> None:
        self._join(entered.local[rows], entered.side[rows], entered.norm, out[:, 1:-1])

    def fuse(self, number: int, phases: np.ndarray, encoded: np.ndarray, out: np.ndarray) -> None:
        from qatie_cli.kernels.floats import gathered

        gathered(phases, encoded, out)

    def before_tail(self, x: np.ndarray, out: np.ndarray) -> None:
        out[:] = x


def _sums(x: Any) -> Sums:
    """Sums over the pixels of x (h, w, C) float32, by rows, so that the number of threads does not matter."""
    from qatie_cli.kernels.floats import row_sums

    values = np.ascontiguousarray(x)
    rows = np.empty((values.shape[0], 2, values.shape[2]), np.float64)
    over_rows(values.shape[0], values.size, lambda first, last: row_sums(values, first, last, rows))
    total, squares = rows.sum(0)
    return Sums(values.shape[0] * values.shape[1], total, squares)
