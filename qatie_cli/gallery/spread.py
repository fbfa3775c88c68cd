"""The page that compares two results side by side, with its previews."""

from __future__ import annotations

import re
from pathlib import Path

from qatie_cli.errors import UsageError
from qatie_cli.evaluation import comparison
from qatie_cli.evaluation.comparison import PhotoPair, Similarity, Unpaired
from qatie_cli.gallery import links, page, previews
from qatie_cli.gallery.page import Figure, OmittedPhoto, Order, Page, PhotoRow
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
    """The hidden folder of previews beside the page: .page for page.html."""
    return f".{path.stem}"


def check(path: Path) -> None:
    """Raise QatieError if the page cannot be written. Call it before comparing."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path} is not an .html file.", "Choose an .html file with -o.")
    page.check_replaceable(path, page.COMPARISON, "-o")
    folder = path.with_name(preview_folder(path))
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the page's previews go there.", "Choose another page with -o.")


class Spread:
    """Collects comparisons of photos for a page."""

    def __init__(self, path: Path, first: Path, second: Path, amplify: int) -> None:
        self._path, self._amplify = path, amplify
        self._labels = comparison.labels(first, second)
        self._shown: list[PhotoRow] = []
        self._left_out: list[OmittedPhoto] = []
        self.similarities: dict[str, Similarity] = {}

    def compare(self, pair: PhotoPair, max_pixels: int) -> Similarity:
        """Measure a pair, write its previews and add it to the page.

        Raises:
            PhotoError: a photo cannot be read.
            DataError: the photos differ in size.
            OSError: the previews cannot be written.
        """
        first, second = comparison.load(pair, max_pixels)
        found = comparison.similarity(first, second)
        folder, key = self._path.with_name(preview_folder(self._path)), links.key_of(pair.name)
        difference = comparison.amplified_difference(first, second, self._amplify)
        for side, photo in ((_SIDES[0], first), (_SIDES[1], second), ("difference", difference)):
            previews.write(folder, key, side, previews.reduced(photo))
        height, width = first.pixels.shape[:2]
        figures = (
            round(found.psnr_db, 2),
            None if found.ssim is None else round(found.ssim, 4),
            round(found.ciede2000, 2),
            round(first.megapixels, 2),
        )
        left, right = (links.address(path, self._path.parent) for path in (pair.first, pair.second))
        self._shown.append(PhotoRow(key, discovery.readable(pair.name), (width, height), left, right, figures))
        self.similarities[pair.name] = found
        return found

    def leave_out(self, unpaired: Unpaired) -> None:
        """Add a photo that could not be compared."""
        self._left_out.append(OmittedPhoto(discovery.readable(unpaired.name), discovery.readable(unpaired.reason)))

    def write(self) -> None:
        """Write the page atomically.

        Raises:
            OSError: it cannot be written.
        """
        photos = len(self._shown)
        first, second = self._labels
        content = Page(
            kind=page.COMPARISON,
            title=f"{first} against {second}",
            summary=(f"{photos:,} photo{'' if photos == 1 else 's'} compared, at full size in 8-bit sRGB",),
            labels=self._labels,
            sides=_SIDES,
            folder=preview_folder(self._path),
            figures=_FIGURES,
            orders=_ORDERS,
            photos=tuple(self._shown),
            left_out_title=f"{len(self._left_out):,} left out",
            left_out=tuple(self._left_out),
            amplified=self._amplify,
            means=_rows(list(self.similarities.values())),
        )
        page.write(self._path, content)
        self._remove_old_previews()

    def _remove_old_previews(self) -> None:
        """Remove previews of photos that an earlier page showed and this one does not."""
        keys = {shown.key for shown in self._shown}
        folder = self._path.with_name(preview_folder(self._path))
        for path in folder.glob("*.webp"):
            found = _PREVIEW_NAME.fullmatch(path.name)
            if found and found[1] not in keys:
                path.unlink(missing_ok=True)


def _rows(similarities: list[Similarity]) -> tuple[tuple[str, str, str], ...]:
    if not similarities:
        return ()
    mean, worst = comparison.mean(similarities), comparison.worst(similarities)
    return (
        ("PSNR", f"{mean.psnr_db:.2f} dB", f"{worst.psnr_db:.2f} dB"),
        ("SSIM", _ssim(mean), _ssim(worst)),
        ("CIEDE2000", f"{mean.ciede2000:.2f}", f"{worst.ciede2000:.2f}"),
    )


def _ssim(similarity: Similarity) -> str:
    return "-" if similarity.ssim is None else f"{similarity.ssim:.4f}"
