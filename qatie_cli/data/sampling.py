"""Seeded sampling: the random generator of every sample, and the part of a photo that it shows.

Every generator is a function of the run's seed and its purpose, so a resumed run sees the same samples as an
uninterrupted one, and processes that share a batch see its parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SUBFRAME_SHARE = 0.8  # of samples whose "whole photo" is a part of the file: more framings than files
WHOLE_FULL_FRAMES = 0.2  # of the tone stage's samples that show the whole file
Box = tuple[float, float, float, float]  # left, top, right, bottom
_T = TypeVar("_T")


@dataclass(frozen=True)
class CropScale:
    """How much of a frame crops show, from native pixels to the whole frame.

    Norms take their statistics from their input, which is a whole photo when enhancing. But a whole frame reduced to a
    crop is sharper than any photo at native size: networks that saw many of them removed too little noise.

    Args:
        whole: share of crops that show the whole frame, at least.
        reduction: largest factor by which the others are reduced; 0 for as far as the whole frame.
    """

    whole: float = 0.35
    reduction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.whole <= 1 or (self.reduction and self.reduction < 1):
            raise ValueError(f"crops need a share in 0..1 and a reduction of at least 1, or 0, not {self}")


EVERY_SCALE = CropScale()


# --- generators -----------------------------------------------------------------------------------------------------


def crop_rng(seed: int, step: int, row: int) -> np.random.Generator:
    """Randomness of one crop: sample `row` of the batch of a step."""
    return np.random.default_rng([seed, step, row])


def full_frame_rng(seed: int, step: int, row: int) -> np.random.Generator:
    """Randomness of one full frame: sample `row` of the batch of a step."""
    return np.random.default_rng([seed, step, row, 1])


def calibration_rng(seed: int) -> np.random.Generator:
    """Randomness of the photos that ranges are calibrated on."""
    return np.random.default_rng([seed, 2**31])


def photo_rng(seed: int, name: str) -> np.random.Generator:
    """Randomness of a validation photo's degradation."""
    return np.random.default_rng([seed, int.from_bytes(_digest(name)[:4], "little")])


def version_rng(seed: int, name: str, version: int) -> np.random.Generator:
    """Randomness of one version of a photo among generated pairs."""
    return np.random.default_rng([seed, version, int.from_bytes(_digest(name)[:8], "little")])


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


# --- choices --------------------------------------------------------------------------------------------------------


def subsample(items: Sequence[_T], most: int) -> Sequence[_T]:
    """Every n-th item, so that at most `most` are left."""
    return items[:: max(1, -(-len(items) // most))]


@dataclass(frozen=True)
class Place:
    """Where a sample looks: its frame and the crop inside it, both in shares of width and height; mirrored or not."""

    frame: Box
    crop: Box
    flip: bool


def place(size: tuple[int, int], crop: int, rng: np.random.Generator, scale: CropScale = EVERY_SCALE) -> Place:
    """A frame of a photo of `size` (width, height), and a square in it of `crop` native pixels up to its short side."""
    chosen = frame(rng)
    flip = rng.random() < 0.5
    left, top, right, bottom = crop_box(size, chosen, crop, rng, scale)
    width, height = size
    return Place(chosen, (left / width, top / height, right / width, bottom / height), flip)


def full_frame(rng: np.random.Generator) -> Box:
    """The part of a file taken as a whole photo by the tone stage, as shares of its width and height."""
    part, x, y = rng.uniform(0.45, 1.0), rng.random(), rng.random()
    if rng.random() < WHOLE_FULL_FRAMES:
        part = 1.0
    left, top = x * (1 - part), y * (1 - part)
    return left, top, left + part, top + part


def frame(rng: np.random.Generator) -> Box:
    """The part of a file taken as a whole photo, as shares of its width and height."""
    part, x, y = rng.uniform(0.2, 1.0), rng.random(), rng.random()
    if rng.random() >= SUBFRAME_SHARE:
        part = 1.0
    left, top = x * (1 - part), y * (1 - part)
    return left, top, left + part, top + part


def crop_box(
    size: tuple[int, int], frame: Box, crop: int, rng: np.random.Generator, scale: CropScale = EVERY_SCALE
) -> Box:
    """A square inside `frame`, from `crop` native pixels up to the frame's short side, in pixels."""
    left, top, right, bottom = in_pixels(frame, size)
    longest = min(right - left, bottom - top)
    most = min(longest, crop * scale.reduction) if scale.reduction else longest
    side = float(np.exp(rng.uniform(np.log(min(crop, longest)), np.log(most))))
    if rng.random() < scale.whole:
        side = longest
    x, y = rng.random() * (right - left - side), rng.random() * (bottom - top - side)
    return left + x, top + y, left + x + side, top + y + side


def in_pixels(box: Box, size: tuple[int, int]) -> Box:
    """A box given in shares, in pixels of an image of `size` (width, height)."""
    width, height = size
    left, top, right, bottom = box
    return left * width, top * height, min(right, 1.0) * width, min(bottom, 1.0) * height
