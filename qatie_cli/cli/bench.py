"""`qatie bench`: how fast each engine is on this machine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli import chatter
from qatie_cli.cli.console import console, plain, steps
from qatie_cli.cli.options import EngineName, Quiet, Threads, WeightsOption, need_torch, use_threads
from qatie_cli.errors import DataError, PhotoError, UsageError
from qatie_cli.model.shipped import DEFAULT

if TYPE_CHECKING:
    from qatie_cli.bench.measuring import Bench, Machine
    from qatie_cli.bench.processes import Command
    from qatie_cli.model.checkpoint import Weights
    from qatie_cli.photo.content import Photo

_MOST_PHOTOS = 4  # for agreement with float


_ALL = "all"


def bench(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PHOTO", help="Photos to measure on; a synthetic picture by default."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            "--backend",
            metavar="NAME",
            help="Measure only this engine, or onnxruntime, openvino, litert; repeatable. All by default.",
        ),
    ] = None,
    weights: WeightsOption = DEFAULT,
    size: Annotated[
        str | None, typer.Option(help="12MP or 1920x1080. Default: the size of the first photo, or 1920x1080.")
    ] = None,
    threads: Threads = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds, after two warm-up rounds.")] = 7,
    runtimes: Annotated[
        bool,
        typer.Option("--runtimes/--no-runtimes", help="Also measure other installed runtimes."),
    ] = True,
    against: Annotated[
        list[Path] | None, typer.Option(help="A .tflite or .onnx file to run beside them; repeatable.")
    ] = None,
    commands: Annotated[
        bool,
        typer.Option("--commands/--no-commands", help="Also measure memory, start-up and file-to-file time."),
    ] = True,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Plot speed against agreement (extra bench).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the speed of every engine here.

    Prints seconds, share of the processor's peak, memory, start-up time and agreement with float. Engines take turns in
    one process, so ratios hold on a busy machine, too. ONNX Runtime, OpenVINO and LiteRT are measured where they are
    installed (extra `bench`). Standard error says what is being measured.
    """
    need_torch("bench")
    import torch

    from qatie_cli import engines, sizes
    from qatie_cli.bench import contenders, measuring, pictures, plot, processes
    from qatie_cli.model import checkpoint
    from qatie_cli.model.shipped import locate

    use_threads(threads)
    threads = torch.get_num_threads()
    loaded = checkpoint.read(locate(weights))
    names = _names(engine or [], runtimes, loaded)
    seen = [photo.rgb_u8() for photo in _read(photos or [])]
    asked = sizes.parse_photo_size(size) if size else (None if seen else (1920, 1080))
    photo = pictures.resized(seen[0] if seen else pictures.generated(), asked)
    same_size = [photo, *(pictures.resized(other, photo.shape[1::-1]) for other in seen[1:])]
    same_size = [measuring.as_seen(loaded, picture) for picture in same_size]
    with steps(quiet) as step:
        step("Measuring the peak rates of this machine")
        machine = measuring.measure_machine(threads)
        ready = []
        for name in names:
            for arithmetic in contenders.arithmetics(name, loaded, runtimes):
                step(f"Loading {_label(name, arithmetic)}")
                with chatter.hidden():  # LiteRT's delegate announces itself
                    ready.append(contenders.load(name, arithmetic, loaded, same_size[0], threads))
        for path in against or []:
            step(f"Loading {path.name}")
            with chatter.hidden():
                ready.append(contenders.load_file(path, threads))
        every = rounds + measuring.WARM_UP
        step(f"Timing {len(ready)} in turns, {every} rounds", 0, every)
        others = measuring.race(ready, rounds, lambda done: step(f"Round {done} of {every} done", done, every))
        machine = dataclasses.replace(machine, others=others)
        step("Running float to compare with")
        exact = measuring.exact_residuals(loaded, same_size, threads)
        reference = next((c for c in ready if c.name == engines.FLOAT), None)
        rows = []
        for contender in ready:
            step(f"Comparing {_label(contender.name, contender.arithmetic)} with float")
            rows.append(measuring.judged(contender, machine, loaded, same_size, exact, reference))
        if commands:
            figures = processes.measured(
                ready,
                weights,
                photo,
                threads,
                lambda c: step(f"Running {_label(c.name, c.arithmetic)} in processes of its own"),
            )
            rows = [
                dataclasses.replace(row, memory=f.alone, start_up=f.start_up, end_to_end=f.end_to_end)
                for row, f in zip(rows, figures, strict=True)
            ]
    found = measuring.Bench(machine, weights, photo.shape[1], photo.shape[0], tuple(rows))
    if plot_file is not None:
        plot.write(plot_file, found)
    if as_json:
        print(json.dumps(found.as_table(), indent=1))
    else:
        _show(found)
    _tell_what_slows(machine)


