"""The operators of graphs, implemented by each format's backend.

`graphs.graph` and its `tone_` neighbours describe the model in these alone; a backend (`graphs.onnx`,
`exchange.tflite`) says how its format writes each of them. A new part of the model is a function there, and a new
operator a method here and in both backends.

Kinds of tensors, whose layout is the backend's:

    picture  one photo or feature map of C channels
    row      (1, values), as fully connected layers take it
    curves   three rows, of red, green and blue: (3, values)
    matrix   (rows, columns)

Backends write constants and nodes in the order of the calls, so that the order of calls decides the file's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np

from qatie_cli.graphs.kernels import Kernel
from qatie_cli.model.quantization.scheme import Activation

T = TypeVar("T")


@dataclass(frozen=True)
class Declared(Generic[T]):
    """Constants that are used further down: already `written` by backends that want them first, else by `use`."""

    values: tuple[np.ndarray, ...]
    written: tuple[T, ...] = ()


@dataclass(frozen=True)
class Mean(Generic[T]):
    """The mean of a picture of one channel, times `factor`."""

    picture: T
    factor: float = 1.0


@dataclass(frozen=True)
class Deviation(Generic[T]):
    """The standard deviation of a picture of one channel, by one less than the number of its pixels, times `factor`."""

    picture: T
    factor: float = 1.0


@dataclass(frozen=True)
class MeanDifference(Generic[T]):
    """The means of `channels` of an RGB picture, less that of a picture of one channel, times `factor`."""

    picture: T
    less: T
    channels: tuple[int, ...]
    factor: float = 1.0


Moment = Mean[T] | Deviation[T] | MeanDifference[T]


class Operators(Protocol[T]):
    """One format's operators, on its tensors T.

    Where `at` is given the result is stored in integers of that scale and zero point. Numbers become float32 constants.
    """

    # --- constants and storage

    def constant(self, values: np.ndarray) -> T:
        """A constant of the array's own type."""

    def number(self, value: float) -> T:
        """A float32 constant."""

    def parameter(self, key: str, values: np.ndarray) -> T:
        """A constant that is the weights' tensor `key`; an empty key names none."""

    def declare(self, *values: np.ndarray, axis: Literal["knots", "bins"]) -> Declared[T]:
        """Constants for `use`, each (values) along the axis of curves' knots or of histograms' bins."""

    def use(self, declared: Declared[T]) -> tuple[T, ...]:
        """The constants that `declare` was given."""

    def store(self, x: T, at: Activation | None) -> T:
        """x rounded to the integers of `at`; as it is where that is None."""

    def real(self, x: T) -> T:
        """x as float32."""

    def holds_levels(self, x: T) -> bool:
        """Whether the photo x arrives as 256 integer levels."""

    # --- element by element

    def add(self, a: T | float, b: T | float, at: Activation | None = None) -> T: ...

    def sub(self, a: T | float, b: T | float) -> T: ...

    def mul(self, a: T | float, b: T | float, at: Activation | None = None) -> T: ...

    def div(self, a: T | float, b: T | float) -> T: ...

    def abs(self, x: T) -> T: ...

    def floor(self, x: T) -> T: ...

    def sqrt(self, x: T) -> T: ...

    def exp(self, x: T) -> T: ...

    def relu(self, x: T) -> T: ...

    def softplus(self, x: T) -> T:
        """log(1 + exp(x)), free of overflow."""

    def tanh(self, x: T, at: Activation | None = None) -> T: ...

    def leaky(self, x: T, at: Activation | None = None) -> T:
        """LeakyReLU with the slope `LEAKY_SLOPE`."""

    def clamp(self, x: T) -> T:
        """x limited to 0..1."""

    def at_least(self, x: T, low: float) -> T:
        """The larger of x, which is 1 or less, and `low`."""

    def at_most(self, x: T, high: float) -> T:
        """The smaller of x, which is not negative, and `high`."""

    def round_to_8_bit(self, x: T) -> T:
        """Values in 0..1, rounded to multiples of 1/255."""

    def to_index(self, x: T) -> T:
        """Whole numbers as int32."""

    # --- pictures

    def conv(self, x: T, kernel: Kernel, at: Activation | None = None) -> T: ...

    def conv_shuffle(self, x: T, weight: np.ndarray, bias: np.ndarray) -> T:
        """A 3x3 convolution (12, c, 3, 3) with a padding of 1 and `pixel_shuffle` by 2."""

    def phases_to_space(self, x: T, at: Activation | None = None) -> T:
        """(4 * C) channels, the phase (row, column) slowest, to C channels at twice the height and width."""

    def max_pool(self, x: T, at: Activation | None = None) -> T:
        """The largest of 2x2 pixels."""

    def average_pool(self, x: T, side: int) -> T:
        """The means of `side` x `side` pixels of a float picture."""

    def box_mean(self, x: T, radius: int) -> T:
        """Means of a float picture over windows of 2 * `radius` + 1 pixels; at the edges over those that there are."""

    def halves(self, x: T, channels: int, at: Activation | None = None) -> tuple[T, T]:
        """The first and the second half of 2 * `channels`."""

    def concat(self, parts: Sequence[T], at: Activation | None = None) -> T:
        """Pictures channel after channel, or rows one after the other."""

    def instance_norm(self, x: T, gain: T, offset: T, epsilon: float) -> T:
        """Each channel of the float picture x by its own mean and variance, then by gain and offset (C)."""

    def weighted_channels(self, x: T, weights: Sequence[float]) -> T:
        """One channel: the weighted sum of all."""

    def channel_max(self, x: T) -> T:
        """One channel: the largest of all."""

    def channel_min(self, x: T) -> T:
        """One channel: the smallest of all."""

    def subsampled(self, x: T, step: int) -> T:
        """Every `step`-th pixel of every `step`-th row, from `step` // 2 on."""

    # --- from pictures to rows

    def mean_row(self, x: T) -> T:
        """The mean of each channel."""

    def max_row(self, x: T) -> T:
        """The maximum of each channel."""

    def moments(self, wanted: Sequence[Moment[T]]) -> list[T]:
        """Rows of statistics of pictures of thumbnail size, in the order in which they are wanted."""

    def order_statistics(self, x: T, channels: int, indices: Sequence[int]) -> T:
        """(channels, indices): values of each channel of a thumbnail at these places once sorted, smallest first."""

    def along_bins(self, x: T) -> T:
        """A thumbnail's values (4 channels, pixels) with a further axis of one bin, which broadcasts to many."""

    def mean_of_pixels(self, x: T) -> T:
        """(channels, bins) of what `along_bins` has spread over the bins."""

    def row_shape(self) -> Declared[T]:
        """The shape (1, values) for `to_row`."""

    def to_row(self, x: T, shape: Declared[T]) -> T:
        """All values of x as one row; `shape` is that of `row_shape`."""

    # --- rows and curves

    def linear(self, x: T, weight: T, bias: T | None = None) -> T:
        """Products of the last axis of x with the rows of `weight` (out, in), plus `bias` (out)."""

    def columns(self, x: T, start: int, stop: int | None = None) -> T:
        """Values start..stop of a row, or of each of the curves; to the end where `stop` is None."""

    def to_curves(self, x: T, values: int) -> T:
        """A row (1, 3 * values) as curves (3, values)."""

    def running_sums(self, x: T) -> T:
        """Sums of (channels, bins) over the bins up to each."""

    def cumulate(self, start: T, steps: T, divisor: float) -> T:
        """Curves that begin at `start` (3, 1) and grow by `steps` (3, n), each divided by `divisor`: (3, n + 1)."""

    def as_channels(self, x: T) -> T:
        """A row as a picture of one pixel."""

    # --- matrices and planes

    def places(self, picture: T, side: Literal["height", "width"]) -> T:
        """(pixels, 1): where the centres of a float picture's pixels lie along a side, in 0..1."""

    def stacked(self, x: T) -> T:
        """A picture's channels as one matrix (C * columns, rows), each channel transposed."""

    def rows(self, x: T, start: int, stop: int) -> T:
        """Rows start..stop of a matrix."""

    def products(self, a: T, b: T) -> T:
        """(n, m): the product of each row of a matrix (n, k) with each of another (m, k)."""

    def plane(self, x: T) -> T:
        """A picture of one channel in the form that broadcasts with a matrix (rows, columns)."""

    def weighted_plane(self, photo: T, weights: Sequence[float]) -> T:
        """The weighted sum of a photo's channels, as a plane."""

    def as_channel(self, plane: T) -> T:
        """A plane as a picture of one channel again."""

    # --- curves and a matrix on pictures

    def mix(self, matrix: T, x: T) -> T:
        """The product of a 3x3 matrix with a column of curves, (3, 1), or with every pixel of `pixels`."""

    def table(self, curves: T) -> T:
        """Curves in the form that is looked up."""

    def pixels(self, photo: T) -> T:
        """A photo in the form that indexes tables."""

    def as_picture(self, x: T, photo: T) -> T:
        """What was made of the `pixels` of a photo, as a picture again."""

    def look_up(self, table: T, index: T) -> T:
        """Each channel's value in the table at its index."""

    def look_up_segment(self, table: T, index: T) -> tuple[T, T]:
        """The same, and how much the next value of the table is above it."""
