"""`qatie enhance`: photos in, better photos out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli.console import console, plain, progress
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

if TYPE_CHECKING:
    from rich.console import Console

    from qatie_cli.batch import Plan, Result


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
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, GPS and XMP; the colour profile stays.")
    ] = False,
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

    options = batch.Options(
        fmt=format.value,
        quality=quality,
        recursive=not no_recursive,
        overwrite=overwrite,
        strip_metadata=strip_metadata,
        max_pixels=max_pixels,
    )
    plan = batch.plan(inputs, out, options)
    screen = console()
    for path in plan.not_photos:
        screen.print(f"[yellow]Skipped:[/] {plain(path)} is no photo that qatie reads.")
    if dry_run:
        for task in plan.tasks:
            print(f"{task.source} -> {task.output}")
        screen.print(f"{_count(len(plan.tasks))} to enhance, {len(plan.done)} done already.")
        return
    if not plan.tasks:
        screen.print(f"Nothing to do: {_count(len(plan.done))} done already." if plan.done else "No photos found.")
        raise typer.Exit(Exit.OK if plan.done else Exit.NOTHING_DONE)
    # Only now is there work for torch, whose import takes seconds.
    from qatie_cli.enhance import enhance as enhance_pixels

    ready = load_engine(weights, engine, threads, device)
    results = batch.run(plan.tasks, lambda p: p.with_pixels(enhance_pixels(p.rgb(), ready, strength)), options)
    done = _Done(plan, screen, quiet, verbose)
    try:
        done.follow(results)
    except KeyboardInterrupt:
        screen.print(f"[red]Interrupted[/] after {_count(done.enhanced)}; the same command goes on from there.")
        raise typer.Exit(Exit.INTERRUPTED) from None
    arithmetic = "float" if ready.name == "float" else f"int8 on {ready.name}"
    done.summarize(f"{weights}, {arithmetic}" + (f", {ready.device}" if ready.device != "cpu" else ""))
    raise typer.Exit(done.exit_code())


class _Done:
    """What has been done so far, and how it is told."""

    def __init__(self, plan: Plan, screen: Console, quiet: bool, verbose: bool) -> None:
        self.plan, self.screen, self.quiet, self.verbose = plan, screen, quiet, verbose
        self.enhanced, self.megapixels, self.failed = 0, 0.0, []
        self._began = time.monotonic()

    def follow(self, results: Iterator[Result]) -> None:
        """Show each result as it comes, over a progress bar."""
        tasks = self.plan.tasks
        with progress("[dim]{task.fields[speed]:.1f} MP/s  {task.fields[name]}", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=len(tasks), speed=0.0, name=plain(tasks[0].source.name))
            for index, result in enumerate(results, 1):
                self._tell(result)
                following = tasks[min(index, len(tasks) - 1)].source.name
                speed = self.megapixels / (time.monotonic() - self._began)
                bar.update(shown, completed=index, speed=speed, name=plain(following))

    def _tell(self, result: Result) -> None:
        if result.reason:
            self.failed.append(result.task.source)
            self.screen.print(f"[red]Failed:[/] {plain(result.reason)}")
            return
        self.enhanced += 1
        self.megapixels += result.megapixels
        if self.verbose:
            self.screen.print(f"{plain(result.task.output)}  {result.megapixels:.1f} MP  {result.seconds:.2f} s")
        for note in result.notes if not self.quiet else ():
            self.screen.print(f"[yellow]Note:[/] {plain(result.task.source)}: {note}.")

    def _unreached(self) -> int:
        return len(self.plan.tasks) - self.enhanced - len(self.failed)

    def summarize(self, how: str) -> None:
        """The closing lines; failures are named even when quiet."""
        if not self.quiet:
            seconds = time.monotonic() - self._began
            speed = f"{self.megapixels:.1f} MP in {seconds:.1f} s, {self.megapixels / seconds:.1f} MP/s"
            skipped = f", {len(self.plan.done)} done already" if self.plan.done else ""
            self.screen.print(f"{_count(self.enhanced)} enhanced{skipped} ({speed}; {plain(how)}).")
        if self.failed:
            names = ", ".join(plain(path) for path in self.failed)
            self.screen.print(f"[red]{_count(len(self.failed))} failed:[/] {names}")
        if self._unreached():
            self.screen.print(f"[red]Stopped: the disk is full; {_count(self._unreached())} not begun.[/]")

    def exit_code(self) -> Exit:
        """What the process ends with."""
        if not self.failed and not self._unreached():
            return Exit.OK
        return Exit.SOME_FAILED if self.enhanced or self.plan.done else Exit.NOTHING_DONE


def _count(number: int) -> str:
    return "1 photo" if number == 1 else f"{number} photos"
