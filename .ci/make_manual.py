"""The manual of the command line, from its own help: a man page, or Markdown for the documentation.

python .ci/make_manual.py > qatie.1
"""

from __future__ import annotations

import datetime
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from typer import Context
from typer.main import get_command

from qatie_cli import __version__
from qatie_cli.cli import app, usage


@dataclass(frozen=True)
class Section:
    """What the help of one command says: `rows` of (option, text) by group, paragraphs and an example."""

    name: str
    usage: str
    paragraphs: tuple[str, ...]
    groups: dict[str, list[tuple[str, str]]]
    example: str


def sections() -> Iterator[Section]:
    """Every command, in the order of `qatie --help`."""
    yield from _below(get_command(app), "qatie")


def _below(command: Any, name: str) -> Iterator[Section]:
    if hasattr(command, "commands"):
        for word, inner in command.commands.items():
            yield from _below(inner, f"{name} {word}")
        return
    context = Context(command, info_name=name)
    paragraphs = [" ".join(text.split()) for text in inspect.cleandoc(command.help).split("\n\n")]
    groups = {
        heading: [(option, " ".join(text.split())) for option, text in rows if "--help" not in option]
        for heading, rows in usage.sections(command, context).items()
    }
    called = command.get_usage(context).removeprefix("Usage: ")
    shown = {heading: rows for heading, rows in groups.items() if rows}
    yield Section(name, " ".join(called.split()), tuple(paragraphs), shown, command.epilog.removeprefix("Example: "))


def markdown() -> str:
    """A page of the documentation."""
    parts = ["# Commands", f"As `qatie COMMAND --help` prints them, version {__version__}.", f"{usage.EPILOG}"]
    for section in sections():
        parts += [f"## {section.name}", f"```sh\n{section.example}\n```", *map(_literal, section.paragraphs)]
        for heading, rows in section.groups.items():
            lines = [f"| `{option}` | {_literal(text)} |" for option, text in rows]
            parts.append("\n".join([f"| {heading} | |", "|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def _literal(text: str) -> str:
    return re.sub(r"([\[\]<>*_|])", r"\\\1", text)


def man_page() -> str:
    """A page for man(1)."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    lines = [f'.TH QATIE 1 "{today}" "qatie {__version__}"', ".SH NAME", "qatie \\- enhance phone photos"]
    lines += [".SH SYNOPSIS", ".B qatie", "COMMAND [OPTIONS]", ".SH COMMANDS"]
    for section in sections():
        lines += [f".SS {_roff(section.usage)}"]
        for text in section.paragraphs:
            lines += [".PP", _roff(text)]
        for heading, rows in section.groups.items():
            lines += [".PP", f".B {_roff(heading)}"]
            for option, text in rows:
                lines += [".TP", f".B {_roff(option)}", _roff(text)]
        lines += [".PP", "Example:", ".PP", ".nf", ".RS", _roff(section.example), ".RE", ".fi"]
    lines.append(".SH EXIT STATUS")
    for code, meaning in usage.EXIT_CODES.items():
        lines += [".TP", f".B {code.value}", meaning]
    environment = {
        "QATIE_HOME": "The folder of cached weights and compiled kernels.",
        "QATIE_NO_NUMBA": "Set to 1, it turns compiled kernels off; results are the same.",
        "OMP_WAIT_POLICY": "Respected where it is set.",
    }
    lines.append(".SH ENVIRONMENT")
    for name, text in environment.items():
        lines += [".TP", f".B {name}", text]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.stdout.write(man_page())
