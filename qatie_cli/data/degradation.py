"""The degradation model: a clean photo becomes one that a phone might have taken.

Order as in a camera: exposure, white balance, lens blur and sensor noise in linear light, then the phone's processing
(tone, contrast, haze, saturation, noise smearing, over-sharpening) on sRGB-encoded values, JPEG at the end. Arrays are
(H, W, 3) float32, sRGB-encoded, 0..1. What is drawn (`Draw`) is separate from applying it, so that a crop and the
thumbnail of its whole photo are degraded alike.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field, fields

import numpy as np
from PIL import Image

from qatie_cli.photo.colour import luma

MIDDLE_LUMA = 0.48
_WHITER_EV = 0.2  # by which highlights may be brighter than they were: they clip a little sooner
_PIXELS_IN_A_POINT = 10  # of a photo of 1024 pixels that are averaged to one of a thumbnail's
_FINE_PX = 5.0  # detail is fine that a Gaussian of this standard deviation takes away
SHARES = ("untouched", "extreme", "pages", "middle")  # what of a recipe is one number


@dataclass(frozen=True)
class Knob:
    """One degradation: it happens with `probability` and is drawn evenly from `low`..`high`."""

    probability: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or self.low > self.high:
            raise ValueError(f"a degradation needs a probability in 0..1 and low <= high, not {self}")

    def draw(self, rng: np.random.Generator, neutral: float) -> float:
        """A value, or `neutral` when the degradation does not happen. Consumes the same randomness either way."""
        happens, value = rng.random() < self.probability, rng.uniform(self.low, self.high)
        return float(value) if happens else neutral


@dataclass(frozen=True)
class Recipe:
    """Every degradation with its probability and range; the defaults are those of the shipped weights."""

    untouched: float = 0.175  # share of pairs left as they are: a good photo stays a good photo
    extreme: float = 0.25  # the tone stage: share of the untouched that are photos too dark, bright or flat for targets
    pages: float = 0.16  # the tone stage: share of the untouched that are drawn pages (`pairs.pages`)
    middle: float = 0.5  # the tone stage: how far the targets of the others are brought to 0.48 (`toward_middle`)
    exposure: Knob = Knob(0.8, -2.1, 0.0)  # EV, linear light
    overexposure: Knob = Knob(0.13, 0.0, 1.8)  # EV, linear light; takes the place of `exposure`
    highlights: Knob = Knob(0.6, 0.0, 3.0)  # EV by which white is brighter than the photo shows (`_with_highlights`)
    white_balance: Knob = Knob(0.6, 0.87, 1.13)  # gain of red and of blue, linear light
    tint: Knob = Knob(0.4, 0.92, 1.08)  # gain of green, linear light
    blur: Knob = Knob(0.4, 0.3, 0.9)  # standard deviation of a Gaussian, pixels
    shot_noise: Knob = Knob(0.8, 0.0, 0.0035)  # variance per unit of linear signal (Poisson part)
    read_noise: Knob = Knob(0.8, 0.0, 0.012)  # standard deviation, linear units (Gaussian part)
    grain: Knob = Knob(0.6, 0.4, 1.1)  # what demosaicing makes of a noisy pixel: Gaussian, standard deviation in pixels
    noise_gray: Knob = Knob(0.6, 0.2, 0.9)  # share of the noise's variance that is common to all channels
    blotch: Knob = Knob(0.55, 0.0, 0.6)  # share of the noise's variance in blotches of about 8 pixels
    gamma: Knob = Knob(0.5, 0.8, 1.4)  # exponent
    contrast: Knob = Knob(0.5, 0.55, 1.25)  # slope about mid-gray
    haze: Knob = Knob(0.5, 0.0, 0.12)  # share of veiling gray
    saturation: Knob = Knob(0.5, 0.5, 1.1)  # factor about luma
    smear: Knob = Knob(0.25, 0.3, 0.7)  # noise reduction that also smears detail: Gaussian, pixels
    sharpen: Knob = Knob(0.35, 0.2, 1.0)  # amount of an unsharp mask of 1 pixel
    jpeg: Knob = Knob(0.75, 55, 95)  # quality, 4:2:0 below 90
    faint: Knob = Knob(0.35, 0.01, 0.04)  # the network's targets: most that fine detail stands out (`faint`), 0..1
    surface: Knob = Knob(0.35, 0.006, 0.025)  # the network's targets: standard deviation of a drawn surface on them

    def __post_init__(self) -> None:
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"the degradation's {name} must lie in 0..1, not {getattr(self, name)}")
        if self.extreme + self.pages > 1:
            raise ValueError("the degradation's extreme and pages are more than 1 together")


@dataclass(frozen=True)
class Draw:
    """What happens to one photo; the defaults leave it as it is."""

    exposure: float = 0.0
    highlights: float = 0.0
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0
    shot_noise: float = 0.0
    read_noise: float = 0.0
    grain: float = 0.0
    noise_gray: float = 0.0
    blotch: float = 0.0
    gamma: float = 1.0
    contrast: float = 1.0
    haze: float = 0.0
    saturation: float = 1.0
    smear: float = 0.0
    sharpen: float = 0.0
    jpeg: int | None = None
    noise_seed: int = field(default=0, compare=False)


UNTOUCHED = Draw()


def draw(recipe: Recipe, rng: np.random.Generator) -> Draw:
    """One photo's degradation. The same number of random values is consumed whatever is drawn."""
    untouched = rng.random() < recipe.untouched
    red, blue = recipe.white_balance.draw(rng, 1.0), recipe.white_balance.draw(rng, 1.0)
    tint = recipe.tint.draw(rng, 1.0)
    exposure, over = recipe.exposure.draw(rng, 0.0), recipe.overexposure.draw(rng, 0.0)
    jpeg = recipe.jpeg.draw(rng, 0.0)
    drawn = Draw(
        exposure=over or exposure,
        gain=(red, tint, blue),
        blur=recipe.blur.draw(rng, 0.0),
        shot_noise=recipe.shot_noise.draw(rng, 0.0),
        read_noise=recipe.read_noise.draw(rng, 0.0),
        grain=recipe.grain.draw(rng, 0.0),
        noise_gray=recipe.noise_gray.draw(rng, 0.0),
        blotch=recipe.blotch.draw(rng, 0.0),
        gamma=recipe.gamma.draw(rng, 1.0),
        contrast=recipe.contrast.draw(rng, 1.0),
        haze=recipe.haze.draw(rng, 0.0),
        saturation=recipe.saturation.draw(rng, 1.0),
        smear=recipe.smear.draw(rng, 0.0),
        sharpen=recipe.sharpen.draw(rng, 0.0),
        jpeg=round(jpeg) or None,
        noise_seed=int(rng.integers(2**32)),
        highlights=recipe.highlights.draw(rng, 0.0),
    )
    return UNTOUCHED if untouched else drawn


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """sRGB-encoded 0..1 to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light 0..1 to sRGB-encoded (IEC 61966-2-1)."""
    linear = np.maximum(linear, 0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _with_highlights(linear: np.ndarray, ev: float) -> np.ndarray:
    """Linear light whose white is brighter by `ev`, falling to nothing at 0.8: what the scene had and no photo.

    A lamp or a sky stays white in a photo that is too dark. Photos darkened as they are have no white left, and who has
    seen none but those takes a dark photo with a lamp in it for a good one. With little more `ev` than the exposure
    takes away, little is whiter than it was.
    """
    if ev <= 0:
        return linear
    share = np.clip((linear.max(axis=2, keepdims=True) - 0.8) / 0.2, 0, 1)
    return linear * (1 + np.float32(2.0**ev - 1) * share * share)


def toward_middle(photo: np.ndarray, share: float) -> np.ndarray:
    """An encoded photo (H, W, 3) in 0..1 whose mean luma is brought nearer to 0.48, by `share` of the way, by a power.

    References of photo sets are exposed alike: their mean luma lies at 0.42 to 0.5 in each of the evaluation sets. Good
    photos at large vary more, and a tone stage that learns from them leaves a dark photo dark.
    """
    mean = float(luma(photo).mean())
    if not share or not 0.02 < mean < 0.98:
        return photo
    wanted, power = mean + share * (MIDDLE_LUMA - mean), 1.0
    for _ in range(2):  # the mean of powers is not the power of the mean: twice comes near enough
        power *= math.log(wanted) / math.log(float(luma(photo**power).mean()))
    return (photo**power).astype(np.float32)


def faint(photo: np.ndarray, most: float) -> np.ndarray:
    """An encoded photo (H, W, 3) in 0..1 whose fine detail stands out by `most` at the most; as it is where that is 0.

    Plaster, leaves and asphalt are as faint as noise and as fine. A network that has seen faint detail in none but
    noisy photos takes such for noise; one that has seen both must tell them by what they look like.
    """
    if not most:
        return photo
    coarse = gaussian_blur(photo, _FINE_PX)
    return coarse + np.float32(most) * np.tanh((photo - coarse) / np.float32(most))


def gaussian_blur(photo: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of standard deviation `sigma` pixels, edges mirrored."""
    taps = _gaussian(sigma)
    radius = len(taps) // 2
    for axis in (0, 1):
        margin = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(photo, margin, mode="symmetric")
        size = photo.shape[axis]
        photo = sum(t * np.take(padded, range(i, i + size), axis=axis) for i, t in enumerate(taps))
    return photo


def unit_noise(drawn: Draw, shape: tuple[int, int]) -> np.ndarray:
    """Noise (H, W, 3) of variance 1, correlated between neighbours and channels as in developed photos.

    Demosaicing and noise reduction spread a pixel's noise. In the real noise of the PolyU photos neighbours correlate
    at 0.65, pixels two and four apart at 0.38 and 0.26, channels at 0.65 to 0.70; white noise has 0 everywhere, and a
    network that has learnt white noise takes real noise for texture.
    """
    rng = np.random.default_rng(drawn.noise_seed)
    noise = _white(rng, shape, drawn.noise_gray)
    if drawn.grain:
        noise = _coarsened(noise, drawn.grain)
    if drawn.blotch:
        coarse = _white(rng, (-(-shape[0] // 2), -(-shape[1] // 2)), drawn.noise_gray)
        coarse = _coarsened(coarse, 1.5).repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
        noise = np.float32((1 - drawn.blotch) ** 0.5) * noise + np.float32(drawn.blotch**0.5) * coarse
    return noise


def _averaged_noise(drawn: Draw, shape: tuple[int, int]) -> np.ndarray:
    """What is left of `unit_noise` in a thumbnail, each of whose pixels is the mean of several of a photo."""
    noise = _white(np.random.default_rng(drawn.noise_seed), shape, drawn.noise_gray)
    return noise * np.float32(_PIXELS_IN_A_POINT**-0.5)


def _white(rng: np.random.Generator, shape: tuple[int, int], gray: float) -> np.ndarray:
    noise = rng.standard_normal((*shape, 3), np.float32)
    if gray:
        common = rng.standard_normal((*shape, 1), np.float32)
        noise = np.float32((1 - gray) ** 0.5) * noise + np.float32(gray**0.5) * common
    return noise


def _coarsened(noise: np.ndarray, sigma: float) -> np.ndarray:
    """White noise through a Gaussian of `sigma` pixels, brought back to its variance."""
    return gaussian_blur(noise, sigma) / np.float32((_gaussian(sigma) ** 2).sum())


def _gaussian(sigma: float) -> np.ndarray:
    """Taps of a Gaussian of `sigma` pixels, sum 1."""
    radius = max(1, round(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    return taps / taps.sum()


def jpeg_round_trip(photo: np.ndarray, quality: int) -> np.ndarray:
    """What is left of a photo after JPEG at `quality`, with 4:2:0 chroma below 90 as phones do."""
    buffer = io.BytesIO()
    Image.fromarray(to_u8(photo)).save(buffer, "JPEG", quality=quality, subsampling=2 if quality < 90 else 0)
    return from_u8(np.asarray(Image.open(buffer)))


def to_u8(photo: np.ndarray) -> np.ndarray:
    """0..1 to rounded 0..255."""
    return (np.clip(photo, 0, 1) * 255 + 0.5).astype(np.uint8)


def from_u8(photo: np.ndarray) -> np.ndarray:
    """0..255 to 0..1 float32."""
    return photo.astype(np.float32) / 255


def apply(drawn: Draw, clean: np.ndarray, *, tone_only: bool = False) -> np.ndarray:
    """The degraded photo, (H, W, 3) float32 in 0..1, values as an 8-bit file would hold them.

    `tone_only` leaves out what a thumbnail of the whole photo does not show: blur, sharpening, JPEG, most of the noise.
    """
    if drawn == UNTOUCHED:
        return clean
    light = _with_highlights(to_linear(clean), min(drawn.highlights, _WHITER_EV - drawn.exposure))
    x = light * (np.float32(2.0**drawn.exposure) * np.array(drawn.gain, np.float32))
    if drawn.blur and not tone_only:
        x = gaussian_blur(x, drawn.blur)
    if drawn.shot_noise or drawn.read_noise:
        variance = drawn.shot_noise * np.maximum(x, 0) + drawn.read_noise**2
        noise = _averaged_noise(drawn, x.shape[:2]) if tone_only else unit_noise(drawn, x.shape[:2])
        x = x + np.sqrt(variance, dtype=np.float32) * noise
    x = to_encoded(np.clip(x, 0, 1))
    if drawn.gamma != 1:
        x = x ** np.float32(drawn.gamma)
    x = (x - 0.5) * np.float32(drawn.contrast) + 0.5
    x = x * np.float32(1 - drawn.haze) + np.float32(0.75 * drawn.haze)
    gray = luma(x)
    x = np.clip(gray + (x - gray) * np.float32(drawn.saturation), 0, 1)
    if tone_only:
        return x
    if drawn.smear:
        x = gaussian_blur(x, drawn.smear)
    if drawn.sharpen:
        x = x + np.float32(drawn.sharpen) * (x - gaussian_blur(x, 1.0))
    return jpeg_round_trip(x, drawn.jpeg) if drawn.jpeg else from_u8(to_u8(x))


def recipe_from_table(table: dict) -> Recipe:
    """A recipe from its TOML table: `name = [probability, low, high]`, and those of `SHARES` = share.

    Raises:
        ValueError: a name that is no degradation, or a value that is none of a range.
    """
    known = {f.name for f in fields(Recipe)}
    if unknown := sorted(set(table) - known):
        raise ValueError(f"unknown degradation {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    values = {}
    for name, value in table.items():
        if name in SHARES:
            values[name] = float(value)
        elif isinstance(value, (list, tuple)) and len(value) == 3:
            values[name] = Knob(*map(float, value))
        else:
            raise ValueError(f"degradation {name} needs [probability, low, high], not {value!r}")
    return Recipe(**values)


def recipe_to_table(recipe: Recipe) -> dict:
    """The inverse of `recipe_from_table`."""
    knobs = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in SHARES}
    shares = {name: getattr(recipe, name) for name in SHARES}
    return shares | {name: [k.probability, k.low, k.high] for name, k in knobs.items()}
