"""What people see: messages and progress on standard error, bars only on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.errors import QatieError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextlib.contextmanager
def without_library_chatter() -> Iterator[None]:
    """Keep what C libraries print on standard error of a damaged file out of it: its photo's reason says it already.

    Python's own messages, tracebacks included, are written as ever.
    """
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # not a real file, as in some tests
        yield
        return
    before, kept = sys.stderr, os.dup(descriptor)
    with Path(os.devnull).open("wb") as nowhere, os.fdopen(kept, "w", encoding=before.encoding) as ours:
        ours.reconfigure(errors="backslashreplace")
        before.flush()
        os.dup2(nowhere.fileno(), descriptor)
        sys.stderr = ours
        try:
            yield
        finally:
            ours.flush()
            os.dup2(ours.fileno(), descriptor)
            sys.stderr = before
