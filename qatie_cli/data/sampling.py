"""Samples to learn from: what part of a photo is seen, cut out alike of the pictures that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from qatie_cli.data import degradation
from qatie_cli.model.network import SIZE_MULTIPLE
from qatie_cli.model.tone import VIEW_PX, points
from qatie_cli.photo import resize

LONGEST_VALIDATION_SIDE = 640
MOST_VALIDATED = 64
CALIBRATION_PHOTOS = 24
WHOLE_SHARE = 0.35  # of crops that take in the whole frame; the others lie between that and native resolution
SUBFRAME_SHARE = 0.8  # of samples whose "whole photo" is a part of the file: more framings than files
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Batch:
    """Samples: `input` and `target` (N, 3, crop, crop), `thumbnail` (N, 3, 64, 64) of the whole input, all in 0..1."""

    input: Tensor
    target: Tensor
    thumbnail: Tensor


@dataclass(frozen=True)
class Place:
    """Where a sample looks: its frame and the crop inside it, both in shares of width and height; mirrored or not."""

    frame: Box
    crop: Box
    flip: bool


def evenly(many: Sequence, most: int) -> Sequence:
    """At most `most` of them, evenly chosen."""
    return many[:: max(1, -(-len(many) // most))]


def draw_place(size: tuple[int, int], crop: int, rng: np.random.Generator) -> Place:
    """A frame of a photo of `size` (width, height), and a square in it of `crop` native pixels up to its short side."""
    frame = draw_frame(rng)
    flip = rng.random() < 0.5
    box = crop_box(size, frame, crop, rng)
    width, height = size
    return Place(frame, (box[0] / width, box[1] / height, box[2] / width, box[3] / height), flip)


def draw_frame(rng: np.random.Generator) -> Box:
    """The part of a file taken as a whole photo, as shares of its width and height."""
    part, x, y = rng.uniform(0.2, 1.0), rng.random(), rng.random()
    if rng.random() >= SUBFRAME_SHARE:
        part = 1.0
    left, top = x * (1 - part), y * (1 - part)
    return left, top, left + part, top + part


def crop_box(size: tuple[int, int], frame: Box, crop: int, rng: np.random.Generator) -> Box:
    """A square inside `frame`, from `crop` native pixels up to the frame's short side, in pixels."""
    left, top, right, bottom = _scaled(frame, size)
    longest = min(right - left, bottom - top)
    side = float(np.exp(rng.uniform(np.log(min(crop, longest)), np.log(longest))))
    if rng.random() < WHOLE_SHARE:
        side = longest
    x, y = rng.random() * (right - left - side), rng.random() * (bottom - top - side)
    return left + x, top + y, left + x + side, top + y + side


def cut(image: Image.Image, box: Box, side: int, flip: bool) -> np.ndarray:
    """The part `box` (shares of width and height) of a photo as (side, side, 3) float32 in 0..1, mirrored if `flip`."""
    inside = _scaled(box, image.size)
    part = resize.to_square(image, side, resize.CUBIC, box=inside, reducing_gap=resize.REDUCING_GAP)
    if flip:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return degradation.from_u8(np.asarray(part))


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    """The photo with a long side of at most `longest`, sides brought to multiples of 8 from 16 on."""
    scale = min(1.0, longest / max(image.size))
    width, height = (max(2 * SIZE_MULTIPLE, round(s * scale) // SIZE_MULTIPLE * SIZE_MULTIPLE) for s in image.size)
    return resize.to_size(image, (width, height))


def thumbnail(overview: Image.Image, frame: Box, flip: bool) -> np.ndarray:
    """The thumbnail (64, 64, 3) float32 in 0..1 of the part `frame` of a photo, as `tone.thumbnail` makes it."""
    return points(cut(overview, frame, VIEW_PX, flip))


def stack(photos_hwc: list[np.ndarray]) -> Tensor:
    """Photos (H, W, 3) of one size as (N, 3, H, W)."""
    return torch.from_numpy(np.stack(photos_hwc)).permute(0, 3, 1, 2).contiguous()


def _scaled(box: Box, size: tuple[int, int]) -> Box:
    """A box in shares as pixels of an image of `size` (width, height)."""
    width, height = size
    left, top, right, bottom = box
    return left * width, top * height, min(right, 1.0) * width, min(bottom, 1.0) * height
