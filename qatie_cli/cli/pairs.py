"""`qatie pairs`: folders of pairs, checked or generated from good photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import Folders, Out, Quiet, RecipeFile, need_extra, need_torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qatie_cli.data.checking import Alignment
    from qatie_cli.data.layouts import SkippedFile

_FINEST_PX = 0.1  # what the measurement of misalignment can tell from none
LISTED = 10  # files named on the screen; a run's folder has the whole list

app = typer.Typer(help="Check and make pairs of photos.", no_args_is_help=True)


@app.command("check")
def check(
    data: Annotated[Path, typer.Argument(metavar="PAIRS", help="Folder of pairs.")],
    folders: Folders = None,
    quiet: Quiet = False,
) -> None:
    """Check a folder of pairs.

    Prints which layout it has, which files cannot be used and why, and how well the pairs are aligned.
    """
    need_torch("pairs check")
    need_extra("train", "skimage", "scipy")
    from qatie_cli.data import checking, splitting
    from qatie_cli.errors import DataError

    with progress(quiet=quiet) as bar:
        shown = bar.add_task("", total=None)
        found = checking.check_folder(
            data,
            folders,
            on_start=lambda total: bar.update(shown, total=total),
            on_read=lambda: bar.advance(shown),
        )
    needed = f"training needs at least {splitting.FEWEST} of different photos"
    print(f"{found.layout}: {len(found.usable)} usable pairs of {found.photos} photos; {needed}")
    if found.validation is not None:
        print(f"{found.validation} of them are the layout's own to validate on")
    for file in found.skipped:
        print(f"left out: {file.file} {file.reason}")
    show_alignment(found.alignment)
    if not found.usable:
        raise DataError(f"{data} contains no usable pairs.", "The list above says why.")


@app.command("make")
def make(
    clean: Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of good photos.")],
    out: Out,
    recipe: RecipeFile = None,
    versions: Annotated[int, typer.Option(min=1, help="Pairs per photo.")] = 1,
    longest: Annotated[int | None, typer.Option(min=32, help="Reduce photos to this long side first.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the degradations.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Make pairs from good photos.

    Degrades good photos as a phone would, by the recipe's [degradation] table, and writes OUT/input, OUT/target,
    pairs.csv and a contact sheet. Existing pairs are skipped.
    """
    need_torch("pairs make")
    from qatie_cli.data import generation
    from qatie_cli.training import recipe as recipes

    config = recipes.read_degradation(recipe)
    with progress("[dim]{task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=None, name="")

        def step(name: str, total: int) -> None:
            bar.update(shown, total=total, name=plain(name), advance=1)

        made = generation.generate(clean, out, config, seed=seed, versions=versions, longest=longest, on_photo=step)
    show_skipped(made.skipped)
    if not quiet:
        already = f", {made.existing} were there" if made.existing else ""
        console().print(f"{made.pairs} pairs written{already}. Look at {plain(made.sheet)}")


def show_skipped(skipped: Sequence[SkippedFile], listed_in: Path | None = None) -> None:
    """Name the first skipped files, and how many there are."""
    screen = console()
    for file in skipped[:LISTED]:
        screen.print(f"[yellow]Left out:[/] {plain(file.file)} {plain(file.reason)}")
    if len(skipped) > LISTED:
        where = f"; all are listed in {plain(listed_in)}" if listed_in else ""
        screen.print(f"[yellow]Left out:[/] {len(skipped) - LISTED} more{where}")


def show_alignment(alignment: Alignment | None) -> None:
    """Say how far targets are shifted against their inputs."""
    if alignment is None:
        return
    if alignment.worst < _FINEST_PX:
        shifts = f"below {_FINEST_PX} px in all"
    else:
        shifts = (
            f"median {_px(alignment.median)}, 90% of them below {max(alignment.p90, _FINEST_PX):.1f} px, "
            f"worst {_px(alignment.worst)} ({plain(alignment.worst_pair)})"
        )
    text = f"Misalignment over {alignment.measured} pairs: {shifts}"
    mark = "[yellow]Warning:[/] " if alignment.matters else ""
    hint = ". Shifts of more than a pixel blur the result: align the pairs first" if mark else ""
    console().print(f"{mark}{text}{hint}.")


def _px(shift: float) -> str:
    return f"{shift:.1f} px" if shift >= _FINEST_PX else f"below {_FINEST_PX} px"
