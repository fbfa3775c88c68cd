"""The gallery of `qatie enhance`: whether to make one, and what it records of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.errors import UsageError

if TYPE_CHECKING:
    from qatie_cli.batch.planning import Plan
    from qatie_cli.cloud.session import Session as LargeSession
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.album import Album
    from qatie_cli.gallery.stored import StoredAlbum


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
        raise _one_photo(out)
    if (asked and (plan.tasks or plan.done)) or albums.exists(out):
        albums.check(out, plan)
        return True
    return False


def _one_photo(out: object) -> UsageError:
    return UsageError(f"--gallery needs a folder, and {out} is one photo.", "Give a folder with -o.")


def album(out: Path, plan: Plan, ready: Enhancer | None, weights: str, strength: float, max_pixels: int) -> Album:
    """The gallery of a run."""
    from qatie_cli.gallery.album import Album
    from qatie_cli.gallery.entries import Provenance

    # A page may be shared: it names no folders of this machine.
    provenance = Provenance(Path(weights).name, "" if ready is None else ready.engine.arithmetic, strength)
    return Album(out, plan, provenance, max_pixels)


def wanted_in_store(run: LargeSession, asked: bool | None) -> bool:
    """As `wanted`, of a run over stores or on a cluster.

    Raises:
        UsageError: one is asked for, and the output is one photo.
        StoreError: the store cannot be asked.
    """
    from qatie_cli.gallery import stored
    from qatie_cli.storage import urls

    is_one = run.out != run.request.places.out
    if asked and is_one:
        raise _one_photo(urls.people_s(run.request.places.out))
    return bool(asked) or (asked is None and not is_one and run.todo > 0 and stored.exists(run.out))


def in_store(run: LargeSession, ready: Enhancer) -> StoredAlbum:
    """The gallery of a run over stores or on a cluster.

    Raises:
        QatieError: it cannot be written.
    """
    from qatie_cli.gallery.entries import Provenance
    from qatie_cli.gallery.stored import StoredAlbum

    settings = run.request.settings
    provenance = Provenance(Path(settings.weights).name, ready.engine.arithmetic, settings.strength)
    return StoredAlbum(run.out, provenance)
