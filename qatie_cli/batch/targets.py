"""Whether a photo may be written, and what the file keeps that it replaces."""

from __future__ import annotations

import os
from pathlib import Path

from qatie_cli import files
from qatie_cli.batch.planning import Task
from qatie_cli.errors import PhotoError


def identity(path: Path) -> tuple[int, int, int]:
    """What tells a changed file: size, modification time and inode.

    Raises:
        PhotoError: there is no such file, or it cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise PhotoError(f"There is no file {path}.") from None
    except OSError as error:
        raise PhotoError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    return status.st_size, status.st_mtime_ns, status.st_ino


def check_names(photo: Path) -> None:
    """Raise PhotoError where replacing a photo would leave its old content under another name."""
    if (names := photo.stat().st_nlink) > 1:
        raise PhotoError(f"{photo} has {names} names (hard links); in place only one would change.", "Use -o for it.")


def keep_attributes(source: Path, made: Path) -> None:
    """Give the file that replaces a photo in place what belongs to the photo's name.

    Raises:
        PhotoError: it cannot be given.
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
        raise PhotoError(f"{folder} may not be written to.", "Check its permissions.")
    if task.output.is_dir():
        raise PhotoError(f"{task.output} could not be written: a folder has that name.", "Remove it, or use -o.")
    if files.is_special(task.output):  # a pipe that nobody reads would stop the batch
        raise PhotoError(f"{task.output} is a pipe or a device.", "Remove it, or name another folder with -o.")
