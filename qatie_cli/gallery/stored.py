"""The gallery of a run over stores or on a cluster: workers make the previews, one process writes the page."""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from qatie_cli.gallery import entries, overview, page
from qatie_cli.gallery.entries import Entry, Failure, LastRun, Provenance, Remembered
from qatie_cli.photo import discovery
from qatie_cli.photo.discovery import GALLERY_FOLDER, GALLERY_PAGE
from qatie_cli.storage import stores, urls


def exists(out: str) -> bool:
    """Whether the folder `out`, a URL, has a gallery of an earlier run.

    Raises:
        StoreError: the store cannot be asked.
    """
    return stores.of(out).entry(urls.join(out, f"{GALLERY_FOLDER}/entries.json")) is not None


class StoredAlbum:
    """Collects a run's photos, and writes the page. For one thread.

    Memory holds an entry of about a kilobyte for each photo of the gallery, those of earlier runs included.
    """

    def __init__(self, out: str, provenance: Provenance) -> None:
        """Read the state of earlier runs.

        Raises:
            QatieError: the page is not one that qatie wrote; it stays.
            StoreError: the store cannot be read.
        """
        self._out, self._provenance = out, provenance
        self._began, self._when = time.monotonic(), datetime.datetime.now(datetime.UTC)
        self._entries: dict[str, Entry] = {}
        self._failures: dict[str, Failure] = {}
        self._megapixels = 0.0
        self.missing: dict[str, str] = {}  # outputs without preview, and why
        with tempfile.TemporaryDirectory(prefix="qatie-") as scratch:
            there = Path(scratch, GALLERY_PAGE)
            if stores.of(out).entry(self.url) is not None:
                stores.of(out).fetch(self.url, there)
                page.check_replaceable(there, page.GALLERY, "-o")
            state = Path(scratch, "entries.json")
            if exists(out):
                stores.of(out).fetch(self._state, state)
            self._old = entries.read(state)

    @property
    def url(self) -> str:
        """The page."""
        return urls.join(self._out, GALLERY_PAGE)

    @property
    def _state(self) -> str:
        return urls.join(self._out, f"{GALLERY_FOLDER}/entries.json")

    def add(
        self,
        source: str,
        output: str,
        size: tuple[int, int],
        output_bytes: int,
        change: float,
        seconds: float,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Add a photo whose output is written, and its previews. `size` is (width, height)."""
        name = urls.below(output, self._out) or output
        made = urls.to_path(output).stat().st_mtime_ns if urls.protocol(output) == urls.FILE else time.time_ns()
        place = urls.relative(source, self._out)
        shown = round(change, 3), round(seconds, 3)
        self._entries[name] = Entry(name, place, *size, output_bytes, made, *shown, self._provenance, notes)
        self._megapixels += size[0] * size[1] / 1e6

    def fail(self, source: str, reason: str) -> None:
        """Add a photo that could not be enhanced."""
        place = urls.relative(source, self._out)
        self._failures[place] = Failure(place, reason.replace(urls.people_s(source), urls.name(source)))

    def write(self, bytes_of: Callable[[str], int | None], not_begun: int) -> None:
        """Write the page and the state for the next run.

        Args:
            bytes_of: the size of an output that was there when the run was planned, by URL; None where it is gone.

        Raises:
            StoreError: one of them cannot be written.
            OSError: the scratch folder is full.
        """
        old = {n: e for n, e in self._old.entries.items() if bytes_of(urls.join(self._out, n)) == e.size}
        merged = old | self._entries
        shown = {entry.source for entry in merged.values()}
        failures = {p: f for p, f in self._old.failures.items() if p not in shown} | self._failures
        last = LastRun(
            self._when.isoformat(timespec="seconds"),
            len(self._entries),
            round(self._megapixels, 2),
            round(time.monotonic() - self._began, 1),
            not_begun,
        )
        names = sorted(merged, key=discovery.natural)
        remembered = Remembered(
            {name: merged[name] for name in names},
            dict(sorted(failures.items(), key=lambda item: discovery.natural(item[0]))),
            last if self._entries or not_begun else self._old.last,
        )
        self._write(remembered)

    def _write(self, remembered: Remembered) -> None:
        store = stores.of(self._out)
        made = overview.page_of(_as_path(self._out), remembered)
        rows = zip(made.photos, remembered.entries.values(), strict=True)
        linked = [dataclasses.replace(p, left=e.source) if urls.is_url(e.source) else p for p, e in rows]
        with tempfile.TemporaryDirectory(prefix="qatie-") as scratch:
            state, html = Path(scratch, "entries.json"), Path(scratch, GALLERY_PAGE)
            entries.write(state, remembered)
            page.write(html, dataclasses.replace(made, photos=tuple(linked)))
            store.put(self._state, state, "application/json")
            store.put(self.url, html, "text/html")


def _as_path(url: str) -> Path:
    """A path with the same names, for links from one to another: nothing is read there."""
    return urls.to_path(url) if urls.protocol(url) == urls.FILE else Path("/", url.partition("://")[2])
