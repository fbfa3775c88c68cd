"""Lists of inputs for `--files-from`, in any Unicode encoding with a byte order mark."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from pathlib import Path

from qatie_cli.errors import UsageError

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ENDINGS = (" ", "\t", "\r")


def read(content: bytes) -> tuple[Path, ...]:
    """The paths of a list, as `names` reads it."""
    return tuple(map(Path, names(content)))


def names(content: bytes) -> tuple[str, ...]:
    """The entries of a list: one per line, or ended by NUL as `find -print0` writes them.

    A byte order mark says which Unicode encoding it is in, as PowerShell and Windows' editors write it; without one,
    names are bytes in the encoding of the file system.

    Raises:
        UsageError: it is not valid in the encoding of its mark, or looks like UTF-16 without one.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                content = os.fsencode(content.decode(encoding))
            except UnicodeError as error:
                name = encoding.removesuffix("-sig").upper()
                raise UsageError(
                    f"The list begins as {name}, but is not valid {name}: {error}.", "Save it as UTF-8."
                ) from error
            break
    if b"\0" in content:
        entries = content.split(b"\0")
        _refuse_other_encodings(entries)
    else:
        entries = content.replace(b"\r\n", b"\n").split(b"\n")
    return tuple(os.fsdecode(entry) for entry in entries if entry)


def _refuse_other_encodings(names: Sequence[bytes]) -> None:
    """Raise UsageError if NUL is half of a UTF-16 character: most names would be one letter, `.` and `/` among them."""
    short = [name for name in names if len(name) == 1]
    if 2 * len(short) > sum(map(bool, names)) and not all(map(os.path.lexists, short)):
        raise UsageError(
            "The list looks like UTF-16 without a byte order mark: every other byte is NUL.", "Save it as UTF-8."
        )


def missing(path: Path) -> str:
    """The error for an entry that does not exist, with a hint at the likely cause."""
    name = str(path)
    hint = "Check the list; its paths are relative to the current folder."
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        hint = "Leave out the quotes in the list."
    elif name.endswith(_ENDINGS):
        hint = "Its name ends in a space: remove it from the list."
    return f"There is no file {name}. {hint}"


def names_everything(path: Path) -> bool:
    """Whether an entry is `.`, the root, or ends in `..`: more likely a mistake than a request for everything in it."""
    return path.name in ("", "..")
