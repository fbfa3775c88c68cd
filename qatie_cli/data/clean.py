"""Good photos without partners: the degradation model makes phone-like ones of them while training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qatie_cli.data import degradation, pages, sampling, splitting, surfaces
from qatie_cli.data.checking import SMALLEST_SIDE
from qatie_cli.data.degradation import Recipe
from qatie_cli.data.paired import Held
from qatie_cli.data.sampling import Batch
from qatie_cli.data.source import Pair
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.photo import colour, resize
from qatie_cli.photo.discovery import photos_below


@dataclass(frozen=True)
class CleanPhoto:
    """One good photo, of `size` (width, height)."""

    name: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True)
class CleanPhotos:
    """Good photos, split by photo into those to learn from and those to validate on; `store` reads them.

    `extreme` are photos that are no targets (`is_good_target`): seen as they are, they show what need not be changed.
    """

    folder: Path
    store: Store
    training: tuple[CleanPhoto, ...]
    validation: tuple[CleanPhoto, ...]
    extreme: tuple[CleanPhoto, ...]
    unreadable: tuple[str, ...]
    too_small: tuple[str, ...]


def is_good_target(image: Image.Image) -> bool:
    """Whether a photo teaches a normal tone: mean luma 0.2..0.75 and a standard deviation above 0.12.

    Low-key, high-key and strongly graded photos are good photos but teach that dark or flat is fine.
    """
    small = degradation.from_u8(np.asarray(resize.to_square(image, 64)))
    values = colour.luma(small)
    return 0.2 <= float(values.mean()) <= 0.75 and float(values.std()) > 0.12


def load(
    folder: Path, store: Store, validation_share: float, seed: int, *, separate_validation: bool = False
) -> CleanPhotos:
    """Every photo below `folder`, read once; with `separate_validation` all of them are learnt from.

    Raises:
        DataError: no such folder, or fewer than four suitable photos in it.
    """
    found, extreme, unreadable, too_small = [], [], [], []
    for path in photos_below(folder):
        name = path.relative_to(folder).as_posix()
        try:
            picture = store.get(path)
        except PhotoError:
            unreadable.append(name)
            continue
        if min(picture.image.size) < SMALLEST_SIDE:
            too_small.append(name)
            continue
        suitable = found if is_good_target(picture.overview) else extreme
        suitable.append(CleanPhoto(name, path, picture.image.size))
    if len(found) < splitting.FEWEST:
        raise DataError(
            f"{folder} holds {len(found)} usable photos; training needs {splitting.FEWEST} at the very least.",
            f"{len(unreadable)} could not be read; {len(too_small)} are too small, {len(extreme)} too dark, bright or "
            "flat.",
        )
    names = [p.name for p in found]
    chosen = set() if separate_validation else splitting.held_out(names, validation_share, seed)
    return CleanPhotos(
        folder,
        store,
        tuple(p for p in found if p.name not in chosen),
        tuple(p for p in found if p.name in chosen),
        tuple(extreme),
        tuple(unreadable),
        tuple(too_small),
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
            "validation_photos": self.validation_names,
            "extreme_photos": len(self.photos.extreme),
            "too_small_photos": len(self.photos.too_small),
        }

    @property
    def _validated(self) -> Sequence[CleanPhoto]:
        return sampling.evenly(self.photos.validation, sampling.MOST_VALIDATED)

    @property
    def validation_names(self) -> list[str]:
        return [p.name for p in self._validated] if self.held is None else self.held.names

    @property
    def fingerprint(self) -> str:
        photos = self.photos
        described = [(p.name, p.size) for p in (*photos.training, *photos.validation, *photos.extreme)]
        described += [] if self.held is None else self.held.names
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def crops(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets, thumbnails = [], [], []
        for row in rows:
            rng = np.random.default_rng([self.seed, step, row])
            clean = self.photos.store.get(self._draw(rng).path)
            place = sampling.draw_place(clean.image.size, self.crop, rng)
            target = sampling.cut(clean.image, place.crop, self.crop, place.flip)
            view = sampling.thumbnail(clean.overview, place.frame, place.flip)
            drawn = degradation.draw(self.recipe, rng)
            target = self._textured(target, rng)
            inputs.append(degradation.apply(drawn, target))
            targets.append(target)
            thumbnails.append(degradation.apply(drawn, view, tone_only=True))
        return Batch(sampling.stack(inputs), sampling.stack(targets), sampling.stack(thumbnails))

    def _textured(self, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop (crop, crop, 3) with the faint and fine detail that the recipe asks for: what is not noise."""
        target = degradation.faint(target, self.recipe.faint.draw(rng, 0.0))
        rough = self.recipe.surface.draw(rng, 0.0)
        if not rough:
            return target
        return np.clip(target + np.float32(rough) * surfaces.draw_surface(rng, self.crop)[..., None], 0, 1)

    def wholes(self, step: int, rows: Sequence[int]) -> Batch:
        inputs, targets = [], []
        for row in rows:
            photo, drawn, rng = self._whole(step, row)
            if photo is None:
                target = pages.draw_page(rng)
            else:
                overview = self.photos.store.overview(photo.path)
                target = sampling.thumbnail(overview, sampling.draw_frame(rng), rng.random() < 0.5)
            if drawn != degradation.UNTOUCHED:  # a good photo stays as it is
                target = degradation.toward_middle(target, self.recipe.middle)
            inputs.append(degradation.apply(drawn, target, tone_only=True))
            targets.append(target)
        seen = sampling.stack(inputs)
        return Batch(seen, sampling.stack(targets), seen)

    def names(self, step: int, rows: Sequence[int], stage: str) -> list[str]:
        if stage == "tone":
            photos = (self._whole(step, row)[0] for row in rows)
            return ["a drawn page" if photo is None else photo.name for photo in photos]
        return [self._draw(np.random.default_rng([self.seed, step, row])).name for row in rows]

    def _whole(self, step: int, row: int) -> tuple[CleanPhoto | None, degradation.Draw, np.random.Generator]:
        """A whole photo to learn from (None: a drawn page), what happens to it, and the randomness of what follows."""
        rng = np.random.default_rng([self.seed, step, row, 1])
        drawn, other, photo = degradation.draw(self.recipe, rng), rng.random(), self._draw(rng)
        if drawn != degradation.UNTOUCHED:
            return photo, drawn, rng
        choice = self.photos.extreme
        if choice and other < self.recipe.extreme:
            photo = choice[rng.integers(len(choice))]
        elif other > 1 - self.recipe.pages:
            photo = None
        return photo, drawn, rng

    def _draw(self, rng: np.random.Generator) -> CleanPhoto:
        return self.photos.training[rng.integers(len(self.photos.training))]

    def validation(self) -> list[Pair]:
        """All inputs are degraded: an untouched one has no finite PSNR to average. Targets are as in training."""
        if self.held is not None:
            return self.held.whole()
        recipe = dataclasses.replace(self.recipe, untouched=0.0)
        pairs = []
        for clean in self._validated:
            digest = hashlib.sha256(clean.name.encode("utf-8", "surrogateescape")).digest()
            rng = np.random.default_rng([self.seed, int.from_bytes(digest[:4], "little")])
            small = sampling.shrunk(self.photos.store.get(clean.path).image, sampling.LONGEST_VALIDATION_SIDE)
            target = degradation.toward_middle(degradation.from_u8(np.asarray(small)), recipe.middle)
            degraded = degradation.apply(degradation.draw(recipe, rng), target)
            pairs.append((degradation.to_u8(degraded), degradation.to_u8(target)))
        return pairs

    def calibration(self) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 2**31])
        made = []
        for index in rng.permutation(len(self.photos.training))[: sampling.CALIBRATION_PHOTOS]:
            image = self.photos.store.get(self.photos.training[index].path).image
            clean = np.asarray(sampling.shrunk(image, sampling.LONGEST_VALIDATION_SIDE))
            drawn = degradation.draw(self.recipe, rng)
            made.append(degradation.to_u8(degradation.apply(drawn, degradation.from_u8(clean))))
        return made
