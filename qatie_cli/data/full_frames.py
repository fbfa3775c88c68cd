"""Full frames: the samples of the tone stage. Views of whole photos, degraded, and what they should become.

Most targets are the photo itself, moved towards a middle exposure and rendered (`rendering`). Some inputs are their own
targets: photos and drawings that are dark, bright or flat by nature and must keep their tone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from qatie_cli.data import degradation, rendering, uneven_light, views
from qatie_cli.data.degradation import UNTOUCHED, DegradationParameters
from qatie_cli.data.rendering import RenderingConfig
from qatie_cli.data.source import TrainingBatch
from qatie_cli.data.uneven_light import LightParameters
from qatie_cli.model.tone_features import luma, ranked

MIDDLE_LUMA = 0.48
# A dark photo uses the whole range where this rank of luma is white, and has all the room there is this far below.
_BRIGHT_RANK, _WHITE, _ROOM = 0.95, 0.92, 0.2


class Kind(StrEnum):
    """What a full frame shows; only photos have other targets than themselves."""

    PHOTO = "photo"
    EXTREME = "extreme"  # a photo too dark, bright or flat to be a target
    PAGE = "page"
    SCREEN = "screen"
    FLAT = "flat"
    NIGHT = "night"


DRAWINGS = (Kind.PAGE, Kind.SCREEN, Kind.FLAT, Kind.NIGHT)


@dataclass(frozen=True)
class FullFrameConfig:
    """What the tone stage is trained on."""

    untouched: float = 0.2  # share of the photos that are rendered but not degraded
    middle: float = 0.55  # how far, 0..1, targets of darker photos are moved to a mean luma of 0.48
    middle_bright: float = 0.4  # the same for brighter ones
    middle_untouched: float = 0.5  # the same for dark photos that are not degraded: most are exposed well
    middle_full_range: float = 1.0  # factor of that for those with white in them: they are meant to be dark
    # Shares of the samples that must keep their tone:
    extreme: float = 0.02
    page: float = 0.05
    screen: float = 0.06
    flat: float = 0.04
    night: float = 0.06

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if wrong := [name for name, share in shares.items() if not 0 <= share <= 1]:
            raise ValueError(f"the full frames' {', '.join(wrong)} must lie in 0..1")
        if sum(share for _, share in self.kept) > 1:
            raise ValueError("the full frames' extreme, page, screen, flat and night are more than 1 together")

    @property
    def kept(self) -> tuple[tuple[Kind, float], ...]:
        """Kinds that keep their tone, with their shares of the samples."""
        kinds = (Kind.EXTREME, *DRAWINGS)
        return tuple((kind, float(getattr(self, kind.value))) for kind in kinds)

    def choose(self, rng: np.random.Generator) -> Kind:
        """What a sample shows."""
        chosen = rng.random()
        for kind, share in self.kept:
            if chosen < share:
                return kind
            chosen -= share
        return Kind.PHOTO


@dataclass(frozen=True)
class Frame:
    """One sample: a view (side, side, 3) float32 in 0..1, and what happens to it."""

    view: np.ndarray
    kind: Kind
    parameters: DegradationParameters = UNTOUCHED
    light: LightParameters = LightParameters()


def samples(frames: Sequence[Frame], config: FullFrameConfig, rendered: RenderingConfig) -> TrainingBatch:
    """The samples of these frames, in their order; drawings must keep their tone to the level."""
    inputs = views.stack([frame.view for frame in frames])
    targets = inputs.clone()
    photos = [index for index, frame in enumerate(frames) if frame.kind is Kind.PHOTO]
    if photos:
        chosen = [frames[index] for index in photos]
        inputs[photos], targets[photos] = _photo_samples(inputs[photos], chosen, config, rendered)
    drawings = torch.tensor([frame.kind in DRAWINGS for frame in frames])
    return TrainingBatch.of_full_frames(inputs, targets, drawings)


def _photo_samples(
    clean: Tensor, frames: Sequence[Frame], config: FullFrameConfig, rendered: RenderingConfig
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of photos, (N, 3, side, side) each."""
    touched = torch.tensor([frame.parameters != UNTOUCHED for frame in frames])[:, None, None, None]
    moved = torch.where(touched, 1.0, _undegraded_share(clean, config))
    middle = _moved(clean, middle_share(clean, config) * moved, rendered)
    kept = ~touched.flatten()
    middle[kept] = rendering.with_smooth_shadows_of(clean[kept], middle[kept])
    inputs = torch.where(touched, degraded(middle, frames), clean)
    return inputs, rendering.with_vivid_colours_of(inputs, rendering.render(middle, rendered), rendered.vivid)


