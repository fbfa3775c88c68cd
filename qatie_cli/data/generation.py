"""Generated pairs: phone-like versions of good photos, written to disk."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import files
from qatie_cli.data import degradation, sampling
from qatie_cli.data.degradation import RENAMED, DegradationConfig, DegradationParameters
from qatie_cli.data.layouts import SkippedFile
from qatie_cli.data.source import PairPixels
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.photo import decoding, encoding, resize, sheets
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import photos_below

SHEET_ROWS = 24  # pairs on the contact sheet
_INPUT, _TARGET, _TABLE = "input", "target", "pairs.csv"
_COLUMNS = ["pair", *(f.name for f in dataclasses.fields(DegradationParameters))]
_SHEET_PX = 320


@dataclass(frozen=True)
class GeneratedPairs:
    """Numbers of pairs written and of those that existed already, unreadable photos, and the contact sheet."""

    pairs: int
    existing: int
    skipped: tuple[SkippedFile, ...]
    sheet: Path


@dataclass(frozen=True)
class _Shown:
    """A pair on the contact sheet."""

    name: str
    pair: PairPixels


def generate(
    clean: Path,
    out: Path,
    config: DegradationConfig,
    *,
    seed: int = 0,
    versions: int = 1,
    longest: int | None = None,
    on_photo: Callable[[str, int], None] = lambda name, total: None,
) -> GeneratedPairs:
    """Write OUT/input and OUT/target as PNG, the parameters of each pair to OUT/pairs.csv, and OUT/contact-sheet.jpg.

    A pair is a function of its photo's name, its version and the seed. Existing pairs are skipped, and their rows of
    pairs.csv stay.

    Args:
        versions: pairs to generate from each photo.
        longest: photos are reduced to this long side first.
        on_photo: called with a pair's name and the number of all pairs before it is generated.

    Raises:
        DataError: no photos, or OUT cannot be written.
    """
    photos = [p for p in photos_below(clean) if not p.resolve().is_relative_to(out.resolve())]
    if not photos:
        raise DataError(f"There are no photos in {clean}.", "Give a folder of good photos.")
    rows: list[dict[str, str]] = []
    shown: list[_Shown] = []
    skipped: list[SkippedFile] = []
    written, existing = 0, 0
    earlier = _read_rows(out / _TABLE)
    total = len(photos) * versions
    every = max(1, -(-total // SHEET_ROWS))
    try:
        for path, name, version in _wanted(photos, clean, versions):
            on_photo(name, total)
            parameters = degradation.sample(config, sampling.version_rng(seed, name, version))
            pair = None
            if (out / _INPUT / name).exists() and (out / _TARGET / name).exists():
                existing += 1
                rows.append(earlier.get(name, {"pair": name}))
            else:
                try:
                    pair = _pair(path, parameters, longest)
                except PhotoError as error:
                    skipped.append(SkippedFile(path.relative_to(clean).as_posix(), error.one_line()))
                    continue
                _write(out / _INPUT / name, pair.input)
                _write(out / _TARGET / name, pair.target)
                written += 1
                rows.append({"pair": name} | _cells(parameters))
            if len(rows) % every == 1 or every == 1:
                shown.append(_Shown(name, _previews(pair or _read(out, name))))
        return GeneratedPairs(written, existing, tuple(skipped), _finish(out, rows, shown))
    except OSError as error:
        raise DataError(
            f"{out} could not be written: {error.strerror or error}.", "Make room and run the same command again."
        ) from error


def _wanted(photos: list[Path], clean: Path, versions: int) -> Iterator[tuple[Path, str, int]]:
    """Every photo and version with its pair's name, which includes the suffix if names would clash."""
    names = {path: path.relative_to(clean).with_suffix("").as_posix() for path in photos}
    # Repeatedly: a name with suffix may clash as well, as for a.jpg.png beside a.jpg and a.png.
    while shared := {name for name, often in Counter(names.values()).items() if often > 1}:
        names |= {path: path.relative_to(clean).as_posix() for path, name in names.items() if name in shared}
    for path, name in names.items():
        for version in range(versions):
            number = f"-{version + 1}" if versions > 1 else ""
            yield path, f"{name}{number}.png", version


def _pair(path: Path, parameters: DegradationParameters, longest: int | None) -> PairPixels:
    target = decoding.read(path).rgb_u8()
    if longest is not None:
        target = resize.fit(target, longest, reducing_gap=resize.REDUCING_GAP)
    return PairPixels(degradation.to_u8(degradation.apply(parameters, degradation.from_u8(target))), target)


def _read(out: Path, name: str) -> PairPixels:
    return PairPixels(decoding.read(out / _INPUT / name).rgb_u8(), decoding.read(out / _TARGET / name).rgb_u8())


def _write(path: Path, photo: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding.write(path, Photo(photo, "png"), "png")


def _previews(pair: PairPixels) -> PairPixels:
    return PairPixels(*(resize.fit(photo, _SHEET_PX, reducing_gap=resize.REDUCING_GAP) for photo in pair))


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of an earlier table, by pair."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return {row["pair"]: {RENAMED.get(n, n): v for n, v in row.items()} for row in rows if "pair" in row}


def _cells(parameters: DegradationParameters) -> dict[str, str]:
    """A pair's parameters as cells of the table."""
    values = dataclasses.asdict(parameters)
    return {n: " ".join(f"{v:.5g}" for v in np.atleast_1d(x)) if x is not None else "" for n, x in values.items()}


def _finish(out: Path, rows: list[dict[str, str]], shown: list[_Shown]) -> Path:
    if not rows:
        raise DataError("None of the photos can be read.", "Give a folder of good photos.")
    files.write_csv(out / _TABLE, _COLUMNS, ([row.get(name, "") for name in _COLUMNS] for row in rows))
    sheet = out / "contact-sheet.jpg"
    pictures = [{one.name: one.pair.input, "target": one.pair.target} for one in shown[:SHEET_ROWS]]
    encoding.write(sheet, Photo(sheets.contact_sheet(pictures), "jpeg"), "jpeg", quality=90)
    return sheet
