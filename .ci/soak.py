"""Soak a batch: many small photos, some damaged, through an interruption, kills and a full disk; print what was lost.

    python .ci/soak.py FOLDER [--photos 20000] [--damaged 200]

Writes only below FOLDER, which must not exist. As root on Linux the outputs lie on a file system of their own, which is
filled on the way; elsewhere that phase is left out. 20,000 photos take about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from qatie_cli.gallery import links, overview, previews
from qatie_cli.photo import decoding, encoding
from qatie_cli.photo.content import Photo

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = 40
DISK_BYTES = 2 << 30  # of a sparse file
BALLAST = "ballast"
KILLS = 5  # after a random number of outputs each, beside the one at a set point
SAME_AS_UNINTERRUPTED = 20  # one photo in so many is enhanced a second time, by a run that nothing disturbs


@dataclass
class Phase:
    """One run of the command, and what it left."""

    name: str
    code: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0  # of all its processes together, as far as samples saw it
    outputs: dict[str, tuple[int, int]] = field(default_factory=dict)  # inode and time of each, when it had ended
    report: dict | None = None


# --- photos -------------------------------------------------------------------------------------------------------


def make_photos(folder: Path, good: int, damaged: int) -> tuple[dict[Path, tuple[int, int]], set[Path]]:
    """Write them; the good ones with their width and height, and the damaged ones."""
    random_numbers = np.random.default_rng(0)
    sizes: dict[Path, tuple[int, int]] = {}
    for index in range(good + damaged):
        place = folder / f"{index % FOLDERS:02}"
        place.mkdir(parents=True, exist_ok=True)
        width, height = map(int, random_numbers.integers(64, 97, 2))
        coarse = random_numbers.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        kind = _KINDS[index % len(_KINDS)]
        if index >= good:
            suffix, content = _DAMAGES[index % len(_DAMAGES)](fine)
            (place / f"damaged-{index}{suffix}").write_bytes(content)
            continue
        pixels = fine.astype(np.uint16) * 257 if kind == "png16" else fine
        fmt = "png" if kind == "png16" else kind
        path = place / f"{index}.{fmt}"
        path.write_bytes(encoding.encoded(Photo(pixels, fmt), fmt))
        sizes[path] = (width, height)
    return sizes, set(folder.rglob("damaged-*"))


_KINDS = ("jpeg",) * 14 + ("png", "png16", "webp", "webp", "tiff", "heic")


def _encoded(pixels: np.ndarray, fmt: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, fmt)
    return content.getvalue()


_DAMAGES = (
    lambda pixels: (".jpg", b""),
    lambda pixels: (".jpg", b"There is no photo here.\n"),
    lambda pixels: (".jpg", _encoded(pixels, "JPEG")[:300]),
    lambda pixels: (".jpg", b"\xff\xd8\xff\xe0" + bytes(2000)),
    lambda pixels: (".png", _encoded(pixels, "PNG")[:200]),
    lambda pixels: (".png", _encoded(pixels, "PNG").replace(b"IDAT", b"IDAt", 1)),
    lambda pixels: (".gif.png", _encoded(pixels, "GIF")),
    lambda pixels: (".webp", _encoded(pixels, "WEBP")[:40]),
    lambda pixels: (".tif", _encoded(pixels, "TIFF")[:60]),
    lambda pixels: (".heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)),
)


# --- runs ---------------------------------------------------------------------------------------------------------


class Soak:
    """The runs over one folder of photos."""

    def __init__(self, folder: Path, sources: Path, out: Path) -> None:
        self.folder, self.sources, self.out = folder, sources, out
        self.phases: list[Phase] = []
        self.log = (folder / "log.txt").open("ab")
        self._read = self._recorded = 0

    def command(self, sources: Path, out: Path, report: Path) -> list[str]:
        """A batch with everything on."""
        program = [sys.executable, "-P", "-m", "qatie_cli", "enhance"]
        return [*program, *map(str, (sources, "-o", out)), "--gallery", "--report", str(report), "--quiet"]

    def run(
        self,
        name: str,
        until: int | None = None,
        act: signal.Signals | Callable[[subprocess.Popen], object] | None = None,
    ) -> Phase:
        """A run that ends by itself, or to which something happens at so many outputs."""
        phase, report = Phase(name), self.folder / f"report-{len(self.phases)}.json"
        began = time.monotonic()
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            self.command(self.sources, self.out, report), stderr=self.log, stdout=self.log, env=environment
        )
        watcher = threading.Thread(target=self._watch, args=(process, phase))
        watcher.start()
        if act is not None and until is not None:
            while process.poll() is None:
                if self.recorded() >= until:
                    process.send_signal(act) if isinstance(act, signal.Signals) else act(process)
                    break
                time.sleep(0.5)
        phase.code = process.wait()
        watcher.join()
        phase.seconds = time.monotonic() - began
        phase.outputs = self.there()
        if report.exists():
            phase.report = json.loads(report.read_text())
        self.phases.append(phase)
        print(f"{name}: exit {phase.code}, {len(phase.outputs):,} outputs, {phase.seconds:.0f} s", flush=True)
        return phase

    @staticmethod
    def _watch(process: subprocess.Popen, phase: Phase) -> None:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                family = [watched, *watched.children(recursive=True)]
                phase.peak_bytes = max(phase.peak_bytes, sum(p.memory_info().rss for p in family))
            time.sleep(1)

    def recorded(self) -> int:
        """Outputs that the folder's record has."""
        with contextlib.suppress(OSError):
            with (self.out / ".qatie" / "made.jsonl").open("rb") as file:
                file.seek(self._read)
                added = file.read()
            self._read += len(added)
            self._recorded += added.count(b'{"output"')
        return self._recorded

    def there(self) -> dict[str, tuple[int, int]]:
        """Inode and time of every output."""
        found = {}
        for path in sorted(self.out.glob("[0-9][0-9]/*")):
            if not path.name.startswith("."):
                status = path.stat()
                found[str(path.relative_to(self.out))] = status.st_ino, status.st_mtime_ns
        return found


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path | None]:
    """A mounted file system of its own below `folder`; None where it cannot be had."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    made = shutil.which("mkfs.ext4") and os.geteuid() == 0
    # Many small files: an inode for every 4 kB.
    if not made or subprocess.run(["mkfs.ext4", "-q", "-i", "4096", "-m", "0", image], check=False).returncode:
        yield None
        return
    if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path) -> Path:
    """A file that takes all the room there is."""
    ballast = place / BALLAST
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(place).free - (1 << 20)))
        file.seek(0, os.SEEK_END)
        while True:
            file.write(bytes(4096))
    return ballast


# --- what is there in the end -------------------------------------------------------------------------------------


def output_of(source: Path, soak: Soak) -> Path:
    """Where the enhanced photo is."""
    made = soak.out / source.relative_to(soak.sources)
    return made.with_suffix(".jpg") if source.suffix == ".heic" else made


def is_enhanced(source: Path, made: Path, size: tuple[int, int]) -> bool:
    """Whether `made` is a whole photo that shows what `source` does."""
    try:
        before, after = (decoding.read(path).rgb_u8() for path in (source, made))
    except Exception as error:
        print(f"{made}: {error}")
        return False
    if after.shape[1::-1] != size:
        return False
    small = [np.asarray(Image.fromarray(pixels).resize((6, 6)), float).ravel() for pixels in (before, after)]
    return float(np.corrcoef(*small)[0, 1]) > 0.9


def digest(folder: Path) -> str:
    """Of the names and contents of all files."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(os.fsencode(path) + b"\0" + path.read_bytes())
    return total.hexdigest()


