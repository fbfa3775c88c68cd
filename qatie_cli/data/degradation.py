"""The degradation model: turns a clean photo into one that a phone might have taken.

The order is a camera's: exposure, white balance, lens blur and sensor noise in linear light, then the phone's
processing (tone, contrast, haze, saturation, denoise blur, over-sharpening) on sRGB-encoded values, then JPEG. Arrays
are (H, W, 3) float32, sRGB-encoded, 0..1. Sampling the parameters is separate from applying them, so that a crop and
the thumbnail of its photo get the same degradation.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from PIL import Image

from qatie_cli.photo.colour import luma

_HIGHLIGHT_HEADROOM_EV = 0.2  # by which highlights may become brighter and clip sooner
_PIXELS_IN_A_POINT = 10  # of a photo of 1024 pixels that one pixel of its thumbnail averages
_JPEG_BLOCK_PX = 16  # side of a block of 4:2:0
_FINE_PX = 5.0  # standard deviation of the Gaussian that separates fine detail from coarse
SHARES = ("untouched",)  # settings that are one number, not a range
# Earlier names of settings; older weights files record them.
RENAMED = {
    "smear": "degradation.denoise_blur",
    "blotch": "degradation.low_frequency_noise",
    "grain": "degradation.noise_correlation",
    "extreme": "full_frames.extreme",
    "pages": "full_frames.page",
    "middle": "full_frames.middle",
}


@dataclass(frozen=True)
class ParameterRange:
    """One degradation: applied with `probability`, its strength uniform in `low`..`high`."""

    probability: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or self.low > self.high:
            raise ValueError(f"a degradation needs a probability in 0..1 and low <= high, not {self}")

    @staticmethod
    def from_list(name: str, value: object) -> ParameterRange:
        """The range that a TOML file gives for `name`: [probability, low, high].

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise ValueError(f"degradation {name} needs [probability, low, high], not {value!r}")
        return ParameterRange(*map(float, value))

    def to_list(self) -> list[float]:
        """The inverse of `from_list`."""
        return [self.probability, self.low, self.high]

    def sample(self, rng: np.random.Generator, neutral: float) -> float:
        """A value, or `neutral` if the degradation is not applied; consumes the same randomness either way."""
        applied, value = rng.random() < self.probability, rng.uniform(self.low, self.high)
        return float(value) if applied else neutral


