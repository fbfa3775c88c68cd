"""Pairs of a phone-like and a good photo, made on the fly from a folder of good ones."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qatie_cli import degradation
from qatie_cli.degradation import Recipe
from qatie_cli.errors import DataError, PhotoError
from qatie_cli.network import SIZE_MULTIPLE
from qatie_cli.photo import decoding, formats
from qatie_cli.tone import THUMBNAIL_PX

FEWEST_PHOTOS = 4  # one to validate on, three to learn from
LONGEST_VALIDATION_SIDE = 640
WHOLE_SHARE = 0.35  # of crops that take in the whole frame; the others lie between that and native resolution
Box = tuple[float, float, float, float]  # left, top, right, bottom
SUBFRAME_SHARE = 0.8  # of samples whose "whole photo" is a part of the file: more framings than files


OVERVIEW_PX = 320  # long side of the small copies that whole-photo views are cut from


@dataclass(frozen=True)
class CleanPhoto:
    """One good photo (RGB) and a copy of at most 320 px for views of the whole."""

    name: str
    image: Image.Image
    overview: Image.Image


@dataclass(frozen=True)
class CleanPhotos:
    """Good photos held in memory, split by photo into those to learn from and those to validate on."""

    folder: Path
    training: tuple[CleanPhoto, ...]
    validation: tuple[CleanPhoto, ...]
    unreadable: tuple[str, ...]
    unsuitable: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """Samples for training: `input` and `target` (N, 3, crop, crop), `thumbnail` (N, 3, 64, 64) of the photo."""

    input: Tensor
    target: Tensor
    thumbnail: Tensor


def is_good_target(image: Image.Image) -> bool:
    """Whether a photo teaches a normal tone: mean luma 0.2..0.75 and a standard deviation above 0.12.

    Low-key, high-key and strongly graded photos are good photos but teach that dark or flat is fine.
    """
    small = degradation.from_u8(np.asarray(image.resize((64, 64), Image.Resampling.BOX)))
    values = degradation.luma(small)
    return 0.2 <= float(values.mean()) <= 0.75 and float(values.std()) > 0.12


def validation_names(names: Sequence[str], share: float, seed: int) -> set[str]:
    """The names held out: a pure function of the names and the seed, whatever their order."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return set(ranked[: max(1, round(share * len(ranked)))])


def load_clean(folder: Path, validation_share: float, seed: int) -> CleanPhotos:
    """Every photo below `folder`, decoded.

    Raises:
        DataError: no such folder, or fewer than four suitable photos in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Name a folder of photos.")
    found, unreadable, unsuitable = [], [], []
    for path in sorted(p for p in folder.rglob("*") if formats.has_photo_suffix(p) and not p.name.startswith(".")):
        name = path.relative_to(folder).as_posix()
        try:
            image = Image.fromarray(decoding.read(path).rgb_u8())
        except PhotoError:
            unreadable.append(name)
            continue
        overview = image.copy()
        overview.thumbnail((OVERVIEW_PX, OVERVIEW_PX), Image.Resampling.BOX)
        if is_good_target(overview):
            found.append(CleanPhoto(name, image, overview))
        else:
            unsuitable.append(name)
    if len(found) < FEWEST_PHOTOS:
        raise DataError(
            f"{folder} holds {len(found)} usable photos; training needs {FEWEST_PHOTOS} at the very least.",
            f"{len(unreadable)} could not be read; {len(unsuitable)} are too dark, too bright or too flat.",
        )
    held_out = validation_names([p.name for p in found], validation_share, seed)
    return CleanPhotos(
        folder,
        tuple(p for p in found if p.name not in held_out),
        tuple(p for p in found if p.name in held_out),
        tuple(unreadable),
        tuple(unsuitable),
    )


def training_batch(photos: CleanPhotos, recipe: Recipe, seed: int, step: int, size: int, crop: int) -> Batch:
    """The batch of one step: a pure function of its arguments, so that a resumed run sees what the whole one saw."""
    inputs, targets, thumbnails = [], [], []
    for index in range(size):
        rng = np.random.default_rng([seed, step, index])
        clean = photos.training[rng.integers(len(photos.training))]
        frame = _frame(rng)
        flip = rng.random() < 0.5
        target = _cut(clean.image, _crop_box(clean.image.size, frame, crop, rng), crop, flip)
        overview = _cut(clean.overview, _scaled(frame, clean.overview.size), 2 * THUMBNAIL_PX, flip)
        drawn = degradation.draw(recipe, rng)
        inputs.append(degradation.apply(drawn, target))
        targets.append(target)
        thumbnails.append(halve(degradation.apply(drawn, overview, tone_only=True)))
    return Batch(_stack(inputs), _stack(targets), _stack(thumbnails))


def tone_batch(photos: CleanPhotos, recipe: Recipe, seed: int, step: int, size: int) -> Batch:
    """Whole photos at thumbnail size, input and target, for the tone stage alone; pure like `training_batch`."""
    inputs, targets = [], []
    for index in range(size):
        rng = np.random.default_rng([seed, step, index, 1])
        overview = photos.training[rng.integers(len(photos.training))].overview
        target = _cut(overview, _scaled(_frame(rng), overview.size), 2 * THUMBNAIL_PX, rng.random() < 0.5)
        degraded = degradation.apply(degradation.draw(recipe, rng), target, tone_only=True)
        inputs.append(halve(degraded))
        targets.append(halve(target))
    seen = _stack(inputs)
    return Batch(seen, _stack(targets), seen)


def validation_pairs(photos: CleanPhotos, recipe: Recipe, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(input, target) of each validation photo, uint8 (H, W, 3), whole, at most 640 px; always the same ones.

    All inputs are degraded: an untouched one has no finite PSNR to average.
    """
    recipe = dataclasses.replace(recipe, untouched=0.0)
    pairs = []
    for clean in photos.validation:
        digest = hashlib.sha256(clean.name.encode()).digest()
        rng = np.random.default_rng([seed, int.from_bytes(digest[:4], "little")])
        target = degradation.from_u8(np.asarray(shrunk(clean.image, LONGEST_VALIDATION_SIDE)))
        degraded = degradation.apply(degradation.draw(recipe, rng), target)
        pairs.append((degradation.to_u8(degraded), degradation.to_u8(target)))
    return pairs