def left_over(soak: Soak, expected: set[Path]) -> list[Path]:
    """Files below the output folder that nobody needs."""
    known = {soak.out / ".qatie" / "made.jsonl", soak.out / "index.html"}
    shown = {path.relative_to(soak.out).as_posix() for path in expected}
    gallery = next(path.parent for path in soak.out.rglob("entries.json"))
    known |= {gallery / "entries.json"}
    for name in shown:
        for side in overview.SIDES:
            known |= set(previews.paths(gallery, links.key_of(name), side))
    found = {path for path in soak.out.rglob("*") if path.is_file()}
    print(f"of the gallery's files are missing: {len(known - found)}")
    return sorted(found - known - expected)


def main() -> None:
    """Make photos, run, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=20000)
    parser.add_argument("--damaged", type=int, default=200)
    options = parser.parse_args()
    # In the background of a shell it is ignored, and so it would be by the runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    good, damaged = make_photos(folder / "in", options.photos - options.damaged, options.damaged)
    before = digest(folder / "in")
    with disk(folder) as place:
        soak = Soak(folder, folder / "in", folder / "out" if place is None else place / "out")
        soak.run("Ctrl-C", len(good) // 5, signal.SIGINT)
        soak.run("killed", len(good) * 2 // 5, signal.SIGKILL)
        moments = random.Random(0)
        for _ in range(KILLS):
            soak.run("killed", soak.recorded() + moments.randrange(1, 60), signal.SIGKILL)
        if place is None:
            print("There is no file system to fill: that phase is left out.")
        else:
            ballast = fill(place)
            soak.run("disk full from the start")
            ballast.unlink()
            soak.run("disk full later", len(good) * 4 // 5, lambda process: fill(place))
            (place / BALLAST).unlink(missing_ok=True)
        soak.run("to the end")
        soak.run("again")
        tell(soak, good, damaged, digest(folder / "in") == before)


def tell(soak: Soak, good: dict[Path, tuple[int, int]], damaged: set[Path], untouched: bool) -> None:
    """Print the tables; exit code 1 where something is wrong."""
    print("\n| run | exit code | enhanced | skipped | failed | not begun | outputs then | peak MB | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for phase in soak.phases:
        counts = {} if phase.report is None else phase.report["counts"]
        cells = [counts.get(status, 0) for status in ("enhanced", "skipped", "failed", "not begun")]
        cells = ["no report", "", "", ""] if phase.report is None else cells
        code = "killed" if phase.code < 0 else phase.code
        figures = [code, *cells, len(phase.outputs), round(phase.peak_bytes / 1e6), round(phase.seconds)]
        print(f"| {phase.name} | {' | '.join(map(str, figures))} |")

    last = soak.phases[-1]
    twice = {
        name
        for phase in soak.phases
        for name, made in phase.outputs.items()
        if name in last.outputs and last.outputs[name] != made
    }
    vanished = {name for phase in soak.phases for name in phase.outputs} - set(last.outputs)
    expected = {output_of(source, soak) for source in good}
    lost = [source for source, size in good.items() if not is_enhanced(source, output_of(source, soak), size)]
    rows = (last.report or {"photos": []})["photos"]
    failed = {Path(row["input"]): row["reason"] for row in rows if row["status"] == "failed"}
    alike = _same_as_uninterrupted(soak, sorted(good))
    left = left_over(soak, expected)
    figures = {
        "photos": len(good) + len(damaged),
        "enhanced": len(good) - len(lost),
        "failed": len(failed),
        "failed that are not damaged": len(set(failed) - damaged),
        "damaged that did not fail": len(damaged - set(failed)),
        "done twice": len(twice),
        "lost": len(lost) + len(vanished),
        "left over": len(left),
        "differ from an undisturbed run": alike,
        "originals changed": 0 if untouched else 1,
        "peak MB": round(max(phase.peak_bytes for phase in soak.phases) / 1e6),
        "seconds": round(sum(phase.seconds for phase in soak.phases)),
    }
    print("\n| what | number |\n|---|---|")
    for what, number in figures.items():
        print(f"| {what} | {number:,} |")
    print("\n| why photos failed | photos |\n|---|---|")
    for reason, number in Counter(_kind(path, reason) for path, reason in failed.items()).most_common():
        print(f"| {reason} | {number} |")
    for path in [*lost, *left][:20]:
        print(path)
    wrong = ("failed that are not damaged", "damaged that did not fail", "done twice", "lost", "left over")
    if any(figures[what] for what in (*wrong, "differ from an undisturbed run", "originals changed")):
        sys.exit(1)


def _kind(path: Path, reason: str) -> str:
    return reason.replace(str(path), "It").replace(str(path.parent), "").replace("|", "/")


def _same_as_uninterrupted(soak: Soak, good: list[Path]) -> int:
    """How many of some outputs are not byte by byte those of a run that nothing disturbs."""
    some = good[::SAME_AS_UNINTERRUPTED]
    listed = soak.folder / "some.txt"
    listed.write_text("".join(f"{path.relative_to(soak.folder)}\n" for path in some))
    program = [sys.executable, "-P", "-m", "qatie_cli", "enhance", "--files-from", str(listed), "-o", "alone", "-q"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(program, cwd=soak.folder, check=True, env=environment)
    pairs = [
        (output_of(path, soak), soak.folder / "alone" / "in" / output_of(path, soak).relative_to(soak.out))
        for path in some
    ]
    return sum(not made.exists() or made.read_bytes() != alone.read_bytes() for made, alone in pairs)


if __name__ == "__main__":
    main()
