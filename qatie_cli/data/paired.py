"""Photos with their targets: pairs from disk as a training run sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli.data import checking, layouts, sampling, splitting
from qatie_cli.data.checking import Alignment, Usable
from qatie_cli.data.layouts import LeftOut
from qatie_cli.data.sampling import Batch
from qatie_cli.data.source import Pair
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.photo import resize

SMALLEST_MEASURED = 11  # pixels: the window of SSIM


@dataclass(frozen=True)
class Pairs:
    """Pairs that were checked, split into those to learn from and those to validate on."""

    folder: Path
    layout: str
    training: tuple[Usable, ...]
    validation: tuple[Usable, ...]
    left_out: tuple[LeftOut, ...]
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
    """The pairs of a folder, read and split by photo: pairs that share a target stay on one side.

    Args:
        store: reads the photos and keeps what there is room for.
        crop: side of training crops. Where most photos are smaller, it becomes what they allow; photos too small for it
            are left out otherwise.
        folders: see `layouts.recognise`.
        separate_validation: validation pairs come from elsewhere, all of these are learnt from.

    Raises:
        DataError: no known layout, or too few pairs.
    """
    layout = layouts.recognise(folder, folders)
    on_start(len(layout.pairs) + len(layout.validation))
    checked = checking.check(layout.pairs, store, on_read)
    left_out = [*layout.left_out, *checked.left_out]
    side, usable = _fitting(checked.usable, crop, left_out)
    groups = {p.group for p in usable}
    if len(groups) < splitting.FEWEST:
        raise DataError(
            f"{folder} holds {len(groups)} usable pairs of different photos; training needs {splitting.FEWEST} at the "
            "very least.",
            _reasons(left_out),
        )
    if separate_validation:
        training, validation = usable, ()
    elif layout.validation:
        held = checking.check(layout.validation, store, on_read)
        left_out += held.left_out
        if not held.usable:
            raise DataError(
                f"None of the {len(layout.validation)} pairs that {folder} keeps to validate on can be used.",
                f"Repair them, or name others with --val. {_reasons(left_out)}",
            )
        training, validation = usable, held.usable
    else:
        first: dict[str, str] = {}  # of each group, the name that stands for it; pairs are sorted by name
        for p in usable:
            first.setdefault(p.group, p.files.name)
        chosen = splitting.held_out(list(first.values()), validation_share, seed)
        training = tuple(p for p in usable if first[p.group] not in chosen)
        validation = tuple(p for p in usable if first[p.group] in chosen)
    return Pairs(folder, layout.description, training, validation, tuple(left_out), checked.alignment, side, store)


@dataclass(frozen=True)
class Held:
    """Pairs that are validated on: at most 64 of them, evenly chosen; `qatie evaluate` measures all."""

    pairs: tuple[Usable, ...]
    store: Store
    left_out: tuple[LeftOut, ...] = ()

    @property
    def chosen(self) -> tuple[Usable, ...]:
        return sampling.evenly(self.pairs, sampling.MOST_VALIDATED)

    @property
    def names(self) -> list[str]:
        return [p.files.name for p in self.chosen]

    def whole(self) -> list[Pair]:
        """Input and target (H, W, 3) uint8, at most 640 px, sides multiples of 8."""
        return [(_small(self.store, p.files.input), _small(self.store, p.files.target)) for p in self.chosen]


def load_held(folder: Path, store: Store, folders: str | None = None) -> Held:
    """A folder whose pairs are all validated on.

    Raises:
        DataError: no known layout, or no usable pair.
    """
    named = folders is not None and all((folder / name).is_dir() for name in folders.split("/"))
    layout = layouts.recognise(folder, folders if named else None)
    checked = checking.check(layout.validation or layout.pairs, store)
    left_out = (*layout.left_out, *checked.left_out)
    if not checked.usable:
        raise DataError(f"{folder} holds no usable pair.", _reasons(left_out))
    return Held(checked.usable, store, left_out)


def _fitting(usable: tuple[Usable, ...], crop: int, left_out: list[LeftOut]) -> tuple[int, tuple[Usable, ...]]:
    """The side of crops that most photos allow, and the photos that are large enough for it."""
    if not usable:
        return crop, usable
    median = int(np.median([min(p.size) for p in usable]))
    side = min(crop, median // SIZE_MULTIPLE * SIZE_MULTIPLE)
    for p in usable:
        if min(p.size) < side:
            left_out.append(LeftOut(p.files.name, f"is smaller than the crops of {side}: {p.size[0]}x{p.size[1]}"))
    return side, tuple(p for p in usable if min(p.size) >= side)


def _reasons(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "Add pairs."
    return f"{len(left_out)} files were left out, the first is {left_out[0].file}: {left_out[0].reason}."


class PairSource:
    """Pairs from disk (see `pairs.source.Source`)."""

    def __init__(self, pairs: Pairs, seed: int, validation: Held | None = None) -> None:
        self.pairs, self.seed, self.crop = pairs, seed, pairs.crop
        self.held = validation or Held(pairs.validation, pairs.store)

    @property
    def summary(self) -> dict:
        return {
            "folder": self.pairs.folder.name,
            "layout": self.pairs.layout,
            "training_pairs": len(self.pairs.training),
            "validation_pairs": self.validation_names,
            "left_out": len(self.pairs.left_out),
        }

    @property
    def validation_names(self) -> list[str]:
        return self.held.names

    @property
    def fingerprint(self) -> str:
        described = [(p.files.name, p.size, p.group) for p in (*self.pairs.training, *self.held.pairs)]
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def crops(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets, thumbnails = [], [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row])
            pair = self._draw(rng)
            place = sampling.draw_place(pair.size, self.crop, rng)
            seen, target = (self.pairs.store.get(path) for path in (pair.files.input, pair.files.target))
            inputs.append(sampling.cut(seen.image, place.crop, self.crop, place.flip))
            targets.append(sampling.cut(target.image, place.crop, self.crop, place.flip))
            thumbnails.append(sampling.thumbnail(seen.overview, place.frame, place.flip))
        return Batch(sampling.stack(inputs), sampling.stack(targets), sampling.stack(thumbnails))

    def wholes(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets = [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row, 1])
            pair = self._draw(rng)
            frame, flip = sampling.draw_frame(rng), rng.random() < 0.5
            for path, kept in ((pair.files.input, inputs), (pair.files.target, targets)):
                kept.append(sampling.thumbnail(self.pairs.store.overview(path), frame, flip))
        seen = sampling.stack(inputs)
        return Batch(seen, sampling.stack(targets), seen)

    def names(self, step: int, rows: Sequence[int], stage: str) -> list[str]:
        kind = [1] if stage == "tone" else []
        return [self._draw(np.random.default_rng([self.seed, step, row, *kind])).files.name for row in rows]

    def _draw(self, rng: np.random.Generator) -> Usable:
        return self.pairs.training[rng.integers(len(self.pairs.training))]

    def validation(self) -> list[Pair]:
        return self.held.whole()

    def calibration(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 2**31])
        chosen = rng.permutation(len(self.pairs.training))[: sampling.CALIBRATION_PHOTOS]
        return [_small(self.pairs.store, self.pairs.training[index].files.input) for index in chosen]


def _small(store: Store, path: Path) -> np.ndarray:
    return np.asarray(sampling.shrunk(store.get(path).image, sampling.LONGEST_VALIDATION_SIDE))


def load_pair(files: layouts.PairFiles, longest: int) -> Pair:
    """(input, target) uint8 (H, W, 3), reduced to a long side of at most `longest`, for an evaluation.

    Raises:
        DataError: the sizes of the two files differ.
        PhotoError: one of them cannot be read.
    """
    reader = Store(0)
    images = [reader.get(path).image for path in (files.input, files.target)]
    if images[0].size != images[1].size:
        sizes = " and ".join(f"{i.width}x{i.height}" for i in images)
        raise DataError(f"Input and target of {files.name} differ in size: {sizes}.", "Remove or repair the pair.")
    size = resize.size_within(*images[0].size, longest)
    if min(size) < SMALLEST_MEASURED:
        raise DataError(f"{files.name} is too small to be measured: {size[0]}x{size[1]}.", "Leave it out.")
    seen, target = (np.asarray(resize.fit(image, longest)) for image in images)
    return seen, target
