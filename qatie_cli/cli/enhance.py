"""`qatie enhance`: photos in, better photos out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli import galleries, large, stream
from qatie_cli.cli.console import confirm, console, plain
from qatie_cli.cli.follow import Follower
from qatie_cli.cli.options import (
    Cluster,
    Device,
    DeviceOption,
    EngineName,
    EngineOption,
    Fast,
    FilesFrom,
    Format,
    Gallery,
    MaxMemory,
    MaxPixels,
    NoHdr,
    NoMotion,
    QualityOption,
    Quiet,
    ReportFile,
    Sidecars,
    Threads,
    Verbose,
    WeightsOption,
    WorkersOption,
    Yes,
    check_sidecars,
    load_engine,
    parse_quality,
)
from qatie_cli.cli.telling import count, how
from qatie_cli.errors import Exit, UsageError
from qatie_cli.model.shipped import DEFAULT
from qatie_cli.photo import MAX_PIXELS

if TYPE_CHECKING:
    from qatie_cli.batch.planning import Naming
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.album import Album


def enhance(
    # Texts, since a Path would make s3:/bucket of a URL.
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Photos and folders, on this machine or in a store (s3://, gs://, az://); - is standard input.",
            show_default=False,
        ),
    ] = None,
    out_place: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="PATH", help="Folder or URL to write to; - is standard output.", show_default=False
        ),
    ] = None,
    engine: EngineOption = EngineName.auto,
    weights: WeightsOption = DEFAULT,
    threads: Threads = 0,
    device: DeviceOption = Device.cpu,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="0 leaves the photo as it is, 1 is the full effect.")
    ] = 1,
    fast: Fast = None,
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="Output format; keep turns HEIC into JPEG and BMP into PNG, same only BMP.",
        ),
    ] = Format.keep,
    quality: QualityOption = None,
    sidecars: Sidecars = False,
    suffix: Annotated[str, typer.Option(help="Append to every output's name: a.jpg becomes aSUFFIX.jpg.")] = "",
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF, GPS, IPTC and XMP; the colour profile stays.")
    ] = False,
    strip_gps: Annotated[bool, typer.Option("--strip-gps", help="Leave out the location, keep the rest.")] = False,
    no_hdr: NoHdr = False,
    no_motion: NoMotion = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo existing outputs, edited ones too.")] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the originals. Asks first.")] = False,
    yes: Yes = False,
    preserve_times: Annotated[bool, typer.Option("--preserve-times", help="Keep the photos' times.")] = False,
    no_recursive: Annotated[bool, typer.Option("--no-recursive", help="Do not search subfolders.")] = False,
    files_from: FilesFrom = None,
    max_memory: MaxMemory = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    report: ReportFile = None,
    gallery: Gallery = None,
    cluster: Cluster = None,
    workers: WorkersOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Enhance photos and folders of photos.

    Originals are never modified unless --in-place is given. Folders are searched recursively and keep their tree under
    OUT. Run the same command again to resume: an output made from this photo with these settings is skipped, one made
    from another version or with other settings is redone, and one that was edited since is listed and left alone.
    OUT/.qatie records what each output was made from. URLs of stores need the extra `cloud`, --cluster the extra
    `cluster`.
    """
    from qatie_cli import sizes
    from qatie_cli.batch import planning, running, session
    from qatie_cli.batch.settings import FLOAT, INT8, Settings
    from qatie_cli.enhance import memory
    from qatie_cli.model import shipped

    memory.keep_together(bounded=max_memory is not None)  # before any thread starts
    texts = tuple(inputs or ())
    paths, out = tuple(map(Path, texts)), None if out_place is None else Path(out_place)
    naming = planning.Naming(format.value, suffix, not no_recursive, overwrite)
    _check(paths, out, naming, files_from, in_place, bool(gallery))
    check_sidecars(sidecars, in_place, strip_metadata)
    fine = parse_quality(quality)
    stripped = strip_metadata, strip_gps
    writing = running.Writing(fine, *stripped, overwrite, preserve_times, max_pixels, no_hdr, no_motion, sidecars)
    allowed = None if max_memory is None else sizes.parse_bytes(max_memory)

    def enhancer(begun_on: str = "", pixels: int | None = None) -> Enhancer:
        from qatie_cli.enhance.photos import Effect, Enhancer

        return Enhancer(load_engine(weights, engine, threads, device, begun_on, pixels), Effect(strength, fast))

    if out is not None and stream.is_stream(paths, out):
        stream.refuse_batch_options(dry_run or bool(report or files_from) or bool(gallery) or sidecars)
        return _tell(
            stream.run(paths[0], out, naming.fmt, writing, lambda p: enhancer("", p.pixels.size).within(p, allowed)),
            quiet,
        )
    names = () if files_from is None else _read_list(files_from)
    arithmetic = FLOAT if engine is EngineName.float or device is not Device.cpu else INT8
    shaping = strength, fast, fine, *stripped, no_hdr, no_motion, sidecars
    settings = Settings(weights, shipped.digest(weights), arithmetic, *shaping)
    if large.is_large(cluster, workers, (*texts, out_place or "", *names)):
        large.refuse({"--in-place": in_place, "--sidecars": sidecars, "--preserve-times": preserve_times})
        asked = large.Asked(texts, out_place, names, naming, writing, settings, engine, threads, device, allowed)
        shown = large.Shown(report, gallery, dry_run, quiet, verbose)
        raise typer.Exit(large.run(asked, large.Where(cluster, workers), shown))
    listed = tuple(map(Path, names))
    request = session.Request(paths, None if in_place else out, naming, writing, listed, allowed, settings)
    with session.opened(request) as run:
        follower = Follower(run, console(), quiet, verbose)
        if dry_run:
            follower.show_plan()
            raise typer.Exit(Exit.SOME_FAILED if run.refused or run.plan.unsearched else Exit.OK)
        has_gallery = galleries.wanted(out, gallery, run.plan)
        follower.check_report(report)
        follower.tell_remarks()
        if in_place and run.plan.tasks and not yes:
            _ask(len(run.plan.tasks))
        run.prepare()
        ready = enhancer(run.begun_on, run.pixels_if_one) if run.plan.tasks else None
        album = galleries.album(out, run.plan, ready, weights, strength, max_pixels) if out and has_gallery else None
        code = _work(follower, ready, album)
        engine_used = None if ready is None else ready.engine
        if report is not None and not follower.write_report(report, run.report(engine_used, weights, strength)):
            code = Exit.SOME_FAILED if code is Exit.OK else code
        follower.summarize("" if engine_used is None else how(weights, engine_used, strip_gps or strip_metadata), album)
    raise typer.Exit(code)


