"""Good photos as targets; the degradation model makes their inputs during training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from qatie_cli.data import degradation, detail, drawn, full_frames, sampling, source, splitting, uneven_light, views
from qatie_cli.data.checking import SMALLEST_SIDE
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.data.detail import DetailConfig
from qatie_cli.data.full_frames import Frame, FullFrameConfig, Kind
from qatie_cli.data.rendering import RenderingConfig
from qatie_cli.data.sampling import EVERY_SCALE, CropScale
from qatie_cli.data.source import PairPixels, TrainingBatch
from qatie_cli.data.store import Store
from qatie_cli.data.uneven_light import LightConfig
from qatie_cli.data.validation import ValidationSet
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.model.config import THUMBNAIL_PX
from qatie_cli.photo import colour, resize
from qatie_cli.photo.discovery import photos_below

_DARK = 0.2  # largest mean luma of a dark photo
_LIGHT = 0.6  # smallest luma of a light in a dark scene


@dataclass(frozen=True)
class ToneSampling:
    """How the tone stage's samples are made."""

    frames: FullFrameConfig = FullFrameConfig()
    light: LightConfig = LightConfig()
    rendering: RenderingConfig = RenderingConfig()


@dataclass(frozen=True)
class CleanPhoto:
    """One good photo, of `size` (width, height)."""

    name: str
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True)
class CleanPhotos:
    """Good photos, split by photo into those to learn from and those to validate on; `store` reads them.

    `extreme` photos cannot be targets (`is_good_target`); used unchanged, they teach what to leave alone. `unlit` are
    dark photos without a light, which are unusable: they look like underexposed ones.
    """

    folder: Path
    store: Store
    training: tuple[CleanPhoto, ...]
    validation: tuple[CleanPhoto, ...]
    extreme: tuple[CleanPhoto, ...]
    unlit: tuple[CleanPhoto, ...]
    unreadable: tuple[str, ...]
    too_small: tuple[str, ...]


def is_good_target(image: Image.Image) -> bool:
    """Whether a photo has a normal tone: mean luma 0.2..0.75 and a standard deviation above 0.12.

    Low-key, high-key and strongly graded photos would teach that dark or flat is normal.
    """
    values = _small_luma(image)
    return _DARK <= float(values.mean()) <= 0.75 and float(values.std()) > 0.12


def _is_unlit(image: Image.Image) -> bool:
    """Whether a photo is dark as a whole, its brightest hundredth included."""
    values = _small_luma(image)
    return float(values.mean()) < _DARK and float(np.quantile(values, 0.99)) <= _LIGHT


def _small_luma(image: Image.Image) -> np.ndarray:
    return colour.luma(degradation.from_u8(np.asarray(resize.to_square(image, 64))))


def load(
    folder: Path, store: Store, validation_share: float, seed: int, *, separate_validation: bool = False
) -> CleanPhotos:
    """Every photo below `folder`, read once; with `separate_validation` all of them are for training.

    Raises:
        DataError: no such folder, or fewer than four suitable photos in it.
    """
    found: list[CleanPhoto] = []
    extreme: list[CleanPhoto] = []
    unlit: list[CleanPhoto] = []
    unreadable: list[str] = []
    too_small: list[str] = []
    paths = photos_below(folder)
    for path, reading in zip(paths, store.read(paths), strict=True):
        name = path.relative_to(folder).as_posix()
        try:
            picture = reading.result()
        except PhotoError:
            unreadable.append(name)
            continue
        if min(picture.image.size) < SMALLEST_SIDE:
            too_small.append(name)
            continue
        photo = CleanPhoto(name, path, picture.image.size)
        if is_good_target(picture.overview):
            found.append(photo)
            continue
        (unlit if _is_unlit(picture.overview) else extreme).append(photo)
    if len(found) < splitting.FEWEST:
        raise DataError(
            f"{folder} holds {len(found)} usable photos; training needs at least {splitting.FEWEST}.",
            f"{len(unreadable)} could not be read; {len(too_small)} are too small, "
            f"{len(extreme) + len(unlit)} too dark, bright or flat.",
        )
    sources = {p.name: splitting.source_of(p.name) for p in found}
    held_out = set() if separate_validation else splitting.held_out(list(sources.values()), validation_share, seed)
    chosen = {name for name, source in sources.items() if source in held_out}
    return CleanPhotos(
        folder,
        store,
        tuple(p for p in found if p.name not in chosen),
        tuple(p for p in found if p.name in chosen),
        tuple(p for p in extreme if splitting.source_of(p.name) not in held_out),
        tuple(unlit),
        tuple(unreadable),
        tuple(too_small),
    )


