"""The engine of onnxruntime: int8 without PyTorch.

It runs the graphs of `graphs.parts` as PyTorch's int8 engines run their operators (`engines.int8`): from norm to norm,
in strips, with the same integers. A strip runs on one thread and several strips at once, so that no thread waits for
another between two layers, and none spins.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qatie_cli import kernels
from qatie_cli.engines import pointwise
from qatie_cli.engines.norms import Norms, rescaling
from qatie_cli.engines.output import less_photo
from qatie_cli.engines.pointwise import ByteLayer
from qatie_cli.kernels import threads
from qatie_cli.model import view
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import ToneConfig
from qatie_cli.model.moments import Moments, of_whole
from qatie_cli.model.tone_map import ToneMap
from qatie_cli.without_telemetry import onnxruntime

# Measured at the peak of `features`, per pixel of the photo and per unit of width: 2.0 of large photos, of which 1.75
# are kept between the norms; strips that run at once take 90 MB, a part of this from 3 megapixels on.
BYTES_PER_PIXEL_AND_WIDTH = 3.0
# Values of the largest tensors of all strips that run at once, and of one strip at least. What a strip computes beyond
# its own rows took a tenth more time with 1 << 21 values than with 1 << 22, and a quarter more with 1 << 20.
STRIP_VALUES, FEWEST_VALUES = 1 << 23, 1 << 20
_RESIDUAL_REACH = 3  # rows, of the last block's two convolutions and the tail
# The block whose branches a graph of `graphs.parts` ends with.
_ENDS_WITH = {"encode1": "refine1", "encode2": "refine2", "decode2": "decode2", "decode1": "decode1"}


class Graphs:
    """Graphs by name, as `graphs.parts` writes them, open in onnxruntime. Safe to call from several threads."""

    def __init__(self, models: dict[str, bytes]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # strips are what runs at once
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # the last strip has another size
        options.enable_cpu_mem_arena = False  # every graph would keep the memory of its largest strip
        providers = ["CPUExecutionProvider"]
        self._sessions = {
            name: onnxruntime.InferenceSession(model, options, providers=providers) for name, model in models.items()
        }
        self._inputs = {name: session.get_inputs()[0].name for name, session in self._sessions.items()}

    def run(self, name: str, given: np.ndarray) -> list[np.ndarray]:
        """What the graph `name` makes of its input, both without the axis of a batch."""
        made = self._sessions[name].run(None, {self._inputs[name]: given[None]})
        return [output[0] for output in made]


@dataclass(frozen=True)
class ToneDecision:
    """The tone stage."""

    graphs: Graphs
    config: ToneConfig

    def __call__(self, pixels_hwc: np.ndarray) -> ToneMap:
        """The tone map of a whole photo (H, W, 3), uint8 or uint16."""
        curves, matrix, *more = self.graphs.run("tone", view.view_nchw(pixels_hwc, self.config.view_px)[0])
        grid = np.ascontiguousarray(more[0].transpose(1, 2, 0)) if self.config.grid else None
        fine = np.ascontiguousarray(more[1].transpose(1, 0, 2)) if self.config.fine else None
        return ToneMap(curves, matrix, grid, self.config.guide, fine)


@dataclass(frozen=True)
class LastBlock:
    """The branches of the last refinement block at half size, (h, w, C) uint8, `local` not yet normalized.

    `tables` are its norm with the activation behind it: what becomes of every byte of each channel, (C, 256) uint8;
    None of a plain block. `photo` (H, W, 3) uint8 is what the network saw, None where its output is the residual.
    """

    local: np.ndarray
    side: np.ndarray
    tables: np.ndarray | None
    photo: np.ndarray | None


@dataclass(frozen=True)
class Input:
    """What a part of the network reads: an array (H, W, C), `scale` rows for each one that strips are counted in."""

    whole: np.ndarray
    scale: int


class LightNetwork:
    """The refinement network in integers on onnxruntime."""

    def __init__(self, weights: Weights, graphs: Graphs) -> None:
        activations = weights.activations
        assert activations is not None
        config = weights.config.network
        self._graphs, self._width, self._residual, self._plain = graphs, config.width, config.residual, config.plain
        self.bytes_per_pixel = BYTES_PER_PIXEL_AND_WIDTH * self._width + 3
        self._norms = Norms(weights)
        self._rescaled = {number: rescaling(number, activations) for number in (1, 2)}

    @property
    def strips_at_once(self) -> int:
        """As many as there are threads."""
        return threads.number()

    def features(self, photo_u8_hwc: np.ndarray, moments: Moments = of_whole) -> LastBlock:
        kernels.usable(photo_u8_hwc.size // 3)  # loads numba where that pays; parts of the photo then find it loaded
        run, line = self._run, photo_u8_hwc.shape[1] * self._width

        # Rows are counted at the coarsest scale of a part; the reach is that of its convolutions in both directions.
        part = [Input(photo_u8_hwc, 2)]
        pair1, local, side = _in_strips(lambda photo: run("encode1", photo), part, 2, line)

        def encode(block: str, graph: str) -> Callable[..., list[np.ndarray]]:
            tables = self._norms.tables(block, local, moments)
            return lambda local, side: run(graph, _joined(local, tables, side))

        branches = [Input(local, 2), Input(side, 2)]
        encoded1, pair2, local, side = _in_strips(encode("refine1", "encode2"), branches, 3, 2 * line)
        branches = [Input(local, 2), Input(side, 2)]
        encoded2, local, side = _in_strips(encode("refine2", "encode3"), branches, 2, 2 * line)

        def decode(block: str, number: int) -> Callable[..., list[np.ndarray]]:
            tables = self._norms.tables(block, local, moments)

            def part(local: np.ndarray, side: np.ndarray, encoded: np.ndarray, pair: np.ndarray) -> list[np.ndarray]:
                (phases,) = run(f"phases{number}", _joined(local, tables, side))
                return run(f"decode{number}", _fused(phases, encoded, self._rescaled[number], pair))

            return part

        given = [Input(local, 1), Input(side, 1), Input(encoded2, 2), Input(pair2, 2)]
        local, side = _in_strips(decode("bottleneck", 2), given, 4, 4 * line)
        del encoded2, pair2
        given = [Input(local, 1), Input(side, 1), Input(encoded1, 2), Input(pair1, 2)]
        local, side = _in_strips(decode("decode2", 1), given, 4, 4 * line)
        kept = None if self._residual else photo_u8_hwc
        return LastBlock(local, side, self._norms.tables("decode1", local, moments), kept)

    def _run(self, name: str, given: np.ndarray) -> list[np.ndarray]:
        """What the graph `name` gives; a plain block is complete in it, with no channels beside `local`."""
        made = self._graphs.run(name, given)
        return [*made, made[-1][..., :0]] if _ENDS_WITH.get(name) in self._plain else made

    def residual(self, features: LastBlock, top: int, bottom: int) -> np.ndarray:
        height, width = features.local.shape[:2]
        out = np.empty((bottom - top, 2 * width, 3), np.float32)

        def work(upper: int, lower: int) -> None:
            first, last = max(0, upper - _RESIDUAL_REACH), min(height, lower + _RESIDUAL_REACH)
            y = _joined(features.local[first:last], features.tables, features.side[first:last])
            (phases,) = self._graphs.run("residual", y)
            core = phases[upper - first : lower - first].reshape(lower - upper, width, 3, 2, 2)
            target = out[2 * upper - top : 2 * lower - top].reshape(lower - upper, 2, width, 2, 3)
            target[:] = core.transpose(0, 3, 1, 4, 2)

        threads.in_turn(work, threads.pieces(top // 2, bottom // 2, math.inf, 4 * _RESIDUAL_REACH))
        return less_photo(out, features.photo, top, bottom)


def _joined(local: np.ndarray, tables: np.ndarray | None, side: np.ndarray) -> np.ndarray:
    """Each channel of `local` through its table, then the channels of `side`: (h, w, C) uint8."""
    if tables is None:
        return local
    own, others = local.shape[2], side.shape[2]
    out = np.empty((*local.shape[:2], own + others), np.uint8)
    if kernels.usable(0):
        pointwise.join(local, tables, side, out)
        return out
    places = local + 256 * np.arange(own, dtype=np.int32)
    np.take(tables.reshape(-1), places, out=out[..., :own])
    out[..., own:] = side
    return out


def _fused(phases: np.ndarray, encoded: np.ndarray, rescaled: ByteLayer, pair: np.ndarray) -> np.ndarray:
    """Phases (see `network.interleave`) interleaved, `encoded` in another scale, and `pair`: side by side."""
    deep, skipped = phases.shape[2] // 4, encoded.shape[2]
    out = np.empty((*pair.shape[:2], deep + skipped + pair.shape[2]), np.uint8)
    if kernels.usable(0):
        pointwise.fuse(phases, encoded, rescaled, pair, out)
        return out
    height, width = phases.shape[0] - 1, phases.shape[1] - 1
    for index in range(4):
        p, q = divmod(index, 2)
        block = slice(index * deep, (index + 1) * deep)
        out[p::2, q::2, :deep] = phases[p : p + height, q : q + width, block]
    out[..., deep : deep + skipped] = rescaled.table[encoded]
    out[..., deep + skipped :] = pair
    return out


def _in_strips(
    part: Callable[..., Sequence[np.ndarray]], inputs: Sequence[Input], reach: int, widest: int
) -> list[np.ndarray]:
    """Run a part of the network strip by strip and concatenate its outputs.

    Args:
        part: from rows of every input to rows of every output.
        reach: rows (of the coarsest of inputs and outputs) beyond its own that a strip's outputs depend on.
        widest: values of the part's largest tensor for each of these rows.
    """
    height = inputs[0].whole.shape[0] // inputs[0].scale
    whole: list[np.ndarray] = []
    lock = threading.Lock()

    def work(top: int, bottom: int) -> None:
        first, last = max(0, top - reach), min(height, bottom + reach)
        outputs = part(*(x.whole[first * x.scale : last * x.scale] for x in inputs))
        scales = [x.shape[0] // (last - first) for x in outputs]
        with lock:
            if not whole:
                sizes = zip(outputs, scales, strict=True)
                whole.extend(np.empty((height * scale, *x.shape[1:]), x.dtype) for x, scale in sizes)
        for kept, x, scale in zip(whole, outputs, scales, strict=True):
            kept[top * scale : bottom * scale] = x[(top - first) * scale : (bottom - first) * scale]

    values = max(FEWEST_VALUES, STRIP_VALUES // threads.number())
    threads.in_turn(work, threads.pieces(0, height, values / widest, 2 * reach))
    return whole
