"""The layout of `--help`: grouped options, an example, exit codes."""

from __future__ import annotations

import inspect
import io
import shutil
import sys
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from qatie_cli.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDEST = 120  # maximum width of a panel in columns
_OPTION_COLUMNS = 38  # of which an option with its values takes up to this

# The group of every option, the same in all commands. Options in none stand first, under "Options".
GROUPS = {
    "Input": ("--data", "--clean", "--val", "--folders", "--files-from", "--no-recursive", "--photos", "--photo"),
    "Output": (
        "--out", "--format", "--int8", "--quality", "--suffix", "--overwrite", "--in-place", "--yes", "--dry-run",
        "--preserve-times",
    ),
    "Effect": ("--strength", "--fast"),
    "Metadata": ("--strip-gps", "--strip-metadata", "--no-hdr", "--no-motion", "--sidecars"),
    "Training": (
        "--init", "--recipe", "--width", "--steps", "--tone-steps", "--qat", "--batch", "--crop", "--seed", "--set",
        "--resume", "--versions",
    ),
    "Measurement": (
        "--size", "--rounds", "--runtimes", "--against", "--commands", "--longest", "--reduction", "--baselines",
        "--amplify", "--compare", "--least",
    ),
    "Weights and engine": ("--weights", "--engine", "--device", "--threads", "--cluster", "--workers"),
    "Limits": ("--max-memory", "--max-pixels"),
    "Report": (
        "--report", "--gallery", "--json", "--csv", "--plot", "--tensorboard", "--quiet", "--verbose",
    ),
}  # fmt: skip
_GROUP_OF = {option: group for group, options in GROUPS.items() for option in options}

EXAMPLES = {
    "enhance": "qatie enhance photos/ -o out/ --strip-gps --gallery",
    "compare": "qatie compare old/ new/ -o compare.html",
    "demo": "qatie demo -o out/",
    "train": "qatie train --data pairs/ --init qatie-c16 --qat --steps 300 -o run/",
    "evaluate": "qatie evaluate --data pairs/ --weights run/last.safetensors",
    "bench": "qatie bench photos/ --size 12MP",
    "export": "qatie export qatie-c16 -f tflite --int8 -o qatie.tflite",
    "pairs check": "qatie pairs check pairs/",
    "pairs make": "qatie pairs make good-photos/ -o pairs/",
    "weights list": "qatie weights list",
    "weights path": "qatie weights path qatie-c32",
    "weights verify": "qatie weights verify",
    "weights clear": "qatie weights clear",
    "weights import": "qatie weights import model.tflite --photos photos/",
}

EXIT_CODES = {
    Exit.OK: "success",
    Exit.NOTHING_DONE: "nothing could be done",
    Exit.USAGE: "wrong usage",
    Exit.SOME_FAILED: "some photos failed and are listed",
    Exit.INTERRUPTED: "interrupted",
}
EPILOG = "Exit codes: " + ", ".join(f"{code.value} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


def example(command: str) -> str:
    """The last line of a command's help."""
    return f"Example: {EXAMPLES[command]}"


def group_of(options: Iterable[str]) -> str | None:
    """The group of an option, by any of its spellings."""
    return next((_GROUP_OF[option] for option in options if option in _GROUP_OF), None)


def in_groups(params: Iterable[Any]) -> dict[str, list[Any]]:
    """Options by group, in the order of `GROUPS`; those in none come first, as "Options"."""
    found: dict[str, list[Any]] = {name: [] for name in ("Options", *GROUPS)}
    for param in params:
        if param.param_type_name == "option":
            found[group_of(param.opts) or "Options"].append(param)
    return {name: options for name, options in found.items() if options}


def sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Rows of a command's help, (option, text), by heading."""
    params = command.get_params(ctx)
    found = {"Arguments": [p for p in params if p.param_type_name == "argument"], **in_groups(params)}
    records = {name: [param.get_help_record(ctx) for param in group] for name, group in found.items()}
    return {name: [r for r in rows if r is not None] for name, rows in records.items() if any(rows)}


def _panels(command: Any, ctx: Any) -> str:
    """A command's help for a terminal. Help texts are not markup: Rich would read [degradation] as a tag."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    shown = io.StringIO()
    screen = Console(file=shown, force_terminal=True, width=min(shutil.get_terminal_size().columns, _WIDEST))
    screen.print(Padding(Text(command.get_usage(ctx), "bold"), (1, 1, 0, 1)))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        screen.print(Padding(Text(" ".join(paragraph.split())), (1, 1, 0, 1)))
    screen.print()
    for name, rows in sections(command, ctx).items():
        table = Table.grid(padding=(0, 2))
        table.add_column(max_width=_OPTION_COLUMNS, overflow="fold", style="cyan")
        table.add_column(overflow="fold")
        for option, text in rows:
            table.add_row(Text(option), Text(text))
        screen.print(Panel(table, title=Text(name), title_align="left", border_style="dim"))
    if command.epilog:
        screen.print(Padding(Text(command.epilog), (0, 1)))
    return shown.getvalue()


class Command(TyperCommand):
    """A command whose options are in groups: panels on a terminal, plain text elsewhere."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments named as the help does: FILE, where Typer writes {FILE}."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        if sys.stdout.isatty():
            formatter.write(_panels(self, ctx))
        else:
            super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then a section for each group."""
        for name, rows in sections(self, ctx).items():
            with formatter.section(name):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example on one line, so that it can be copied."""
        formatter.write_paragraph()
        formatter.write(f"  {self.epilog}\n")