def target(clean_hwc: np.ndarray, config: FullFrameConfig, rendered: RenderingConfig) -> np.ndarray:
    """The target of a degraded photo: the clean one (H, W, 3) float32 in 0..1 at a middle exposure, rendered."""
    clean = views.stack([clean_hwc])
    middle = _moved(clean, middle_share(clean, config), rendered)
    return views.only(rendering.render(middle, rendered))


def _moved(clean: Tensor, share: Tensor, rendered: RenderingConfig) -> Tensor:
    """Good photos moved `share` of the way to the middle, but for the colours that `rendered.hold` holds."""
    return rendering.with_bright_colours_of(clean, toward_middle(clean, share), rendered.hold)


def held(target_hwc: np.ndarray, input_hwc: np.ndarray, rendered: RenderingConfig) -> np.ndarray:
    """A target (H, W, 3) float32 in 0..1, where its input is vivid held as `rendered.vivid` asks."""
    target, shown = views.stack([target_hwc]), views.stack([input_hwc])
    return views.only(rendering.with_vivid_colours_of(shown, target, rendered.vivid))


def middle_share(photo: Tensor, config: FullFrameConfig) -> Tensor:
    """How far photos' targets are moved to the middle, (N, 1, 1, 1)."""
    return torch.where(_is_dark(photo), config.middle, config.middle_bright)


def _undegraded_share(photo: Tensor, config: FullFrameConfig) -> Tensor:
    """How far photos that are not degraded are moved to the middle, (N, 1, 1, 1).

    Bright photos are meant to be bright. Dark ones whose brightest twentieth is nearly white (a face in a dark room)
    are meant to be dark: they are moved by `middle_full_range` of what others are.
    """
    high = ranked(luma(photo).flatten(1), (_BRIGHT_RANK,)).view(-1, 1, 1, 1)
    room = ((_WHITE - high) / _ROOM).clamp(0, 1)
    share = config.middle_full_range + (1 - config.middle_full_range) * room
    return torch.where(_is_dark(photo), config.middle_untouched * share, 0.0)


def _is_dark(photo: Tensor) -> Tensor:
    return luma(photo).mean((1, 2, 3), keepdim=True) < MIDDLE_LUMA


def toward_middle(photo: Tensor, share: Tensor) -> Tensor:
    """Photos with their mean luma moved `share` (N, 1, 1, 1) of the way to 0.48 by a power curve.

    Targets of photo sets are exposed alike: their mean luma lies at 0.42 to 0.5 in each of the evaluation sets. Other
    good photos vary more, and a tone stage trained on them leaves dark photos dark.
    """
    photo = photo.clamp(min=1e-6)
    mean = luma(photo).mean((1, 2, 3), keepdim=True).clamp(0.02, 0.98)
    return rendering.with_mean(photo, mean + share * (MIDDLE_LUMA - mean))


def degraded(photo: Tensor, frames: Sequence[Frame]) -> Tensor:
    """Views as a phone would show them, in uneven light: `degradation.apply` with `tone_only`, for many at once."""
    parameters = [frame.parameters for frame in frames]

    def each(values: Sequence[float]) -> Tensor:
        return photo.new_tensor(values)[:, None, None, None]

    exposure = each([p.exposure for p in parameters])
    headroom = each([p.highlight_headroom for p in parameters])
    light = to_linear(photo)
    bright = ((light.amax(1, keepdim=True) - 0.8) / 0.2).clamp(0, 1)
    light = light * (1 + (torch.exp2(headroom) - 1) * bright * bright)
    gains = photo.new_tensor([p.gain for p in parameters])[:, :, None, None]
    light = light * torch.exp2(exposure + uneven_light.field([frame.light for frame in frames], photo)) * gains
    variance = each([p.shot_noise for p in parameters]) * light + each([p.read_noise for p in parameters]) ** 2
    height, width = photo.shape[-2:]
    noise = views.stack([degradation.averaged_noise(p, (height, width)) for p in parameters]).to(photo)
    x = to_encoded((light + variance.sqrt() * noise).clamp(0, 1)) ** each([p.gamma for p in parameters])
    x = (x - 0.5) * each([p.contrast for p in parameters]) + 0.5
    haze = each([p.haze for p in parameters])
    x = x * (1 - haze) + 0.75 * haze
    gray = luma(x)
    return (gray + (x - gray) * each([p.saturation for p in parameters])).clamp(0, 1)


def to_linear(encoded: Tensor) -> Tensor:
    """sRGB-encoded 0..1 to linear light (IEC 61966-2-1)."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def to_encoded(linear: Tensor) -> Tensor:
    """Linear light 0..1 to sRGB-encoded (IEC 61966-2-1)."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)
