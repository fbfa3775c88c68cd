"""Ways to run the network: qatie's engines, and the same weights in other runtimes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from qatie_cli import engines, installation
from qatie_cli.enhance.tiling import residual_of
from qatie_cli.errors import DataError, UsageError
from qatie_cli.model.checkpoint import Weights

FLOAT, INT8 = "float", "int8"
# Modules that each runtime needs to run our weights.
RUNTIMES = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "litert": ("flatbuffers", "ai_edge_litert"),
}


@dataclass
class Contender:
    """One way to run the network on one picture; `measuring.race` adds the seconds of each round.

    Attributes:
        run: what is timed.
        residual: of a picture (H, W, 3) uint8 of the same size, (H, W, 3) float32; None where that is not known.
        ready: seconds from a weights file to a first result on 8x8 pixels; None for other runtimes.
        file: the model file that it runs; None where it runs our weights.
        kept: objects that must live as long as the contender.
    """

    name: str
    arithmetic: str
    run: Callable[[], object]
    residual: Callable[[np.ndarray], np.ndarray] | None = None
    ready: float | None = None
    file: Path | None = None
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    kept: contextlib.ExitStack | None = field(default=None, repr=False)

    @property
    def is_engine(self) -> bool:
        """Whether it is one of qatie's engines."""
        if self.name == engines.LIGHT:
            return self.arithmetic == INT8
        return self.name in (engines.FLOAT, engines.COMPILED, *engines.INT8)


def load(name: str, arithmetic: str, weights: Weights, photo: np.ndarray, threads: int) -> Contender:
    """An engine, or a runtime of `RUNTIMES`, with `weights`, ready for `photo` (H, W, 3) uint8, sides multiples of 8.

    Raises:
        EngineError: there is no such engine here.
        WeightsError: int8 was asked for and the weights were never calibrated.
        DataError: the runtime refuses the model.
    """
    make = {"onnxruntime": _onnxruntime, "openvino": _openvino, "litert": _litert}.get(name)
    if make is None or (name, arithmetic) == (engines.LIGHT, INT8):
        return _engine(name, weights, photo, threads)
    try:
        residual, run = make(_model(name, arithmetic == INT8, weights, photo.shape[:2]), photo, threads)
    except Exception as error:  # each runtime has exceptions of its own
        raise DataError(f"{name} cannot run {arithmetic}: {str(error).splitlines()[0]}.") from error
    return Contender(name, arithmetic, run, residual)


def arithmetics(name: str, weights: Weights, runtimes: bool = True) -> tuple[str, ...]:
    """In which arithmetics the engine or runtime `name` can run `weights`.

    onnxruntime is both: in int8 it is the engine, and in float a runtime, which is left out unless `runtimes`.
    """
    if name == engines.LIGHT and not runtimes:
        return (INT8,)
    if name not in RUNTIMES:
        return (FLOAT,) if name == engines.FLOAT else (INT8,)
    return (FLOAT,) if weights.activations is None else (INT8, FLOAT)


def installed_runtimes() -> Iterator[str]:
    """Runtimes of `RUNTIMES` with all that they need."""
    return (name for name, modules in RUNTIMES.items() if all(find_spec(module) for module in modules))


def check_runtime(name: str) -> None:
    """Raise UsageError where the runtime `name` lacks something."""
    if missing := [module for module in RUNTIMES[name] if find_spec(module) is None]:
        raise UsageError(f"{name} needs {', '.join(missing)}.", f"Run: {installation.extra('bench')}")


