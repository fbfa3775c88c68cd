"""`qatie enhance`: photos in, better photos out."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli import stream
from qatie_cli.cli.console import console, plain, without_library_chatter
from qatie_cli.cli.follow import Follower, count
from qatie_cli.cli.options import (
    Device,
    DeviceOption,
    EngineName,
    EngineOption,
    Fast,
    Format,
    Quiet,
    Threads,
    WeightsOption,
    load_engine,
)
from qatie_cli.errors import Exit, QatieError, UsageError
from qatie_cli.model.shipped import DEFAULT
from qatie_cli.photo import MAX_PIXELS

if TYPE_CHECKING:
    from qatie_cli.batch.planning import Naming, Plan
    from qatie_cli.batch.running import Writing
    from qatie_cli.engines import Engine
    from qatie_cli.gallery.album import Album
    from qatie_cli.photo.content import Photo


def enhance(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT...", help="Photos and folders; - is standard input.", show_default=False, readable=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to; - is standard output.", show_default=False)
    ] = None,
    engine: EngineOption = EngineName.auto,
    weights: WeightsOption = DEFAULT,
    threads: Threads = 0,
    device: DeviceOption = Device.cpu,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0 leaves the photo as it is, 1 is the full effect.")
    ] = 1,
    fast: Fast = True,
    format: Annotated[Format, typer.Option(help="keep writes HEIC as JPEG and BMP as PNG.")] = Format.keep,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Of lossy formats.", show_default="95, or as fine as a JPEG's source"),
    ] = None,
    suffix: Annotated[str, typer.Option(help="Put behind every output's name: a.jpg becomes aSUFFIX.jpg.")] = "",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, GPS, IPTC and XMP; the colour profile stays.")
    ] = False,
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Leave out the place, keep the rest.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo outputs that exist.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the originals. Asks first.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    no_recursive: Annotated[bool, typer.Option("--no-recursive", help="Only the folders named.")] = False,
    files_from: Annotated[
        Path | None,
        typer.Option(
            help="More inputs, a line each (or ended by NUL, as find -print0 does); - is standard input. Relative "
            "paths are kept under OUT.",
            show_default=False,
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Photos that need more are worked on in tiles.", show_default="60% of free"),
    ] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger photos are refused.")] = MAX_PIXELS,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write what became of every photo.", show_default=False)
    ] = None,
    gallery: Annotated[
        bool | None,
        typer.Option(
            "--gallery/--no-gallery",
            help="Write OUT/index.html, a page to look through before and after.",
            show_default="if OUT has one, refresh it",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done; do nothing.")] = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each photo.")] = False,
) -> None:
    """Enhance photos; the originals are never touched unless --in-place says so.

    Folders are searched with all below them and keep their tree under OUT. Outputs that exist are skipped, so an
    interrupted run goes on where it stopped. Exit code 3 says that some photos failed; they are named at the end.
    """
    from qatie_cli.batch.planning import Naming
    from qatie_cli.batch.running import Writing
    from qatie_cli.enhance import memory

    memory.keep_together()  # before there are threads
    request = _Request(
        inputs=tuple(inputs or ()),
        out=out,
        in_place=in_place,
        files_from=files_from,
        naming=Naming(format.value, suffix, not no_recursive, overwrite),
        writing=Writing(quality, strip_metadata, strip_gps, overwrite, max_pixels),
        strength=strength,
        fast=fast,
        weights=weights,
        load=lambda: load_engine(weights, engine, threads, device),
        max_memory=None if max_memory is None else memory.parse_size(max_memory),
        report=report,
        gallery=gallery,
        quiet=quiet,
        verbose=verbose,
    )
    request.check()
    if stream.is_stream(list(request.inputs), out):
        if dry_run or report is not None or files_from is not None or gallery:
            raise UsageError(
                "--dry-run, --report, --files-from and --gallery are for batches, not for -.", "Leave them out."
            )
        _stream(request)
        return
    with contextlib.ExitStack() as until_done:
        plan, writing = _plan(request, until_done)
        if dry_run:
            _show(plan)
            return
        has_gallery = _wants_gallery(request, plan)
        _prepare(request, plan, yes)
        _run(request, plan, writing, has_gallery)


@dataclass(frozen=True)
class _Request:
    """What the command line asks for."""

    inputs: tuple[Path, ...]
    out: Path | None
    in_place: bool
    files_from: Path | None
    naming: Naming
    writing: Writing
    strength: float
    fast: bool
    weights: str
    load: Callable[[], Engine]
    max_memory: int | None
    report: Path | None
    gallery: bool | None
    quiet: bool
    verbose: bool

    def check(self) -> None:
        """Raise UsageError where options contradict each other."""
        if not self.inputs and self.files_from is None:
            raise UsageError("There is no input.", "Name photos or folders, or use --files-from.")
        if self.in_place:
            if self.out is not None:
                raise UsageError("--in-place and -o contradict each other.", "Leave one out.")
            if self.gallery:
                raise UsageError("--gallery shows originals, which --in-place replaces.", "Use -o with a folder.")
            if self.naming.fmt != "keep" or self.naming.suffix:
                raise UsageError("--in-place keeps names and formats.", "Leave out --format and --suffix, or use -o.")
            if stream.DASH in self.inputs:
                raise UsageError("Standard input has no place.", "Use -o.")
        elif self.out is None:
            raise UsageError("There is no output.", "Name a folder with -o, or use --in-place.")
        if "/" in self.naming.suffix or "\\" in self.naming.suffix:
            raise UsageError(f"--suffix {self.naming.suffix} is no part of a file name.", "Choose one without slashes.")


def _plan(request: _Request, until_done: contextlib.ExitStack) -> tuple[Plan, Writing]:
    from qatie_cli.batch import journal, planning
    from qatie_cli.home import user_folder

    listed = [] if request.files_from is None else _read_list(request.files_from)
    if request.in_place:
        replaced = until_done.enter_context(journal.opened(user_folder() / "in-place.jsonl"))
        plan = planning.plan_in_place(request.inputs, request.naming, replaced, listed)
        return plan, dataclasses.replace(request.writing, journal=replaced)
    return planning.plan(request.inputs, request.out, request.naming, listed), request.writing


def _read_list(path: Path) -> list[Path]:
    try:
        content = sys.stdin.buffer.read() if path == stream.DASH else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", "Check --files-from.") from error
    names = content.split(b"\0") if b"\0" in content else content.replace(b"\r\n", b"\n").split(b"\n")
    return [Path(os.fsdecode(name)) for name in names if name]


def _show(plan: Plan) -> None:
    """What --dry-run prints: the plan, and what it would take."""
    from qatie_cli.batch import pace
    from qatie_cli.photo import decoding

    megapixels, unreadable = 0.0, 0
    for task in plan.tasks:
        print(f"{task.source} -> {task.output}")
        header = decoding.header(task.source)
        unreadable += header is None
        megapixels += header.width * header.height / 1e6 if header else 0.0
    known = pace.remembered()
    speed, how = (pace.TYPICAL, "typical of two cores") if known is None else (known, "as in the last run here")
    duration = datetime.timedelta(seconds=round(megapixels / speed))
    parts = [f"{count(len(plan.tasks))} to enhance, {megapixels:,.1f} MP"]
    parts += [f"about {duration} at {speed:.1f} MP/s, {how}"]
    parts += [f"{len(plan.done):,} done already"] if plan.done else []
    parts += [f"{unreadable:,} of them cannot be read"] if unreadable else []
    parts += [f"{_files(plan.not_photos)} not named like photos"] if plan.not_photos else []
    console().print("; ".join(parts) + ".")


def _files(paths: tuple[Path, ...]) -> str:
    return plain(paths[0]) if len(paths) == 1 else f"{len(paths):,} files"


def _wants_gallery(request: _Request, plan: Plan) -> bool:
    """Whether this run writes or refreshes a gallery.

    Raises:
        QatieError: one is asked for that cannot be written.
    """
    from qatie_cli.photo.discovery import GALLERY_FOLDER

    out = request.out
    if out is None or request.gallery is False:
        return False
    if request.gallery is None and not (out / GALLERY_FOLDER).is_dir():
        return False  # before anything is imported for it
    from qatie_cli.gallery import album

    if any(task.output == out for task in (*plan.tasks, *plan.done)):
        raise UsageError(f"--gallery needs a folder, and {out} is one photo.", "Name a folder with -o.")
    shown = bool(plan.tasks or plan.done) and request.gallery
    if shown or album.exists(out):
        album.check(out, plan)
        return True
    return False


def _prepare(request: _Request, plan: Plan, yes: bool) -> None:
    """Everything that could forbid the work, before it begins."""
    if request.report is not None:
        from qatie_cli.batch.report import check_writable

        check_writable(request.report)
    if plan.not_photos and not request.quiet:
        paths = plan.not_photos
        named = ", ".join(plain(path) for path in paths) if request.verbose else _files(paths)
        console().print(f"[yellow]Skipped:[/] {named} not named like photos.")
    if plan.tasks and request.in_place and not yes:
        _ask(plan)
    if plan.tasks and request.out is not None:
        _check_out(request.out, plan)


def _ask(plan: Plan) -> None:
    if not sys.stdin.isatty():
        raise UsageError("--in-place replaces originals and there is nobody to ask.", "Add --yes if that is meant.")
    typer.confirm(f"Replace {count(len(plan.tasks))} by their enhanced versions?", abort=True, err=True)


def _check_out(out: Path, plan: Plan) -> None:
    from qatie_cli import files

    folder = out.parent if out == plan.tasks[0].output else out
    try:
        files.check_writable(folder)
    except OSError as error:
        raise QatieError(
            f"{folder} cannot be written to: {error.strerror or error}.", "Name another folder with -o."
        ) from error


def _run(request: _Request, plan: Plan, writing: Writing, has_gallery: bool) -> None:
    """Do the work of a plan; the process ends with the exit code it deserves."""
    from qatie_cli.batch import pace
    from qatie_cli.batch.running import Batch, remove_stale

    screen, started = console(), datetime.datetime.now(datetime.UTC)
    follower = Follower(plan, screen, request.quiet, request.verbose)
    remove_stale([*plan.tasks, *plan.done])
    engine, album, interrupted = None, None, False
    if plan.tasks:
        engine = request.load()  # only now: importing torch takes seconds
    if has_gallery:
        album = _album(request, plan, engine)
    try:
        if engine is not None:
            better, reduction = _enhancer(engine, request)
            pixel_bytes = engine.network.bytes_per_pixel
            batch = Batch(better, writing, pixel_bytes, request.max_memory, reduction, album)
            with without_library_chatter():
                follower.during(lambda on_result: batch.run(plan.tasks, on_result), album)
            pace.remember(follower.megapixels(), follower.seconds)
        elif not request.quiet:
            screen.print(f"Nothing to do: {count(len(plan.done))} done already." if plan.done else "No photos found.")
        if album is not None:
            with without_library_chatter():
                follower.catch_up(album)
    except KeyboardInterrupt:
        interrupted = True
    kept = request.report is None or _report(request, plan, follower, started, interrupted, engine)
    kept &= album is None or follower.finish(album)
    if interrupted:
        enhanced = sum(result.status == "enhanced" for result in follower.results)
        screen.print(f"[red]Interrupted[/] after {count(enhanced)}; the same command goes on from there.")
        if album is not None:
            follower.tell_gallery(album)
        raise typer.Exit(Exit.INTERRUPTED)
    if engine is not None:
        device = f", {engine.device}" if engine.device != "cpu" else ""
        follower.summarize(f"{request.weights}, {_arithmetic(engine)}{device}")
    else:
        follower.tell_unsearched()
    if album is not None:
        follower.tell_gallery(album)
    code = follower.exit_code()
    raise typer.Exit(Exit.SOME_FAILED if code == Exit.OK and not kept else code)


def _arithmetic(engine: Engine) -> str:
    return "float" if engine.name == "float" else f"int8 on {engine.name}"


def _album(request: _Request, plan: Plan, engine: Engine | None) -> Album:
    from qatie_cli.gallery.album import Album
    from qatie_cli.gallery.entries import Provenance

    weights = Path(request.weights).name  # a page may be shared: it names no folders of this machine
    provenance = Provenance(weights, "" if engine is None else _arithmetic(engine), request.strength)
    return Album(request.out, plan, provenance, request.writing.max_pixels)


def _report(
    request: _Request,
    plan: Plan,
    follower: Follower,
    started: datetime.datetime,
    interrupted: bool,
    engine: Engine | None,
) -> bool:
    """Write the report; whether that worked."""
    from qatie_cli.batch.report import Run, as_table, write

    run = Run(
        started=started,
        seconds=round(follower.seconds, 4),
        interrupted=interrupted,
        engine="" if engine is None else engine.name,
        device="" if engine is None else engine.device,
        weights=request.weights,
        strength=request.strength,
    )
    try:
        write(request.report, as_table(run, plan, follower.results))
    except OSError as error:
        path = plain(request.report)
        follower.screen.print(f"[red]The report {path} could not be written:[/] {error.strerror or error}.")
        return False
    return True


def _enhancer(
    engine: Engine, request: _Request
) -> tuple[Callable[[Photo, int | None], Photo], Callable[[int, int], int]]:
    """What makes a photo better, and by how much the network sees one of a width and height reduced."""
    from qatie_cli.enhance import pixels as library
    from qatie_cli.photo import colour

    def reduction(width: int, height: int) -> int:
        return library.fast_reduction(width, height) if request.fast else 1

    def better(photo: Photo, tile_side: int | None) -> Photo:
        colours = colour.of_profile(photo.icc)
        pixels = photo.rgb()
        by = reduction(pixels.shape[1], pixels.shape[0])
        return photo.with_pixels(library.enhance(pixels, engine, request.strength, tile_side, colours, by))

    return better, reduction


def _alone(request: _Request, photo: Photo) -> Photo:
    """One photo enhanced by itself, within the memory that it may take."""
    from qatie_cli.enhance import memory

    engine = request.load()
    height, width = photo.pixels.shape[:2]
    budget = memory.available(request.max_memory) + photo.pixels.nbytes
    better, reduction = _enhancer(engine, request)
    by = reduction(width, height)
    side = memory.tile_side(width, height, engine.network.bytes_per_pixel, budget, photo.pixels.itemsize, by)
    return better(photo, side)


def _stream(request: _Request) -> None:
    notes = stream.run(
        request.inputs[0],
        request.out,
        request.naming.fmt,
        request.writing,
        lambda photo: _alone(request, photo),
    )
    for note in () if request.quiet else notes:
        console().print(f"[yellow]Note:[/] {plain(note)}.")
