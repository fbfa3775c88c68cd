"""What people see: messages and progress on standard error, bars only on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qatie_cli.errors import QatieError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> Console:
    """The console on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: object) -> str:
    """Text on one line and as it is, even where it looks like Rich's markup or holds control characters."""
    from rich.markup import escape

    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in str(text))
    return escape(shown)


def show_error(error: QatieError) -> None:
    """One red line, and the next step."""
    hint = f" [dim]{plain(error.hint)}[/]" if error.hint else ""
    console().print(f"[bold red]Error:[/] {plain(error)}{hint}")


def progress(*columns: str, quiet: bool = False) -> Progress:
    """A progress bar with time left; `columns` are rich format strings that follow it. Hidden off a terminal."""
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