def _names(chosen: list[str], runtimes: bool, weights: Weights) -> list[str]:
    """Engines and runtimes to measure.

    Raises:
        QatieError: one of those chosen cannot run the weights here.
    """
    from qatie_cli import engines
    from qatie_cli.bench import contenders

    known = (_ALL, *(name.value for name in EngineName), *contenders.RUNTIMES)
    if unknown := [name for name in chosen if name not in known]:
        raise UsageError(f"Unknown engine or runtime '{unknown[0]}'.", f"Choose from {', '.join(known)}.")
    if not chosen or _ALL in chosen:
        usable = engines.available_for(weights)
        return list(dict.fromkeys([*usable, *(contenders.installed_runtimes() if runtimes else ())]))
    names = []
    for name in chosen:
        if name in contenders.RUNTIMES:
            contenders.check_runtime(name)
            names.append(name)
        else:
            names.append(engines.load(weights, name).name)
    return list(dict.fromkeys(names))


def _read(paths: list[Path]) -> list[Photo]:
    """The readable photos; the others are reported."""
    from qatie_cli.photo import decoding
    from qatie_cli.photo.discovery import photos_of

    files = photos_of(paths)
    found: list[Photo] = []
    for path in files:
        if len(found) == _MOST_PHOTOS:
            break
        try:
            found.append(decoding.read(path))
        except PhotoError as error:
            console().print(f"[yellow]Left out:[/] {plain(error.one_line())}")
    if files and not found:
        raise DataError("None of the photos can be read.", "Choose others.")
    return found


def _show(found: Bench) -> None:
    from rich import box
    from rich.table import Table

    machine = found.machine
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    title = f"{found.weights}, {found.width}x{found.height}, {threads}"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for heading in (
        "network s",
        "10-90%",
        "CPU s",
        "MP/s",
        "GMAC/s",
        "of peak",
        "to float",
        "MB",
        "start-up",
        "file s",
    ):
        table.add_column(heading, justify="right")
    for row in found.rows:
        t = row.network
        table.add_row(
            plain(_label(row.name, row.arithmetic)),
            f"{t.median:.3f}",
            f"{t.p10:.3f}-{t.p90:.3f}",
            _cell(row.processor_seconds, "{:.3f}"),
            f"{row.megapixels_per_second:.1f}",
            _cell(row.rate, "{:.0f}", 1e9),
            _cell(row.peak_share, "{:.0%}"),
            _cell(row.agreement_db, "{:.1f} dB"),
            _cell(row.memory, "{:.0f}", 1e6),
            _seconds(row.start_up, "{:.2f} s"),
            _seconds(row.end_to_end, "{:.2f}"),
        )
    screen = console()
    screen.print(table)
    rates = f"int8 {machine.int8_peak / 1e9:.0f}, float {machine.float_peak / 1e9:.0f}"
    with_what = f" ({', '.join(machine.instructions)})" if machine.instructions else ""
    screen.print(f"Peak of this machine{with_what}: {rates} GMAC/s.")
    for row in found.rows:
        if row.remark:
            screen.print(f"[yellow]{plain(row.name)}:[/] {row.remark}.")


def _tell_what_slows(machine: Machine) -> None:
    from qatie_cli import kernels

    screen = console()
    if machine.is_busy:
        busy = f"{machine.others:.1f} of {machine.cores} cores"
        screen.print(f"[yellow]The machine is busy:[/] other processes took {busy}. Rely on ratios, not on seconds.")
    if not kernels.installed():
        screen.print("[yellow]numba is not installed[/]: tone and the int8 network's pointwise layers run uncompiled.")


def _label(name: str, arithmetic: str) -> str:
    return name if arithmetic == name else f"{name} {arithmetic}"


def _cell(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else form.format(value / unit)


def _seconds(command: Command | None, form: str) -> str:
    return _cell(None if command is None else command.seconds, form)