class DegradedSource:
    """Good photos as targets, their degraded versions as inputs (see `source.Source`)."""

    def __init__(
        self,
        photos: CleanPhotos,
        config: DegradationConfig,
        seed: int,
        crop: int,
        validation: ValidationSet | None = None,
        view_px: int = THUMBNAIL_PX,
        tone: ToneSampling = ToneSampling(),
        scale: CropScale = EVERY_SCALE,
        rendered: DetailConfig = detail.UNCHANGED,
    ) -> None:
        self.photos, self.config, self.seed, self.crop = photos, config, seed, crop
        self.validation_set, self.view_px, self.tone = validation, view_px, tone
        self.scale, self.rendered = scale, rendered

    @property
    def summary(self) -> dict[str, object]:
        return {
            "folder": self.photos.folder.name,
            "training_photos": len(self.photos.training),
            "validation_photos": self.validation_names,
            "extreme_photos": len(self.photos.extreme),
            "too_small_photos": len(self.photos.too_small),
        }

    @property
    def _validated(self) -> Sequence[CleanPhoto]:
        return sampling.subsample(self.photos.validation, source.MOST_VALIDATED)

    @property
    def validation_names(self) -> list[str]:
        return [p.name for p in self._validated] if self.validation_set is None else self.validation_set.names

    @property
    def fingerprint(self) -> str:
        photos = self.photos
        described: list[object] = [(p.name, p.size) for p in (*photos.training, *photos.validation, *photos.extreme)]
        described += [] if self.validation_set is None else self.validation_set.names
        return hashlib.sha256(repr(described).encode()).hexdigest()

    def crops(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        inputs, targets, restored, whole, places = [], [], [], [], []
        for row in rows:
            rng = sampling.crop_rng(self.seed, step, row)
            clean = self.photos.store.get(self._photo(rng).path)
            place = sampling.place(clean.image.size, self.crop, rng, self.scale)
            target = views.crop(clean.image, place.crop, self.crop, place.flip)
            view = views.view(clean.overview, place.frame, self.view_px, place.flip)
            parameters = degradation.sample(self.config, rng)
            target = self._textured(target, rng)
            inputs.append(degradation.apply(parameters, target))
            target = self._clear(target)
            targets.append(target)
            restored.append(degradation.apply(degradation.without_noise(parameters), target, tone_only=True))
            whole.append(degradation.apply(parameters, view, tone_only=True))
            places.append(place)
        return TrainingBatch.of_crops(
            views.stack(inputs), views.stack(targets), views.stack(whole), views.boxes(places), views.stack(restored)
        )

    def _textured(self, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop (crop, crop, 3) softened, with faint detail and drawn surfaces: to be distinguished from noise."""
        if softness := self.config.softness.sample(rng, 0.0):
            target = degradation.gaussian_blur(target, softness)
        target = degradation.faint(target, self.config.faint.sample(rng, 0.0))
        deviation = self.config.surface.sample(rng, 0.0)
        if not deviation:
            return target
        return np.clip(target + np.float32(deviation) * drawn.surface(rng, self.crop)[..., None], 0, 1)

    def _clear(self, target: np.ndarray) -> np.ndarray:
        """A crop (crop, crop, 3) with its detail rendered as the network is to render it."""
        if not self.rendered.clarity:
            return target
        return views.only(detail.render(views.stack([target]), self.rendered))

    def full_frames(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        frames = [self._frame(sampling.full_frame_rng(self.seed, step, row)) for row in rows]
        return full_frames.samples(frames, self.tone.frames, self.tone.rendering)

    def _frame(self, rng: np.random.Generator) -> Frame:
        kind, photo = self._kind_and_photo(rng)
        if photo is None:
            return Frame(drawn.PICTURES[kind](rng, self.view_px), kind)
        overview = self.photos.store.overview(photo.path)
        view = views.view(overview, sampling.full_frame(rng), self.view_px, rng.random() < 0.5)
        if kind is not Kind.PHOTO:
            return Frame(view, kind)
        config = dataclasses.replace(self.config, untouched=self.tone.frames.untouched)
        return Frame(view, kind, degradation.sample(config, rng), uneven_light.sample(self.tone.light, rng))

    def _kind_and_photo(self, rng: np.random.Generator) -> tuple[Kind, CleanPhoto | None]:
        """What a full frame shows: a photo, or None for a drawing."""
        kind, extreme = self.tone.frames.choose(rng), self.photos.extreme
        if kind in drawn.PICTURES:
            return kind, None
        if kind is Kind.EXTREME and extreme:
            return kind, extreme[rng.integers(len(extreme))]
        return Kind.PHOTO, self._photo(rng)

    def crop_names(self, step: int, rows: Sequence[int]) -> list[str]:
        return [self._photo(sampling.crop_rng(self.seed, step, row)).name for row in rows]

    def full_frame_names(self, step: int, rows: Sequence[int]) -> list[str]:
        chosen = (self._kind_and_photo(sampling.full_frame_rng(self.seed, step, row)) for row in rows)
        return [f"a drawn {kind.value}" if photo is None else photo.name for kind, photo in chosen]

    def _photo(self, rng: np.random.Generator) -> CleanPhoto:
        return self.photos.training[rng.integers(len(self.photos.training))]

    def validation(self) -> list[PairPixels]:
        """All inputs are degraded, since an untouched one has no finite PSNR. Targets are as in training."""
        if self.validation_set is not None:
            return self.validation_set.photos()
        config = dataclasses.replace(self.config, untouched=0.0)
        pairs = []
        for clean in self._validated:
            target = full_frames.target(self._small(clean), self.tone.frames, self.tone.rendering)
            parameters = degradation.sample(config, sampling.photo_rng(self.seed, clean.name))
            degraded = degradation.apply(parameters, target)
            target = full_frames.held(target, degraded, self.tone.rendering)
            pairs.append(PairPixels(degradation.to_u8(degraded), degradation.to_u8(target)))
        return pairs

    def calibration(self) -> list[np.ndarray]:
        rng = sampling.calibration_rng(self.seed)
        photos = []
        for index in rng.permutation(len(self.photos.training))[: source.CALIBRATION_PHOTOS]:
            clean = self._small(self.photos.training[index])
            photos.append(degradation.to_u8(degradation.apply(degradation.sample(self.config, rng), clean)))
        return photos

    def _small(self, photo: CleanPhoto) -> np.ndarray:
        """The photo as (H, W, 3) float32 in 0..1, at most 640 px, sides multiples of 8."""
        image = self.photos.store.get(photo.path).image
        return degradation.from_u8(np.asarray(views.network_sized(image, source.LONGEST_VALIDATION_SIDE)))
