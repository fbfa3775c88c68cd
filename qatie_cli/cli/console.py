"""Messages and progress bars on standard error."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TextIO

from qatie_cli.errors import QatieError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_UNLIMITED_COLUMNS = 240


class Step(Protocol):
    """Tells what a command is doing (`steps`)."""

    def __call__(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Tell one step."""


def console() -> Console:
    """The console on standard error, shared by messages and progress bars so that they never overlap."""
    stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # a live bar puts a proxy in its place
    # Where there is no terminal, Rich would cut tables at 80 columns.
    return _console_on(stream, None if stream.isatty() or os.environ.get("COLUMNS") else _UNLIMITED_COLUMNS)


@functools.lru_cache(maxsize=1)
def _console_on(stream: TextIO, width: int | None) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, soft_wrap=True, width=width)


def plain(text: object) -> str:
    """Escape markup and control characters, so that Rich prints the text verbatim."""
    from rich.markup import escape

    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text))
    return escape(shown)


def confirm(question: str, reason: str) -> None:
    """Ask for confirmation; the command ends unless the answer is yes.

    Raises:
        UsageError: standard input is not a terminal; the message is `reason`.
    """
    import typer

    if not sys.stdin.isatty():
        raise UsageError(reason, "Add --yes to confirm.")
    typer.confirm(question, abort=True, err=True)


def show_error(error: QatieError) -> None:
    """Print an error: one red line, then the hint."""
    hint = f" [dim]{plain(error.hint)}[/]" if error.hint else ""
    console().print(f"[bold red]Error:[/] {plain(error)}{hint}")


def progress(*columns: str, quiet: bool = False) -> Progress:
    """A progress bar with ETA, hidden unless standard error is a terminal; `columns` are Rich formats to append."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = console()
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        *(TextColumn(column) for column in columns),
        console=screen,
        disable=quiet or not screen.is_terminal,
        transient=True,
    )


@contextlib.contextmanager
def steps(quiet: bool = False) -> Iterator[Step]:
    """Yields a function that tells what a long command is doing: in a bar on a terminal, else by a line for each step.

    It takes the step and, where these are known, how many parts are done and how many there are.
    """
    with progress("{task.fields[text]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=None, text="")
        lines = not quiet and not console().is_terminal

        def step(text: str, done: int = 0, total: int | None = None) -> None:
            bar.update(shown, completed=done, total=total, text=plain(text))
            if lines:
                console().print(f"{plain(text)}.")

        yield step
