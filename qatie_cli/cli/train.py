"""`qatie train`: weights from pairs, or from good photos alone."""

from __future__ import annotations

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
    read_recipe,
    use_threads,
)
from qatie_cli.errors import UsageError

if TYPE_CHECKING:
    from qatie_cli.data.source import Source
    from qatie_cli.evaluation.pairs import EngineScores
    from qatie_cli.model.checkpoint import Weights
    from qatie_cli.training.distributed import Team
    from qatie_cli.training.recipe import Recipe
    from qatie_cli.training.run import Finished, Progress, Setting

LEFT_OUT_FILE = "left-out.csv"
_QAT_SHARE = 5  # with --qat alone, the quantization-aware stage has this part of the float stage's steps


def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder: weights, metrics, what resuming needs.")],
    data: Annotated[Path | None, typer.Option(help="Folder of pairs to learn from.")] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of good photos instead; phone-like ones are made of them.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="Folder of pairs to validate on, instead of a part of DATA.")] = None,
    folders: Folders = None,
    init: Annotated[str | None, typer.Option(help="Start from these weights: a name or a file.")] = None,
    recipe: RecipeFile = None,
    width: Annotated[int | None, typer.Option(min=1, help="Base width of the network.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Steps of the float stage.")] = None,
    tone_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the tone stage; as many as --steps if only that is given.")
    ] = None,
    qat: Annotated[
        bool,
        typer.Option("--qat", help="Add the quantization-aware stage: a fifth of the steps, or as the recipe says."),
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops per step, over all processes.")] = None,
    crop: Annotated[int | None, typer.Option(min=32, help="Pixels of a crop's side, a multiple of 8.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the split, the degradations and the first weights.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting of a recipe, as in loss.psnr_y=2; repeatable."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in OUT from its last checkpoint.")
    ] = False,
    device: Annotated[TrainingDevice, typer.Option(help="auto takes a GPU where there is one.")] = TrainingDevice.auto,
    threads: Threads = 0,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events to OUT/events (extra tensorboard).")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train weights: tone stage, float stage, and with --qat the quantization-aware stage.

    Ctrl-C writes a checkpoint and ends with exit code 130; --resume goes on from that very step, and so it does after a
    crash. Options override the recipe file. With torchrun, several processes share every batch:
    torchrun --nproc-per-node 2 -m qatie_cli train ...
    """
    need_extra("train", "skimage", "scipy")
    from qatie_cli import engines
    from qatie_cli.training import run
    from qatie_cli.training.distributed import join
    from qatie_cli.training.recipe import FINE_TUNING, Recipe

    use_threads(threads)
    where = engines.best_device() if device is TrainingDevice.auto else device.value
    engines.check_device(where)
    given = {"width": width, "steps": steps, "tone_steps": tone_steps, "batch": batch, "crop": crop, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if steps is not None and tone_steps is None and recipe is None:
        given["tone_steps"] = steps
    notes = _notes(data=data, clean=clean, val=val, folders=folders, init=init)
    if resume and not (given or setting or recipe or qat or notes):
        settings, notes = run.recorded(out)
        start = _initial(notes["init"]) if "init" in notes else None
    else:
        start = None if init is None else _initial(init)
        defaults = {} if start is None else FINE_TUNING | _shape(start)
        settings = _recipe(Recipe, defaults, read_recipe(recipe), given, setting or [])
        if qat and not settings.qat_steps:
            settings = _changed(settings, qat_steps=max(1, settings.steps // _QAT_SHARE))
        if start is not None:
            notes["init_sha256"] = _digest(init)
    with join(where) as (team, place):
        show = _Screen(team, quiet)
        chosen = run.Setting(out, team, place, start, notes, tensorboard)
        run.check(settings, chosen, resume)  # before hours of reading photos
        source = _source(settings, notes, out, team, show)
        finished = _run(source, settings, chosen, resume, show)
    if team.leads and not quiet:
        _show_table(finished.table)
        console().print(f"Weights: {plain(finished.weights)}")


class _Screen:
    """What this process says: the team's leader speaks, the others keep quiet."""

    def __init__(self, team: Team, quiet: bool) -> None:
        self.quiet = quiet or not team.leads
        self.console = console()

    def say(self, text: str) -> None:
        """One line, in Rich's markup."""
        if not self.quiet:
            self.console.print(text)


def _run(source: Source, settings: Recipe, setting: Setting, resume: bool, screen: _Screen) -> Finished:
    from qatie_cli.training import run

    stop = _StopFlag()
    with progress("{task.fields[text]}", quiet=screen.quiet) as bar:
        shown = bar.add_task("", total=sum(count for _, count in settings.stages), text="")

        def show(p: Progress) -> None:
            terms = "  ".join(f"{name} {value:.4f}" for name, value in p.terms.items())
            text = (
                f"{p.stage} {p.step}/{p.stage_steps}  loss {p.loss:.4f}  {terms}  {p.samples_per_second:.0f} samples/s"
            )
            bar.update(shown, completed=p.run_step, text=text)
            if p.validation_db is not None:
                learnt = f"loss {p.loss:.4f}, " if p.terms else "before the first step: "
                screen.say(f"{p.stage} {p.step}/{p.stage_steps}: {learnt}validation {p.validation_db:.2f} dB")

        return run.train(source, settings, setting, resume=resume, on_progress=show, should_stop=stop.asked)


def _source(settings: Recipe, notes: dict[str, str], out: Path, team: Team, screen: _Screen) -> Source:
    """The photos that the run learns from, read and checked."""
    import os

    from qatie_cli.data import clean as clean_photos
    from qatie_cli.data import paired
    from qatie_cli.data.store import SHARE_OF_FREE, Store
    from qatie_cli.enhance import memory

    if ("data" in notes) == ("clean" in notes):
        raise UsageError("What to learn from is missing.", "Give --data PAIRS or --clean PHOTOS, one of them.")
    # Processes on one machine share its memory.
    share = SHARE_OF_FREE / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    store = Store(int(memory.free_bytes() * share), settings.longest)
    folders = notes.get("folders")
    held = paired.load_held(Path(notes["val"]), store, folders) if "val" in notes else None
    if held is not None and team.leads:
        _say_left_out(held.left_out, out / f"validation-{LEFT_OUT_FILE}", screen)
    if "clean" in notes:
        share, seed = settings.validation_share, settings.seed
        photos = clean_photos.load(Path(notes["clean"]), store, share, seed, separate_validation=held is not None)
        for name in photos.unreadable:
            screen.say(f"[yellow]Left out:[/] {plain(name)} cannot be read")
        source = clean_photos.DegradedSource(photos, settings.degradation, settings.seed, settings.crop, held)
        count = len(photos.training)
        extreme, small = len(photos.extreme), len(photos.too_small)
        aside = f"; {extreme} too dark, bright or flat for a target are shown as they are" if extreme else ""
        aside += f"; {small} too small" if small else ""
    else:
        with progress("reading pairs", quiet=screen.quiet) as bar:
            shown = bar.add_task("", total=None)
            pairs = paired.load(
                Path(notes["data"]),
                store,
                settings.validation_share,
                settings.seed,
                settings.crop,
                folders=folders,
                separate_validation=held is not None,
                on_start=lambda total: bar.update(shown, total=total),
                on_read=lambda: bar.advance(shown),
            )
        if team.leads:
            _report(pairs, settings, out, screen)
        source = paired.PairSource(pairs, settings.seed, held)
        count, aside = len(pairs.training), ""
    screen.say(f"{count} photos to learn from, {len(source.validation_names)} to validate on{aside}.")
    return source


def _report(pairs: object, settings: Recipe, out: Path, screen: _Screen) -> None:
    """Say how the pairs were understood; list what takes no part in the run's folder."""
    screen.say(f"{plain(pairs.layout)}, matched by name.")
    _say_left_out(pairs.left_out, out / LEFT_OUT_FILE, screen)
    if not screen.quiet:
        pairs_cli.show_alignment(pairs.alignment)
    if pairs.crop != settings.crop:
        screen.say(f"Crops of {pairs.crop} pixels instead of {settings.crop}: most photos are no larger.")
    if pairs.store.kept_share < 1:
        screen.say(
            f"{pairs.store.kept_share:.0%} of the photos fit into memory; the others are read again for every crop. "
            "--set longest=1500 reduces them when they are read."
        )


def _say_left_out(left_out: tuple, path: Path, screen: _Screen) -> None:
    """List what takes no part in the run's folder, and name the first few."""
    if not left_out:
        return
    _list_left_out(left_out, path)
    if not screen.quiet:
        pairs_cli.show_left_out(left_out, path)


def _list_left_out(left_out: tuple, path: Path) -> None:
    import csv
    import io

    from qatie_cli import files
    from qatie_cli.errors import DataError

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "reason"])
    writer.writerows((left.file, left.reason) for left in left_out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, text.getvalue())
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror}.", "Name another --out.") from error


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