@dataclass(frozen=True)
class DegradationConfig:
    """Every degradation with its probability and range; the defaults are those of the shipped weights."""

    untouched: float = 0.08  # share of unchanged crops, so that good photos stay good
    exposure: ParameterRange = ParameterRange(0.6, -1.8, 0.0)  # EV, linear light
    overexposure: ParameterRange = ParameterRange(0.2, 0.0, 3.0)  # EV, linear light; replaces `exposure`
    highlights: ParameterRange = ParameterRange(0.6, 0.0, 3.0)  # EV of white above the photo's own (`_with_highlights`)
    white_balance: ParameterRange = ParameterRange(0.3, 0.87, 1.13)  # gain of red and of blue, linear light
    tint: ParameterRange = ParameterRange(0.2, 0.92, 1.08)  # gain of green, linear light
    blur: ParameterRange = ParameterRange(0.2, 0.3, 0.7)  # standard deviation of a Gaussian, pixels
    shot_noise: ParameterRange = ParameterRange(0.6, 0.0, 0.002)  # variance per unit of linear signal (Poisson part)
    read_noise: ParameterRange = ParameterRange(0.6, 0.0, 0.008)  # standard deviation, linear units (Gaussian part)
    # Demosaicing spreads a pixel's noise over its neighbours: Gaussian, standard deviation in pixels.
    noise_correlation: ParameterRange = ParameterRange(0.85, 0.4, 1.0)
    noise_gray: ParameterRange = ParameterRange(1.0, 0.3, 0.95)  # share of the noise's variance common to all channels
    # Noise reduction leaves blotches of colour: the rest of the variance is that of noise blurred by a wider Gaussian.
    colour_noise_correlation: ParameterRange = ParameterRange(0.7, 1.5, 8.0)
    # Share of the noise's variance at wavelengths of about 8 pixels.
    low_frequency_noise: ParameterRange = ParameterRange(0.5, 0.0, 0.3)
    gamma: ParameterRange = ParameterRange(0.4, 0.8, 1.3)  # exponent
    contrast: ParameterRange = ParameterRange(0.4, 0.6, 1.25)  # slope about mid-gray
    haze: ParameterRange = ParameterRange(0.3, 0.0, 0.12)  # share of veiling gray
    saturation: ParameterRange = ParameterRange(0.5, 0.5, 1.1)  # factor about luma
    denoise_blur: ParameterRange = ParameterRange(0.2, 0.3, 0.7)  # detail lost to noise reduction: Gaussian, pixels
    sharpen: ParameterRange = ParameterRange(0.3, 0.2, 1.0)  # amount of an unsharp mask of 1 pixel
    jpeg: ParameterRange = ParameterRange(0.75, 32, 95)  # quality, 4:2:0 below 90
    jpeg_before: ParameterRange = ParameterRange(0.25, 35, 95)  # quality of an earlier JPEG, as messengers leave it
    # Of the network's targets: the amplitude limit of fine detail (`faint`), a Gaussian's standard deviation in pixels
    # (photos at full size are soft, and what is sharp in them is noise), the standard deviation of a drawn surface.
    faint: ParameterRange = ParameterRange(0.25, 0.01, 0.04)
    softness: ParameterRange = ParameterRange(0.4, 0.4, 1.0)
    surface: ParameterRange = ParameterRange(0.25, 0.006, 0.025)

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"the degradation's {name} must lie in 0..1, not {getattr(self, name)}")

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> DegradationConfig:
        """The config from its TOML table: `name = [probability, low, high]`, or `name = share` for those of `SHARES`.

        Raises:
            ValueError: an unknown or renamed setting, or a value that is no range.
        """
        known = {f.name for f in fields(DegradationConfig)}
        for old in sorted(set(table) & set(RENAMED)):
            raise ValueError(f"the setting degradation.{old} is now called {RENAMED[old]}")
        if unknown := sorted(set(table) - known):
            raise ValueError(f"unknown degradation {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        shares = {name: float(value) for name, value in table.items() if name in SHARES}
        ranges = {n: ParameterRange.from_list(n, value) for n, value in table.items() if n not in SHARES}
        return dataclasses.replace(DegradationConfig(), **shares, **ranges)  # type: ignore[arg-type]

    def to_table(self) -> dict[str, object]:
        """The inverse of `from_table`."""
        ranges = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in SHARES}
        shares = {name: getattr(self, name) for name in SHARES}
        return shares | {name: r.to_list() for name, r in ranges.items()}


@dataclass(frozen=True)
class DegradationParameters:
    """The degradation of one photo; the defaults leave it as it is."""

    exposure: float = 0.0
    highlights: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    shot_noise: float = 0.0
    read_noise: float = 0.0
    noise_correlation: float = 0.0
    noise_gray: float = 0.0
    colour_noise_correlation: float = 0.0
    low_frequency_noise: float = 0.0
    gamma: float = 1.0
    contrast: float = 1.0
    haze: float = 0.0
    saturation: float = 1.0
    denoise_blur: float = 0.0
    sharpen: float = 0.0
    jpeg: int | None = None
    jpeg_before: int | None = None
    noise_seed: int = field(default=0, compare=False)

    @property
    def highlight_headroom(self) -> float:
        """EV by which the scene's highlights are brighter than the photo's white."""
        return max(0.0, min(self.highlights, _HIGHLIGHT_HEADROOM_EV - self.exposure))


UNTOUCHED = DegradationParameters()


def sample(config: DegradationConfig, rng: np.random.Generator) -> DegradationParameters:
    """One photo's parameters; always consumes the same number of random values."""
    untouched = rng.random() < config.untouched
    red, blue = config.white_balance.sample(rng, 1.0), config.white_balance.sample(rng, 1.0)
    tint = config.tint.sample(rng, 1.0)
    exposure, over = config.exposure.sample(rng, 0.0), config.overexposure.sample(rng, 0.0)
    jpeg = config.jpeg.sample(rng, 0.0)
    parameters = DegradationParameters(
        exposure=over or exposure,
        gain=(red, tint, blue),
        blur=config.blur.sample(rng, 0.0),
        shot_noise=config.shot_noise.sample(rng, 0.0),
        read_noise=config.read_noise.sample(rng, 0.0),
        noise_correlation=config.noise_correlation.sample(rng, 0.0),
        noise_gray=config.noise_gray.sample(rng, 0.0),
        low_frequency_noise=config.low_frequency_noise.sample(rng, 0.0),
        gamma=config.gamma.sample(rng, 1.0),
        contrast=config.contrast.sample(rng, 1.0),
        haze=config.haze.sample(rng, 0.0),
        saturation=config.saturation.sample(rng, 1.0),
        denoise_blur=config.denoise_blur.sample(rng, 0.0),
        sharpen=config.sharpen.sample(rng, 0.0),
        jpeg=round(jpeg) or None,
        noise_seed=int(rng.integers(2**32)),
        highlights=config.highlights.sample(rng, 0.0),
        # Sampled only if a recipe uses them: the random sequences of older recipes do not contain them.
        colour_noise_correlation=_if_asked(config.colour_noise_correlation, rng),
        jpeg_before=round(_if_asked(config.jpeg_before, rng)) or None,
    )
    return UNTOUCHED if untouched else parameters


