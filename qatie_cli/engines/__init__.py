"""Engines: implementations of the network that run a weights file.

`float` runs on CPU, CUDA or MPS; the int8 engines run on the CPU only. `llvm`, our own convolutions compiled for the
processor, and `onnxruntime` need no PyTorch; the others are PyTorch's quantized back ends.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from qatie_cli import installation, kernels
from qatie_cli.errors import EngineError, PinnedEngineError, UsageError, WeightsError
from qatie_cli.kernels import threads as strips
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.moments import Moments
from qatie_cli.model.tone_map import ToneMap

FLOAT = "float"
LIGHT = "onnxruntime"
COMPILED = "llvm"
INT8 = ("fbgemm", "qnnpack", "onednn", "x86")  # PyTorch's
WITHOUT_TORCH = (COMPILED, LIGHT)
# `auto` takes llvm where it runs: its network took 0.65 to 0.77 times the processor time of onnxruntime's. Else
# onnxruntime where it is installed: with AVX-512 VNNI it took 0.93 times onednn's, and PyTorch's import alone takes a
# second. Else the first of these that the machine supports. On x86, onednn was measured faster than fbgemm, x86 and
# qnnpack at every width and size tried; on ARM only qnnpack is made for the processor.
_PREFERENCE = {"arm": ("qnnpack", "onednn", FLOAT), "x86": ("onednn", "fbgemm", "x86", "qnnpack", FLOAT)}


Features = TypeVar("Features")  # what an engine's `residual` takes of its own `features`; opaque to everyone else


class ResidualNetwork(Protocol[Features]):
    """The refinement network on one engine."""

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of memory at the peak of `features`, for each pixel."""

    @property
    def strips_at_once(self) -> int:
        """Number of residual strips that it computes in parallel."""

    def features(self, photo_u8_hwc: np.ndarray, moments: Moments = ...) -> Features:
        """Features that the residual is computed from, of an 8-bit photo (H, W, 3) whose sides are multiples of 8.

        Where the photo is a tile of a larger one, `moments` gives the norms the statistics of the whole.
        """

    def residual(self, features: Features, top: int, bottom: int) -> np.ndarray:
        """Rows top..bottom (both even) of the residual, (bottom - top, W, 3) float32, nominal range -1..1."""


@dataclass(frozen=True)
class Engine:
    """A model ready to run: the engine's name, its device, its two stages, and its threads (0: PyTorch's choice).

    `tone` decides the tone map of a whole photo (H, W, 3), uint8 or uint16; None where the weights have no tone stage.
    `reason` explains the choice of engine to the user.
    """

    name: str
    device: str
    tone: Callable[[np.ndarray], ToneMap] | None
    network: ResidualNetwork[Any]
    threads: int = 0
    reason: str = ""
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @property
    def arithmetic(self) -> str:
        """`float`, or `int8 on` the engine, for display."""
        return FLOAT if self.name == FLOAT else f"int8 on {self.name}"

    @property
    def described(self) -> str:
        """The arithmetic, and the device unless it is the CPU."""
        return self.arithmetic if self.device == "cpu" else f"{self.arithmetic}, {self.device}"

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Hold this engine for one photo, with its number of threads set; other threads wait."""
        with self._lock, contextlib.ExitStack() as settings:
            number = self.threads
            if self.name not in WITHOUT_TORCH:
                from qatie_cli.engines import process

                number = settings.enter_context(process.threads(number))
            settings.enter_context(strips.limited(number))
            yield

    def reusing_memory(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the network keeps its memory from photo to photo, if that saves time on this engine."""
        reusing = getattr(self.network, "reusing_memory", None)
        return contextlib.nullcontext() if reusing is None else reusing()


def available() -> tuple[str, ...]:
    """Engines of this machine, `float` first. Imports PyTorch where that is installed."""
    light = available_without_torch()
    if not installation.has("torch"):
        return light
    with warnings.catch_warnings():  # importing PyTorch adds warning filters, which belong to the host
        import torch

    supported = torch.backends.quantized.supported_engines
    return (FLOAT, *(name for name in INT8 if name in supported), *light)


