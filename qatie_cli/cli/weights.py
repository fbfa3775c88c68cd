"""`qatie weights`: list, locate, verify and import weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli import chatter, installation
from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import Quiet, Threads, need_torch, use_threads
from qatie_cli.errors import Exit, QatieError, UsageError
from qatie_cli.model.shipped import DEFAULT

if TYPE_CHECKING:
    from qatie_cli.exchange.agreement import EngineAgreement
    from qatie_cli.exchange.photos import Split

_MOST_PHOTOS = 16  # of those named

app = typer.Typer(help="List, verify and import weights.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the shipped weights.

    Prints name, size, whether a cached copy exists, and description.
    """
    from qatie_cli.model import shipped

    for entry in shipped.manifest().values():
        size = entry.packaged.stat().st_size / 1e6 if entry.packaged.exists() else 0.0
        cached = "cached" if shipped.is_intact(entry.cached, entry) else "packaged"
        default = " (default)" if entry.name == DEFAULT else ""
        print(f"{entry.name}\t{size:.1f} MB\t{cached}\t{entry.description}{default}")


@app.command("path")
def path(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Shipped weights, or a weights file.")] = DEFAULT,
) -> None:
    """Print the path of a weights file."""
    from qatie_cli.model import shipped

    print(shipped.locate(name))


@app.command("verify")
def verify() -> None:
    """Verify checksums and repair cached copies."""
    from qatie_cli.errors import WeightsError
    from qatie_cli.model import shipped

    screen, damaged = console(), False
    for entry in shipped.manifest().values():
        try:
            shipped.check_packaged(entry)
        except WeightsError as error:
            damaged = True
            screen.print(f"[red]{error}[/] {error.hint}")
            continue
        if entry.cached.exists() and not shipped.is_intact(entry.cached, entry):
            shipped.locate(entry.name)
            print(f"{entry.name}: intact; its cached copy was damaged and is repaired")
        else:
            print(f"{entry.name}: intact")
    if damaged:
        raise typer.Exit(Exit.NOTHING_DONE)


@app.command("clear")
def clear() -> None:
    """Remove cached copies.

    The files of the package stay.
    """
    from qatie_cli.model import shipped

    for removed in shipped.clear():
        print(removed)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite, .ckpt or .onnx file.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Weights file to write; by default in this folder, named after FILE."),
    ] = None,
    photos: Annotated[
        list[Path] | None,
        typer.Option(help="Photo or folder to calibrate int8 on; repeatable. By default scikit-image's."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run a .tflite file in LiteRT, at its own input size.")
    ] = False,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Convert other weights to a weights file.

    Reads the paper authors' .tflite and .ckpt files and models that qatie exported. The network is recognised by its
    shapes; nothing in a file is executed. Int8 ranges are calibrated on photos, except those of qatie's own exports,
    which carry theirs. Then every engine is compared with the file's float network. Needs the extra `import`.
    """
    need_torch("weights import")
    from qatie_cli.exchange import agreement, reading, runtimes
    from qatie_cli.exchange.photos import for_check
    from qatie_cli.model import checkpoint

    out = out or Path(f"{file.stem}.safetensors")
    if out.suffix != ".safetensors":
        raise UsageError(f"Weights files end in .safetensors, {out} does not.", "Choose another file with -o.")
    use_threads(threads)
    screen = console()
    with chatter.hidden():
        found = reading.read(file)
        published = file if compare and file.suffix.lower() == ".tflite" else None
        if compare and published is None:
            raise UsageError(f"LiteRT cannot run {file}.", "--compare needs a .tflite file.")
    chosen, where = _photos(photos or [], found.weights is None)
    with progress("[dim]{task.fields[text]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=None, text="reading")
        made = reading.finished(found, chosen.calibration, lambda text: bar.update(shown, text=text))
        try:
            checkpoint.write(out, made)
        except OSError as error:
            reason = error.strerror or error
            raise QatieError(f"{out} cannot be written: {reason}.", "Choose another file with -o.") from error
        if not quiet:
            sides = None if published is None else runtimes.litert_sides(published)
            pictures = [for_check(photo, sides) for photo in chosen.check.values()]
            bar.update(shown, total=len(pictures), text="comparing")
            with chatter.hidden():
                agreed = agreement.of_engines(
                    made, reading.as_written(found), pictures, published, max(1, threads), lambda: bar.advance(shown)
                )
    if quiet:
        return
    tone = "" if made.config.tone is None else ", with its tone stage"
    screen.print(f"Read {plain(file)}: {found.kind}, {made.config.network.described}{tone}.")
    screen.print(f"Wrote {plain(out)}. Use it with: qatie enhance PHOTOS -o OUT --weights {plain(out)}")
    _show(agreed, where, pictures[0].shape if published else None)


def _photos(paths: list[Path], needed: bool) -> tuple[Split, str]:
    """Photos for calibration (if needed) and for measuring, and a name for the latter.

    Raises:
        UsageError: there are none to calibrate on.
    """
    from qatie_cli.bench import pictures
    from qatie_cli.cli import photos
    from qatie_cli.exchange.photos import Split, split

    if paths:
        chosen = split(photos.named(paths, _MOST_PHOTOS))
        kind = "photos calibrated on" if chosen.shared else "other photos"
        return chosen, f"{len(chosen.check)} {kind}"
    found = photos.at_hand()
    if found:
        check = {name: photo for name, photo in found.items() if "phone-like" not in name}
        return Split(found, check), f"{len(check)} photos of scikit-image"
    if needed:
        raise UsageError(
            "There are no photos to calibrate int8 on.", f"Give some with --photos, or: {installation.extra('import')}"
        )
    return Split({}, {"": pictures.generated()}), "a generated picture"


def _show(agreed: list[EngineAgreement], where: str, shape: tuple[int, ...] | None) -> None:
    from rich import box
    from rich.table import Table

    size = "" if shape is None else f" at {shape[0]}x{shape[1]} (height x width)"
    table = Table(title=f"PSNR to the file's float network, {where}{size}", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for heading in ("mean dB", "worst dB"):
        table.add_column(heading, justify="right")
    for row in agreed:
        table.add_row(plain(row.name), f"{row.mean:.1f}", f"{row.worst:.1f}")
    console().print(table)
