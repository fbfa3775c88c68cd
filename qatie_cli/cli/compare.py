"""`qatie compare`: two results side by side, with figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli import chatter
from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import MaxPixels, Quiet, need_extra
from qatie_cli.errors import Exit, QatieError
from qatie_cli.photo import MAX_PIXELS

if TYPE_CHECKING:
    from qatie_cli.evaluation.comparison import Alone, Distance, Pair
    from qatie_cli.gallery.spread import Spread


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A photo, or a folder of them.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same photo or photos.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PAGE.html", help="Page to write.", show_default=False)],
    amplify: Annotated[int, typer.Option(min=1, max=255, help="How much stronger the difference is shown.")] = 8,
    max_pixels: MaxPixels = MAX_PIXELS,
    as_json: Annotated[bool, typer.Option("--json", help="Figures of every photo on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two results of the same photos: a page with a slider, the difference, PSNR, SSIM and CIEDE2000.

    Float against int8, old weights against new ones, qatie against another tool. Photos belong together that have the
    same name, suffix aside. Needs the extra `compare`. Exit code 3 says that some could not be compared; the page names
    them.
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
        raise QatieError(f"{out} cannot be written: {error.strerror or error}.", "Name another -o.") from error
    if not pairs:
        raise QatieError(f"{first} and {second} have no photo in common.", "Photos belong together by their names.")
    page = spread.Spread(out, first, second, amplify)
    try:
        with chatter.hidden():
            left_out = left_out + _measure(page, pairs, max_pixels, quiet)
        for alone in left_out:
            page.leave_out(alone)
        page.write()
    except OSError as error:
        raise QatieError(f"{out} could not be written: {error.strerror or error}.", "Name another -o.") from error
    screen = console()
    for alone in left_out:
        screen.print(f"[yellow]Left out:[/] {plain(alone.name)} {plain(alone.reason)}")
    if as_json:
        print(json.dumps(_tables(page.distances, len(left_out)), indent=1))
    if page.distances and not quiet:
        _show(page.distances)
        screen.print(f"Look at them: {plain(out)}")
    if not page.distances:
        raise QatieError(f"None of the {len(left_out)} photos could be compared.", f"{out} names them with reasons.")
    raise typer.Exit(Exit.SOME_FAILED if left_out else Exit.OK)


def _measure(page: Spread, pairs: list[Pair], max_pixels: int, quiet: bool) -> list[Alone]:
    """Compare all pairs; those that cannot be."""
    from qatie_cli.evaluation.comparison import Alone

    failed = []
    with progress("[dim]{task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=len(pairs), name="")
        for pair in pairs:
            bar.update(shown, name=plain(pair.name))
            try:
                page.compare(pair, max_pixels)
            except QatieError as error:
                failed.append(Alone(pair.name, error.one_line().removeprefix(f"{pair.name}: ")))
            except MemoryError:
                failed.append(Alone(pair.name, "needs more memory than there is."))
            bar.advance(shown)
    return failed


def _tables(distances: dict[str, Distance], left_out: int) -> dict:
    from qatie_cli.evaluation import comparison

    found = list(distances.values())
    return {
        "mean": dataclasses.asdict(comparison.mean(found)) if found else None,
        "photos": {name: dataclasses.asdict(distance) for name, distance in distances.items()},
        "left_out": left_out,
    }


def _show(distances: dict[str, Distance]) -> None:
    from rich import box
    from rich.table import Table

    from qatie_cli.evaluation import comparison

    found = list(distances.values())
    table = Table("", "PSNR dB", "SSIM", "CIEDE2000", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, d in (("mean", comparison.mean(found)), ("worst", comparison.worst(found))):
        table.add_row(name, f"{d.psnr_db:.2f}", "-" if d.ssim is None else f"{d.ssim:.4f}", f"{d.ciede2000:.2f}")
    screen = console()
    screen.print(f"{len(found):,} photo{'' if len(found) == 1 else 's'} compared.")
    screen.print(table)
