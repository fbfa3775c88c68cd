"""Measurements: times of the network alone, rates, agreement with float."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from qatie_cli import engines, metrics
from qatie_cli.bench.contenders import FLOAT, INT8, Contender
from qatie_cli.bench.processes import Command
from qatie_cli.enhance.toning import TonedPhoto
from qatie_cli.model import network
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.moments import Tile

WARM_UP = 2
BUSY_SHARE = 0.1  # of the processors' time, taken by other processes: times then say little, ratios still do
_SLOW = {
    "qnnpack": "qnnpack is made for ARM; on x86 it lacks the processor's int8 instructions",
}
# Of /proc/cpuinfo, what decides how fast integers and floats are multiplied; the last of each line are the newest.
_INSTRUCTIONS = (
    "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Seconds per run: median and percentiles over the rounds."""

    median: float
    p10: float
    p90: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        """Median, 10th and 90th percentile of `seconds`."""
        return Timing(*(float(np.quantile(seconds, q)) for q in (0.5, 0.1, 0.9)))


@dataclass(frozen=True)
class Machine:
    """The machine: threads used, the highest rates found (multiply-adds per second), and how busy it was otherwise.

    `others` is the number of cores that other processes kept busy while contenders ran; `instructions` are those of the
    processor that matter here, as Linux names them.
    """

    threads: int
    int8_peak: float
    float_peak: float
    cores: int = 1
    others: float = 0.0
    instructions: tuple[str, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether other processes took more than a tenth of the processor: trust ratios then, not seconds."""
        return self.others > BUSY_SHARE * self.cores


@dataclass(frozen=True)
class Measured:
    """The figures of one contender; None where one does not apply or was not measured.

    `processor_seconds` are those of all threads in the fastest round, which a busy machine changes least. `rate` is in
    multiply-adds per second and `peak_share` its share of the rate in `Machine`; `ready` as in
    `Contender`; `memory` are the bytes at the peak of a process that runs nothing else; `agreement_db` is the mean PSNR
    of enhanced pictures to the float engine's.
    """

    name: str
    arithmetic: str
    network: Timing
    megapixels_per_second: float
    processor_seconds: float | None = None
    rate: float | None = None
    peak_share: float | None = None
    ready: float | None = None
    agreement_db: float | None = None
    memory: int | None = None
    start_up: Command | None = None
    end_to_end: Command | None = None
    remark: str = ""


@dataclass(frozen=True)
class Bench:
    """A whole benchmark of `weights` at `width` x `height` pixels."""

    machine: Machine
    weights: str
    width: int
    height: int
    rows: tuple[Measured, ...]

    def as_table(self) -> dict[str, object]:
        """For JSON. The fields of a row up to `agreement_db` are relied on by scripts; times are of the network."""
        machine = self.machine
        return {
            "machine": {
                "threads": machine.threads,
                "cores": machine.cores,
                "instructions": list(machine.instructions),
                "busy_cores": round(machine.others, 2),
                "busy": machine.is_busy,
                "int8_gmac_per_s": machine.int8_peak / 1e9,
                "float_gmac_per_s": machine.float_peak / 1e9,
            },
            "rows": [self._row(row) for row in self.rows],
        }

    def _row(self, row: Measured) -> dict[str, object]:
        return {
            "backend": row.name,
            "weights": self.weights,
            "width_px": self.width,
            "height_px": self.height,
            "threads": self.machine.threads,
            "median_s": row.network.median,
            "p10_s": row.network.p10,
            "p90_s": row.network.p90,
            "megapixels_per_s": row.megapixels_per_second,
            "peak_mb": row.memory and row.memory / 1e6,
            "agreement_db": row.agreement_db,
            "arithmetic": row.arithmetic,
            "processor_s": row.processor_seconds,
            "gmac_per_s": row.rate and row.rate / 1e9,
            "peak_share": row.peak_share,
            "ready_s": row.ready,
            "start_up_s": row.start_up and row.start_up.seconds,
            "file_to_file_s": row.end_to_end and row.end_to_end.seconds,
            "file_to_file_peak_mb": row.end_to_end and row.end_to_end.memory and row.end_to_end.memory / 1e6,
            "remark": row.remark,
        }


def measure_machine(threads: int) -> Machine:
    """The highest rates that this machine reaches in int8 and in float."""
    from qatie_cli.engines import int8

    peak = max((int8.peak_rate(name) for name in engines.available() if name in engines.INT8), default=0.0)
    a, b, best = torch.rand(1024, 1024), torch.rand(1024, 1024), 0.0
    for _ in range(12):
        began = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 1024**3 / (time.perf_counter() - began))
    return Machine(threads, peak, best, psutil.cpu_count() or 1, instructions=_instructions())


def _instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except (OSError, ValueError):
        return ()
    flags = next((line.split() for line in lines if line.lower().startswith(("flags", "features"))), [])
    return tuple(name for name in _INSTRUCTIONS if name in flags)


def race(contenders: Sequence[Contender], rounds: int, on_round: Callable[[int], None] = lambda done: None) -> float:
    """Run all in turns: two rounds to warm up, then `rounds` that are timed.

    Returns:
        The number of cores that other processes kept busy meanwhile.
    """
    others = _OtherProcesses()
    for done in range(WARM_UP + rounds):
        for contender in contenders:
            began, used = time.perf_counter(), time.process_time()
            contender.run()
            if done >= WARM_UP:
                contender.seconds.append(time.perf_counter() - began)
                contender.processor_seconds.append(time.process_time() - used)
        on_round(done + 1)
    return others.cores()


class _OtherProcesses:
    """Counts the processor time of other processes from its creation on."""

    def __init__(self) -> None:
        self._began, self._before = time.monotonic(), self._seconds()

    def cores(self) -> float:
        """Mean number of cores that they kept busy."""
        return max(0.0, (self._seconds() - self._before) / max(1e-9, time.monotonic() - self._began))

    @staticmethod
    def _seconds() -> float:
        whole, own = psutil.cpu_times(), psutil.Process().cpu_times()
        kinds = ("user", "nice", "system", "irq", "softirq", "steal")
        return float(sum(getattr(whole, kind, 0.0) for kind in kinds) - own.user - own.system)


def judged(
    contender: Contender,
    machine: Machine,
    weights: Weights,
    pictures: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    reference: Contender | None = None,
) -> Measured:
    """Figures of a contender after the race.

    Args:
        pictures: (H, W, 3) uint8 that agreement is measured on, all of the size that the contender is ready for.
        exact: their residuals by the float engine (`exact_residuals`).
        reference: the float engine, where it took part in the race.
    """
    timing = Timing.of(contender.seconds)
    pixels = pictures[0].shape[0] * pictures[0].shape[1]
    work = network.work(weights.config.network)
    rate = share = agreement = None
    if contender.file is None:
        rate = (work.integer + work.tail) * pixels / timing.median
        share = rate / (machine.int8_peak if contender.arithmetic == INT8 else machine.float_peak)
    if contender.residual is not None and contender.name != engines.FLOAT:
        found = [_psnr(p, contender.residual(p), e) for p, e in zip(pictures, exact, strict=True)]
        agreement = float(np.mean(found))
    remark = ""
    if contender.is_engine and contender.arithmetic == INT8 and reference is not None:
        ratio = timing.median / Timing.of(reference.seconds).median
        if ratio > 1:
            why = f": {_SLOW[contender.name]}" if contender.name in _SLOW else ""
            remark = f"takes {ratio:.2f} times as long as float here{why}"
    return Measured(
        contender.name,
        contender.arithmetic,
        timing,
        pixels / 1e6 / timing.median,
        min(contender.processor_seconds, default=None),
        rate,
        share,
        contender.ready,
        agreement,
        remark=remark,
    )


def as_seen(weights: Weights, picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8, sides multiples of 8, toned: what the network sees of it."""
    height, width = picture.shape[:2]
    whole = Tile((0, height, 0, width), (0, height, 0, width))
    return TonedPhoto(picture, engines.load(weights, engines.FLOAT), None).network_input(whole)


def exact_residuals(weights: Weights, pictures: Sequence[np.ndarray], threads: int) -> list[np.ndarray]:
    """Residuals of `pictures` by the float engine, which all others are compared with."""
    from qatie_cli.bench import contenders

    exact = contenders.load(engines.FLOAT, FLOAT, weights, pictures[0], threads)
    assert exact.residual is not None
    return [exact.residual(picture) for picture in pictures]


def _psnr(picture: np.ndarray, residual: np.ndarray, exact: np.ndarray) -> float:
    """PSNR in dB of a picture with its residual to the same with the exact one, both rounded to 8 bit."""
    ours, theirs = (np.rint(np.clip(picture + values * 255, 0, 255)).astype(np.uint8) for values in (residual, exact))
    return metrics.finite_psnr(ours, theirs)
