"""Pairs from disk as a training source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from qatie_cli.data import checking, layouts, sampling, source, splitting, views
from qatie_cli.data.checking import Alignment, UsablePair
from qatie_cli.data.layouts import SkippedFile
from qatie_cli.data.sampling import EVERY_SCALE, CropScale
from qatie_cli.data.source import PairPixels, TrainingBatch
from qatie_cli.data.store import Store
from qatie_cli.data.validation import ValidationSet
from qatie_cli.errors import DataError
from qatie_cli.model.config import SIZE_MULTIPLE, THUMBNAIL_PX
from qatie_cli.photo import resize

SMALLEST_MEASURED = 11  # pixels: the window of SSIM


@dataclass(frozen=True)
class Pairs:
    """Checked pairs, split into those to learn from and those to validate on."""

    folder: Path
    layout: str
    training: tuple[UsablePair, ...]
    validation: tuple[UsablePair, ...]
    skipped: tuple[SkippedFile, ...]
    alignment: Alignment | None
    crop: int  # side of training crops in pixels
    store: Store


def load(
    folder: Path,
    store: Store,
    validation_share: float,
    seed: int,
    crop: int,
    *,
    folders: str | None = None,
    separate_validation: bool = False,
    on_start: Callable[[int], None] = lambda count: None,
    on_read: Callable[[], None] = lambda: None,
) -> Pairs:
    """The pairs of a folder, checked and split by photo: pairs that share a target stay on one side.

    Args:
        store: reads the photos and keeps them within its budget.
        crop: side of training crops. Where most photos are smaller, it shrinks to fit them; photos too small for it are
            skipped.
        folders: see `layouts.recognise`.
        separate_validation: validation pairs come from another folder; all of these are for training.
        on_start: called with the number of pairs before the first is read.

    Raises:
        DataError: no known layout, or too few pairs.
    """
    layout = layouts.recognise(folder, folders)
    on_start(len(layout.pairs) + len(layout.validation))
    checked = checking.check(layout.pairs, store, on_read)
    skipped = [*layout.skipped, *checked.skipped]
    side, usable = _fitting(checked.usable, crop, skipped)
    groups = {p.group for p in usable}
    if len(groups) < splitting.FEWEST:
        raise DataError(
            f"{folder} has {len(groups)} usable pairs of different photos; training needs at least {splitting.FEWEST}.",
            layouts.first_reason(skipped),
        )
    training: tuple[UsablePair, ...] = usable
    validation: tuple[UsablePair, ...] = ()
    if layout.validation and not separate_validation:
        own = checking.check(layout.validation, store, on_read)
        skipped += own.skipped
        if not own.usable:
            raise DataError(
                f"None of the {len(layout.validation)} pairs that {folder} keeps to validate on can be used.",
                f"Repair them, or choose others with --val. {layouts.first_reason(skipped)}",
            )
        validation = own.usable
    elif not separate_validation:
        training, validation = _split(usable, validation_share, seed)
    return Pairs(folder, layout.description, training, validation, tuple(skipped), checked.alignment, side, store)


def _split(
    usable: tuple[UsablePair, ...], share: float, seed: int
) -> tuple[tuple[UsablePair, ...], tuple[UsablePair, ...]]:
    """Training and validation pairs; groups stay together, each named by its first pair (pairs are sorted by name)."""
    first: dict[str, str] = {}
    for p in usable:
        first.setdefault(p.group, p.files.name)
    chosen = splitting.held_out(list(first.values()), share, seed)
    training = tuple(p for p in usable if first[p.group] not in chosen)
    return training, tuple(p for p in usable if first[p.group] in chosen)


def _fitting(
    usable: tuple[UsablePair, ...], crop: int, skipped: list[SkippedFile]
) -> tuple[int, tuple[UsablePair, ...]]:
    """The crop side that most photos allow, and the photos that are large enough."""
    if not usable:
        return crop, usable
    median = int(np.median([min(p.size) for p in usable]))
    side = min(crop, median // SIZE_MULTIPLE * SIZE_MULTIPLE)
    for p in usable:
        if min(p.size) < side:
            reason = f"is smaller than the crops of {side}: {p.size[0]}x{p.size[1]}"
            skipped.append(SkippedFile(p.files.name, reason))
    return side, tuple(p for p in usable if min(p.size) >= side)


class PairSource:
    """Pairs from disk (see `source.Source`)."""

    def __init__(
        self,
        pairs: Pairs,
        seed: int,
        validation: ValidationSet | None = None,
        view_px: int = THUMBNAIL_PX,
        scale: CropScale = EVERY_SCALE,
    ) -> None:
        self.pairs, self.seed, self.crop, self.view_px, self.scale = pairs, seed, pairs.crop, view_px, scale
        self.validation_set = validation or ValidationSet(pairs.validation, pairs.store)

    @property
    def summary(self) -> dict[str, object]:
        return {
            "folder": self.pairs.folder.name,
            "layout": self.pairs.layout,
            "training_pairs": len(self.pairs.training),
            "validation_pairs": self.validation_names,
            "left_out": len(self.pairs.skipped),
        }

    @property
    def validation_names(self) -> list[str]:
        return self.validation_set.names

    @property
    def fingerprint(self) -> str:
        described = [(p.files.name, p.size, p.group) for p in (*self.pairs.training, *self.validation_set.pairs)]
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def crops(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        inputs, targets, whole, places = [], [], [], []
        for row in rows:
            rng = sampling.crop_rng(self.seed, step, row)
            pair = self._pair(rng)
            place = sampling.place(pair.size, self.crop, rng, self.scale)
            seen, target = (self.pairs.store.get(path) for path in (pair.files.input, pair.files.target))
            inputs.append(views.crop(seen.image, place.crop, self.crop, place.flip))
            targets.append(views.crop(target.image, place.crop, self.crop, place.flip))
            whole.append(views.view(seen.overview, place.frame, self.view_px, place.flip))
            places.append(place)
        return TrainingBatch.of_crops(
            views.stack(inputs), views.stack(targets), views.stack(whole), views.boxes(places)
        )

    def full_frames(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        inputs, targets = [], []
        for row in rows:
            rng = sampling.full_frame_rng(self.seed, step, row)
            pair = self._pair(rng)
            frame, flip = sampling.frame(rng), rng.random() < 0.5
            inputs.append(views.view(self.pairs.store.overview(pair.files.input), frame, self.view_px, flip))
            targets.append(views.view(self.pairs.store.overview(pair.files.target), frame, self.view_px, flip))
        exact = torch.zeros(len(rows), dtype=torch.bool)
        return TrainingBatch.of_full_frames(views.stack(inputs), views.stack(targets), exact)

    def crop_names(self, step: int, rows: Sequence[int]) -> list[str]:
        return [self._pair(sampling.crop_rng(self.seed, step, row)).files.name for row in rows]

    def full_frame_names(self, step: int, rows: Sequence[int]) -> list[str]:
        return [self._pair(sampling.full_frame_rng(self.seed, step, row)).files.name for row in rows]

    def _pair(self, rng: np.random.Generator) -> UsablePair:
        return self.pairs.training[rng.integers(len(self.pairs.training))]

    def validation(self) -> list[PairPixels]:
        return self.validation_set.photos()

    def calibration(self) -> list[np.ndarray]:
        rng = sampling.calibration_rng(self.seed)
        chosen = rng.permutation(len(self.pairs.training))[: source.CALIBRATION_PHOTOS]
        images = (self.pairs.store.get(self.pairs.training[index].files.input).image for index in chosen)
        return [np.asarray(views.network_sized(image, source.LONGEST_VALIDATION_SIDE)) for image in images]


def load_pair(files: layouts.PairFiles, longest: int) -> PairPixels:
    """A pair reduced to a long side of at most `longest`, for an evaluation.

    Raises:
        DataError: the sizes of the two files differ, or they are too small.
        PhotoError: one of them cannot be read.
    """
    reader = Store(0)
    images = [reader.get(path).image for path in (files.input, files.target)]
    if images[0].size != images[1].size:
        sizes = " and ".join(f"{i.width}x{i.height}" for i in images)
        raise DataError(f"Input and target of {files.name} differ in size: {sizes}.", "Remove or repair the pair.")
    seen, target = (resize.fit(image, longest) for image in images)
    if min(seen.size) < SMALLEST_MEASURED:
        raise DataError(f"{files.name} is too small to measure: {seen.width}x{seen.height}.", "Leave it out.")
    return PairPixels(np.asarray(seen), np.asarray(target))
