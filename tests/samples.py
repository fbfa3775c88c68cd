"""Small photos and small untrained weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qatie_cli.model import whole
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import OPTIONS, ModelConfig, NetworkConfig, ToneConfig
from qatie_cli.model.quantization import calibration, equalization
from qatie_cli.model.tone import ToneStage
from qatie_cli.photo.content import Photo

# A tone stage with gains from place to place, read by the largest channel; and one that reads them by luma.
LOCAL = ToneConfig(channels=4, bins=8, quantiles=True, grid=16, guide="largest")
LOCAL_BY_LUMA = ToneConfig(channels=4, bins=8, quantiles=True, grid=16)
# One that also holds gains back, adds local contrast and hardly darkens.
FINE = replace(LOCAL, hold=0.8, clarity=1.6, darkening=0.3)
# For tests of the `weights`: the network as the paper proposes it, and each of its ablations.
EVERY_NETWORK = pytest.mark.parametrize(
    "weights", ["", *OPTIONS], indirect=True, ids=["whole", *(f"no {name}" for name in OPTIONS)]
)


def small_photos(folder: Path, photo: np.ndarray, number: int) -> Path:
    """A new folder with this many different photos of 60 x 40 pixels: 0.png, 1.png and so on."""
    folder.mkdir()
    for index in range(number):
        Image.fromarray(photo[index : index + 40, :60]).save(folder / f"{index}.png")
    return folder


def inverted(photo: Photo, _how: object = None) -> Photo:
    """What stands for enhancing a photo where only the batch around it is tested."""
    return photo.with_pixels(255 - photo.rgb())


def interrupted_at(number: int) -> Callable[[Photo, int | None], Photo]:
    """`inverted`, with Ctrl-C at the photo of this number, from 0."""
    calls = itertools.count()

    def enhance(photo: Photo, _how: object = None) -> Photo:
        if next(calls) == number:
            raise KeyboardInterrupt
        return inverted(photo)

    return enhance


def flattened(photo: np.ndarray, contrast: float) -> np.ndarray:
    """A photo's values below 200, brought so near to 200 that this share of their distance is left."""
    return (200 - contrast * (200 - photo.clip(0, 200).astype(np.float32))).astype(np.uint8)


def smoothed(photo: np.ndarray, share: float) -> np.ndarray:
    """A photo whose upper part, this share of its rows, is an even bright sky."""
    height = len(photo)
    return np.concatenate([np.full_like(photo[: round(share * height)], 235), photo[round(share * height) :]])


def as_tensor(photo_u8: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) in 0..1 of a photo (H, W, 3) of 8 bit."""
    return torch.from_numpy(photo_u8.astype(np.float32) / 255).permute(2, 0, 1)[None]


def random_weights(
    photos: list[np.ndarray],
    width: int = 8,
    tone: ToneConfig | None = ToneConfig(),  # noqa: B008
    without: str = "",
) -> Weights:
    """Calibrated weights whose tone stage and network both change a photo visibly; nothing is trained.

    `without` names an option of the network that is false.
    """
    config = NetworkConfig(width, **({without: False} if without else {}))
    untrained = whole.create(ModelConfig(config, tone), seed=1).requires_grad_(False)
    generator = torch.Generator().manual_seed(2)
    untrained.network.head.weight.normal_(0, 0.05, generator=generator)
    if untrained.tone is not None:
        _change_tone(untrained.tone, generator)
    seen = [as_tensor(photo[: photo.shape[0] // 8 * 8, : photo.shape[1] // 8 * 8]) for photo in photos]
    equalization.equalize(untrained.network, seen)
    activations = calibration.calibrate(untrained.network, seen)
    return Weights(untrained.config, whole.arrays(untrained.state_dict()), activations)


def _change_tone(stage: ToneStage, generator: torch.Generator) -> None:
    stage.decide.bias.normal_(0, 0.3, generator=generator)
    if stage.config.grid:
        for parameter in (stage.gains.weight, stage.gains.bias):
            parameter.normal_(0, 0.3, generator=generator)


def with_local_tone(weights: Weights) -> Weights:
    """The network of `weights` behind a random tone stage that changes photos from place to place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        stage = ToneStage(LOCAL).requires_grad_(False)
    _change_tone(stage, torch.Generator().manual_seed(2))
    network = {name: t for name, t in weights.state.items() if name.startswith("network.")}
    state = network | whole.arrays({f"tone.{name}": t for name, t in stage.state_dict().items()})
    return replace(weights, config=ModelConfig(weights.config.network, LOCAL), state=state)