def _initial(name_or_path: str) -> Weights:
    from qatie_cli.model import checkpoint
    from qatie_cli.model.shipped import locate

    return checkpoint.read(locate(name_or_path))


def _digest(name_or_path: str) -> str:
    from qatie_cli import files
    from qatie_cli.model.shipped import locate

    return files.sha256(locate(name_or_path))


def _shape(start: Weights) -> dict:
    """The part of a recipe that must be as in the weights it starts from."""
    stage = start.config.tone
    tones = {}
    if stage is not None:
        tones = {"tone_channels": stage.channels, "tone_bins": stage.bins, "tone_quantiles": stage.quantiles}
    return {"width": start.config.network.width, "tone": stage is not None} | tones


def _notes(**options: object) -> dict[str, str]:
    """What a run records of its data: absolute paths, so that it can be resumed from anywhere."""
    notes = {name: str(value.resolve()) for name, value in options.items() if isinstance(value, Path)}
    notes |= {name: value for name, value in options.items() if isinstance(value, str)}
    if Path(notes.get("init", "")).is_file():
        notes["init"] = str(Path(notes["init"]).resolve())
    for value in notes.values():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"The name {value} is not UTF-8 and cannot be recorded.", "Rename it.") from None
    return notes


def _recipe(kind: type[Recipe], defaults: dict, table: dict, given: dict, texts: list[str]) -> Recipe:
    """Defaults, then the recipe file, then options, then --set."""
    import tomllib

    merged = defaults | table | given
    for text in texts:
        name, equals, value = text.partition("=")
        section, dot, inner = name.strip().partition(".")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except ValueError:
            parsed = None
        if not equals or parsed is None:
            raise UsageError(f"--set {text} is no setting.", "Write it as name=value, as in rate=1e-3.")
        if dot and isinstance(table := merged.get(section, {}), dict):
            merged[section] = table | {inner: parsed}
        else:
            merged[name.strip()] = parsed
    try:
        return kind.from_table(merged)
    except (ValueError, TypeError) as error:
        raise UsageError(f"The recipe cannot be used: {error}.") from error


def _changed(settings: Recipe, **values: int) -> Recipe:
    import dataclasses

    return dataclasses.replace(settings, **values)


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
