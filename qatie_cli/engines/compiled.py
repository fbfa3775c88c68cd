"""The network in our own compiled convolutions, for processors with AVX-512 or AVX2: int8 or float, without PyTorch.

A convolution, its activation and the copy that follows are one pass over memory.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from qatie_cli.engines.compiled_arithmetic import Arithmetic, Branches
from qatie_cli.engines.output import less_photo
from qatie_cli.kernels import threads
from qatie_cli.model.config import NetworkConfig
from qatie_cli.model.moments import Moments, of_whole

# Bytes of the largest tensor of a strip: of all concurrent strips, and the maximum and minimum of one. Of those of
# 1 << 22 to 1 << 24 none was faster by more than 4% (AVX2, width 16, 13 megapixels); at width 32, with AVX-512, 1 << 22
# took 12% more time than 1 << 23 and 17% more than 1 << 24: halos are computed twice. Longer ones took 40 MB more.
_STRIPS_BYTES, _MOST_BYTES, _FEWEST_BYTES = 3 << 22, 1 << 23, 1 << 21
# Values per pixel that kept memory holds beside those counted: 0 to 1.7 measured in int8 at 0.4 to 4 megapixels, and up
# to 1 in float.
_KEPT_VALUES = 3
_SHORTEST = 8  # rows of a strip, if the features have that many
_DEEP = {1: "decode2", 2: "bottleneck"}  # what a fusion upsamples


class _Scratch(threading.local):
    """Scratch memory of a thread, reused from strip to strip."""

    def __init__(self) -> None:
        self._flat: dict[str, np.ndarray] = {}

    def array(self, name: str, kind: type, *shape: int) -> np.ndarray:
        """An uninitialized array, which overwrites the previous one of this name."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        if name not in self._flat or self._flat[name].nbytes < size:
            self._flat[name] = np.empty(size, np.uint8)
        return self._flat[name][:size].view(kind).reshape(shape)


