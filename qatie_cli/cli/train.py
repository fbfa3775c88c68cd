"""`qatie train`: train weights on pairs, or on good photos alone."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli import pairs as pairs_cli
from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import (
    Folders,
    Quiet,
    RecipeFile,
    Threads,
    TrainingDevice,
    need_extra,
    need_torch,
    use_threads,
)

if TYPE_CHECKING:
    from qatie_cli.data.clean import CleanPhotos
    from qatie_cli.data.paired import Pairs
    from qatie_cli.evaluation.pairs import EngineScores
    from qatie_cli.training.prepare import Prepared
    from qatie_cli.training.run import Finished, Progress


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder for weights, metrics and checkpoints.")],
    data: Annotated[Path | None, typer.Option(help="Folder of pairs to learn from.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of good photos instead; inputs are made by degrading them.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of pairs to validate on, instead of part of DATA.")] = None,
    folders: Folders = None,
    init: Annotated[str | None, typer.Option(help="Start from these weights: a name or a file.")] = None,
    recipe: RecipeFile = None,
    width: Annotated[int | None, typer.Option(min=1, help="Base width of the network.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps of the float stage, and of the tone stage unless --tone-steps or --recipe is given."
        ),
    ] = None,
    tone_steps: Annotated[int | None, typer.Option(min=0, help="Steps of the tone stage.")] = None,
    qat: Annotated[
        bool,
        typer.Option(
            "--qat",
            help="Add the quantization-aware stage, with a fifth of the float stage's steps unless qat_steps is set.",
        ),
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step, over all processes.")] = None,
    crop: Annotated[int | None, typer.Option(min=32, help="Pixels of a crop's side, a multiple of 8.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the split, the degradations and the initial weights.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of a recipe, as in loss.psnr_y=2; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in OUT from its last checkpoint.")] = False,
    device: Annotated[TrainingDevice, typer.Option(help="auto uses a GPU if there is one.")] = TrainingDevice.auto,
    threads: Threads = 0,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes that prepare samples, for GPU machines with many cores; 0 uses a thread."),
    ] = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events to OUT/events (extra tensorboard).")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train weights on pairs or on good photos.

    A run has a tone stage, a float stage and, with --qat, a quantization-aware stage. Options override the recipe file.
    Ctrl-C writes a checkpoint, and --resume continues from it; after a crash it continues from the last one. Under
    torchrun, several processes share every batch: torchrun --nproc-per-node 2 -m qatie_cli train ...
    """
    need_torch("train")
    need_extra("train", "skimage", "scipy")
    from qatie_cli.training import distributed
    from qatie_cli.training.prepare import Options, prepare

    use_threads(threads)
    quiet = quiet or not distributed.from_environment().leads
    options = Options(
        out=out,
        data=data,
        clean=clean,
        val=val,
        folders=folders,
        init=init,
        recipe=recipe,
        width=width,
        steps=steps,
        tone_steps=tone_steps,
        batch=batch,
        crop=crop,
        seed=seed,
        qat=qat,
        settings=tuple(setting or ()),
        resume=resume,
        device=device.value,
        tensorboard=tensorboard,
        workers=workers,
    )
    bar = progress("reading pairs", quiet=quiet)
    read = bar.add_task("", total=None)

    with contextlib.ExitStack() as reading:

        def start(total: int) -> None:
            reading.enter_context(bar)
            bar.update(read, total=total)

        with prepare(options, on_start=start, on_read=lambda: bar.advance(read)) as ready:
            reading.close()
            if not quiet:
                _show_photos(ready)
            finished = _train(ready, quiet)
    if not quiet:
        _show_table(finished.table)
        weights, note = _recommended(finished.table, finished.weights)
        console().print(f"Weights: {plain(weights)}")
        if note:
            console().print(f"[yellow]Note:[/] {plain(note)}")


