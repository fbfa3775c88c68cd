"""Checks of an output before it is written, and the attributes that it takes over."""

from __future__ import annotations

import os
from pathlib import Path

from qatie_cli import files
from qatie_cli.batch.planning import Task
from qatie_cli.errors import PhotoError


def identity(path: Path) -> tuple[int, int, int]:
    """Size, modification time and inode, which identify a version of a file.

    Raises:
        PhotoError: there is no such file, or it is inaccessible.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PhotoError(f"There is no file {path}.") from None
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def check_names(photo: Path) -> None:
    """Raise PhotoError if the photo has hard links, which would keep the old content."""
    if (names := photo.stat().st_nlink) > 1:
        raise PhotoError(f"{photo} has {names} names (hard links); in place only one would change.", "Use -o for it.")


def keep_attributes(source: Path, made: Path) -> None:
    """Give the file that replaces a photo in place the photo's owner, permissions and attributes.

    Raises:
        PhotoError: they cannot be set.
    """
    try:
        files.keep_attributes(source, made)
    except OSError as error:
        lost = "owner, extended attributes or ACL"
        reason = error.strerror or error
        raise PhotoError(f"{source} would lose its {lost} in place ({reason}).", "Use -o for it.") from error


def check(task: Task) -> None:
    """Raise PhotoError if the output could not be written later."""
    folder = task.output.parent
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise PhotoError(f"{folder} is not writable.", "Check its permissions.")
    if task.output.is_dir():
        raise PhotoError(f"{task.output} could not be written: a folder has that name.", "Remove it, or use -o.")
    if files.is_special(task.output):  # writing to a pipe without a reader would block the batch
        raise PhotoError(f"{task.output} is a pipe or a device.", "Remove it, or choose another folder with -o.")