def load_file(path: Path, threads: int) -> Contender:
    """A model file, .tflite in LiteRT or .onnx in ONNX Runtime; only its time can be compared.

    Raises:
        UsageError: its runtime is not installed.
        DataError: the file cannot be used.
    """
    kind = path.suffix.lower()
    module = {".tflite": "ai_edge_litert", ".onnx": "onnxruntime"}.get(kind)
    if module is None:
        raise UsageError(f"{path} cannot be run.", "Give a .tflite or .onnx file.")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    make = _litert if kind == ".tflite" else _onnxruntime
    try:
        _, run = make(path, None, threads)
    except ImportError:
        raise UsageError(f"{path.name} needs {module}.", f"Run: {installation.extra('bench')}") from None
    except Exception as error:  # each runtime has exceptions of its own
        raise DataError(f"{path} cannot be run: {str(error).splitlines()[0]}.") from error
    return Contender(path.name, "as in the file", run, file=path)


def _engine(name: str, weights: Weights, photo: np.ndarray, threads: int) -> Contender:
    began = time.perf_counter()
    engine = engines.load(weights, name, threads=threads)
    engine.network.features(np.zeros((8, 8, 3), np.uint8))
    ready = time.perf_counter() - began
    kept = contextlib.ExitStack()
    kept.enter_context(engine.reusing_memory())  # as in a batch; the other runtimes keep theirs, too

    def residual(picture: np.ndarray) -> np.ndarray:
        with engine.computing():
            return residual_of(engine.network, picture, None)

    arithmetic = FLOAT if engine.name == engines.FLOAT else INT8
    return Contender(engine.name, arithmetic, lambda: residual(photo), residual, ready, kept=kept)


# --- other runtimes: a function of a picture, and what is timed ---------------------------------------------------

_Loaded = tuple[Callable[[np.ndarray], np.ndarray], Callable[[], object]]


def _model(name: str, int8: bool, weights: Weights, size: tuple[int, int]) -> bytes:
    """The network alone, for pictures of `size`."""
    if name == "litert":
        from qatie_cli.exchange import tflite

        return tflite.build(weights, int8=int8, size=size, whole=False)
    from qatie_cli.exchange import onnx

    return bytes(onnx.build(weights, int8=int8, size=size, whole=False).SerializeToString())


def _onnxruntime(model: bytes | Path, photo: np.ndarray | None, threads: int) -> _Loaded:
    from qatie_cli.without_telemetry import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would slow the other contenders down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    sides = [side if isinstance(side, int) else 1 for side in entry.shape]
    fed = np.zeros(sides, np.float32) if photo is None else _nchw(photo)

    def residual(picture: np.ndarray) -> np.ndarray:
        return _hwc(session.run(None, {entry.name: _nchw(picture)})[0])

    return residual, lambda: session.run(None, {entry.name: fed})


def _openvino(model: bytes | Path, photo: np.ndarray, threads: int) -> _Loaded:
    import openvino

    core = openvino.Core()
    # Without the hint it computes in bfloat16 where the processor supports it.
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(model), "CPU", options).create_infer_request()
    fed = _nchw(photo)

    def residual(picture: np.ndarray) -> np.ndarray:
        return _hwc(request.infer({0: _nchw(picture)})[0])

    return residual, lambda: request.infer({0: fed})


def _litert(model: bytes | Path, photo: np.ndarray | None, threads: int) -> _Loaded:
    from ai_edge_litert.interpreter import Interpreter

    given = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
    interpreter = Interpreter(**given, num_threads=threads)
    interpreter.allocate_tensors()
    (entry, *_), (out, *_) = interpreter.get_input_details(), interpreter.get_output_details()

    def fill(picture: np.ndarray) -> None:
        taken = picture if entry["dtype"] == np.uint8 else picture.astype(np.float32) / 255
        interpreter.set_tensor(entry["index"], taken[None])

    def residual(picture: np.ndarray) -> np.ndarray:
        fill(picture)
        interpreter.invoke()
        return interpreter.get_tensor(out["index"])[0]

    if photo is None:
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    else:
        fill(photo)
    return residual, interpreter.invoke


def _nchw(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1)[None])


def _hwc(residual: np.ndarray) -> np.ndarray:
    return residual[0].transpose(1, 2, 0)