def available_without_torch() -> tuple[str, ...]:
    """Those of `available` that need no PyTorch, the fastest first."""
    return tuple(name for name, here in ((COMPILED, has_compiled()), (LIGHT, _has_light())) if here)


def available_for(weights: Weights) -> tuple[str, ...]:
    """Those of `available` that can run `weights`."""
    int8 = weights.activations is not None
    return tuple(name for name in available() if name == FLOAT or (int8 and _runs(name, weights)))


def _has_light() -> bool:
    return installation.has("onnxruntime") and installation.has("onnx")


def has_compiled() -> bool:
    """Whether llvm runs here, and float in the same convolutions. onnxruntime runs the tone stage."""
    if not _has_light() or not kernels.usable(kernels.WORTH_IMPORTING):
        return False
    from qatie_cli.kernels import machine_code

    return machine_code.instructions() is not None


def resolve(name: str) -> str:
    """The engine that `name` (an engine, or `auto`) stands for on this machine, whatever the weights.

    Raises:
        EngineError: no such engine here; the message lists those that are.
    """
    if name in ("auto", COMPILED) and has_compiled():
        return COMPILED
    if name in ("auto", LIGHT) and _has_light():
        return LIGHT
    if name in (FLOAT, *INT8):
        installation.need_torch(f"The engine {name}")
    here = available()
    if not here:
        missing = "There is no engine: neither onnxruntime with onnx nor PyTorch is installed."
        raise EngineError(missing, "Run: pip install onnx onnxruntime")
    if name == "auto":
        return next(engine for engine in _preferred() if engine in here)
    if name not in here:
        raise EngineError(f"There is no engine {name} on this machine.", f"Choose from auto, {', '.join(here)}.")
    return name


def _preferred() -> tuple[str, ...]:
    """PyTorch's engines, the fastest of this kind of processor first."""
    return _PREFERENCE["arm" if platform.machine().lower() in ("arm64", "aarch64", "armv7l") else "x86"]


