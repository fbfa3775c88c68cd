"""`qatie weights`: which weights there are, where they are, and whether they are whole."""

from __future__ import annotations

from typing import Annotated

import typer

from qatie_cli.cli.console import console
from qatie_cli.errors import Exit
from qatie_cli.weights import DEFAULT

app = typer.Typer(help="List, find, check and clear weights.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Print the shipped weights: name, size, state of the cached copy, description."""
    from qatie_cli import weights

    for shipped in weights.manifest().values():
        size = shipped.packaged.stat().st_size / 1e6 if shipped.packaged.exists() else 0.0
        cached = "cached" if weights.is_intact(shipped.cached, shipped) else "packaged"
        default = " (default)" if shipped.name == DEFAULT else ""
        print(f"{shipped.name}\t{size:.1f} MB\t{cached}\t{shipped.description}{default}")


@app.command()
def path(name: Annotated[str, typer.Argument(help="Shipped weights, or a weights file.")] = DEFAULT) -> None:
    """Print the file that `enhance` would read."""
    from qatie_cli import weights

    print(weights.locate(name))


@app.command()
def verify() -> None:
    """Check every packaged and cached file against the manifest; damaged copies are repaired from the package."""
    from qatie_cli import weights
    from qatie_cli.errors import WeightsError

    screen, damaged = console(), False
    for shipped in weights.manifest().values():
        try:
            weights.check_packaged(shipped)
        except WeightsError as error:
            damaged = True
            screen.print(f"[red]{error}[/] {error.hint}")
            continue
        if shipped.cached.exists() and not weights.is_intact(shipped.cached, shipped):
            weights.locate(shipped.name)
            print(f"{shipped.name}: intact; its cached copy was damaged and is repaired")
        else:
            print(f"{shipped.name}: intact")
    if damaged:
        raise typer.Exit(Exit.NOTHING_DONE)


@app.command()
def clear() -> None:
    """Remove cached copies; the package's own files stay."""
    from qatie_cli import weights

    for removed in weights.clear():
        print(removed)
