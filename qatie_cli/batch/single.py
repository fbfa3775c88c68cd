"""One photo by itself: read, enhanced, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qatie_cli.batch.running import Writing
from qatie_cli.errors import QatieError
from qatie_cli.photo import decoding, encoding, formats
from qatie_cli.photo.content import Photo
from qatie_cli.photo.fineness import Quality


@dataclass(frozen=True)
class Enhanced:
    """An enhanced photo, the format to write it in, and what that format will not hold of it."""

    photo: Photo
    fmt: str
    notes: tuple[str, ...]


def enhance(source: Path | bytes, fmt: str | None, writing: Writing, better: Callable[[Photo], Photo]) -> Enhanced:
    """Read and enhance a photo.

    Args:
        source: a file, or its content.
        fmt: a key of `formats.FORMATS`, or which own format of the photo (`formats.own_format`); None is the default.

    Raises:
        PhotoError: the photo cannot be read, or the format cannot hold it.
    """
    photo = writing.prepared(decoding.read(source, writing.max_pixels))
    asked = fmt or formats.KEEP
    own = photo.source_format
    if asked == formats.KEEP and own == "heic" and photo.has_transparency:
        own = "png"
    chosen = asked if asked in formats.FORMATS else formats.own_format(own, asked)
    encoding.check_encodable(photo, chosen)
    return Enhanced(better(photo), chosen, photo.notes + encoding.left_out(photo, chosen))


def write(enhanced: Enhanced, out: Path, quality: Quality) -> None:
    """Write it atomically.

    Raises:
        QatieError: it cannot be encoded, or the file cannot be written.
    """
    try:
        encoding.write(out, enhanced.photo, enhanced.fmt, quality)
    except OSError as error:
        raise QatieError(f"{out} could not be written: {error.strerror or error}.", "Choose another output.") from error
