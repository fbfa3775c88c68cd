"""`qatie train`: weights from a folder of good photos."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli.console import console, progress
from qatie_cli.cli.options import Device, DeviceOption, Quiet, Threads, use_threads
from qatie_cli.errors import UsageError

if TYPE_CHECKING:
    from qatie_cli.evaluation import Row
    from qatie_cli.training import Recipe


def train(
    clean: Annotated[Path, typer.Option("--clean", help="Folder of good photos; phone-like ones are made of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder: weights, metrics, what resuming needs.")],
    recipe: Annotated[Path | None, typer.Option(help="TOML file of settings; options override it.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Base width of the network.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the float stage.")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Add the quantization-aware stage, a fifth of the steps.")] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step.")] = None,
    crop: Annotated[int | None, typer.Option(min=32, help="Pixels of a crop's side, a multiple of 8.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the split, the degradations and the first weights.")
    ] = None,
    init: Annotated[str | None, typer.Option(help="Start from these weights: a name or a file.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT from its last checkpoint.")
    ] = False,
    device: DeviceOption = Device.cpu,
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train weights: tone stage, float stage, and with --qat the quantization-aware stage.

    Ctrl-C writes a checkpoint and ends with exit code 130; --resume goes on from that very step.
    """
    from qatie_cli import checkpoint, engines, pairs, training
    from qatie_cli.weights import locate

    settings = _recipe(recipe, width=width, steps=steps, batch=batch, crop=crop, seed=seed)
    if qat and not settings.qat_steps:
        settings = _changed(settings, qat_steps=max(1, settings.steps // 5))
    use_threads(threads)
    engines.check_device(device.value)
    start = None if init is None else checkpoint.read(locate(init))
    screen = console()
    photos = pairs.load_clean(clean, settings.validation_share, settings.seed)
    for name in photos.unreadable:
        screen.print(f"[yellow]Skipped:[/] {name} cannot be read.")
    if not quiet:
        screen.print(
            f"{len(photos.training)} photos to learn from, {len(photos.validation)} to validate on; "
            f"{len(photos.unsuitable)} too dark, too bright or too flat for a target left out."
        )
    stop = _StopFlag()
    with progress("{task.fields[text]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=sum(count for _, count in settings.stages), text="")

        def show(p: training.Progress) -> None:
            text = f"{p.stage} {p.step}/{p.stage_steps}  loss {p.loss:.4f}  {p.samples_per_second:.0f} samples/s"
            bar.update(shown, completed=p.run_step, text=text)
            if p.validation_db is not None and not quiet:
                screen.print(f"{p.stage} {p.step}/{p.stage_steps}: validation {p.validation_db:.2f} dB")

        finished = training.train(
            photos,
            settings,
            out,
            device=device.value,
            init=start,
            resume=resume,
            on_progress=show,
            should_stop=stop.asked,
        )
    _show_table(finished.table)
    screen.print(f"Weights: {finished.weights}")


class _StopFlag:
    """Set by Ctrl-C, so that training stops between two steps; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self._set = False
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _interrupt(self, number: int, frame: object) -> None:
        if self._set:
            raise KeyboardInterrupt
        self._set = True

    def asked(self) -> bool:
        """Whether to stop."""
        return self._set


def _recipe(path: Path | None, **overrides: int | None) -> Recipe:
    """The recipe of a TOML file, or the default one, with options on top."""
    import tomllib

    from qatie_cli.training import Recipe

    table: dict = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"The recipe {path} cannot be read: {error.strerror}.") from error
        except ValueError as error:  # bad TOML, or not UTF-8
            raise UsageError(f"The recipe {path} is not TOML: {error}.") from error
    try:
        return Recipe.from_table(table | {k: v for k, v in overrides.items() if v is not None})
    except (ValueError, TypeError) as error:
        raise UsageError(f"The recipe cannot be used: {error}.") from error


def _changed(settings: Recipe, **values: int) -> Recipe:
    import dataclasses

    return dataclasses.replace(settings, **values)


def _show_table(rows: tuple[Row, ...]) -> None:
    from rich.table import Table

    table = Table("arithmetic", "PSNR dB", "SSIM", "to own float, mean dB", "worst dB", title="Validation photos")
    for row in rows:
        agreement = ("", "") if row.mean.agreement_db is None else (row.mean.agreement_db, row.worst_agreement_db)
        cells = [f"{value:.2f}" if value != "" else "-" for value in agreement]
        table.add_row(row.name, f"{row.mean.psnr_db:.2f}", f"{row.mean.ssim:.4f}", *cells)
    console().print(table)
