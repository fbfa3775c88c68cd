"""Which photos are in a folder, and how their names are sorted and shown."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from qatie_cli.errors import DataError
from qatie_cli.files import TEMPORARY_PREFIX
from qatie_cli.photo import formats

# What a gallery leaves in an output folder: a page, and a hidden folder beside it.
GALLERY_PAGE, GALLERY_FOLDER = "index.html", ".gallery"
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}
_DIGITS = re.compile(r"(\d+)")


def photos_below(folder: Path) -> list[Path]:
    """Photos in `folder` and all below it, told by their names; sorted by path.

    Raises:
        DataError: there is no such folder, or a part of it cannot be searched.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Name a folder of photos.")
    unsearched: list[tuple[Path, str]] = []
    found = [path for path in discover(folder, True, None, unsearched) if formats.has_photo_suffix(path)]
    for path, reason in unsearched:
        raise DataError(f"{path} cannot be searched: {reason}.", "Check its permissions.")
    return sorted(found)


def discover(folder: Path, recursive: bool, exclude: Path | None, unsearched: list[tuple[Path, str]]) -> Iterator[Path]:
    """Files below `folder`, sorted; folders that cannot be looked into are added to `unsearched`.

    Hidden and system files, galleries' pages, the folder `exclude` and symbolic loops are left out. Where `exclude` is
    `folder` itself nothing is left out: the plan then refuses to write over the originals.
    """

    def refused(error: OSError) -> None:
        unsearched.append((Path(error.filename), error.strerror or str(error)))

    excluded = None if exclude is None else identity(exclude)
    if excluded == identity(folder):
        excluded = None
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        here = identity(Path(parent))
        if here in seen or (here == excluded and here is not None):
            folders.clear()
            continue
        if here is not None:
            seen.add(here)
        page = GALLERY_PAGE if GALLERY_FOLDER in folders else None
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if recursive else []
        for name in sorted(names):
            if name == page:
                continue
            path = Path(parent, name)
            hidden = name.startswith(".") or name.startswith(TEMPORARY_PREFIX) or name.lower() in _SYSTEM_FILES
            if not hidden and not _is_special(path):
                yield path


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device; what cannot be asked fails later, by itself."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ELOOP)  # a link to nowhere


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file or folder; None where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def readable(name: str) -> str:
    """A file name as people can read it: bytes that are no UTF-8 and control characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def natural(name: str) -> tuple:
    """Sorts names as people do: IMG_2 before IMG_10, case aside."""
    parts = _DIGITS.split(name.casefold())
    return tuple((int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)), name
