"""One photo through standard input or standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.errors import QatieError, UsageError

if TYPE_CHECKING:
    from qatie_cli.batch.running import Writing
    from qatie_cli.photo.content import Photo

DASH = Path("-")


def is_stream(inputs: list[Path], out: Path | None) -> bool:
    """Whether a dash stands for standard input or output.

    Raises:
        UsageError: a dash among other inputs, or an output that cannot be one photo.
    """
    if DASH not in inputs and out != DASH:
        return False
    if len(inputs) != 1:
        raise UsageError("Through - goes one photo at a time.", "Name one input.")
    if inputs[0] != DASH and inputs[0].is_dir():
        raise UsageError(f"{inputs[0]} is a folder; -o - writes one photo.", "Name a folder with -o.")
    return True


def run(source: Path, out: Path, fmt: str, writing: Writing, enhance: Callable[[Photo], Photo]) -> tuple[str, ...]:
    """Read one photo, enhance and write it; remarks for its owner.

    The format is the one asked for (`fmt`), that of the output's name, or the photo's own.

    Raises:
        QatieError: the photo cannot be read or written.
    """
    from qatie_cli.photo import decoding, encoding, formats

    if out != DASH and out.is_dir():
        raise UsageError(f"{out} is a folder.", "Name a file with -o: a photo from standard input has no name.")
    named = None if out == DASH else formats.format_of_name(out)
    if out != DASH and out.exists() and not writing.overwrite:
        raise UsageError(f"{out} exists.", "Name another file with -o, or add --overwrite.")
    if fmt != "keep" and named not in (None, fmt):
        raise UsageError(f"-o {out.name} and --format {fmt} contradict each other.", "Leave one out.")
    photo = writing.prepared(decoding.read(sys.stdin.buffer.read() if source == DASH else source, writing.max_pixels))
    own = "png" if photo.source_format == "heic" and photo.has_transparency else photo.source_format
    chosen = named or (formats.kept_format(own) if fmt == "keep" else fmt)
    encoding.check_encodable(photo, chosen)
    notes = photo.notes + encoding.left_out(photo, chosen)
    better = enhance(photo)
    try:
        if out == DASH:
            sys.stdout.buffer.write(encoding.encoded(better, chosen, writing.quality))
            sys.stdout.buffer.flush()
        else:
            encoding.write(out, better, chosen, writing.quality)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise QatieError(f"{out} could not be written: {error.strerror or error}.", "Choose another -o.") from error
    return notes
