"""`qatie compare`: two results side by side, with metrics."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qatie_cli import chatter
from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import MaxPixels, Quiet, need_extra
from qatie_cli.errors import Exit, QatieError
from qatie_cli.photo import MAX_PIXELS

if TYPE_CHECKING:
    from qatie_cli.evaluation.comparison import PhotoPair, Similarity, Unpaired
    from qatie_cli.gallery.spread import Spread


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A photo or a folder of photos.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="The photos to compare with.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PAGE.html", help="Page to write.", show_default=False)],
    amplify: Annotated[int, typer.Option(min=1, max=255, help="Factor of the difference pictures.")] = 8,
    max_pixels: MaxPixels = MAX_PIXELS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics of every photo as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two results of the same photos.

    Writes a page with a slider, the amplified difference, PSNR, SSIM and CIEDE2000 of every photo: float against int8,
    old weights against new ones, qatie against another tool. Photos are matched by name, whatever their suffix; those
    that cannot be compared are listed. Needs the extra `compare`.
    """
    need_extra("compare", "skimage")
    from qatie_cli import files
    from qatie_cli.evaluation import comparison
    from qatie_cli.gallery import spread

    pairs, left_out = comparison.find_pairs(first, second)
    spread.check(out)
    try:
        files.check_writable(out.parent)
    except OSError as error:
        raise QatieError(f"{out} cannot be written: {error.strerror or error}.", "Choose another -o.") from error
    if not pairs:
        raise QatieError(f"{first} and {second} have no photo in common.", "Photos are matched by their names.")
    page = spread.Spread(out, first, second, amplify)
    try:
        with chatter.hidden():
            left_out = left_out + _measure(page, pairs, max_pixels, quiet)
        for unpaired in left_out:
            page.leave_out(unpaired)
        page.write()
    except OSError as error:
        raise QatieError(f"{out} could not be written: {error.strerror or error}.", "Choose another -o.") from error
    screen = console()
    for unpaired in left_out:
        screen.print(f"[yellow]Left out:[/] {plain(unpaired.name)} {plain(unpaired.reason)}")
    if as_json:
        print(json.dumps(_tables(page.similarities, len(left_out)), indent=1))
    if page.similarities and not quiet:
        _show(page.similarities)
        screen.print(f"Open {plain(out)}")
    if not page.similarities:
        raise QatieError(f"None of the {len(left_out)} photos could be compared.", f"{out} names them with reasons.")
    raise typer.Exit(Exit.SOME_FAILED if left_out else Exit.OK)


def _measure(page: Spread, pairs: list[PhotoPair], max_pixels: int, quiet: bool) -> list[Unpaired]:
    """Compare all pairs; returns those that cannot be."""
    from qatie_cli.evaluation.comparison import Unpaired

    failed = []
    with progress("[dim]{task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=len(pairs), name="")
        for pair in pairs:
            bar.update(shown, name=plain(pair.name))
            try:
                page.compare(pair, max_pixels)
            except QatieError as error:
                failed.append(Unpaired(pair.name, error.one_line().removeprefix(f"{pair.name}: ")))
            except MemoryError:
                failed.append(Unpaired(pair.name, "does not fit into memory."))
            bar.advance(shown)
    return failed


def _tables(similarities: dict[str, Similarity], left_out: int) -> dict[str, Any]:
    from qatie_cli.evaluation import comparison

    found = list(similarities.values())
    return {
        "mean": dataclasses.asdict(comparison.mean(found)) if found else None,
        "photos": {name: dataclasses.asdict(found) for name, found in similarities.items()},
        "left_out": left_out,
    }


def _show(similarities: dict[str, Similarity]) -> None:
    from rich import box
    from rich.table import Table

    from qatie_cli.evaluation import comparison

    found = list(similarities.values())
    table = Table("", "PSNR dB", "SSIM", "CIEDE2000", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, s in (("mean", comparison.mean(found)), ("worst", comparison.worst(found))):
        table.add_row(name, f"{s.psnr_db:.2f}", "-" if s.ssim is None else f"{s.ssim:.4f}", f"{s.ciede2000:.2f}")
    screen = console()
    screen.print(f"{len(found):,} photo{'' if len(found) == 1 else 's'} compared.")
    screen.print(table)