def load(
    weights: Weights,
    engine: str = "auto",
    device: str = "cpu",
    threads: int = 0,
    begun_on: str = "",
    pixels: int | None = None,
    among: Collection[str] | None = None,
) -> Engine:
    """Make `weights` ready to run, on `threads` of the processor; 0 is all usable cores, or PyTorch's own number.

    Args:
        begun_on: the engine that `auto` stays on, since outputs of the same batch were made on it.
        pixels: of all photos, if known: for few, `auto` takes the engine that starts fastest.
        among: the engines that `auto` may choose from: those that every node of a cluster has.

    Raises:
        EngineError: the engine or device does not exist here, int8 was requested on a GPU, or the engine was requested
            and cannot run a network like that of the weights.
        PinnedEngineError: `auto` cannot stay on `begun_on` here.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if device != "cpu":
        if engine not in ("auto", FLOAT):
            raise EngineError(f"int8 ({engine}) runs on the CPU only.", f"Leave out --engine, or --device {device}.")
        check_device(device)
        engine = FLOAT
    auto = engine == "auto"
    name, reason = _chosen(weights, begun_on, pixels, among) if auto else (_asked(weights, engine), "as asked")
    if name in WITHOUT_TORCH:
        return _without_torch(name, weights, threads, reason)
    # Imported here, so that float runs never touch quantized data types, nor int8 runs the float network.
    with warnings.catch_warnings():
        from qatie_cli.engines import process
        from qatie_cli.engines.tone import ToneDecision

    threads, model = process.bounded(threads), weights.build()
    tone = None if model.tone is None else ToneDecision(model.tone)
    if name == FLOAT:
        return Engine(name, device, tone, _float_network(weights, model, device), threads, reason)
    from qatie_cli.engines.int8 import Int8Network

    return Engine(name, device, tone, Int8Network(weights, name), threads, reason)


def _float_network(weights: Weights, model: Any, device: str) -> ResidualNetwork[Any]:
    if device == "cpu" and has_compiled() and _runs(COMPILED, weights):
        from qatie_cli.engines.compiled import CompiledNetwork
        from qatie_cli.engines.compiled_arithmetic import Floats

        return CompiledNetwork(weights.config.network, Floats(weights))
    from qatie_cli.engines.floating import FloatNetwork

    return FloatNetwork(model.network, device)


def _asked(weights: Weights, engine: str) -> str:
    """The engine of this name, if it can run `weights`."""
    name = resolve(engine)
    if name != FLOAT and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Use --engine float, or finish their training.")
    if not _runs(name, weights):
        network = f"a network of {weights.config.network.described}"
        raise EngineError(f"The engine {name} cannot run {network}.", "Use --engine auto.")
    return name


def _chosen(weights: Weights, begun_on: str, pixels: int | None, among: Collection[str] | None) -> tuple[str, str]:
    """The engine that `auto` stands for, and the reason for it."""
    if weights.activations is None:
        return resolve(FLOAT), "the weights carry no int8 ranges"
    if begun_on:
        return _begun(weights, begun_on), "the batch was begun on it"
    if among is not None:
        candidates = (name for name in (*WITHOUT_TORCH, *_preferred()) if name in among and _runs(name, weights))
        if (common := next(candidates, None)) is None:
            raise EngineError(
                "The nodes have no engine in common that runs these weights.", "Use nodes that share one."
            )
        return _asked(weights, common), "the fastest that every node has"
    if pixels is not None and pixels < kernels.WORTH_IMPORTING and _has_light():
        return LIGHT, "it starts fastest, and the photo is small"
    return _fastest(weights)


def _begun(weights: Weights, name: str) -> str:
    """The engine that the batch was begun on."""
    try:
        return _asked(weights, name)
    except (EngineError, UsageError) as error:
        instead, _ = _fastest(weights)
        raise PinnedEngineError(
            f"The batch was begun on {name}, and outputs of two engines differ. {error}",
            f"Restore it, or continue with --engine {instead}; with -o, --overwrite redoes all.",
        ) from None


def _fastest(weights: Weights) -> tuple[str, str]:
    """The fastest engine of this machine that runs `weights`, and why it is the fastest."""
    name = resolve("auto")
    if name == COMPILED and not _runs(name, weights):
        name = LIGHT
    if name in WITHOUT_TORCH:
        return name, "the fastest here for these weights, and it starts without PyTorch"
    return name, "the fastest of PyTorch's here; onnxruntime is not installed"


def _runs(name: str, weights: Weights) -> bool:
    """Whether the engine can run a network like that of the weights."""
    if name != COMPILED:
        return True
    from qatie_cli.kernels.machine_code import CHANNELS

    config = weights.config.network
    return config.width % CHANNELS == 0 and not config.plain


def _without_torch(name: str, weights: Weights, threads: int, reason: str) -> Engine:
    with warnings.catch_warnings():
        from qatie_cli.engines import built
        from qatie_cli.engines.light import Graphs, LightNetwork, ToneDecision

    models = built.of(weights)
    if name == COMPILED:
        from qatie_cli.engines.compiled import CompiledNetwork
        from qatie_cli.engines.compiled_arithmetic import Integers

        graphs = Graphs({name: graph for name, graph in models.items() if name == "tone"})
        network: ResidualNetwork[Any] = CompiledNetwork(weights.config.network, Integers(weights))
    else:
        graphs = Graphs(models)
        network = LightNetwork(weights, graphs)
    tone = None if weights.config.tone is None else ToneDecision(graphs, weights.config.tone)
    return Engine(name, "cpu", tone, network, threads or strips.number(), reason)


def best_device() -> str:
    """A GPU where torch can use one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> None:
    """Raise EngineError unless torch can use `device` (cpu, cuda or mps)."""
    installation.need_torch(f"The device {device}")
    import torch

    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(device, False):
        there = ", ".join(name for name, works in usable.items() if works)
        raise EngineError(f"There is no device {device} on this machine.", f"There is: {there}.")
