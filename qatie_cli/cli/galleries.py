"""The gallery of `qatie enhance`: whether there is to be one, and what it says of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.errors import UsageError

if TYPE_CHECKING:
    from qatie_cli.batch.planning import Plan
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.album import Album


def wanted(out: Path | None, asked: bool | None, plan: Plan) -> bool:
    """Whether this run writes or refreshes a gallery.

    Raises:
        QatieError: one is asked for that cannot be written.
    """
    from qatie_cli.photo.discovery import GALLERY_FOLDER

    if out is None or asked is False:
        return False
    if asked is None and not (out / GALLERY_FOLDER).is_dir():
        return False  # before anything is imported for it
    from qatie_cli.gallery import album as albums

    if any(task.output == out for task in (*plan.tasks, *plan.done)):
        raise UsageError(f"--gallery needs a folder, and {out} is one photo.", "Give a folder with -o.")
    if (asked and (plan.tasks or plan.done)) or albums.exists(out):
        albums.check(out, plan)
        return True
    return False


def album(out: Path, plan: Plan, ready: Enhancer | None, weights: str, strength: float, max_pixels: int) -> Album:
    """The gallery of a run."""
    from qatie_cli.gallery.album import Album
    from qatie_cli.gallery.entries import Provenance

    # A page may be shared: it names no folders of this machine.
    provenance = Provenance(Path(weights).name, "" if ready is None else ready.engine.arithmetic, strength)
    return Album(out, plan, provenance, max_pixels)
