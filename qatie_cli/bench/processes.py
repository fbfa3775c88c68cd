"""Whole processes: their time from start to end, and their memory at the peak."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from qatie_cli.bench.contenders import Contender
from qatie_cli.errors import DataError


@dataclass(frozen=True)
class Command:
    """A process of its own: seconds from start to end, and its memory at the peak in bytes."""

    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Figures:
    """What a contender takes as a process: the network alone, and for engines start-up and file to file, too.

    `alone` is the peak memory in bytes of a process that loads the weights and runs the network twice; Python and the
    runtime are in it. `start_up` is `qatie enhance` on a photo of one pixel, `end_to_end` on the picture as a JPEG.
    """

    alone: int | None
    start_up: Command | None = None
    end_to_end: Command | None = None


def measured(
    contenders: Sequence[Contender],
    weights: str,
    photo: np.ndarray,
    threads: int,
    on_begin: Callable[[Contender], None] = lambda contender: None,
) -> list[Figures]:
    """Figures of each contender on `photo` (H, W, 3) uint8; `on_begin` is called before each.

    Raises:
        DataError: a process failed.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        dot, file, pixels = (Path(folder) / name for name in ("dot.png", "photo.jpg", "photo.npy"))
        Image.new("RGB", (1, 1), (90, 80, 70)).save(dot)
        Image.fromarray(photo).save(file, quality=92)
        np.save(pixels, photo)
        for contender in contenders:
            on_begin(contender)
            given = str(contender.file or weights), str(pixels), str(threads)
            alone = _run("qatie_cli.bench.alone", contender.name, contender.arithmetic, *given).memory
            if not contender.is_engine:
                found.append(Figures(alone))
                continue
            commands = (enhance(weights, contender.name, path, threads) for path in (dot, file))
            found.append(Figures(alone, *commands))
    return found


def enhance(weights: str, engine: str, photo: Path, threads: int) -> Command:
    """Run `qatie enhance` on one photo.

    Raises:
        DataError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--weights", weights, "--engine", engine, "--threads", str(threads), "--quiet"]
        return _run("qatie_cli", "enhance", str(photo), "-o", folder, *options)


def _run(module: str, *arguments: str) -> Command:
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:  # not a pipe, which would not be read while the process is watched
        command = [sys.executable, "-P", "-m", module, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        memory = peak_memory(process)
        code = process.wait()
        seconds = time.perf_counter() - began
        if code:
            said.seek(0)
            raise DataError(f"{module} {arguments[0]} failed: {' '.join(said.read().decode(errors='replace').split())}")
    return Command(seconds, memory)


def peak_memory(process: subprocess.Popen) -> int | None:
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
    return int(getattr(used, "peak_wset", used.rss))
