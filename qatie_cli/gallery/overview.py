"""The page of a gallery, built from its entries."""

from __future__ import annotations

import datetime
from pathlib import Path

from qatie_cli.gallery import links, page
from qatie_cli.gallery.entries import Entry, LastRun, Remembered
from qatie_cli.gallery.page import Figure, OmittedPhoto, Order, Page, PhotoRow
from qatie_cli.photo import discovery
from qatie_cli.photo.discovery import GALLERY_FOLDER

SIDES = ("before", "after")
FIGURES = (
    Figure("Change", 1, "%"),
    Figure("Size", 1, "MP"),
    Figure("Took", 2, "s"),
    Figure("Enhanced", unit="time"),
)
ORDERS = (
    Order("Name"),
    Order("Most changed", 0, descending=True),
    Order("Least changed", 0),
    Order("Newest first", 3, descending=True),
    Order("Slowest first", 2, descending=True),
)


def page_of(out: Path, remembered: Remembered) -> Page:
    """The page of the output folder `out`, in the order of `remembered`."""
    found = list(remembered.entries.values())
    provenances = list(dict.fromkeys(entry.provenance.in_words() for entry in found if entry.provenance))
    left_out = tuple(
        OmittedPhoto(_short(links.place(failure.source, out)), discovery.readable(failure.reason))
        for failure in remembered.failures.values()
    )
    return Page(
        kind=page.GALLERY,
        title=discovery.readable(out.absolute().name) or "Gallery",
        summary=_summary(found, len(left_out), remembered.last),
        labels=("Original", "Enhanced"),
        sides=SIDES,
        folder=GALLERY_FOLDER,
        figures=FIGURES,
        orders=ORDERS,
        photos=tuple(_photo_row(entry, out, provenances) for entry in found),
        provenances=tuple(provenances),
        left_out_title=f"{len(left_out):,} failed",
        left_out=left_out,
    )


def _photo_row(entry: Entry, out: Path, provenances: list[str]) -> PhotoRow:
    figures = (
        round(entry.change, 1),
        round(entry.width * entry.height / 1e6, 2),
        None if entry.seconds is None else round(entry.seconds, 2),
        entry.time_ns // 10**9,
    )
    return PhotoRow(
        key=links.key_of(entry.name),
        name=discovery.readable(entry.name),
        size=(entry.width, entry.height),
        left=links.address(links.place(entry.source, out), out),
        right=links.address(out / entry.name, out),
        figures=figures,
        provenance=provenances.index(entry.provenance.in_words()) if entry.provenance else None,
        notes=entry.notes,
    )


def _summary(found: list[Entry], failed: int, last: LastRun | None) -> tuple[str, ...]:
    megapixels = sum(entry.width * entry.height for entry in found) / 1e6
    parts = [_count(len(found)), f"{megapixels:,.1f} megapixels"] + ([f"{failed:,} failed"] if failed else [])
    lines = [" · ".join(parts)]
    if last is not None:
        when = datetime.datetime.fromisoformat(last.when).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
        lines.append(
            f"Last run {when}: {_count(last.photos)}, {last.megapixels:,.1f} megapixels in {last.seconds:,.1f} s"
        )
        if last.not_begun:
            lines.append(f"{_count(last.not_begun)} still to do; run the same command to continue")
    return tuple(lines)


def _count(number: int) -> str:
    return "1 photo" if number == 1 else f"{number:,} photos"


def _short(source: Path) -> str:
    """Only the names of file and folder, since the page may be shared and full paths are private."""
    return discovery.readable("/".join(part for part in source.parts[-2:] if part != source.anchor))
