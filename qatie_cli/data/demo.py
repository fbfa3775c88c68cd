"""The demo: scikit-image's photos, degraded like a phone's and enhanced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import installation, metrics
from qatie_cli.data import degradation
from qatie_cli.data.degradation import DegradationParameters
from qatie_cli.errors import QatieError
from qatie_cli.photo import decoding, encoding, sheets
from qatie_cli.photo.content import JpegTraits, Photo

# Phone-like degradations of each photo, by its name in skimage.data.
DEGRADATIONS = {
    "astronaut": DegradationParameters(
        exposure=-1.4, read_noise=0.002, shot_noise=0.0006, saturation=0.85, jpeg=85, noise_seed=1
    ),
    "chelsea": DegradationParameters(
        exposure=-0.5, gain=(1.12, 1.0, 0.85), contrast=0.75, saturation=0.8, jpeg=80, noise_seed=2
    ),
    "coffee": DegradationParameters(gain=(0.88, 1.0, 1.12), haze=0.12, contrast=0.8, blur=0.6, jpeg=85, noise_seed=3),
    "rocket": DegradationParameters(exposure=0.4, haze=0.1, contrast=0.7, saturation=0.7, jpeg=75, noise_seed=4),
    "motorcycle": DegradationParameters(
        exposure=-0.9, contrast=0.7, read_noise=0.004, saturation=0.6, blur=0.5, jpeg=80, noise_seed=5
    ),
}
_PHONE_JPEG = JpegTraits(subsampling=2, quantization=(), progressive=False)


@dataclass(frozen=True)
class DemoResult:
    """One photo of the demo: its before/after picture, and PSNR in dB to the original before and after."""

    name: str
    picture: Path
    before_db: float
    after_db: float


def originals() -> dict[str, np.ndarray]:
    """The photos by name, (H, W, 3) uint8.

    Raises:
        QatieError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise QatieError("The demo needs scikit-image's photos.", f"Run: {installation.extra('demo')}") from None
    found = {name: getattr(data, name)() for name in DEGRADATIONS if name != "motorcycle"}
    return found | {"motorcycle": data.stereo_motorcycle()[0]}


def make(out: Path, enhance: Callable[[Photo], Photo]) -> list[DemoResult]:
    """Write OUT/phone, OUT/enhanced and OUT/before-after for every photo.

    Raises:
        QatieError: scikit-image is not installed.
        OSError: OUT cannot be written.
    """
    results: list[DemoResult] = []
    for folder in ("phone", "enhanced", "before-after"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for name, original in originals().items():
        taken, better = out / "phone" / f"{name}.jpg", out / "enhanced" / f"{name}.jpg"
        degraded = degradation.apply(DEGRADATIONS[name], degradation.from_u8(original))
        encoding.write(taken, Photo(degradation.to_u8(degraded), "jpeg", jpeg=_PHONE_JPEG), "jpeg", quality=95)
        before = decoding.read(taken)
        after = enhance(before)
        encoding.write(better, after, "jpeg")
        picture = out / "before-after" / f"{name}.png"
        columns = {"phone": before.rgb_u8(), "qatie": after.rgb_u8(), "original": original}
        encoding.write(picture, Photo(sheets.side_by_side(columns), "png"), "png")
        results.append(
            DemoResult(name, picture, metrics.psnr(before.rgb_u8(), original), metrics.psnr(after.rgb_u8(), original))
        )
    return results
