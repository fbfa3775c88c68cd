"""Conversion of a photo's colours to what a format can hold."""

from __future__ import annotations

import dataclasses

import numpy as np

from qatie_cli.photo import colour, spaces
from qatie_cli.photo.content import Photo

HOLDS_HDR = ("png", "heic", "avif")  # they name PQ and HLG by codes; JPEG, WebP and TIFF know only profiles
_LOSSLESS = ("png", "tiff")
_LEAST_GAMMA = 1.7  # below, the steps of lossy formats would show in dark tones
_ROWS = 256


def note(photo: Photo, fmt: str) -> str:
    """A note for the user on what the photo's colours lose; empty if nothing."""
    both = photo.gain_map is not None and photo.gain_map.boost.base_is_hdr  # then it is not tone mapped here
    if photo.space is not None and photo.space.is_hdr and fmt not in HOLDS_HDR and not both:
        return f"the HDR picture is tone-mapped to SDR, since {fmt} has no HDR (--format avif keeps it)"
    return ""


def fitted(photo: Photo, fmt: str) -> Photo:
    """The photo, with its colours converted if `fmt` cannot hold them.

    HDR becomes sRGB by tone mapping where the format has no HDR. Values that are linear in light, or nearly so, get
    sRGB's curve in lossy formats, on the same primaries.
    """
    space = photo.space
    if space is None:
        return photo
    if space.is_hdr:
        return photo if fmt in HOLDS_HDR else _as_srgb(photo)
    if fmt in _LOSSLESS or isinstance(space.curve, str) or space.curve >= _LEAST_GAMMA:
        return photo
    curved = dataclasses.replace(space, curve="srgb", codes=None)
    top = int(np.iinfo(photo.pixels.dtype).max)
    linear = np.linspace(0, 1, top + 1) ** space.curve
    values = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    pixels = np.rint(values * 65535).astype(np.uint16)[photo.pixels]
    gray = pixels.shape[2] == 1
    kept = None if curved.is_srgb else curved
    return dataclasses.replace(
        photo,
        pixels=pixels,
        alpha=_deep(photo.alpha),
        space=kept,
        icc=None if kept is None else spaces.profile(kept, gray),
    )


def _as_srgb(photo: Photo) -> Photo:
    colours = colour.of_photo(photo)
    if colours is None:
        return photo
    channels = photo.pixels.shape[2]
    out = np.empty_like(photo.pixels)
    for top in range(0, len(out), _ROWS):
        rows = photo.pixels[top : top + _ROWS]
        out[top : top + _ROWS] = colours.to_srgb(rows if channels == 3 else np.repeat(rows, 3, axis=2))[..., :channels]
    chunks = tuple(chunk for chunk in photo.png_chunks if chunk[0] not in (b"cICP", b"gAMA", b"cHRM", b"sRGB"))
    return dataclasses.replace(photo, pixels=out, space=None, icc=None, png_chunks=chunks)


def _deep(alpha: np.ndarray | None) -> np.ndarray | None:
    return alpha if alpha is None or alpha.dtype == np.uint16 else alpha.astype(np.uint16) * np.uint16(257)