def _train(ready: Prepared, quiet: bool) -> Finished:
    screen, stop = console(), _StopFlag()
    with progress("{task.fields[text]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=sum(count for _, count in ready.recipe.stages), text="")

        def show(p: Progress) -> None:
            terms = "  ".join(f"{name} {value:.4f}" for name, value in p.terms.items())
            where = f"{p.stage} {p.step}/{p.stage_steps}"
            text = f"{where}  loss {p.loss:.4f}  {terms}  {p.samples_per_second:.0f} samples/s"
            bar.update(shown, completed=p.run_step, text=text)
            if p.validation_db is not None and not quiet:
                loss = f"loss {p.loss:.4f}, " if p.terms else "before the first step: "
                screen.print(f"{where}: {loss}validation {p.validation_db:.2f} dB")

        return ready.train(show, stop.asked)


def _show_photos(ready: Prepared) -> None:
    """Report how the folders were read, and the network to train."""
    from qatie_cli.data.paired import Pairs
    from qatie_cli.model.network import Network, parameter_count
    from qatie_cli.training.prepare import VALIDATION_LEFT_OUT_FILE

    if ready.validation_set is not None:
        pairs_cli.show_skipped(ready.validation_set.skipped, ready.setting.out / VALIDATION_LEFT_OUT_FILE)
    if isinstance(ready.photos, Pairs):
        _show_pairs(ready.photos, ready)
        aside = ""
    else:
        aside = _show_clean(ready.photos)
    validated = len(ready.source.validation_names)
    console().print(f"{len(ready.photos.training)} photos to learn from, {validated} to validate on{aside}.")
    config = ready.recipe.config.network
    steps = ", ".join(f"{name} {number:,}" for name, number in ready.recipe.stages if number)
    console().print(f"Steps: {steps or 'none'}.")
    console().print(f"Network: {config.described}, {parameter_count(Network(config)):,} parameters.")


def _show_pairs(pairs: Pairs, ready: Prepared) -> None:
    from qatie_cli.training.prepare import LEFT_OUT_FILE

    screen, asked = console(), ready.recipe.crop
    screen.print(f"{plain(pairs.layout)}, matched by name.")
    pairs_cli.show_skipped(pairs.skipped, ready.setting.out / LEFT_OUT_FILE)
    pairs_cli.show_alignment(pairs.alignment)
    if pairs.crop != asked:
        screen.print(f"Crops of {pairs.crop} pixels instead of {asked}: most photos are no larger.")
    if pairs.store.kept_share < 1:
        screen.print(
            f"{pairs.store.kept_share:.0%} of the photos fit into memory; the others are read again for every crop. "
            "--set longest=1500 reduces them when they are read."
        )


def _show_clean(photos: CleanPhotos) -> str:
    """Report unreadable photos; returns a note on those that cannot be targets."""
    for name in photos.unreadable:
        console().print(f"[yellow]Left out:[/] {plain(name)} cannot be read")
    extreme, small = len(photos.extreme), len(photos.too_small)
    aside = f"; {extreme} too dark, bright or flat for a target are shown as they are" if extreme else ""
    return aside + (f"; {small} too small" if small else "")


class _StopFlag:
    """Set by Ctrl-C to stop training after the current step; a second Ctrl-C stops at once."""

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


def _show_table(rows: tuple[EngineScores, ...]) -> None:
    from rich import box
    from rich.table import Table

    headings = ("weights", "engine", "PSNR dB", "SSIM", "CIEDE2000", "to float dB", "worst dB")
    table = Table(*headings, title="Validation photos", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        agreement = (row.mean.agreement_db, row.worst_agreement_db)
        cells = ["-" if value is None else f"{value:.2f}" for value in agreement]
        table.add_row(
            row.name, row.engine, f"{row.mean.psnr_db:.2f}", f"{row.mean.ssim:.4f}", f"{row.mean.ciede2000:.2f}", *cells
        )
    console().print(table)


def _recommended(rows: tuple[EngineScores, ...], last: Path) -> tuple[Path, str]:
    """The weights file to use, and a note where QAT left int8 further from float than post-training quantization.

    The file is `last`, or that of before QAT where the stage brought int8 no nearer to the targets either.
    """
    from qatie_cli.training.results import FLOAT_FILE

    int8 = [row for row in rows if row.mean.agreement_db is not None]
    before, after = ([row.mean for row in int8 if row.name == name] for name in ("post-training", "QAT"))
    if not before or not after:
        return last, ""
    agreements = [min(mean.agreement_db or 0.0 for mean in means) for means in (before, after)]
    if agreements[1] >= agreements[0]:
        return last, ""
    psnr = [min(mean.psnr_db for mean in means) for means in (before, after)]
    note = f"QAT left int8 further from float: {agreements[1]:.1f} dB, post-training {agreements[0]:.1f} dB."
    earlier = last.parent / FLOAT_FILE
    if psnr[0] < psnr[1]:
        return last, f"{note} It still comes nearer to the targets; {earlier} has the post-training weights."
    return earlier, f"{note} It comes no nearer to the targets either, so use those of before it; {last} has QAT's."