def calibration_photos(photos: CleanPhotos, recipe: Recipe, seed: int, count: int = 24) -> list[np.ndarray]:
    """Whole degraded training photos, uint8 (H, W, 3), at most 640 px, to find quantization ranges on."""
    rng = np.random.default_rng([seed, 2**31])
    made = []
    for index in rng.permutation(len(photos.training))[:count]:
        clean = np.asarray(shrunk(photos.training[index].image, LONGEST_VALIDATION_SIDE))
        drawn = degradation.draw(recipe, rng)
        made.append(degradation.to_u8(degradation.apply(drawn, degradation.from_u8(clean))))
    return made


@dataclass(frozen=True)
class PairFiles:
    """An input photo and its target, which is the input itself where a photo should come back unchanged."""

    name: str
    input: Path
    target: Path


def find_pairs(folder: Path) -> list[PairFiles]:
    """Pairs below `folder`: equal names in input/ and target/ (suffixes may differ), or single photos.

    Raises:
        DataError: no such folder, no photos, or inputs without target.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", "Name a folder with input/ and target/.")
    inputs, targets = folder / "input", folder / "target"
    if not inputs.is_dir():
        found = [PairFiles(p.name, p, p) for p in _photos_in(folder)]
    else:
        by_stem = {p.stem: p for p in _photos_in(targets)} if targets.is_dir() else {}
        names = _photos_in(inputs)
        if unmatched := [p.name for p in names if p.stem not in by_stem]:
            raise DataError(f"{len(unmatched)} inputs have no target in {targets}, the first is {unmatched[0]}.")
        found = [PairFiles(p.name, p, by_stem[p.stem]) for p in names]
    if not found:
        raise DataError(f"There are no photos in {folder}.", "Name a folder with input/ and target/.")
    return found


def load_pair(pair: PairFiles, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """(input, target) uint8 (H, W, 3), reduced to a long side of at most `longest`.

    Raises:
        DataError: the sizes of the two files differ.
        PhotoError: one of them cannot be read.
    """
    images = [Image.fromarray(decoding.read(path).rgb_u8()) for path in (pair.input, pair.target)]
    if images[0].size != images[1].size:
        sizes = " and ".join(f"{i.width}x{i.height}" for i in images)
        raise DataError(f"Input and target of {pair.name} differ in size: {sizes}.", "Remove or repair the pair.")
    if max(images[0].size) > longest:
        scale = longest / max(images[0].size)
        size = [round(side * scale) for side in images[0].size]
        images = [image.resize(size, Image.Resampling.BICUBIC) for image in images]
    return np.asarray(images[0]), np.asarray(images[1])


def _photos_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if formats.has_photo_suffix(p) and not p.name.startswith("."))


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The photo with a long side of at most `longest`, sides cut to multiples of 8."""
    scale = min(1.0, longest / max(image.size))
    size = [max(SIZE_MULTIPLE, round(side * scale) // SIZE_MULTIPLE * SIZE_MULTIPLE) for side in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)


def halve(photo: np.ndarray) -> np.ndarray:
    """2x2 means of (H, W, 3) with even sides."""
    return (photo[::2, ::2] + photo[1::2, ::2] + photo[::2, 1::2] + photo[1::2, 1::2]) * np.float32(0.25)


def _frame(rng: np.random.Generator) -> Box:
    """The part of a file taken as a whole photo, as shares of its width and height."""
    part, x, y = rng.uniform(0.35, 1.0), rng.random(), rng.random()
    if rng.random() >= SUBFRAME_SHARE:
        part = 1.0
    left, top = x * (1 - part), y * (1 - part)
    return left, top, left + part, top + part


def _scaled(frame: Box, size: tuple[int, int]) -> Box:
    """A frame in pixels of an image of `size` (width, height)."""
    width, height = size
    left, top, right, bottom = frame
    return left * width, top * height, right * width, bottom * height


def _crop_box(size: tuple[int, int], frame: Box, crop: int, rng: np.random.Generator) -> Box:
    """A square inside `frame`, from `crop` native pixels up to the frame's short side, in pixels."""
    left, top, right, bottom = _scaled(frame, size)
    longest = min(right - left, bottom - top)
    side = float(np.exp(rng.uniform(np.log(min(crop, longest)), np.log(longest))))
    if rng.random() < WHOLE_SHARE:
        side = longest
    x, y = rng.random() * (right - left - side), rng.random() * (bottom - top - side)
    return left + x, top + y, left + x + side, top + y + side


def _cut(image: Image.Image, box: Box, side: int, flip: bool) -> np.ndarray:
    """The part `box` of a photo as (side, side, 3) float32, area-averaged, mirrored if `flip`."""
    cut = image.resize((side, side), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    if flip:
        cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return degradation.from_u8(np.asarray(cut))


def _stack(photos_hwc: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(photos_hwc)).permute(0, 3, 1, 2).contiguous()
