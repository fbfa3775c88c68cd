"""`qatie bench`: how fast each engine is on this machine."""

from __future__ import annotations

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import EngineName, Quiet, Threads, WeightsOption, use_threads
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.model.shipped import DEFAULT

if TYPE_CHECKING:
    from qatie_cli.bench import Bench
    from qatie_cli.photo.content import Photo

_MOST_PHOTOS = 4  # for agreement with float


# Choices of --engine here: all of them, or one of those that `enhance` has.
Choice = StrEnum("Choice", ["all", *(name.value for name in EngineName)])


def bench(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PHOTO", help="Photos to measure on; a synthetic picture by default."),
    ] = None,
    engine: Annotated[
        list[Choice] | None, typer.Option("--engine", "--backend", help="What to measure; repeatable. All by default.")
    ] = None,
    weights: WeightsOption = DEFAULT,
    size: Annotated[
        str | None, typer.Option(help="12MP or 1920x1080; the first photo's own, or 1920x1080 without photos.")
    ] = None,
    threads: Threads = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, after two to warm up.")] = 7,
    runtimes: Annotated[
        bool, typer.Option("--runtimes/--no-runtimes", help="Run the weights in other installed runtimes, too.")
    ] = True,
    against: Annotated[
        list[Path] | None, typer.Option(help="A .tflite or .onnx file to run beside them; repeatable.")
    ] = None,
    commands: Annotated[
        bool, typer.Option("--commands/--no-commands", help="Also time whole processes: start-up and file to file.")
    ] = True,
    plot: Annotated[Path | None, typer.Option(help="Write speed against agreement as a picture (extra bench).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Figures on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure engines on this machine: speed, share of the processor's peak, memory, start-up, agreement with float.

    All run in turns in one process, so their ratios hold on a busy machine, too. Other runtimes are compared where they
    are installed (extra `bench`: ONNX Runtime, OpenVINO, LiteRT).
    """
    import torch

    from qatie_cli import bench as library
    from qatie_cli import engines, sizes
    from qatie_cli.model import checkpoint
    from qatie_cli.model.shipped import locate
    from qatie_cli.photo.content import Photo

    use_threads(threads)
    threads = torch.get_num_threads()
    loaded = checkpoint.read(locate(weights))
    wanted = engine or [Choice.all]
    names = list(engines.available()) if Choice.all in wanted else [engines.resolve(e.value) for e in wanted]
    if engines.FLOAT not in names:
        names.append(engines.FLOAT)  # what all the others are compared with
    if loaded.activations is None:
        names = [engines.FLOAT]
    seen = _read(photos or [])
    asked = sizes.parse_photo_size(size) if size else (None if seen else (1920, 1080))
    photo = library.resized(seen[0].rgb_u8() if seen else library.generated(), asked)
    machine = library.measure_machine(threads)
    contenders = [library.engine_contender(loaded, name, photo) for name in names]
    if runtimes:
        contenders += library.onnx_contenders(loaded, photo, threads)
    contenders += [library.file_contender(path, threads) for path in against or []]
    with progress("{task.fields[text]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=rounds + library.WARM_UP, text="rounds")
        library.race(contenders, rounds, lambda done: bar.update(shown, completed=done))
        whole = seen or [Photo(photo, "png")]
        rows = [library.judged(c, machine, loaded, photo, contenders, whole) for c in contenders]
        if commands:
            bar.update(shown, total=None, text="whole processes")
            rows = library.with_commands(rows, contenders, weights, photo, threads)
    found = library.Bench(machine, photo.shape[1], photo.shape[0], tuple(rows))
    if plot is not None:
        library.write_plot(plot, found)
    if as_json:
        print(json.dumps(dataclasses.asdict(found) | {"weights": weights}, indent=1))
    else:
        _show(found, weights)


def _read(paths: list[Path]) -> list[Photo]:
    """The photos that can be read; others are reported."""
    from qatie_cli.photo import decoding
    from qatie_cli.photo.discovery import photos_of

    files = photos_of(paths)
    found = []
    for path in files:
        if len(found) == _MOST_PHOTOS:
            break
        try:
            found.append(decoding.read(path))
        except PhotoError as error:
            console().print(f"[yellow]Left out:[/] {plain(error.one_line())}")
    if files and not found:
        raise DataError("None of the photos can be read.", "Name others.")
    return found


def _show(found: Bench, weights: str) -> None:
    from rich import box
    from rich.table import Table

    machine = found.machine
    title = f"{weights}, {found.width}x{found.height}, {machine.threads} threads"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for heading in ("network s", "10-90%", "MP/s", "of peak", "to float", "start-up", "file s", "MB"):
        table.add_column(heading, justify="right")
    for row in found.rows:
        t, file = row.network, row.end_to_end
        table.add_row(
            f"{plain(row.name)} {row.arithmetic}" if row.arithmetic != row.name else row.name,
            f"{t.median:.3f}",
            f"{t.p10:.2f}-{t.p90:.2f}",
            f"{row.megapixels_per_second:.1f}",
            _cell(row.peak_share, "{:.0%}"),
            _cell(row.agreement_db, "{:.1f} dB"),
            _cell(row.start_up and row.start_up.seconds, "{:.2f} s"),
            _cell(file and file.seconds, "{:.2f}"),
            _cell(file and file.memory and file.memory / 1e6, "{:.0f}"),
        )
    screen = console()
    screen.print(table)
    rates = f"int8 {machine.int8_peak / 1e9:.0f}, float {machine.float_peak / 1e9:.0f}"
    screen.print(f"Peak of this machine: {rates} GMAC/s.")
    from qatie_cli import kernels

    if not kernels.installed():
        screen.print("[yellow]numba is not installed[/]: tone and the int8 network's pointwise layers run uncompiled.")
    for row in found.rows:
        if row.remark:
            screen.print(f"[yellow]{plain(row.name)}:[/] {row.remark}.")


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
