"""Writing out what the degradation model makes of good photos: pairs to look at, or to train on elsewhere."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import files
from qatie_cli.data import degradation
from qatie_cli.data.degradation import Draw, Recipe
from qatie_cli.data.layouts import LeftOut
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.photo import decoding, encoding, resize, sheets
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import photos_below

SHEET_ROWS = 24  # pairs on the contact sheet
_INPUT, _TARGET, _TABLE = "input", "target", "pairs.csv"
_SHEET_PX = 320


@dataclass(frozen=True)
class Made:
    """What was written: pairs, those that were there already, photos that could not be read, the contact sheet."""

    pairs: int
    skipped: int
    left_out: tuple[LeftOut, ...]
    sheet: Path


def make(
    clean: Path,
    out: Path,
    recipe: Recipe,
    *,
    seed: int = 0,
    versions: int = 1,
    longest: int | None = None,
    on_photo: Callable[[str, int], None] = lambda name, total: None,
) -> Made:
    """Write OUT/input and OUT/target as PNG, OUT/pairs.csv with what was done to each, and OUT/contact-sheet.jpg.

    A pair is a function of its photo's name, its version and the seed; pairs that are there already are skipped, and
    what pairs.csv says of them stays.

    Args:
        versions: pairs made of each photo.
        longest: photos are reduced to this long side first.

    Raises:
        DataError: no photos, or OUT cannot be written.
    """
    photos = [p for p in photos_below(clean) if not p.resolve().is_relative_to(out.resolve())]
    if not photos:
        raise DataError(f"There are no photos in {clean}.", "Name a folder of good photos.")
    rows, shown, left_out, made, skipped = [], [], [], 0, 0
    before = _read_rows(out / _TABLE)
    total = len(photos) * versions
    every = max(1, -(-total // SHEET_ROWS))
    try:
        for path, name, version in _wanted(photos, clean, versions):
            on_photo(name, total)
            drawn = degradation.draw(recipe, _randomness(name, version, seed))
            row = {"pair": name} | _described(drawn)
            written = [out / part / name for part in (_INPUT, _TARGET)]
            if all(p.exists() for p in written):
                skipped += 1
                pair = None
                row = before.get(name, {"pair": name} | dict.fromkeys(list(row)[1:], ""))
            else:
                try:
                    pair = _pair(path, drawn, longest)
                except PhotoError as error:
                    left_out.append(LeftOut(path.relative_to(clean).as_posix(), error.one_line()))
                    continue
                for target, pixels in zip(written, pair, strict=True):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    encoding.write(target, Photo(pixels, "png"), "png")
                made += 1
            rows.append(row)
            if len(rows) % every == 1 or every == 1:
                pair = pair or tuple(decoding.read(p).rgb_u8() for p in written)
                shown.append((name, tuple(_thumbnail(p) for p in pair)))
        return Made(made, skipped, tuple(left_out), _finish(out, rows, shown))
    except OSError as error:
        raise DataError(
            f"{out} could not be written: {error.strerror or error}.", "Make room and run the same command again."
        ) from error


def _wanted(photos: list[Path], clean: Path, versions: int) -> Iterator[tuple[Path, str, int]]:
    """Every photo and version with its pair's name; photos whose names differ in their suffix only keep it."""
    stems = [p.relative_to(clean).with_suffix("") for p in photos]
    often = Counter(stems)
    for path, stem in zip(photos, stems, strict=True):
        base = path.relative_to(clean) if often[stem] > 1 else stem
        for version in range(versions):
            number = f"-{version + 1}" if versions > 1 else ""
            yield path, f"{base.as_posix()}{number}.png", version


def _randomness(name: str, version: int, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng([seed, version, int.from_bytes(digest[:8], "little")])


def _pair(path: Path, drawn: Draw, longest: int | None) -> tuple[np.ndarray, np.ndarray]:
    target = decoding.read(path).rgb_u8()
    if longest is not None:
        target = resize.fit(target, longest, reducing_gap=resize.REDUCING_GAP)
    return degradation.to_u8(degradation.apply(drawn, degradation.from_u8(target))), target


def _thumbnail(photo: np.ndarray) -> np.ndarray:
    return resize.fit(photo, _SHEET_PX, reducing_gap=resize.REDUCING_GAP)


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of an earlier table, by pair."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    return {row["pair"]: row for row in csv.DictReader(io.StringIO(text, newline="")) if "pair" in row}


def _described(drawn: Draw) -> dict[str, str]:
    """A draw as cells of a table."""
    values = dataclasses.asdict(drawn)
    return {n: " ".join(f"{v:.5g}" for v in np.atleast_1d(x)) if x is not None else "" for n, x in values.items()}


def _finish(out: Path, rows: list[dict], shown: list[tuple[str, tuple[np.ndarray, np.ndarray]]]) -> Path:
    if not rows:
        raise DataError("None of the photos can be read.", "Name a folder of good photos.")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    files.write_atomic(out / _TABLE, text.getvalue())
    sheet = out / "contact-sheet.jpg"
    pictures = sheets.contact_sheet([{name: seen, "target": target} for name, (seen, target) in shown[:SHEET_ROWS]])
    encoding.write(sheet, Photo(pictures, "jpeg"), "jpeg", quality=90)
    return sheet
