"""Benchmarks of the engines on this machine: speed, share of the processor's peak, memory, agreement with float.

Contenders run in turns, round by round, in one process: a machine that gets slower or busier does so for all of them,
and the ratios hold.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from qatie_cli import engines, metrics
from qatie_cli.engines import Engine
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.enhance.tiling import residual_of
from qatie_cli.errors import DataError, UsageError
from qatie_cli.model import network
from qatie_cli.model.checkpoint import Weights
from qatie_cli.photo import resize
from qatie_cli.photo.content import Photo

WARM_UP = 2
_FLOAT_DB = 60.0  # upper limit of a plot's axis; float itself is drawn there
_SLOW = {
    "qnnpack": "qnnpack is made for ARM; on x86 it lacks the processor's int8 instructions",
}


@dataclass(frozen=True)
class Timing:
    """Seconds per run: median and percentiles over the rounds."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        return Timing(*(float(np.quantile(seconds, q)) for q in (0.5, 0.1, 0.9)))


@dataclass(frozen=True)
class Command:
    """`qatie enhance` as a process of its own: seconds from start to end, and its memory at the peak in bytes."""

    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Measured:
    """The figures of one contender; None where one does not apply.

    `rate` is in multiply-adds per second, `peak_share` its share of the rate in `Machine`, `ready` the seconds from a
    weights file to a first result on 8x8 pixels, `agreement_db` the mean PSNR of enhanced photos to the float engine's.
    """

    name: str
    arithmetic: str
    network: Timing
    megapixels_per_second: float
    rate: float | None = None
    peak_share: float | None = None
    ready: float | None = None
    agreement_db: float | None = None
    start_up: Command | None = None
    end_to_end: Command | None = None
    remark: str = ""


@dataclass(frozen=True)
class Machine:
    """The machine: threads, and the highest rates found, in multiply-adds per second."""

    threads: int
    int8_peak: float
    float_peak: float


@dataclass(frozen=True)
class Bench:
    """A whole benchmark at `width` x `height` pixels."""

    machine: Machine
    width: int
    height: int
    rows: tuple[Measured, ...]


@dataclass
class Contender:
    """One way to run the network; `race` adds the `seconds` of each round."""

    name: str
    arithmetic: str
    run: Callable[[], object]
    engine: Engine | None = None
    ready: float | None = None
    remark: str = ""
    seconds: list[float] = field(default_factory=list)


# --- what is measured on ------------------------------------------------------------------------------------------


def resized(photo: np.ndarray, size: tuple[int, int] | float | None) -> np.ndarray:
    """A photo (H, W, 3) at the size asked for, rounded to sides that are multiples of 8."""
    height, width = photo.shape[:2]
    if isinstance(size, tuple):
        width, height = size
    elif size is not None:
        scale = (size / (width * height)) ** 0.5
        width, height = round(width * scale), round(height * scale)
    width, height = (max(8, round(side / 8) * 8) for side in (width, height))
    return resize.to_size(photo, (width, height))


def generated(width: int = 1024, height: int = 768) -> np.ndarray:
    """A synthetic picture (height, width, 3): clouds at all scales, edges, a little noise."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3), np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        small = rng.integers(0, 256, (cells, cells, 3), np.uint8)
        picture += resize.to_size(small, (width, height)).astype(np.float32) / cells**0.5
    picture *= 200 / picture.max()
    picture[height // 4 : height // 2, width // 4 : width // 2] *= 0.4
    return np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)


# --- contenders ---------------------------------------------------------------------------------------------------


def engine_contender(weights: Weights, name: str, photo: np.ndarray) -> Contender:
    """One of qatie's engines, with the time to its first result."""
    began = time.perf_counter()
    engine = engines.load(weights, name)
    engine.network.features(np.zeros((8, 8, 3), np.uint8))
    ready = time.perf_counter() - began
    arithmetic = "float" if engine.name == engines.FLOAT else "int8"
    return Contender(engine.name, arithmetic, lambda: residual_of(engine.network, photo, None), engine, ready)


