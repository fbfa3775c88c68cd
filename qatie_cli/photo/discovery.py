"""Finding the photos of a folder, and sorting and displaying their names."""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qatie_cli.errors import DataError
from qatie_cli.files import TEMPORARY_PREFIX
from qatie_cli.photo import formats

# A gallery's page in an output folder, and its hidden folder.
GALLERY_PAGE, GALLERY_FOLDER = "index.html", ".gallery"
_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db"}
# Previews, trash, snapshots and resource forks of NAS, Windows, macOS and Linux, in lower case.
_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "@tmp", ".@__thumb", ".snapshot"}
    | {"$recycle.bin", "recycler", "system volume information", "__macosx", ".appledouble", ".trashes", ".trash"}
    | {".spotlight-v100", ".fseventsd", ".temporaryitems", "lost+found", ".thumbnails"}
)
# Folders that are a single document of a program, which alone may change their photos.
_LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary", ".lrdata", ".cocatalog")
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Found:
    """What a folder holds, in the order of the walk: a folder's files before its subfolders, each sorted by name."""

    photos: tuple[Path, ...]
    others: tuple[Path, ...] = ()  # files without a photo's suffix
    unsearched: tuple[tuple[Path, str], ...] = ()  # folders that cannot be read, and why
    system_folders: tuple[Path, ...] = ()  # of a system's or another program's own: not searched


def find(folder: Path, *, recursive: bool = True, exclude: Path | None = None, follow_links: bool = True) -> Found:
    """The photos in `folder`, told by their suffixes. Every command searches folders by this function.

    Links to files and folders are followed; a folder that is reached twice, as in a loop of links, is searched once.
    Left out are hidden and system files, hidden folders, those of a system's or another program's own (`#recycle`,
    `.photoslibrary`), galleries, anything that is not a regular file, and the folder `exclude`, unless that is `folder`
    itself. Links to folders that `follow_links` forbids to follow are among the unsearched.
    """
    photos: list[Path] = []
    others: list[Path] = []
    unsearched: list[tuple[Path, str]] = []
    system_folders: list[Path] = []

    def refused(error: OSError) -> None:
        unsearched.append((Path(error.filename), error.strerror or str(error)))

    excluded = None if exclude is None else identity(exclude)
    if excluded == identity(folder):
        excluded = None
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        here = identity(Path(parent))
        if here is not None and (here in seen or here == excluded):
            folders.clear()
            continue
        if here is not None:
            seen.add(here)
        page = GALLERY_PAGE if GALLERY_FOLDER in folders else None
        if recursive and not follow_links:
            links = [f for f in sorted(folders) if Path(parent, f).is_symlink() and not is_hidden(f)]
            unsearched += [(Path(parent, f), "it is a link, and links are not followed in place") for f in links]
            folders[:] = [f for f in folders if f not in links]
        if recursive:
            system_folders += [Path(parent, f) for f in sorted(folders) if is_system_folder(f)]
        folders[:] = sorted(f for f in folders if not (is_hidden(f) or is_system_folder(f))) if recursive else []
        for name in sorted(names):
            path = Path(parent, name)
            if name != page and not is_hidden(name) and not _is_special(path):
                (photos if formats.has_photo_suffix(path) else others).append(path)
    return Found(tuple(photos), tuple(others), tuple(unsearched), tuple(system_folders))


def photos_below(folder: Path) -> list[Path]:
    """The photos found by `find`, sorted by path.

    Raises:
        DataError: there is no such folder, or a part of it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Give a folder of photos.")
    found = find(folder)
    for path, reason in found.unsearched:
        raise DataError(f"{path} cannot be searched: {reason}.", "Check its permissions.")
    return sorted(found.photos)


def photos_of(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, whatever their names, and the photos in the folders among them.

    Raises:
        DataError: a part of a folder cannot be read.
    """
    return [photo for path in paths for photo in (photos_below(path) if path.is_dir() else [path])]


def names_with_suffix(folder: Path, suffix: str) -> tuple[str, ...]:
    """Sorted names of a folder's files that end with `suffix` in any case; none where it cannot be read."""
    try:
        return _names_with_suffix(folder, suffix, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@functools.lru_cache(maxsize=16)
def _names_with_suffix(folder: Path, suffix: str, changed: int) -> tuple[str, ...]:
    """Cached as long as the folder has not `changed` (nanoseconds): one listing serves all its photos."""
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.name.lower().endswith(suffix) and e.is_file()))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out without a word."""
    return name.startswith((".", TEMPORARY_PREFIX)) or name.lower() in _SYSTEM_FILES


def is_system_folder(name: str) -> bool:
    """Whether a folder of this name is a system's or another program's own."""
    lower = name.lower()
    return lower in _SYSTEM_FOLDERS or lower.startswith(".trash-") or lower.endswith(_LIBRARIES)


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, socket, device or broken link. Inaccessible files are reported when they are read."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ELOOP)


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file or folder; None if it cannot be accessed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def readable(name: str) -> str:
    """A file name for display: invalid UTF-8 and control characters are replaced."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def natural(name: str) -> tuple:
    """Sort key that puts IMG_2 before IMG_10 and ignores case."""
    parts = _DIGITS.split(name.casefold())
    return tuple((int(part), part) if index % 2 else (0, part) for index, part in enumerate(parts)), name
