"""HDR pictures (PQ, HLG) converted to SDR and back.

Tone mapping keeps what SDR can show and compresses only highlights. It is invertible, so that a change of the SDR
picture becomes a change of the HDR picture, which keeps its range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli.photo import spaces
from qatie_cli.photo.spaces import Space

WHITE_NITS = 203.0  # of paper in an HDR picture (ITU-R BT.2408, 2.2)
_KNEE_NITS = 100.0  # tones up to here are unchanged
_PQ_NITS, _HLG_NITS, _HLG_GAMMA = 10_000.0, 1_000.0, 1.2
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # SMPTE ST 2084
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073  # of HLG (ITU-R BT.2100, table 5)
_HLG_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_PEAK_PERCENTILE = 99.9  # brighter pixels are sparks, clipped only in what the network sees
_LEAST = 1e-6


@dataclass(frozen=True)
class HdrColours:
    """The conversion between an HDR space and sRGB.

    Args:
        space: with a curve of "pq" or "hlg".
        peak: nits of the picture's highlights, which become sRGB's white.
    """

    space: Space
    peak: float

    def to_srgb(self, part: np.ndarray) -> np.ndarray:
        """(..., 3) uint8 or uint16 in this space to the same type in sRGB, tone mapped and clipped to its gamut."""
        light = to_nits(part, self.space)
        highest = np.maximum(light.max(axis=-1, keepdims=True), _LEAST)
        light *= self._mapped(highest) / highest
        linear = light @ between(self.space, spaces.of_codes(1, 13)).T / np.float32(WHITE_NITS)
        return _as(srgb_encoded(np.clip(linear, 0, 1)), part.dtype)

    def from_srgb(self, part: np.ndarray) -> np.ndarray:
        """(..., 3) uint8 or uint16 in sRGB to the same type in this space, the tone mapping undone."""
        linear = _srgb_decoded(_floats(part)) @ between(spaces.of_codes(1, 13), self.space).T
        light = np.maximum(linear, 0) * np.float32(WHITE_NITS)
        highest = np.maximum(light.max(axis=-1, keepdims=True), _LEAST)
        light *= self._unmapped(np.minimum(highest, WHITE_NITS)) / highest
        return _as(of_nits(light, self.space), part.dtype)

    def _mapped(self, nits: np.ndarray) -> np.ndarray:
        """Nits of the HDR picture to nits of the SDR one, at most `WHITE_NITS`: a shoulder in PQ's steps."""
        knee, white, peak = (
            float(_pq(np.float32(value))) for value in (_KNEE_NITS, WHITE_NITS, max(self.peak, WHITE_NITS))
        )
        if peak <= white:
            return np.minimum(nits, np.float32(WHITE_NITS))
        bend = _bend(knee, white, peak)
        code = _pq(nits)
        t = np.clip((code - knee) / (peak - knee), 0, 1)
        return np.where(code <= knee, nits, _pq_nits(knee + (white - knee) * (t * (1 + bend) / (t + bend))))

    def _unmapped(self, nits: np.ndarray) -> np.ndarray:
        knee, white, peak = (
            float(_pq(np.float32(value))) for value in (_KNEE_NITS, WHITE_NITS, max(self.peak, WHITE_NITS))
        )
        if peak <= white:
            return nits
        bend = _bend(knee, white, peak)
        code = _pq(nits)
        s = np.clip((code - knee) / (white - knee), 0, 1)
        return np.where(code <= knee, nits, _pq_nits(knee + (peak - knee) * (s * bend / (1 + bend - s))))


def _bend(knee: float, white: float, peak: float) -> float:
    """The shoulder t (1 + c) / (t + c) has slope 1 at the knee for this c, and ends with a slope that can be undone."""
    ratio = (white - knee) / (peak - knee)
    return ratio / (1 - ratio)


def peak_of(pixels: np.ndarray, space: Space) -> float:
    """Nits of the highlights of a picture (H, W, 1 or 3), at least white."""
    step = max(1, int(np.sqrt(pixels.shape[0] * pixels.shape[1] / 1e6)))
    seen = pixels[::step, ::step]
    seen = seen if seen.shape[2] == 3 else np.repeat(seen, 3, axis=2)
    brightest = to_nits(seen, space).max(axis=-1)
    return float(np.clip(np.percentile(brightest, _PEAK_PERCENTILE), WHITE_NITS, _PQ_NITS))


def to_nits(part: np.ndarray, space: Space) -> np.ndarray:
    """(..., 3) uint8 or uint16 in an HDR space to the light of a screen, float32 in nits, in the space's primaries."""
    values = _floats(part)
    if space.curve == "pq":
        return _pq_nits(values)
    scene = np.where(values <= 0.5, values * values / 3, (np.exp((values - np.float32(_C)) / np.float32(_A)) + _B) / 12)
    scene = scene.astype(np.float32)
    luma = np.maximum(scene @ _HLG_LUMA, _LEAST)[..., None]
    return scene * luma ** np.float32(_HLG_GAMMA - 1) * np.float32(_HLG_NITS)


def of_nits(light: np.ndarray, space: Space) -> np.ndarray:
    """(..., 3) float32 in nits to values of an HDR space in 0..1, float32; else as `to_nits`."""
    if space.curve == "pq":
        return _pq(light)
    relative = light / np.float32(_HLG_NITS)
    luma = np.maximum(relative @ _HLG_LUMA, _LEAST)[..., None]
    scene = np.clip(relative * luma ** np.float32(1 / _HLG_GAMMA - 1), 0, 1)
    logarithmic = _A * np.log(np.maximum(12 * scene - _B, _LEAST)) + _C
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithmic).astype(np.float32)


def _pq(nits: np.ndarray | np.float32) -> np.ndarray:
    y = np.power(np.clip(nits / np.float32(_PQ_NITS), 0, 1), np.float32(_M1))
    return np.power((np.float32(_C1) + np.float32(_C2) * y) / (1 + np.float32(_C3) * y), np.float32(_M2))


def _pq_nits(code: np.ndarray) -> np.ndarray:
    root = np.power(code, np.float32(1 / _M2))
    y = np.maximum(root - np.float32(_C1), 0) / (np.float32(_C2) - np.float32(_C3) * root)
    return np.power(y, np.float32(1 / _M1)) * np.float32(_PQ_NITS)


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's values in 0..1 of linear light in 0..1, float32 (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(linear, np.float32(1 / 2.4)) - 0.055)


def _srgb_decoded(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, np.power((values + 0.055) / 1.055, np.float32(2.4)))


def between(source: Space | None, target: Space | None) -> np.ndarray:
    """(3, 3) float32 from linear values of one space to those of another; their whites coincide."""
    assert source is not None and target is not None
    return (np.linalg.inv(spaces.to_xyz(target)) @ spaces.to_xyz(source)).astype(np.float32)


def _floats(part: np.ndarray) -> np.ndarray:
    return part * np.float32(1 / np.iinfo(part.dtype).max)


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.rint(np.clip(values, 0, 1) * np.float32(top)).astype(dtype)
