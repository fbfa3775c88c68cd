"""Options shared by several commands."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from qatie_cli.engines import Engine
    from qatie_cli.photo.fineness import Quality


class EngineName(StrEnum):
    """Choices of --engine."""

    auto = "auto"
    float = "float"
    fbgemm = "fbgemm"
    qnnpack = "qnnpack"
    onednn = "onednn"
    x86 = "x86"
    onnxruntime = "onnxruntime"
    llvm = "llvm"


class Device(StrEnum):
    """Choices of --device."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class TrainingDevice(StrEnum):
    """Choices of --device of `qatie train`."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Format(StrEnum):
    """Choices of --format."""

    keep = "keep"
    same = "same"
    jpeg = "jpeg"
    png = "png"
    webp = "webp"
    tiff = "tiff"
    heic = "heic"
    avif = "avif"


Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.", show_default=False)]
EngineOption = Annotated[
    EngineName,
    typer.Option("--engine", "--backend", help="int8 on llvm, onnxruntime or one of PyTorch's engines, or float."),
]
WeightsOption = Annotated[str, typer.Option("--weights", help="Shipped weights by name, or a weights file.")]
Threads = Annotated[
    int, typer.Option("--threads", min=0, help="CPU threads for the network; 0 uses all available cores.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="TOML file of settings, like those in weights/recipes.")
]
ReportFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="Write a JSON report with the result of every photo; - is standard output."),
]
Folders = Annotated[
    str | None,
    typer.Option(help="The two folders of pairs, as INPUT/TARGET; only needed if their names are unusual."),
]
DeviceOption = Annotated[Device, typer.Option("--device", help="cuda and mps run the float network.")]
Fast = Annotated[
    bool | None,
    typer.Option(
        "--fast/--full",
        help="Run the network on photos above 4 megapixels at reduced size; tone and edges stay at full size.",
        show_default="--fast, and --full for photos that are noisy at full size",
    ),
]
QualityOption = Annotated[
    str | None,
    typer.Option(
        "--quality",
        metavar="N|source",
        help="Quality of lossy formats: 1 to 100, or about that of the source file.",
        show_default="95, or as fine as a JPEG's source",
    ),
]
MaxPixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Refuse larger photos.")]
NoHdr = Annotated[bool, typer.Option("--no-hdr", help="Drop HDR gain maps, so that every screen shows the same photo.")]
NoMotion = Annotated[bool, typer.Option("--no-motion", help="Drop the video of motion photos.")]
Sidecars = Annotated[bool, typer.Option("--sidecars", help="Copy XMP sidecars (a.xmp, a.jpg.xmp) to the outputs.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Memory limit; larger photos run in tiles.", show_default="60% of free"),
]
FilesFrom = Annotated[
    Path | None,
    typer.Option(
        help="More inputs, a line each (or ended by NUL, as find -print0 does); - is standard input. Relative "
        "paths are kept under OUT; folders are searched, except . and /.",
        show_default=False,
    ),
]
Gallery = Annotated[
    bool | None,
    typer.Option(
        "--gallery/--no-gallery",
        help="Write OUT/index.html, a page to look through before and after.",
        show_default="if OUT has one, refresh it",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|local|ADDRESS",
        help="Run on a Ray cluster: the one this machine belongs to, a new one on this machine, or the one at ADDRESS.",
        show_default=False,
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|MIN:MAX",
        help="Number of workers on the cluster.",
        show_default="as many as it has room for",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print a line for each photo.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def parse_quality(text: str | None) -> Quality:
    """The value of --quality."""
    from qatie_cli.photo import fineness  # loads NumPy and Pillow, which --help does not need

    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() else 0  # int() also accepts 9_5 and +95
    try:
        return fineness.check(fineness.SOURCE if text == fineness.SOURCE else number)
    except ValueError:
        raise UsageError(f"Invalid quality '{text}'.", "Give a number from 1 to 100, or source.") from None


def check_sidecars(sidecars: bool, in_place: bool, strip_metadata: bool) -> None:
    """Raise UsageError where --sidecars contradicts another option."""
    if sidecars and (in_place or strip_metadata):
        other = "--in-place" if in_place else "--strip-metadata"
        raise UsageError(f"--sidecars and {other} contradict each other.", "Leave one out.")


def load_engine(
    weights: str,
    engine: str,
    threads: int,
    device: Device = Device.cpu,
    begun_on: str = "",
    pixels: int | None = None,
    among: Collection[str] | None = None,
) -> Engine:
    """The engine that the options name; `begun_on`, `pixels` and `among` as in `engines.load`."""
    from qatie_cli import engines
    from qatie_cli.model import checkpoint
    from qatie_cli.model.shipped import locate

    found = checkpoint.read(locate(weights))
    return engines.load(found, engine, device.value, threads, begun_on, pixels, among)


def use_threads(threads: int) -> None:
    """Set PyTorch's number of threads; 0 keeps its default."""
    import torch

    if threads:
        torch.set_num_threads(threads)


def need_extra(extra: str, *modules: str, subject: str = "This") -> None:
    """Raise UsageError unless the modules of an extra are installed; `subject` begins the message."""
    from qatie_cli import installation

    if missing := [name for name in modules if not installation.has(name)]:
        raise UsageError(f"{subject} needs {', '.join(missing)}.", f"Run: {installation.extra(extra)}")


def check_cluster(cluster: str | None, workers: str | None) -> None:
    """Raise UsageError for --workers without --cluster, and for --cluster without its extra."""
    if workers is not None and cluster is None:
        raise UsageError("--workers needs --cluster.", "Add --cluster, or leave out --workers.")
    if cluster is not None:
        need_extra("cluster", "ray", "pyarrow", subject="--cluster")


def need_torch(command: str) -> None:
    """Raise UsageError unless PyTorch is installed."""
    from qatie_cli import installation

    installation.need_torch(f"qatie {command}")
