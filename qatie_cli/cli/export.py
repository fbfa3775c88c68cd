"""`qatie export`: weights as a model for other runtimes, checked before it is written."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli import chatter, sizes
from qatie_cli.cli.console import confirm, console, plain
from qatie_cli.cli.options import Threads, Yes, need_extra, need_torch, use_threads
from qatie_cli.errors import QatieError, UsageError

if TYPE_CHECKING:
    import numpy as np


class ModelFormat(StrEnum):
    """Choices of --format."""

    onnx = "onnx"
    tflite = "tflite"
    executorch = "executorch"


def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Shipped weights by name, or a file.")],
    format: Annotated[ModelFormat, typer.Option("--format", "-f", help="Runtime to export for.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)],
    int8: Annotated[bool, typer.Option("--int8", help="Export int8 instead of float.")] = False,
    size: Annotated[
        str, typer.Option(help="Height x width of photos, as 1080x1920, in multiples of 8; dynamic takes any.")
    ] = "dynamic",
    photo: Annotated[
        Path | None, typer.Option(help="Photo to check the model on; by default one of scikit-image's.")
    ] = None,
    least: Annotated[
        float, typer.Option(help="Minimum PSNR in dB to qatie's own output; below it nothing is written.")
    ] = 40.0,
    yes: Yes = False,
    threads: Threads = 0,
) -> None:
    """Export weights to another runtime.

    Writes a model for ONNX Runtime, LiteRT (TFLite) or ExecuTorch. It is first run there on a photo and compared with
    qatie's own int8 and float; below --least nothing is written. Needs the extra `export`, or `executorch` for
    ExecuTorch.
    """
    sides = _sides(size)
    need_torch("export")
    from qatie_cli.exchange import formats

    chosen = formats.FORMATS[format.value]
    need_extra(chosen.extra, *chosen.modules)
    _check_target(out, yes)
    import torch

    from qatie_cli import files
    from qatie_cli.exchange import agreement
    from qatie_cli.model import checkpoint
    from qatie_cli.model.shipped import locate

    use_threads(threads)
    read = checkpoint.read(locate(weights))
    name, seen = _photo(photo, sides)
    with chatter.hidden():
        content = formats.build(read, format.value, int8=int8, size=sides)
        agreed = agreement.of_export(format.value, content, read, seen, torch.get_num_threads())
    agreed.check(int8, least)
    try:
        files.write_atomic(out, content)
    except OSError as error:
        raise QatieError(
            f"{out} cannot be written: {error.strerror or error}.", "Choose another file with -o."
        ) from error
    arithmetic = "int8" if int8 else "float"
    any_size = "any size" if sides is None else f"{sides[0]}x{sides[1]}"
    screen = console()
    screen.print(f"Wrote {plain(out)}: {arithmetic} for {chosen.runtime}, {any_size}, {len(content) / 1e6:.2f} MB.")
    ours = "" if agreed.to_int8 is None else f"{agreed.to_int8:.1f} dB to qatie's int8, "
    place = f"{plain(name)} at {seen.shape[0]}x{seen.shape[1]}"
    screen.print(f"Run in {chosen.runtime} on {place}: {ours}{agreed.to_float:.1f} dB to its float.")


def _check_target(out: Path, yes: bool) -> None:
    """Create the file's folder, and ask before replacing a file.

    Raises:
        UsageError: it cannot be written, or it exists and confirmation is impossible.
    """
    from qatie_cli import files

    if files.is_special(out):
        return
    if out.is_dir():
        raise UsageError(f"{out} is a folder.", "Give a file with -o.")
    if out.exists() and not yes:
        confirm(f"Replace {out}?", f"{out} exists.")
    try:
        files.check_writable(out.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{out} cannot be written: {reason}.", "Choose another file with -o.") from error


def _sides(size: str) -> tuple[int, int] | None:
    """Height and width, or None for any.

    Raises:
        UsageError: the size is not one that a model can have.
    """
    if size.lower() == "dynamic":
        return None
    return sizes.parse_model_size(size, multiple=8)


def _photo(path: Path | None, sides: tuple[int, int] | None) -> tuple[str, np.ndarray]:
    """Name and pixels of the photo to check on, at the model's size."""
    from qatie_cli.bench import pictures
    from qatie_cli.cli import photos
    from qatie_cli.data import demo
    from qatie_cli.exchange.photos import for_check

    if path is not None:
        ((name, pixels),) = photos.named([path], 1).items()
    else:
        try:
            name = "coffee"
            pixels = demo.originals()[name]
        except QatieError:
            name, pixels = "a generated picture", pictures.generated()
    return name, for_check(pixels, sides)