def _tell(notes: tuple[str, ...], quiet: bool) -> None:
    for note in () if quiet else notes:
        console().print(f"[yellow]Note:[/] {plain(note)}.")


def _ask(photos: int) -> None:
    question = f"Replace {count(photos)} by their enhanced versions?"
    confirm(question, "--in-place replaces originals and needs confirmation.")


def _check(
    inputs: tuple[Path, ...], out: Path | None, naming: Naming, files_from: Path | None, in_place: bool, gallery: bool
) -> None:
    """Raise UsageError where options contradict each other."""
    if not inputs and files_from is None:
        raise UsageError("There is no input.", "Give photos or folders, or use --files-from.")
    if in_place:
        if out is not None:
            raise UsageError("--in-place and -o contradict each other.", "Leave one out.")
        if gallery:
            raise UsageError("--gallery shows originals, which --in-place replaces.", "Use -o with a folder.")
        if naming.fmt not in (Format.keep, Format.same) or naming.suffix:
            raise UsageError("--in-place keeps names and formats.", "Leave out --format and --suffix, or use -o.")
        if stream.DASH in inputs:
            raise UsageError("Standard input cannot be replaced in place.", "Use -o.")
    elif out is None:
        raise UsageError("There is no output.", "Give a folder with -o, or use --in-place.")
    if "/" in naming.suffix or "\\" in naming.suffix:
        raise UsageError(f"Invalid suffix '{naming.suffix}'.", "Choose one without slashes.")


def _read_list(path: Path) -> tuple[str, ...]:
    from qatie_cli.batch import listing

    try:
        return listing.names(sys.stdin.buffer.read() if path == stream.DASH else path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", "Check --files-from.") from error


def _work(follower: Follower, ready: Enhancer | None, album: Album | None) -> Exit:
    """Run, then finish the gallery; returns the exit code."""
    run, interrupted = follower.run, False
    try:
        if ready is not None:
            follower.enhance(ready, album)
        else:
            follower.tell_nothing_to_do()
        if album is not None:
            follower.catch_up(album)
    except KeyboardInterrupt:
        interrupted = run.interrupted = True
    whole = album is None or follower.finish(album)
    if interrupted:
        return Exit.INTERRUPTED
    code = run.exit_code()
    return Exit.SOME_FAILED if code is Exit.OK and not whole else code
