"""Files on a page: keys that are safe in any file system, and addresses."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote


def key_of(name: str) -> str:
    """What a photo's previews are called: it depends on the photo's name alone."""
    return hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()


def relative(target: Path, folder: Path) -> str:
    """The way from `folder` to `target` by their names; the absolute path where there is none (other drives)."""
    try:
        return os.path.relpath(target.absolute(), folder.absolute())
    except ValueError:
        return str(target.absolute())


def place(way: str, folder: Path) -> Path:
    """Where something lies that `relative` led to."""
    return Path(os.path.normpath(folder.absolute() / way))


def address(target: Path, folder: Path) -> str:
    """Address of a file for a page in `folder`: relative, or a file URI where there is no way."""
    way = Path(relative(target, folder))
    return way.as_uri() if way.is_absolute() else quote(os.fsencode(way.as_posix()))
