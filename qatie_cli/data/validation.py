"""The validation set of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli.data import checking, layouts, sampling, views
from qatie_cli.data.checking import UsablePair
from qatie_cli.data.layouts import SkippedFile
from qatie_cli.data.source import LONGEST_VALIDATION_SIDE, MOST_VALIDATED, PairPixels
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError


@dataclass(frozen=True)
class ValidationSet:
    """Pairs to validate on, subsampled to 64 at most; `qatie evaluate` measures all of a folder."""

    pairs: tuple[UsablePair, ...]
    store: Store
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def chosen(self) -> Sequence[UsablePair]:
        """The pairs that are scored."""
        return sampling.subsample(self.pairs, MOST_VALIDATED)

    @property
    def names(self) -> list[str]:
        """Their names, in order."""
        return [p.files.name for p in self.chosen]

    def photos(self) -> list[PairPixels]:
        """Whole photos of at most 640 px, sides multiples of 8."""
        return [PairPixels(self._small(p.files.input), self._small(p.files.target)) for p in self.chosen]

    def _small(self, path: Path) -> np.ndarray:
        return np.asarray(views.network_sized(self.store.get(path).image, LONGEST_VALIDATION_SIDE))


def load(folder: Path, store: Store, folders: str | None = None) -> ValidationSet:
    """A folder whose pairs are all for validation.

    Raises:
        DataError: no known layout, or no usable pair.
    """
    named = folders is not None and all((folder / name).is_dir() for name in folders.split("/"))
    layout = layouts.recognise(folder, folders if named else None)
    checked = checking.check(layout.validation or layout.pairs, store)
    skipped = (*layout.skipped, *checked.skipped)
    if not checked.usable:
        raise DataError(f"{folder} contains no usable pairs.", layouts.first_reason(skipped))
    return ValidationSet(checked.usable, store, skipped)
