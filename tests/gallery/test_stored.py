"""The gallery of a run over stores: what stays on its page from run to run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qatie_cli.gallery.entries import Provenance
from qatie_cli.gallery.stored import StoredAlbum
from qatie_cli.storage import stores

fsspec = pytest.importorskip("fsspec")

OUT, WEIGHTS = "memory://shop/out", Provenance("qatie-c16", "int8 on llvm", 1.0)


@pytest.fixture(autouse=True)
def memory_store() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def _page(*added: str, failed: str = "", there: tuple[str, ...] = ()) -> str:
    """The page after a run that enhances `added`, where outputs of earlier runs are `there`."""
    album = StoredAlbum(OUT, WEIGHTS)
    for name in added:
        album.add(f"memory://shop/in/{name}", f"{OUT}/{name}", (40, 30), 1000, 2.5, 0.1)
    if failed:
        album.fail(f"memory://shop/in/{failed}", f"memory://shop/in/{failed} is damaged.")
    album.write({f"{OUT}/{name}": 1000 for name in there}.get, 0)
    return stores.of(OUT).read(album.url).decode()


def test_outputs_stay_on_the_page_while_they_are_there_as_they_were_made():
    assert all(name in _page("a.jpg", "b.jpg") for name in ("a.jpg", "b.jpg"))
    page = _page("c.jpg", there=("b.jpg",))
    assert "b.jpg" in page
    assert "c.jpg" in page
    assert "a.jpg" not in page


def test_a_failure_stays_on_the_page_until_its_photo_is_enhanced():
    assert "d.jpg is damaged" in _page("a.jpg", failed="d.jpg")
    assert "d.jpg is damaged" in _page("b.jpg", there=("a.jpg",))
    page = _page("d.jpg")
    assert "d.jpg" in page
    assert "is damaged" not in page
