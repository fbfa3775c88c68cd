"""Good photos without partners: the degradation model makes phone-like ones of them while training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qatie_cli import degradation
from qatie_cli.degradation import Recipe
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.pairs import sampling, splitting, store
from qatie_cli.pairs.paired import Held
from qatie_cli.pairs.sampling import VIEW_PX, Batch
from qatie_cli.pairs.source import Pair
from qatie_cli.pairs.store import Picture
from qatie_cli.photo import formats


@dataclass(frozen=True)
class CleanPhoto:
    """One good photo."""

    name: str
    picture: Picture


@dataclass(frozen=True)
class CleanPhotos:
    """Good photos held in memory, split by photo into those to learn from and those to validate on."""

    folder: Path
    training: tuple[CleanPhoto, ...]
    validation: tuple[CleanPhoto, ...]
    unreadable: tuple[str, ...]
    unsuitable: tuple[str, ...]


def is_good_target(image: Image.Image) -> bool:
    """Whether a photo teaches a normal tone: mean luma 0.2..0.75 and a standard deviation above 0.12.

    Low-key, high-key and strongly graded photos are good photos but teach that dark or flat is fine.
    """
    small = degradation.from_u8(np.asarray(image.resize((64, 64), Image.Resampling.BOX)))
    values = degradation.luma(small)
    return 0.2 <= float(values.mean()) <= 0.75 and float(values.std()) > 0.12


def photos_below(folder: Path) -> list[Path]:
    """Photos in `folder` and all below it, by their names alone.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Name a folder of photos.")
    return sorted(p for p in folder.rglob("*") if formats.has_photo_suffix(p) and not p.name.startswith("."))


def load(folder: Path, validation_share: float, seed: int, *, separate_validation: bool = False) -> CleanPhotos:
    """Every photo below `folder`, decoded; with `separate_validation` all of them are learnt from.

    Raises:
        DataError: no such folder, or fewer than four suitable photos in it.
    """
    found, unreadable, unsuitable = [], [], []
    for path in photos_below(folder):
        name = path.relative_to(folder).as_posix()
        try:
            picture = store.picture(path)
        except PhotoError:
            unreadable.append(name)
            continue
        if is_good_target(picture.overview):
            found.append(CleanPhoto(name, picture))
        else:
            unsuitable.append(name)
    if len(found) < splitting.FEWEST:
        raise DataError(
            f"{folder} holds {len(found)} usable photos; training needs {splitting.FEWEST} at the very least.",
            f"{len(unreadable)} could not be read; {len(unsuitable)} are too dark, too bright or too flat.",
        )
    names = [p.name for p in found]
    chosen = set() if separate_validation else splitting.held_out(names, validation_share, seed)
    return CleanPhotos(
        folder,
        tuple(p for p in found if p.name not in chosen),
        tuple(p for p in found if p.name in chosen),
        tuple(unreadable),
        tuple(unsuitable),
    )


class DegradedSource:
    """Good photos as targets, their degraded versions as inputs (see `pairs.source.Source`)."""

    def __init__(
        self, photos: CleanPhotos, recipe: Recipe, seed: int, crop: int, validation: Held | None = None
    ) -> None:
        self.photos, self.recipe, self.seed, self.crop, self.held = photos, recipe, seed, crop, validation

    @property
    def summary(self) -> dict:
        return {
            "folder": self.photos.folder.name,
            "training_photos": len(self.photos.training),
            "validation_photos": [p.name for p in self.photos.validation] if self.held is None else self.held.names,
            "unsuitable_photos": len(self.photos.unsuitable),
        }

    @property
    def fingerprint(self) -> str:
        described = [(p.name, p.picture.image.size) for p in (*self.photos.training, *self.photos.validation)]
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def crops(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets, thumbnails = [], [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row])
            clean = self._draw(rng).picture
            place = sampling.draw_place(clean.image.size, self.crop, rng)
            target = sampling.cut(clean.image, place.crop, self.crop, place.flip)
            view = sampling.cut(clean.overview, place.frame, VIEW_PX, place.flip)
            drawn = degradation.draw(self.recipe, rng)
            inputs.append(degradation.apply(drawn, target))
            targets.append(target)
            thumbnails.append(sampling.halve(degradation.apply(drawn, view, tone_only=True)))
        return Batch(sampling.stack(inputs), sampling.stack(targets), sampling.stack(thumbnails))

    def wholes(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets = [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row, 1])
            overview = self._draw(rng).picture.overview
            target = sampling.cut(overview, sampling.draw_frame(rng), VIEW_PX, rng.random() < 0.5)
            degraded = degradation.apply(degradation.draw(self.recipe, rng), target, tone_only=True)
            inputs.append(sampling.halve(degraded))
            targets.append(sampling.halve(target))
        seen = sampling.stack(inputs)
        return Batch(seen, sampling.stack(targets), seen)

    def names(self, step: int, rows: Sequence[int], stage: str) -> list[str]:
        kind = [1] if stage == "tone" else []
        return [self._draw(np.random.default_rng([self.seed, step, row, *kind])).name for row in rows]

    def _draw(self, rng: np.random.Generator) -> CleanPhoto:
        return self.photos.training[rng.integers(len(self.photos.training))]

    def validation(self) -> list[Pair]:
        """All inputs are degraded: an untouched one has no finite PSNR to average."""
        if self.held is not None:
            return self.held.whole()
        recipe = dataclasses.replace(self.recipe, untouched=0.0)
        pairs = []
        for clean in self.photos.validation:
            digest = hashlib.sha256(clean.name.encode()).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:4], "little")])
            small = sampling.shrunk(clean.picture.image, sampling.LONGEST_VALIDATION_SIDE)
            target = degradation.from_u8(np.asarray(small))
            degraded = degradation.apply(degradation.draw(recipe, rng), target)
            pairs.append((degradation.to_u8(degraded), degradation.to_u8(target)))
        return pairs

    def calibration(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 2**31])
        made = []
        for index in rng.permutation(len(self.photos.training))[: sampling.CALIBRATION_PHOTOS]:
            image = self.photos.training[index].picture.image
            clean = np.asarray(sampling.shrunk(image, sampling.LONGEST_VALIDATION_SIDE))
            drawn = degradation.draw(self.recipe, rng)
            made.append(degradation.to_u8(degradation.apply(drawn, degradation.from_u8(clean))))
        return made
