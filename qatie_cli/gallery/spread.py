"""The page of two results side by side, and the previews beside it."""

from __future__ import annotations

import re
from pathlib import Path

from qatie_cli.errors import UsageError
from qatie_cli.evaluation import comparison
from qatie_cli.evaluation.comparison import Alone, Distance, Pair
from qatie_cli.gallery import links, page, previews
from qatie_cli.gallery.page import Figure, LeftOut, Order, Page, Shown
from qatie_cli.photo import discovery

_SIDES = ("a", "b")
_PREVIEW_NAME = re.compile(r"([0-9a-f]{16})-(?:a|b|difference)(?:-small)?\.webp")
_FIGURES = (Figure("PSNR", 2, "dB"), Figure("SSIM", 4), Figure("CIEDE2000", 2), Figure("Size", 1, "MP"))
_ORDERS = (
    Order("PSNR, worst first", 0),
    Order("SSIM, worst first", 1),
    Order("CIEDE2000, worst first", 2, descending=True),
    Order("PSNR, best first", 0, descending=True),
    Order("Name"),
)


def preview_folder(path: Path) -> str:
    """The hidden folder beside the page that holds its pictures: .page for page.html."""
    return f".{path.stem}"


def check(path: Path) -> None:
    """Raise QatieError where the page cannot be written: before the work."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path} is not named like a page.", "Name a .html file with -o.")
    page.check_replaceable(path, page.COMPARISON, "-o")
    folder = path.with_name(preview_folder(path))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the page's previews go there.", "Name another page with -o.")


class Spread:
    """Collects compared photos for one page."""

    def __init__(self, path: Path, first: Path, second: Path, amplify: int) -> None:
        self._path, self._amplify = path, amplify
        self._labels = comparison.labels(first, second)
        self._shown: list[Shown] = []
        self._left_out: list[LeftOut] = []
        self.distances: dict[str, Distance] = {}

    def compare(self, pair: Pair, max_pixels: int) -> Distance:
        """Measure a pair, write its previews and note it for the page.

        Raises:
            PhotoError: a photo cannot be read.
            DataError: the photos differ in size.
            OSError: the previews cannot be written.
        """
        first, second = comparison.load(pair, max_pixels)
        found = comparison.distance(first, second)
        folder, key = self._path.with_name(preview_folder(self._path)), links.key_of(pair.name)
        apart = comparison.amplified_difference(first, second, self._amplify)
        for side, photo in ((_SIDES[0], first), (_SIDES[1], second), ("difference", apart)):
            previews.write(folder, key, side, previews.reduced(photo))
        height, width = first.pixels.shape[:2]
        figures = (
            round(found.psnr_db, 2),
            None if found.ssim is None else round(found.ssim, 4),
            round(found.ciede2000, 2),
            round(first.megapixels, 2),
        )
        addresses = (links.address(path, self._path.parent) for path in (pair.first, pair.second))
        self._shown.append(Shown(key, discovery.readable(pair.name), (width, height), *addresses, figures))
        self.distances[pair.name] = found
        return found

    def leave_out(self, alone: Alone) -> None:
        """Note a photo that could not be compared."""
        self._left_out.append(LeftOut(discovery.readable(alone.name), discovery.readable(alone.reason)))

    def write(self) -> None:
        """Write the page in one step.

        Raises:
            OSError: it cannot be written.
        """
        photos = len(self._shown)
        first, second = self._labels
        summary = [f"{photos:,} photo{'' if photos == 1 else 's'} compared, at full size in 8-bit sRGB"]
        content = Page(
            kind=page.COMPARISON,
            title=f"{first} against {second}",
            summary=tuple(summary),
            labels=self._labels,
            sides=_SIDES,
            folder=preview_folder(self._path),
            figures=_FIGURES,
            orders=_ORDERS,
            photos=tuple(self._shown),
            left_out_title=f"{len(self._left_out):,} left out",
            left_out=tuple(self._left_out),
            amplified=self._amplify,
            means=_rows(list(self.distances.values())),
        )
        page.write(self._path, content)
        self._remove_old_previews()

    def _remove_old_previews(self) -> None:
        """Those of photos that an earlier page showed and this one does not."""
        keys = {shown.key for shown in self._shown}
        folder = self._path.with_name(preview_folder(self._path))
        for path in folder.glob("*.webp"):
            found = _PREVIEW_NAME.fullmatch(path.name)
            if found and found[1] not in keys:
                path.unlink(missing_ok=True)


def _rows(distances: list[Distance]) -> tuple[tuple[str, str, str], ...]:
    if not distances:
        return ()
    both = comparison.mean(distances), comparison.worst(distances)
    return (
        ("PSNR", *(f"{d.psnr_db:.2f} dB" for d in both)),
        ("SSIM", *("-" if d.ssim is None else f"{d.ssim:.4f}" for d in both)),
        ("CIEDE2000", *(f"{d.ciede2000:.2f}" for d in both)),
    )