class _Pool:
    """Memory of features. While `keeps` is set, the next photo of the same size reuses it.

    The system zeroes new memory page by page, which took 20% of the processor time of 13-megapixel photos.

    Args:
        larger: give larger memory, too, where there is some.
    """

    def __init__(self, larger: bool = False) -> None:
        self.keeps, self._larger = False, larger
        self._free: list[np.ndarray] = []

    def array(self, kind: type, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialized array; its memory returns to the pool when it and its views are garbage-collected."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        fitting = [index for index, flat in enumerate(self._free) if self._fits(flat.nbytes, size)]
        if not fitting:
            self._free.clear()  # left by a photo of another size
        flat = self._free.pop(fitting[0]) if fitting else np.empty(size, np.uint8)
        # Views of an array over a buffer refer to that array; views of a view would refer to `flat`.
        taken: np.ndarray = np.frombuffer(flat.data[:size], kind)
        weakref.finalize(taken, self._take_back, flat).atexit = False
        return taken.reshape(shape)

    def _fits(self, there: int, wanted: int) -> bool:
        return there >= wanted if self._larger else there == wanted

    def _take_back(self, flat: np.ndarray) -> None:
        if self.keeps:
            self._free.append(flat)

    def let_go(self) -> None:
        """Stop keeping memory, and free it."""
        self.keeps = False
        self._free.clear()


@dataclass(frozen=True)
class _Window:
    """Rows first..last of features (height, width, C), padded by a column on each side for convolutions.

    `whole` (last - first, width + 2, C) starts at row `first`. `first` and `last` may lie outside the features; the
    padding is filled. `lines` are the rows inside, with the padding columns; `inside` excludes them.
    """

    whole: np.ndarray
    lines: np.ndarray
    rows: tuple[int, int]  # of `lines` in the features

    @staticmethod
    def of(scratch: np.ndarray, first: int, last: int, height: int, value: int) -> _Window:
        from qatie_cli.kernels.features import framed

        upper, lower = max(0, first), min(height, last)
        framed(scratch, upper - first, lower - first, value)
        return _Window(scratch, scratch[upper - first : lower - first], (upper, lower))

    @property
    def inside(self) -> np.ndarray:
        """Pixels of the features, (rows, width, C)."""
        return self.lines[:, 1:-1]


@dataclass(frozen=True)
class LastBlock:
    """The last refinement block at half size; `photo` is the input, unless the network's output is the residual."""

    branches: Branches
    photo: np.ndarray | None


class CompiledNetwork:
    """The refinement network in compiled convolutions.

    The parts between norms run in strips, one per thread, as in `engines.light`. A strip also computes its halo, the
    rows that its convolutions reach. Encoder features for the decoder may be written by several strips: they write the
    same bytes.
    """

    def __init__(self, config: NetworkConfig, arithmetic: Arithmetic) -> None:
        self._width, self._residual = config.width, config.residual
        self._arithmetic, self._convs = arithmetic, arithmetic.convs
        self._scratch, self._pool = _Scratch(), _Pool()
        self._residuals = _Pool(larger=True)  # the last strip of a photo is smaller

    @contextlib.contextmanager
    def reusing_memory(self) -> Iterator[None]:
        """Keep memory from photo to photo until the block ends."""
        self._pool.keeps = self._residuals.keeps = True
        try:
            yield
        finally:
            self._pool.let_go()
            self._residuals.let_go()
            self._scratch = _Scratch()

    @property
    def bytes_per_pixel(self) -> float:
        """Memory that `features` takes at its peak; more while it is kept, which fits tensors of one size only."""
        kept = _KEPT_VALUES * np.dtype(self._arithmetic.kind).itemsize if self._pool.keeps else 0
        return self._arithmetic.bytes_per_pixel_and_width * self._width + 3 + kept

    @property
    def strips_at_once(self) -> int:
        """Several per thread: short strips compute much of their halo twice."""
        return 4 * threads.number()

    def features(self, photo_u8_hwc: np.ndarray, moments: Moments = of_whole) -> LastBlock:
        c = self._width
        (h1, w1), (h2, w2), (h3, w3) = ((photo_u8_hwc.shape[0] >> n, photo_u8_hwc.shape[1] >> n) for n in (1, 2, 3))

        def branched(block: str, local: np.ndarray, side: np.ndarray) -> Branches:
            return Branches(local, side, self._arithmetic.norm(block, local, moments))

        local1, side1, pair1 = self._empty((h1, w1, c), (h1, w1, c), (h1, w1, 2 * c))
        self._in_strips(self._encode1, h1, 2 * w1 * c, photo_u8_hwc, pair1, local1, side1)
        kept = None if self._residual else photo_u8_hwc
        del photo_u8_hwc  # the caller may have no use for it
        given = branched("refine1", local1, side1)
        encoded1, pair2, local2, side2 = self._empty(
            (h1 + 2, w1 + 2, c), (h2, w2, 4 * c), (h2, w2, 2 * c), (h2, w2, 2 * c)
        )
        _fill_frame(encoded1, self._arithmetic.nothing("refine1.out"))
        self._in_strips(self._encode2, h2, 4 * w1 * c, given, encoded1, pair2, local2, side2)
        given = branched("refine2", local2, side2)
        # The decoder fills the branches of the encoder again. Until then there is room in the largest.
        encoded2, local, side = self._inside(local1, (h2 + 2, w2 + 2, 2 * c), (h3, w3, 2 * c), (h3, w3, 2 * c))
        self._in_strips(self._encode3, h3, 8 * w2 * c, given, encoded2, local, side)
        given = branched("bottleneck", local, side)
        self._in_strips(self._decode, h2, 8 * w2 * c, 2, given, encoded2, pair2, local2, side2)
        del encoded2, pair2
        given = branched("decode2", local2, side2)
        self._in_strips(self._decode, h1, 4 * w1 * c, 1, given, encoded1, pair1, local1, side1)
        del encoded1, pair1
        if not self._pool.keeps:
            self._scratch = _Scratch()  # frees that of all threads
        return LastBlock(branched("decode1", local1, side1), kept)

    def residual(self, features: LastBlock, top: int, bottom: int) -> np.ndarray:
        given = features.branches
        height, width, channels = given.local.shape
        out = self._residuals.array(np.float32, (bottom - top, 2 * width, 3))

        def work(first: int, last: int) -> None:
            block = self._window("out", first - 1, last + 1, (height, width, channels), "decode1.out")
            self._refined("decode1", given, *block.rows, block.inside)
            values = self._scratch.array("y", self._arithmetic.tail_kind, *block.whole.shape)
            self._arithmetic.before_tail(block.whole, values)
            self._convs["tail"].phases(values, out[2 * first - top : 2 * last - top])

        threads.in_turn(work, threads.pieces(top // 2, bottom // 2, self._rows(2 * width * channels), _SHORTEST))
        return less_photo(out, features.photo, top, bottom)

    def _rows(self, widest: int) -> int:
        """Rows of a strip whose widest tensor has `widest` values per row."""
        most = max(_FEWEST_BYTES, min(_MOST_BYTES, _STRIPS_BYTES // threads.number()))
        return max(_SHORTEST, most // (widest * np.dtype(self._arithmetic.kind).itemsize))

    def _empty(self, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        return [self._pool.array(self._arithmetic.kind, shape) for shape in shapes]

    def _inside(self, used: np.ndarray, *shapes: tuple[int, ...]) -> list[np.ndarray]:
        """As `_empty`, in the memory of `used`, unless that is too small: then `used` is left as it is."""
        sizes = [int(np.prod(shape)) for shape in shapes]
        if sum(sizes) > used.size:
            return self._empty(*shapes)
        ends = list(itertools.accumulate(sizes))
        parts = zip(ends, sizes, shapes, strict=True)
        return [used.reshape(-1)[end - size : end].reshape(shape) for end, size, shape in parts]

    def _in_strips(self, part: Callable[..., None], height: int, widest: int, *given: object) -> None:
        """Call `part(*given, first, last)` for each strip of `height` rows.

        Args:
            widest: values per row of a strip's largest tensor.
        """
        strips = threads.pieces(0, height, self._rows(widest), _SHORTEST)
        threads.in_turn(lambda first, last: part(*given, first, last), strips)

    def _encode1(
        self, photo: np.ndarray, pair: np.ndarray, local: np.ndarray, side: np.ndarray, first: int, last: int
    ) -> None:
        product = self._window("x", first - 1, last + 1, local.shape, "down1.product")
        top, bottom = product.rows
        seen = self._window("y", 2 * top - 1, 2 * bottom, (*photo.shape[:2], 4), "photo")
        self._arithmetic.photo(photo[slice(*seen.rows)], seen.lines)
        self._convs["down1.pair"](seen.whole, pair[top:bottom], product.inside)
        self._branches("refine1", product, local[first:last], side[first:last])

    def _encode2(
        self,
        entered: Branches,
        encoded: np.ndarray,
        pair: np.ndarray,
        local: np.ndarray,
        side: np.ndarray,
        first: int,
        last: int,
    ) -> None:
        product = self._window("x", first - 1, last + 1, local.shape, "down2.product")
        top, bottom = product.rows
        start = max(0, 2 * top - 1)
        self._refined("refine1", entered, start, 2 * bottom, encoded[start + 1 : 2 * bottom + 1, 1:-1])
        self._convs["down2.pair"](encoded[2 * top :], pair[top:bottom], product.inside)
        self._branches("refine2", product, local[first:last], side[first:last])

    def _encode3(
        self, entered: Branches, encoded: np.ndarray, local: np.ndarray, side: np.ndarray, first: int, last: int
    ) -> None:
        from qatie_cli.kernels.features import halved

        x = self._window("x", first - 1, last + 1, local.shape, "refine2.out")
        top, bottom = x.rows
        made = encoded[2 * top + 1 : 2 * bottom + 1]
        self._refined("refine2", entered, 2 * top, 2 * bottom, made[:, 1:-1])
        halved(made, x.lines)
        self._branches("bottleneck", x, local[first:last], side[first:last])

    def _decode(
        self,
        number: int,
        entered: Branches,
        encoded: np.ndarray,
        pair: np.ndarray,
        local: np.ndarray,
        side: np.ndarray,
        first: int,
        last: int,
    ) -> None:
        # `inner` and `y` are free again after `_refined`.
        fuse, kind, scratch = f"fuse{number}", self._arithmetic.kind, self._scratch.array
        x = self._window("x", first - 1, last + 1, local.shape, f"{fuse}.reduced")
        # A row of phases becomes two rows of features.
        upper, lower = x.rows[0] // 2, (x.rows[1] + 1) // 2
        deep = self._window("out", upper - 1, lower + 1, (len(entered.local), *_deep(local)), f"{_DEEP[number]}.out")
        self._refined(_DEEP[number], entered, *deep.rows, deep.inside)
        conv = self._convs[f"{fuse}.up"]
        phases = scratch("inner", kind, lower - upper + 1, deep.inside.shape[1] + 1, conv.channels)
        conv(deep.whole, phases)
        joined = scratch("y", kind, 2 * (lower - upper), local.shape[1], 2 * local.shape[2])
        self._arithmetic.fuse(number, phases, encoded[2 * upper : 2 * lower + 2], joined)
        self._convs[f"{fuse}.reduce"].of_two(joined[x.rows[0] - 2 * upper :], pair[x.rows[0] :], x.inside)
        self._branches(f"decode{number}", x, local[first:last], side[first:last])

    def _window(self, name: str, first: int, last: int, shape: tuple[int, ...], point: str) -> _Window:
        """Scratch for rows first..last of features (height, width, C), padded with the zero point of `point`."""
        height, width, channels = shape
        scratch = self._scratch.array(name, self._arithmetic.kind, last - first, width + 2, channels)
        return _Window.of(scratch, first, last, height, self._arithmetic.nothing(point))

    def _branches(self, block: str, x: _Window, local: np.ndarray, side: np.ndarray) -> None:
        """Both branches of a block, for all rows of `x` except the first and the last."""
        self._convs[f"{block}.local"](x.whole, local)
        self._convs[f"{block}.side"](x.whole[1:, 1:], side)

    def _refined(self, block: str, entered: Branches, first: int, last: int, out: np.ndarray) -> None:
        """Compute rows first..last of a block's output into `out`."""
        height, width, channels = entered.local.shape
        y = self._window("y", first - 2, last + 2, (height, width, 2 * channels), f"{block}.y")
        self._arithmetic.join(entered, slice(*y.rows), y.lines)
        conv = self._convs[f"{block}.inner"]
        inner = self._window("inner", first - 1, last + 1, (height, width, conv.channels), f"{block}.inner_leaky")
        conv(y.whole[inner.rows[0] - (first - 1) :], inner.inside)
        shortcut = self._scratch.array("shortcut", self._arithmetic.kind, *out.shape)
        self._convs[f"{block}.shortcut"](y.whole[2:, 1:], shortcut)
        self._convs[f"{block}.outer"](inner.whole, out, shortcut)


def _deep(local: np.ndarray) -> tuple[int, int]:
    """Width and channels of the features that are upsampled to the size of `local`."""
    return local.shape[1] // 2, 2 * local.shape[2]


def _fill_frame(x: np.ndarray, value: int) -> None:
    x[0], x[-1], x[:, 0], x[:, -1] = value, value, value, value
