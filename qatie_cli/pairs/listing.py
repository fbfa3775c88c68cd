"""Which photos a folder holds."""

from __future__ import annotations

from pathlib import Path

from qatie_cli.errors import DataError
from qatie_cli.photo import formats


def photos_below(folder: Path) -> list[Path]:
    """Photos in `folder` and all below it, by their names alone.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Name a folder of photos.")
    try:
        found = [p for p in folder.rglob("*") if formats.has_photo_suffix(p)]
    except OSError as error:
        raise DataError(f"{folder} cannot be searched: {error.strerror}.", "Check its permissions.") from error
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
