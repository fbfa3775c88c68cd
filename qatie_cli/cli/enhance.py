"""`qatie enhance`: photos in, better photos out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from qatie_cli.cli.console import console, progress
from qatie_cli.cli.options import (
    Device,
    DeviceOption,
    EngineName,
    EngineOption,
    Format,
    Out,
    Quiet,
    Threads,
    WeightsOption,
    load_engine,
)
from qatie_cli.errors import Exit
from qatie_cli.weights import DEFAULT


def enhance(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="Photos and folders.", show_default=False)],
    out: Out,
    engine: EngineOption = EngineName.auto,
    weights: WeightsOption = DEFAULT,
    threads: Threads = 0,
    device: DeviceOption = Device.cpu,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0 leaves the photo as it is, 1 is the full effect.")
    ] = 1,
    format: Annotated[Format, typer.Option(help="keep writes HEIC as JPEG and BMP as PNG.")] = Format.keep,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of lossy formats.", show_default="95")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo outputs that exist.")] = False,
    no_recursive: Annotated[bool, typer.Option("--no-recursive", help="Only the folders named.")] = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger photos are refused.")] = 250_000_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")] = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each photo.")] = False,
) -> None:
    """Enhance photos; the originals are never touched.

    Folders are searched with all below them and keep their tree under OUT. Outputs that exist are skipped, so an
    interrupted run goes on where it stopped. Exit code 3 says that some photos failed; they are named at the end.
    """
    from qatie_cli import batch

    options = batch.Options(format.value, quality, not no_recursive, overwrite, max_pixels)
    plan = batch.plan(inputs, out, options)
    screen = console()
    for path in plan.not_photos:
        screen.print(f"[yellow]Skipped:[/] {_plain(path)} is no photo that qatie reads.")
    if dry_run:
        for task in plan.tasks:
            print(f"{task.source} -> {task.output}")
        screen.print(f"{_count(len(plan.tasks))} to enhance, {len(plan.done)} done already.")
        return
    if not plan.tasks:
        screen.print(f"Nothing to do: {_count(len(plan.done))} done already." if plan.done else "No photos found.")
        raise typer.Exit(Exit.OK if plan.done else Exit.NOTHING_DONE)
    # Only now is there work for torch; `photo` comes with it since both take their time to import.
    from qatie_cli.enhance import enhance as enhance_pixels

    ready = load_engine(weights, engine, threads, device)
    began = time.monotonic()
    failed, enhanced, megapixels = [], 0, 0.0
    with progress("[dim]{task.fields[speed]:.1f} MP/s  {task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=len(plan.tasks), speed=0.0, name=plan.tasks[0].source.name)
        results = batch.run(plan.tasks, lambda p: p.with_pixels(enhance_pixels(p.rgb(), ready, strength)), options)
        for index, result in enumerate(results, 1):
            if result.status is batch.Status.FAILED:
                failed.append(result)
                screen.print(f"[red]Failed:[/] {_plain(result.reason)}")
            else:
                enhanced += 1
                megapixels += result.megapixels
                if verbose:
                    screen.print(f"{_plain(result.task.output)}  {result.megapixels:.1f} MP  {result.seconds:.2f} s")
                for note in result.notes if not quiet else ():
                    screen.print(f"[yellow]Note:[/] {_plain(result.task.source)}: {note}.")
            following = plan.tasks[min(index, len(plan.tasks) - 1)].source.name
            speed = megapixels / (time.monotonic() - began)
            bar.update(shown, completed=index, speed=speed, name=_plain(following))
    if not quiet:
        seconds = time.monotonic() - began
        speed = f"{megapixels:.1f} MP in {seconds:.1f} s, {megapixels / seconds:.1f} MP/s"
        arithmetic = "float" if ready.name == "float" else f"int8 on {ready.name}"
        where = f"{arithmetic}, {ready.device}" if ready.device != "cpu" else arithmetic
        skipped = f", {len(plan.done)} done already" if plan.done else ""
        screen.print(f"{_count(enhanced)} enhanced{skipped} ({speed}; {_plain(weights)}, {where}).")
    if failed:
        screen.print(f"[red]{_count(len(failed))} failed:[/] " + ", ".join(_plain(r.task.source) for r in failed))
    unreached = len(plan.tasks) - enhanced - len(failed)
    if unreached:
        screen.print(f"[red]Stopped: the disk is full; {_count(unreached)} not begun.[/]")
    if failed or unreached:
        raise typer.Exit(Exit.SOME_FAILED if enhanced or plan.done else Exit.NOTHING_DONE)


def _count(number: int) -> str:
    return "1 photo" if number == 1 else f"{number} photos"


def _plain(text: object) -> str:
    """A name as it is, even where it looks like markup."""
    from rich.markup import escape

    return escape(str(text))