def _if_asked(setting: ParameterRange, rng: np.random.Generator) -> float:
    """A value of a setting; at probability 0 it consumes no randomness."""
    return setting.sample(rng, 0.0) if setting.probability else 0.0


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """sRGB-encoded 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to sRGB-encoded (IEC 61966-2-1)."""
    linear = np.maximum(linear, 0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _with_highlights(linear: np.ndarray, ev: float) -> np.ndarray:
    """Linear light with white raised by `ev`, fading out at 0.8: restores the highlights lost to clipping.

    Lamps and skies stay white in underexposed photos. Without this, darkened photos contain no white, and the tone
    stage takes dark photos with a lamp for well exposed ones. With `ev` just above the exposure's loss, highlights keep
    their brightness.
    """
    if ev <= 0:
        return linear
    brightest = np.maximum(np.maximum(linear[..., :1], linear[..., 1:2]), linear[..., 2:])
    share = np.clip((brightest - 0.8) / 0.2, 0, 1)
    return linear * (1 + np.float32(2.0**ev - 1) * share * share)


def faint(photo: np.ndarray, most: float) -> np.ndarray:
    """An encoded photo (H, W, 3) in 0..1 with its fine detail limited to an amplitude of `most`; unchanged for 0.

    Plaster, leaves and asphalt are as faint and fine as noise. A network that sees faint detail only in noisy photos
    takes it for noise; seeing both, it learns their structure.
    """
    if not most:
        return photo
    coarse = gaussian_blur(photo, _FINE_PX)
    return coarse + np.float32(most) * np.tanh((photo - coarse) / np.float32(most))


def gaussian_blur(photo: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of standard deviation `sigma` pixels, edges mirrored."""
    taps = gaussian_taps(sigma)
    radius = len(taps) // 2
    for axis in (0, 1):
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(photo, margin, mode="symmetric")
        size = photo.shape[axis]
        shifted = (padded[i : i + size] if axis == 0 else padded[:, i : i + size] for i in range(len(taps)))
        photo = sum(t * moved for t, moved in zip(taps, shifted, strict=True))
    return photo


def unit_noise(parameters: DegradationParameters, shape: tuple[int, int]) -> np.ndarray:
    """Noise (H, W, 3) of variance 1, correlated between neighbours and channels as in developed photos.

    Demosaicing and noise reduction spread a pixel's noise. In the real noise of the PolyU photos neighbours correlate
    at 0.65, pixels two and four apart at 0.38 and 0.26, channels at 0.65 to 0.70. White noise has none, and a network
    trained on it takes real noise for texture. Its chroma correlates farther: at 0.92 between neighbours, at 0.40 eight
    pixels apart. `colour_noise_correlation` adds such blotches, of chroma only, to finer noise of luma.
    """
    rng = np.random.default_rng(parameters.noise_seed)
    fine, wide, gray = parameters.noise_correlation, parameters.colour_noise_correlation, parameters.noise_gray
    if wide:
        common = _correlated(rng.standard_normal((*shape, 1), np.float32), fine)
        blotches = _correlated(rng.standard_normal((*shape, 3), np.float32), wide)
        colours = blotches - luma(blotches)  # developing smooths chroma and leaves the finer noise of luma
        noise = np.float32(gray**0.5) * common + np.float32((1 - gray) ** 0.5) * colours
    else:
        noise = _correlated(_white(rng, shape, gray), fine)
    if parameters.low_frequency_noise:
        coarse = _white(rng, (-(-shape[0] // 2), -(-shape[1] // 2)), parameters.noise_gray)
        coarse = _correlated(coarse, 1.5).repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
        share = parameters.low_frequency_noise
        noise = np.float32((1 - share) ** 0.5) * noise + np.float32(share**0.5) * coarse
    return noise


def averaged_noise(parameters: DegradationParameters, shape: tuple[int, int]) -> np.ndarray:
    """`unit_noise` as it appears in a thumbnail, whose pixels are means of several."""
    noise = _white(np.random.default_rng(parameters.noise_seed), shape, parameters.noise_gray)
    return noise * np.float32(_PIXELS_IN_A_POINT**-0.5)


def _white(rng: np.random.Generator, shape: tuple[int, int], gray: float) -> np.ndarray:
    noise = rng.standard_normal((*shape, 3), np.float32)
    if gray:
        common = rng.standard_normal((*shape, 1), np.float32)
        noise = np.float32((1 - gray) ** 0.5) * noise + np.float32(gray**0.5) * common
    return noise


def _correlated(noise: np.ndarray, sigma: float) -> np.ndarray:
    """White noise blurred by a Gaussian of `sigma` pixels and scaled back to its variance; unchanged for 0."""
    if not sigma:
        return noise
    return gaussian_blur(noise, sigma) / np.float32((gaussian_taps(sigma) ** 2).sum())


def gaussian_taps(sigma: float) -> np.ndarray:
    """Taps of a Gaussian of `sigma` pixels, sum 1."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    return taps / taps.sum()


def jpeg_round_trip(photo: np.ndarray, quality: int) -> np.ndarray:
    """A photo compressed as JPEG at `quality` and decoded, with 4:2:0 chroma below 90 as phones do."""
    buffer = io.BytesIO()
    Image.fromarray(to_u8(photo)).save(buffer, "JPEG", quality=quality, subsampling=2 if quality < 90 else 0)
    return from_u8(np.asarray(Image.open(buffer)))


def _compressed_before(photo: np.ndarray, parameters: DegradationParameters) -> np.ndarray:
    """The photo after an earlier JPEG compression; half of such photos were cropped since, which shifts its blocks."""
    if not parameters.jpeg_before:
        return photo
    rng = np.random.default_rng([parameters.noise_seed, 1])
    down, right = rng.integers(_JPEG_BLOCK_PX, size=2) if rng.random() < 0.5 else (0, 0)
    whole = np.pad(photo, ((down, 0), (right, 0), (0, 0)), mode="symmetric")
    return jpeg_round_trip(whole, parameters.jpeg_before)[down:, right:]


def to_u8(photo: np.ndarray) -> np.ndarray:
    """0..1 to rounded 0..255."""
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)


def from_u8(photo: np.ndarray) -> np.ndarray:
    """0..255 to 0..1 float32."""
    return photo.astype(np.float32) / 255


def without_noise(parameters: DegradationParameters) -> DegradationParameters:
    """The same parameters without noise."""
    return dataclasses.replace(parameters, shot_noise=0.0, read_noise=0.0)


def apply(parameters: DegradationParameters, clean: np.ndarray, *, tone_only: bool = False) -> np.ndarray:
    """The degraded photo, (H, W, 3) float32 in 0..1, values as an 8-bit file would hold them.

    `tone_only` omits what a thumbnail does not show: blur, sharpening, JPEG and most of the noise.
    """
    if parameters == UNTOUCHED:
        return clean
    light = _with_highlights(to_linear(clean), parameters.highlight_headroom)
    x = light * (np.float32(2.0**parameters.exposure) * np.array(parameters.gain, np.float32))
    if parameters.blur and not tone_only:
        x = gaussian_blur(x, parameters.blur)
    if parameters.shot_noise or parameters.read_noise:
        variance = parameters.shot_noise * np.maximum(x, 0) + parameters.read_noise**2
        noise = averaged_noise(parameters, x.shape[:2]) if tone_only else unit_noise(parameters, x.shape[:2])
        x = x + np.sqrt(variance, dtype=np.float32) * noise
    x = to_encoded(np.clip(x, 0, 1))
    if parameters.gamma != 1:
        x = x ** np.float32(parameters.gamma)
    x = (x - 0.5) * np.float32(parameters.contrast) + 0.5
    x = x * np.float32(1 - parameters.haze) + np.float32(0.75 * parameters.haze)
    gray = luma(x)
    x = np.clip(gray + (x - gray) * np.float32(parameters.saturation), 0, 1)
    if tone_only:
        return x
    if parameters.denoise_blur:
        x = gaussian_blur(x, parameters.denoise_blur)
    if parameters.sharpen:
        x = x + np.float32(parameters.sharpen) * (x - gaussian_blur(x, 1.0))
    x = _compressed_before(x, parameters)
    return jpeg_round_trip(x, parameters.jpeg) if parameters.jpeg else from_u8(to_u8(x))
