"""The command line. Importing it loads neither torch nor NumPy, so help, version and completion are instant."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from qatie_cli import __version__, chatter, installation, threads
from qatie_cli.cli import bench, compare, demo, enhance, evaluate, export, pairs, train, usage, weights
from qatie_cli.cli.console import console as screen
from qatie_cli.cli.console import show_error
from qatie_cli.errors import Exit, QatieError

app = typer.Typer(
    name="qatie",
    epilog=usage.EPILOG,
    help="Turn phone photos into photos that look as if a good camera took them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich takes [degradation] for markup, and cuts option names where there is no terminal
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("enhance")(enhance.enhance)
app.command("compare")(compare.compare)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("export")(export.export)
app.add_typer(pairs.app, name="pairs")
app.add_typer(weights.app, name="weights")
for _commands, _prefix in ((app, ""), (pairs.app, "pairs "), (weights.app, "weights ")):
    for _info in _commands.registered_commands:
        _info.cls = usage.Command
        _info.epilog = usage.example(f"{_prefix}{_info.name}")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"qatie {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _quiet_libraries() -> None:
    """Silence libraries' warnings and logs; notes and reasons report what matters in them."""
    chatter.separate_python()
    for library in ("PIL", "tifffile", "torch"):
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names that are not UTF-8 are printed unchanged


def _fill_closed_streams() -> None:
    """Open /dev/null on closed standard streams; a file on such a descriptor would collect libraries' output.

    `sys.stdout` stays None, so a photo for standard output is refused with a message.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 (until the process ends)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def main() -> None:
    """Run the command line; the process ends with one of `errors.Exit`."""
    _fill_closed_streams()
    threads.bound_spin()
    threads.bound_number()
    _quiet_libraries()
    if clash := installation.clash():
        screen().print(f"[yellow]{clash}[/]")
    run()


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command, that of `sys.argv` by default, without a change to the process's streams, threads and warnings.

    Raises:
        SystemExit: with one of `errors.Exit`, always; errors were reported in one line.
    """
    try:
        app(arguments)
    except QatieError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:  # `qatie ... | head`: the reader closed the pipe
        sys.stderr.close()
        sys.exit(Exit.OK)
