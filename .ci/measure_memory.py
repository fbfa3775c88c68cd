"""Measure a batch's peak memory against --max-memory: python .ci/measure_memory.py [CASE...] [--limits 700MB,1GB].

Each cell is the peak resident memory in MB of a run over copies of a photo, its decoding process included; `refused`
where no tile is small enough, and bold where the promise does not hold. A case is megapixels, a file format and
options, `12-jpeg` or `108-png16-full-gallery`. Needs Linux and about half an hour for all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from qatie_cli import sizes
from qatie_cli.photo import encoding
from qatie_cli.photo.content import Photo

ROOT = Path(__file__).resolve().parent.parent
CASES = ("1-jpeg", "1-png16", "3-jpeg-gallery", "3-webp", "12-jpeg", "12-jpeg-gallery", "12-jpeg-full",
         "12-jpeg-full-gallery", "12-jpeg-float", "12-png16", "12-png16-full", "12-tiff16-gallery", "12-heic",
         "24-jpeg", "24-jpeg-full", "24-png16", "48-jpeg-gallery", "48-jpeg-full", "48-png16-full", "48-heic",
         "108-jpeg", "108-jpeg-full", "108-jpeg-full-gallery", "108-png16", "108-png16-full")  # fmt: skip


def photo(folder: Path, megapixels: float, kind: str) -> Path:
    """A photo of 4:3 with detail at every scale, made once."""
    suffix = {"png16": "png", "tiff16": "tif", "tiff": "tif", "jpeg": "jpg"}.get(kind, kind)
    path = folder / f"{megapixels:g}-{kind}.{suffix}"
    if path.exists():
        return path
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    random_numbers = np.random.default_rng(0)
    tile = np.zeros((1024, 1024, 3))
    for side in (8, 64, 512):
        coarse = random_numbers.integers(0, 256, (side, side, 3), dtype=np.uint8)
        tile += np.asarray(Image.fromarray(coarse).resize((1024, 1024), Image.Resampling.BICUBIC)) / 3
    eight = np.tile(tile.astype(np.uint8), (-(-height // 1024), -(-width // 1024), 1))[:height, :width]
    pixels = eight.astype(np.uint16) * 257 if kind.endswith("16") else eight
    fmt = kind.removesuffix("16")
    path.write_bytes(encoding.encoded(Photo(np.ascontiguousarray(pixels), fmt), fmt))
    return path


def run(source: Path, copies: int, limit: str, options: list[str], work: Path) -> tuple[int, int, str]:
    """Exit code, peak bytes and standard error of a run over some copies of a photo."""
    folder = Path(tempfile.mkdtemp(dir=work))
    (folder / "in").mkdir()
    for index in range(copies):
        (folder / "in" / f"{index}{source.suffix}").hardlink_to(source)
    program = [sys.executable, "-P", "-m", "qatie_cli", "enhance", str(folder / "in"), "-o", str(folder / "out")]
    process = subprocess.Popen(
        [*program, "--quiet", "--max-memory", limit, *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    peak, ended = [0], threading.Event()

    def watch() -> None:
        family = psutil.Process(process.pid)
        while not ended.wait(0.02):
            with contextlib.suppress(psutil.Error):
                held = [one.memory_info().rss for one in (family, *family.children(recursive=True))]
                peak[0] = max(peak[0], sum(held))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    subprocess.run(["rm", "-r", folder], check=True)
    return process.returncode, max(peak[0], usage.ru_maxrss * 1024), said


def main() -> None:
    """Print the table; exit code 1 where a run took more than it was allowed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--limits", default="700MB,1GB,2GB,4GB")
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="a folder to keep the photos in")
    options = parser.parse_args()
    limits = options.limits.split(",")
    broken = 0
    print(f"| case | {' | '.join(limits)} |\n|---|{'---|' * len(limits)}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        photos = options.photos or Path(temporary)
        photos.mkdir(parents=True, exist_ok=True)
        for case in options.cases:
            megapixels, kind, *wanted = case.split("-")
            flags = ["--engine=float" if flag == "float" else f"--{flag}" for flag in wanted]
            source = photo(photos, float(megapixels), kind)
            cells = []
            for limit in limits:
                code, peak, said = run(source, options.copies, limit, flags, photos)
                cell = f"{peak / 1e6:,.0f}"
                if "--max-memory" in said:
                    cell = f"refused ({cell})"
                elif code:
                    cell = f"exit {code}: {said.strip()[-120:]}"
                if peak > sizes.parse_bytes(limit):
                    cell, broken = f"**{cell}**", broken + 1
                cells.append(cell)
            print(f"| {case} | {' | '.join(cells)} |", flush=True)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
