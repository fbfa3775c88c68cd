"""RGB colour spaces given by codes or numbers, and equivalent ICC profiles."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

import numpy as np

Chromaticities = tuple[float, float, float, float, float, float]  # x and y of red, green and blue
Curve = str | float  # "srgb", "pq", "hlg", or the exponent of a pure power

D65, D50, C, DCI = (0.3127, 0.3290), (0.34567, 0.35850), (0.310, 0.316), (0.314, 0.351)
BT709: Chromaticities = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
ADOBE_RGB: Chromaticities = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_RGB_GAMMA = 563 / 256
# Colour primaries and transfer characteristics by their codes in ITU-T H.273 (tables 2 and 3). The transfer functions
# of television (1, 6, 7, 14, 15) describe cameras, not displays: still pictures so marked are meant as sRGB.
_PRIMARIES: dict[int, tuple[Chromaticities, tuple[float, float]]] = {
    1: (BT709, D65),
    4: ((0.67, 0.33, 0.21, 0.71, 0.14, 0.08), C),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), D65),
    6: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), D65),
    7: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), D65),
    8: ((0.681, 0.319, 0.243, 0.692, 0.145, 0.049), C),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), D65),
    11: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), DCI),
    12: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), D65),
    22: ((0.630, 0.340, 0.295, 0.605, 0.155, 0.077), D65),
}
_CURVES: dict[int, Curve] = {1: "srgb", 2: "srgb", 4: 2.2, 5: 2.8, 6: "srgb", 7: "srgb", 8: 1.0, 13: "srgb",
                             14: "srgb", 15: "srgb", 16: "pq", 18: "hlg"}  # fmt: skip
_UNSPECIFIED = 2
_NAMES = {1: "BT.709", 9: "BT.2020", 11: "DCI-P3", 12: "P3-D65"}
_D50_XYZ = (0.9642, 1.0, 0.8249)  # of the profile connection space (ICC.1:2022, 7.2.16)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # of parametric curve type 3 (ICC.1:2022, 10.18)
_SLACK = 0.002  # tolerance for differently rounded chromaticities
_LEAST_AREA = 0.02  # of the triangle of primaries; sRGB's is 0.11


@dataclass(frozen=True)
class Space:
    """An RGB colour space: chromaticities of primaries and white, and the curve of its values.

    `codes` are its colour primaries and transfer characteristics in ITU-T H.273, where it was named by them; `peak` are
    the nits of a PQ or HLG picture's highlights.
    """

    primaries: Chromaticities
    white: tuple[float, float]
    curve: Curve
    codes: tuple[int, int] | None = None
    name: str = ""
    peak: float = 0.0

    @property
    def is_hdr(self) -> bool:
        """Whether its values reach beyond the white of paper: PQ or HLG."""
        return self.curve in ("pq", "hlg")

    @property
    def is_srgb(self) -> bool:
        """Whether it is sRGB by another name; a power of 2.2 on sRGB's primaries is how PNG approximates it."""
        same = zip((*self.primaries, *self.white), (*BT709, *D65), strict=True)
        near = all(abs(a - b) <= _SLACK for a, b in same)
        return near and (self.curve == "srgb" or (not isinstance(self.curve, str) and 2.15 <= self.curve <= 2.25))

    @property
    def is_possible(self) -> bool:
        """Whether the numbers are those of a colour space: primaries span a triangle around a white."""
        rx, ry, gx, gy, bx, by = self.primaries
        area = abs((gx - rx) * (by - ry) - (bx - rx) * (gy - ry)) / 2
        usual = all(-0.2 < value < 1.2 for value in (*self.primaries, *self.white))
        if not usual or area < _LEAST_AREA or self.white[1] < 0.1 or min(map(abs, (ry, gy, by))) < 1e-3:
            return False
        if not isinstance(self.curve, str) and not 0.5 <= self.curve <= 4:
            return False
        try:
            matrix = to_xyz(self)
        except np.linalg.LinAlgError:
            return False
        weights = matrix[1] / matrix[1].sum()
        return bool(np.isfinite(matrix).all() and (weights > 0).all())


DCF_ADOBE_RGB = Space(ADOBE_RGB, D65, ADOBE_RGB_GAMMA, name="Compatible with Adobe RGB (1998)")


def of_codes(primaries: int, transfer: int) -> Space | None:
    """The space of H.273's codes; None for codes without a meaning for photos."""
    found = _PRIMARIES.get(1 if primaries == _UNSPECIFIED else primaries)
    curve = _CURVES.get(transfer)
    if found is None or curve is None:
        return None
    name = "Display P3" if (primaries, curve) == (12, "srgb") else _NAMES.get(primaries, "")
    return Space(*found, curve, (primaries, transfer), name)


def to_xyz(space: Space) -> np.ndarray:
    """(3, 3) from linear RGB to XYZ, white's Y being 1; relative to the space's own white."""
    columns = np.array(
        [[x / y, 1, (1 - x - y) / y] for x, y in zip(space.primaries[::2], space.primaries[1::2], strict=True)]
    ).T
    return columns * np.linalg.solve(columns, _xyz(space.white))


def _xyz(white: tuple[float, float]) -> np.ndarray:
    x, y = white
    return np.array([x / y, 1, (1 - x - y) / y])


# --- ICC profiles -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def profile(space: Space, gray: bool = False) -> bytes:
    """A display profile of the space, of its curve alone for gray photos (ICC.1:2022, version 4.3: 7 to 10).

    Raises:
        ValueError: PQ and HLG have none.
    """
    if space.is_hdr:
        raise ValueError("PQ and HLG values have no matrix profile")
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50_XYZ / (_BRADFORD @ _xyz(space.white))) @ _BRADFORD
    curve = _curve(space.curve)
    tags = [
        (b"desc", _text(space.name or "RGB by chromaticities")),
        (b"cprt", _text("No copyright, use freely")),
        (b"wtpt", _numbers(b"XYZ ", _D50_XYZ)),
        (b"chad", _numbers(b"sf32", adaptation.ravel())),
    ]
    if gray:
        tags.append((b"kTRC", curve))
    else:
        columns = (adaptation @ to_xyz(space)).T
        names = (b"rXYZ", b"gXYZ", b"bXYZ")
        tags += [(name, _numbers(b"XYZ ", column)) for name, column in zip(names, columns, strict=True)]
        tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    at = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    table, body = b"", b""
    for name, data in tags:
        if data not in places:
            places[data] = at + len(body)
            body += data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", places[data], len(data))
    # The date is fixed, so that equal spaces give equal profiles.
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sI4sIQI", at + len(body), b"\0\0\0\0", 0x04300000, b"mntr", b"GRAY" if gray else b"RGB ",
        b"XYZ ", 2024, 1, 1, 0, 0, 0, b"acsp", b"\0\0\0\0", 0, b"\0\0\0\0", 0, 0, 0,
    ) + b"".join(_fixed(value) for value in _D50_XYZ)  # fmt: skip
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _curve(curve: Curve) -> bytes:
    kind, values = (3, _SRGB_CURVE) if isinstance(curve, str) else (0, (curve,))
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _numbers(kind: bytes, values: tuple[float, ...] | np.ndarray) -> bytes:
    return kind + bytes(4) + b"".join(_fixed(float(value)) for value in values)


def _fixed(value: float) -> bytes:
    """s15Fixed16Number."""
    return struct.pack(">i", round(value * 65536))
