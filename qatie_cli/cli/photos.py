"""Photos for commands that measure something: named by the user, or scikit-image's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.cli.console import console, plain
from qatie_cli.errors import DataError, PhotoError, QatieError

if TYPE_CHECKING:
    import numpy as np


def named(paths: list[Path], most: int) -> dict[str, np.ndarray]:
    """At most `most` photos of files and folders, evenly chosen, (H, W, 3) uint8; unreadable ones are reported.

    Raises:
        DataError: none can be read.
    """
    from qatie_cli.data.sampling import subsample
    from qatie_cli.photo import decoding
    from qatie_cli.photo.discovery import photos_of

    if missing := [path for path in paths if not path.exists()]:
        raise DataError(f"There is no {missing[0]}.", "Give a photo, or a folder of photos.")
    found = {}
    for file in subsample(photos_of(paths), most):
        try:
            found[file.name] = decoding.read(file).rgb_u8()
        except PhotoError as error:
            console().print(f"[yellow]Left out:[/] {plain(error.one_line())}")
    if not found:
        raise DataError(f"There is no photo that can be read in {', '.join(map(str, paths))}.", "Choose others.")
    return found


def at_hand() -> dict[str, np.ndarray]:
    """Photos that scikit-image ships, as they are and made phone-like, (H, W, 3) uint8; none where it is missing."""
    from qatie_cli.data import degradation, demo

    try:
        originals = demo.originals()
    except QatieError:
        return {}
    made = {
        f"{name}, phone-like": degradation.to_u8(degradation.apply(demo.DEGRADATIONS[name], degradation.from_u8(photo)))
        for name, photo in originals.items()
    }
    return originals | made
