"""Measure where a batch's processor time goes: python .ci/measure_batch.py FOLDER [--full] [--rounds 3].

Runs `qatie enhance FOLDER --threads 1` in this process and prints a table of milliseconds a photo. A stage's time is
that of its thread, without the stages inside it, so that a busy machine matters little; each row is the lowest of the
rounds, the first of which also starts the process and is not counted. `--of 325a2a5` measures that commit's functions:
put its checkout first on PYTHONPATH. For the engine llvm, or onednn in the old commit.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

OTHERS = "plan, claims, threads and the rest"
CONVOLUTIONS, DECODING, ENCODING = "convolutions", "decoding, with metadata", "encoding and writing"
STAGES = {
    DECODING: ("photo.apart:Reader.read",),
    "noise": ("enhance.photos:Effect.refinement_of",),
    "view and tone decision": ("engines.light:ToneDecision.__call__",),
    "tone of what the network sees, reduced": (
        "enhance.toning:TonedPhoto.reduced",
        "enhance.toning:TonedPhoto.network_input",
    ),
    CONVOLUTIONS: ("engines.compiled_convs:Conv._run",),
    "norms and copies between convolutions": (
        "engines.compiled:CompiledNetwork.features",
        "engines.compiled:CompiledNetwork.residual",
    ),
    "tone, guided residual, rounding": ("enhance.toning:TonedPhoto.finish", "enhance.toning:TonedPhoto.finish_by"),
    ENCODING: ("photo.encoding:write",),
}
STAGES_BEFORE = {
    DECODING: ("photo.decoding:read",),
    "view and tone decision": ("tone:decide",),
    "tone of what the network sees, reduced": ("enhance:_Toned.reduced", "enhance:_Toned.network_input"),
    CONVOLUTIONS: ("engines.int8:Int8Network._conv", "engines.int8:tail_rows"),
    "norms and copies between convolutions": (
        "engines.int8:Int8Network.features",
        "engines.int8:Int8Network.residual",
    ),
    "tone, guided residual, rounding": (
        "enhance:_Toned.rows",
        "enhance:GuidedResidual.__init__",
        "enhance:GuidedResidual.rows",
        "enhance:_finish",
    ),
    ENCODING: ("photo.encoding:write",),
}


class Clock:
    """Processor seconds by stage, of all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._of_thread = threading.local()

    def timed(self, stage: str, function: Callable) -> Callable:
        """`function`, whose time counts for `stage`, except that of stages inside it."""

        @functools.wraps(function)
        def wrapped(*arguments, **options):
            outer, self._of_thread.inside = getattr(self._of_thread, "inside", 0.0), 0.0
            began = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - began
                self.seconds[stage] += spent - self._of_thread.inside
                self._of_thread.inside = outer + spent

        return wrapped


def watch(clock: Clock, stages: dict[str, tuple[str, ...]]) -> None:
    """Put the clock into the functions of all stages."""
    for stage, names in stages.items():
        for name in names:
            module, _, attributes = name.partition(":")
            *path, last = attributes.split(".")
            owner = functools.reduce(getattr, path, importlib.import_module(f"qatie_cli.{module}"))
            setattr(owner, last, clock.timed(stage, getattr(owner, last)))


def milliseconds(clock: Clock, arguments: list[str], photos: int) -> dict[str, float]:
    """One run of the command: milliseconds a photo by stage, and of everything else."""
    from qatie_cli import cli

    clock.seconds.clear()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(SystemExit):
        sys.argv = ["qatie", "enhance", *arguments, "-o", out, "--threads", "1", "--quiet"]
        cli.main()
    whole = time.process_time() - began
    found = {**clock.seconds, OTHERS: whole - sum(clock.seconds.values())}
    return {stage: 1000 * seconds / photos for stage, seconds in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", choices=("now", "325a2a5"), default="now")
    options = parser.parse_args()
    stages = STAGES if options.of == "now" else STAGES_BEFORE
    clock = Clock()
    watch(clock, stages)
    arguments = [str(options.folder), *(["--full"] if options.full else [])]
    photos = sum(path.is_file() for path in options.folder.iterdir())
    milliseconds(clock, arguments, photos)
    rounds = [milliseconds(clock, arguments, photos) for _ in range(options.rounds)]
    if not all(found.get(CONVOLUTIONS) for found in rounds):
        sys.exit("No convolution was seen: another engine ran, or the command failed.")
    lowest = {stage: min(found.get(stage, 0.0) for found in rounds) for stage in (*stages, OTHERS)}
    print("| milliseconds of one core a photo | |\n|---|---|")
    for stage, value in lowest.items():
        print(f"| {stage} | {value:.0f} |")
    print(f"| all | {sum(lowest.values()):.0f} |")
    least = sum(lowest[stage] for stage in (DECODING, CONVOLUTIONS, ENCODING))
    print(f"| of which decoding, convolutions and encoding | {least:.0f} |")


if __name__ == "__main__":
    main()
