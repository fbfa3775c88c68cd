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
    """One photo of the demo: its before/after picture, and how near the phone's and qatie's come to the original.

    Attributes:
        before_db, after_db: PSNR to the original, the phone's and qatie's.
        before_aligned_db, after_aligned_db: the same with their tone fitted to it (`metrics.tone_aligned`).
        levels: mean values of original, phone's and qatie's, 0..1.
    """

    name: str
    picture: Path
    before_db: float
    after_db: float
    before_aligned_db: float
    after_aligned_db: float
    levels: tuple[float, float, float]

    @property
    def remark(self) -> str:
        """What went wrong, in figures; empty where qatie's is nearer to the original."""
        if self.after_db >= self.before_db:
            return ""
        there, phone, ours = (f"{level:.0%}" for level in self.levels)
        beyond_tone = self.before_aligned_db - self.after_aligned_db
        mostly = "mostly tone" if beyond_tone < (self.before_db - self.after_db) / 2 else "not tone alone"
        return (
            f"{self.name} got worse, {self.before_db:.1f} to {self.after_db:.1f} dB. Its mean level is {there} in the "
            f"original, {phone} on the phone, {ours} in qatie's. With tones fitted to the original: "
            f"{self.before_aligned_db:.1f} to {self.after_aligned_db:.1f} dB, so it is {mostly}."
        )


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
        phone, ours = before.rgb_u8(), after.rgb_u8()
        columns = {"phone": phone, "qatie": ours, "original": original}
        encoding.write(picture, Photo(sheets.side_by_side(columns), "png"), "png")
        results.append(compared(name, picture, original, phone, ours))
    return results


def compared(name: str, picture: Path, original: np.ndarray, phone: np.ndarray, ours: np.ndarray) -> DemoResult:
    """Figures of three pictures, (H, W, 3) uint8."""
    fitted = [np.clip(np.rint(metrics.tone_aligned(shown, original)), 0, 255) for shown in (phone, ours)]
    before, after, before_aligned, after_aligned = (metrics.psnr(p, original) for p in (phone, ours, *fitted))
    original_level, phone_level, our_level = (float(shown.mean()) / 255 for shown in (original, phone, ours))
    levels = original_level, phone_level, our_level
    return DemoResult(name, picture, before, after, before_aligned, after_aligned, levels)
