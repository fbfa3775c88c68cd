"""The interface of training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

LONGEST_VALIDATION_SIDE = 640  # pixels, of validation and calibration photos
MOST_VALIDATED = 64
CALIBRATION_PHOTOS = 24


class PairPixels(NamedTuple):
    """An input photo and its target, uint8 (H, W, 3) of equal size."""

    input: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class TrainingBatch:
    """Samples: `input` and `target` (N, 3, crop, crop), `view` (N, 3, view_px, view_px) of the whole input, in 0..1.

    `restored` (N, 3, crop, crop) has the detail of the target and, as far as it is known, the tone of the input: what
    is to come out of the network once both have gone through the same tone stage. Where the input's tone is not known,
    it is the target.
    `boxes` (N, 4) say which part of its whole photo each input is: left, top, right, bottom as shares of its sides.
    `exact` (N,) marks samples whose tone must match to the level: on a page or a night sky any change shows.
    """

    input: Tensor
    target: Tensor
    view: Tensor
    boxes: Tensor
    exact: Tensor
    restored: Tensor

    @staticmethod
    def of_full_frames(input: Tensor, target: Tensor, exact: Tensor) -> TrainingBatch:
        """Samples whose inputs are views of whole photos themselves."""
        boxes = input.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(input), 4)
        return TrainingBatch(input, target, input, boxes, exact, target)

    @staticmethod
    def of_crops(
        input: Tensor, target: Tensor, view: Tensor, boxes: Tensor, restored: Tensor | None = None
    ) -> TrainingBatch:
        """Samples that are parts of their photos."""
        exact = torch.zeros(len(input), dtype=torch.bool)
        return TrainingBatch(input, target, view, boxes, exact, target if restored is None else restored)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, in the order of the fields."""
        return self.input, self.target, self.view, self.boxes, self.exact, self.restored

    def to(self, device: torch.device) -> TrainingBatch:
        """The samples on a device."""
        return TrainingBatch(*(tensor.to(device) for tensor in self.tensors))

    def split(self, size: int) -> list[TrainingBatch]:
        """Parts of `size` samples at most."""
        return [TrainingBatch(*part) for part in zip(*(t.split(size) for t in self.tensors), strict=True)]


class Source(Protocol):
    """Pairs, split into those to learn from and those to validate on.

    Everything it returns depends on its arguments and the photos alone, so a resumed run sees the same samples, and
    processes that share a batch see its parts: `rows` selects them.
    """

    @property
    def summary(self) -> dict[str, object]:
        """What the weights file records of the data."""

    @property
    def fingerprint(self) -> str:
        """A digest of the photos that are used."""

    @property
    def validation_names(self) -> list[str]:
        """The photos that are validated on."""

    @property
    def crop(self) -> int:
        """Side of the crops in pixels: as asked for, or less where the photos are smaller."""

    def crops(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        """Crops, with views of the photos that they come from."""

    def full_frames(self, step: int, rows: Sequence[int]) -> TrainingBatch:
        """Views of whole photos, for the tone stage."""

    def crop_names(self, step: int, rows: Sequence[int]) -> list[str]:
        """The photos behind `crops`."""

    def full_frame_names(self, step: int, rows: Sequence[int]) -> list[str]:
        """The photos behind `full_frames`."""

    def validation(self) -> list[PairPixels]:
        """Whole photos of at most 640 px, sides multiples of 8; always the same ones."""

    def calibration(self) -> list[np.ndarray]:
        """Training inputs (H, W, 3) uint8 to calibrate ranges on, at most 640 px, sides multiples of 8."""
