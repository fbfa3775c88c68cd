"""Lists of inputs: the text that `--files-from` names, whatever wrote it."""

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
    """The entries of a list: a line each, or each ended by NUL as `find -print0` does.

    A byte order mark says which Unicode encoding it is in, as PowerShell and Windows' editors write it; without one,
    names are bytes in the encoding of the file system.

    Raises:
        UsageError: it is not text in the encoding that its mark names, or looks like UTF-16 without a mark.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                content = os.fsencode(content.decode(encoding))
            except UnicodeError as error:
                name = encoding.removesuffix("-sig").upper()
                raise UsageError(f"The list is not the {name} it begins as: {error}.", "Save it as UTF-8.") from error
            break
    if b"\0" in content:
        entries = content.split(b"\0")
        _refuse_other_encodings(entries)
    else:
        entries = content.replace(b"\r\n", b"\n").split(b"\n")
    return tuple(os.fsdecode(entry) for entry in entries if entry)


def _refuse_other_encodings(names: Sequence[bytes]) -> None:
    """Raise UsageError where NUL is half of a character: most names would be one letter, `.` or `/` among them."""
    short = [name for name in names if len(name) == 1]
    if 2 * len(short) > sum(map(bool, names)) and not all(map(os.path.lexists, short)):
        raise UsageError(
            "The list looks like UTF-16 without a byte order mark: every other byte is NUL.", "Save it as UTF-8."
        )


def missing(path: Path) -> str:
    """Why an entry that does not exist may be wrong: one line with the next step."""
    name = str(path)
    hint = "Check the list; its paths are relative to the current folder."
    if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'":
        hint = "Leave out the quotes in the list."
    elif name.endswith(_ENDINGS):
        hint = "Its name ends in a blank: remove it from the list."
    return f"There is no file {name}. {hint}"


def names_everything(path: Path) -> bool:
    """Whether an entry is `.`, the root, or ends in `..`: likelier a slip than a wish to enhance all that is there."""
    return path.name in ("", "..")