def onnx_contenders(weights: Weights, photo: np.ndarray, threads: int) -> list[Contender]:
    """The same weights in the installed runtimes, ONNX Runtime and OpenVINO, float and int8."""
    from importlib.util import find_spec

    if find_spec("onnx") is None:
        return []
    from qatie_cli.exchange import onnx as export

    size = photo.shape[0], photo.shape[1]
    fed = np.ascontiguousarray(photo.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    found = []
    for arithmetic, int8 in (("int8", True), ("float", False)):
        if int8 and weights.activations is None:
            continue
        model = export.build(weights, int8=int8, size=size, whole=False).SerializeToString()
        if find_spec("onnxruntime") is not None:
            found.append(Contender("onnxruntime", arithmetic, _onnxruntime(model, fed, threads)))
        if find_spec("openvino") is not None:
            found.append(Contender("openvino", arithmetic, _openvino(model, fed, threads)))
    return found


def _onnxruntime(model: bytes | str, fed: np.ndarray | None, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would slow the other contenders down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    data = fed if fed is not None else np.zeros([s if isinstance(s, int) else 1 for s in entry.shape], np.float32)
    return lambda: session.run(None, {entry.name: data})


def _openvino(model: bytes | str, fed: np.ndarray | None, threads: int) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    # Without the hint it computes in bfloat16 where the processor supports it.
    compiled = core.compile_model(read, "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    data = fed if fed is not None else np.zeros(list(compiled.input(0).shape), np.float32)
    return lambda: request.infer({0: data})


def file_contender(path: Path, threads: int) -> Contender:
    """A model file, .tflite in LiteRT or .onnx in ONNX Runtime; only its time can be compared.

    Raises:
        UsageError: its runtime is not installed.
        DataError: the file cannot be used.
    """
    kind = path.suffix.lower()
    module = {".tflite": "ai_edge_litert", ".onnx": "onnxruntime"}.get(kind)
    if module is None:
        raise UsageError(f"{path} cannot be run.", "Name a .tflite or .onnx file.")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        run = _litert(path, threads) if kind == ".tflite" else _onnxruntime(str(path), None, threads)
    except ImportError:
        raise UsageError(f"{path.name} needs {module}.", "Run: pip install 'qatie[bench]'") from None
    except Exception as error:  # each runtime has exceptions of its own
        raise DataError(f"{path} cannot be run: {str(error).splitlines()[0]}.") from error
    return Contender(path.name, "as in the file", run)


def _litert(path: Path, threads: int) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    return interpreter.invoke


# --- measuring ----------------------------------------------------------------------------------------------------


def measure_machine(threads: int) -> Machine:
    """The highest rates that this machine reaches in int8 and in float."""
    from qatie_cli.engines import int8

    peak = max((int8.peak_rate(name) for name in engines.available() if name != engines.FLOAT), default=0.0)
    a, b, best = torch.rand(1024, 1024), torch.rand(1024, 1024), 0.0
    for _ in range(12):
        began = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 1024**3 / (time.perf_counter() - began))
    return Machine(threads, peak, best)


def race(contenders: Sequence[Contender], rounds: int, on_round: Callable[[int], None] = lambda done: None) -> None:
    """Run all in turns: two rounds to warm up, then `rounds` that are timed."""
    for done in range(WARM_UP + rounds):
        for contender in contenders:
            began = time.perf_counter()
            contender.run()
            if done >= WARM_UP:
                contender.seconds.append(time.perf_counter() - began)
        on_round(done + 1)


def judged(
    contender: Contender,
    machine: Machine,
    weights: Weights,
    photo: np.ndarray,
    others: Sequence[Contender],
    photos: Sequence[Photo] = (),
) -> Measured:
    """Figures of a contender after the race, agreement with float on `photos` included."""
    timing = Timing.of(contender.seconds)
    pixels = photo.shape[0] * photo.shape[1]
    work = network.work(weights.config.network)
    rate = share = agreement = None
    if contender.engine is not None:
        rate = (work.integer + work.tail) * pixels / timing.median
        share = rate / (machine.int8_peak if contender.arithmetic == "int8" else machine.float_peak)
        if contender.arithmetic == "int8" and photos:
            agreement = _agreement(contender.engine, engines.load(weights, engines.FLOAT), photos)
    remark = contender.remark
    reference = next((c for c in others if c.name == engines.FLOAT), None)
    if contender.engine is not None and contender.arithmetic == "int8" and reference is not None:
        ratio = timing.median / Timing.of(reference.seconds).median
        if ratio > 1:
            why = f": {_SLOW[contender.name]}" if contender.name in _SLOW else ""
            remark = f"takes {ratio:.2f} times as long as float here{why}"
    return Measured(
        contender.name,
        contender.arithmetic,
        timing,
        pixels / 1e6 / timing.median,
        rate,
        share,
        contender.ready,
        agreement,
        remark=remark,
    )


def _agreement(engine: Engine, reference: Engine, photos: Sequence[Photo]) -> float:
    """Mean PSNR in dB between the engines' outputs; the network sees every pixel."""
    ours, theirs = (Enhancer(used, Effect(fast=False)) for used in (engine, reference))
    return float(np.mean([metrics.finite_psnr(ours(photo).rgb_u8(), theirs(photo).rgb_u8()) for photo in photos]))


def command(weights: str, engine: str, photo: Path, threads: int) -> Command:
    """Run `qatie enhance` on one photo in a process of its own.

    Raises:
        DataError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["enhance", str(photo), "-o", folder, "--weights", weights, "--engine", engine, "--quiet"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "qatie_cli", *arguments, "--threads", str(threads)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        memory = _peak_memory(process)
        said = process.stderr.read().decode(errors="replace")
        code = process.wait()
        seconds = time.perf_counter() - began
    if code:
        raise DataError(f"qatie enhance failed on {photo}: {' '.join(said.split())}")
    return Command(seconds, memory)


def with_commands(
    rows: Sequence[Measured], contenders: Sequence[Contender], weights: str, photo: np.ndarray, threads: int
) -> list[Measured]:
    """The rows, those of our engines with start-up (a photo of one pixel) and file to file (`photo` as a JPEG).

    Raises:
        DataError: the command failed.
    """
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        dot, file = Path(folder) / "dot.png", Path(folder) / "photo.jpg"
        Image.new("RGB", (1, 1), (90, 80, 70)).save(dot)
        Image.fromarray(photo).save(file, quality=92)
        for row, contender in zip(rows, contenders, strict=True):
            if contender.engine is None:
                measured.append(row)
                continue
            start_up, end_to_end = (command(weights, row.name, path, threads) for path in (dot, file))
            measured.append(dataclasses.replace(row, start_up=start_up, end_to_end=end_to_end))
    return measured


def _peak_memory(process: subprocess.Popen) -> int | None:
    """The peak memory in bytes of a process, watched until it ends.

    The figure of `wait4` would include the memory of this process before exec.
    """
    peak = 0
    with contextlib.suppress(psutil.Error):
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _most_resident(watched))
            time.sleep(0.01)
    process.wait()
    return peak or None


def _most_resident(process: psutil.Process) -> int:
    """Peak memory of a running process where the system records it; otherwise its current memory."""
    with contextlib.suppress(OSError, AttributeError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"VmHWM:\s+(\d+) kB", status):
            return int(found[1]) * 1024
    used = process.memory_info()
    return getattr(used, "peak_wset", used.rss)


def write_plot(path: Path, bench: Bench) -> None:
    """Speed against agreement with float, as a picture in the format of the file's name.

    Raises:
        UsageError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("Plots need matplotlib.", "Run: pip install 'qatie[bench]'") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in bench.rows:
        if row.agreement_db is None and row.name != engines.FLOAT:
            continue
        at = row.megapixels_per_second, min(row.agreement_db or _FLOAT_DB, _FLOAT_DB)
        axes.plot(*at, "o")
        axes.annotate(row.name, at, xytext=(6, 4), textcoords="offset points")
    axes.axhline(42, linewidth=1, linestyle="--", color="gray")
    axes.set_xlabel(f"megapixels a second, network alone, {bench.width}x{bench.height}")
    axes.set_ylabel(f"agreement with float, dB (float itself at {_FLOAT_DB:.0f})")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} could not be written: {error}.", "Name a .png, .svg or .pdf file.") from error
