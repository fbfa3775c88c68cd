"""Names of preview files, and addresses on a page."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote


def key_of(name: str) -> str:
    """The stem of a photo's preview files, valid on any file system; a hash of the photo's name."""
    return hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()


def relative(target: Path, folder: Path) -> str:
    """The path of `target` relative to `folder`, links unresolved; absolute if it is on another drive."""
    try:
        return os.path.relpath(target.absolute(), folder.absolute())
    except ValueError:
        return str(target.absolute())


def place(relative_path: str, folder: Path) -> Path:
    """The inverse of `relative`."""
    return Path(os.path.normpath(folder.absolute() / relative_path))


def address(target: Path, folder: Path) -> str:
    """URL of a file for a page in `folder`: relative, or a file: URL on another drive."""
    path = Path(relative(target, folder))
    return path.as_uri() if path.is_absolute() else quote(os.fsencode(path.as_posix()))
