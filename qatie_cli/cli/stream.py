"""One photo through standard input or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qatie_cli.errors import QatieError, UsageError

if TYPE_CHECKING:
    from qatie_cli.batch.running import Writing
    from qatie_cli.photo.content import Photo

DASH = Path("-")


def standard_output() -> BinaryIO:
    """Where data goes.

    Raises:
        UsageError: it is closed.
    """
    if sys.stdout is None:
        raise UsageError("Standard output is closed.", "Give a file instead of -.")
    return sys.stdout.buffer


def is_stream(inputs: Sequence[Path], out: Path) -> bool:
    """Whether a dash stands for standard input or output, or the output is a device or a pipe.

    Raises:
        UsageError: a dash among other inputs, or an output that cannot be one photo.
    """
    from qatie_cli import files

    if DASH not in inputs and out != DASH and not files.is_special(out):
        return False
    if len(inputs) != 1:
        stream = out if DASH not in inputs else DASH
        raise UsageError(f"{stream} takes one photo at a time.", "Give one input.")
    if inputs[0] != DASH and inputs[0].is_dir():
        raise UsageError(f"{inputs[0]} is a folder; -o {out} writes one photo.", "Give a folder with -o.")
    return True


def refuse_batch_options(used: bool) -> None:
    """Raise UsageError where options for many photos are used with one that goes through a pipe."""
    if used:
        named = "--dry-run, --report, --files-from, --gallery and --sidecars"
        raise UsageError(f"{named} are for batches, not for -.", "Leave them out.")


def run(source: Path, out: Path, fmt: str, writing: Writing, better: Callable[[Photo], Photo]) -> tuple[str, ...]:
    """Read one photo, enhance and write it; notes for its owner.

    The format is the one asked for (`fmt`), that of the output's name, or the photo's own.

    Raises:
        QatieError: the photo cannot be read or written.
    """
    from qatie_cli import files
    from qatie_cli.batch import single
    from qatie_cli.photo import encoding, formats

    if out == DASH:
        standard_output()
    elif out.is_dir():
        raise UsageError(f"{out} is a folder.", "Give a file with -o: a photo from standard input has no name.")
    if out != DASH and out.exists() and not writing.overwrite and not files.is_special(out):
        raise UsageError(f"{out} exists.", "Choose another file with -o, or add --overwrite.")
    named = None if out == DASH else formats.format_of_name(out)
    if fmt != formats.KEEP and named not in (None, fmt):
        raise UsageError(f"-o {out.name} and --format {fmt} contradict each other.", "Leave one out.")
    wanted = named or fmt
    enhanced = single.enhance(sys.stdin.buffer.read() if source == DASH else source, wanted, writing, better)
    if out != DASH:
        single.write(enhanced, out, writing.quality)
        return enhanced.notes
    content = encoding.encoded(enhanced.photo, enhanced.fmt, writing.quality)
    try:
        standard_output().write(content)
        standard_output().flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise QatieError(f"Cannot write to standard output: {error.strerror or error}.") from error
    return enhanced.notes
