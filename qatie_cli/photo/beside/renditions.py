"""Both renditions of a photo whose base is an HDR picture: its gain map gives the SDR rendition.

The SDR rendition is what the network sees, and what formats without HDR get. The HDR picture changes by the ratio of
linear light by which its SDR rendition changes, so the map gives the enhanced SDR rendition of the enhanced picture.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qatie_cli.photo import hdr, spaces
from qatie_cli.photo.beside.gain_map import GainMap, linear
from qatie_cli.photo.content import Photo
from qatie_cli.photo.formats import DEEP
from qatie_cli.photo.spaces import Space

_ROWS = 128  # worked on at a time: floats of a whole photo take six times its size
_LEAST_LIGHT = 1 / 4096  # added before light is divided where no offset is


def is_of_both(photo: Photo) -> bool:
    """Whether the photo is an HDR picture with a gain map down to SDR."""
    return photo.gain_map is not None and photo.gain_map.boost.base_is_hdr


def left_out(photo: Photo, fmt: str) -> str:
    """A note for the user on which rendition `fmt` loses of such a photo; empty if none or if it is another photo."""
    if not is_of_both(photo) or fmt in (*DEEP, "jpeg"):
        return ""
    if fmt == "png":
        return "the SDR version beside the HDR picture is left out, png has no place for it"
    return f"the HDR picture is left out, {fmt} has no HDR: its SDR version is written (--format avif keeps both)"


def fitted(photo: Photo, fmt: str) -> Photo:
    """The photo as `fmt` holds it: JPEG holds both renditions with SDR as the base, PNG the HDR picture alone.

    WebP and TIFF hold the SDR rendition alone. Other photos are returned as they are.
    """
    if not is_of_both(photo) or fmt in DEEP:
        return photo
    if fmt == "png":
        return photo.without(gain_map=True)
    return sdr(photo) if fmt == "jpeg" else without_hdr(photo)


def without_hdr(photo: Photo) -> Photo:
    """The photo without its gain map, and where that gives the SDR rendition, this one."""
    return (sdr(photo) if is_of_both(photo) else photo).without(gain_map=True)


def sdr(photo: Photo) -> Photo:
    """The SDR rendition of such a photo, (H, W, 1 or 3) uint16, with the map that gives the HDR picture."""
    gain_map, space = _parts(photo)
    pixels: np.ndarray = np.empty(photo.pixels.shape, np.uint16)
    for top in range(0, len(pixels), _ROWS):
        light = _light(photo, space, top)
        boosts = gain_map.boosts(top, top + len(light), pixels.shape[0], pixels.shape[1])
        pixels[top : top + _ROWS] = _encoded(gain_map.sdr(light, boosts))[..., : pixels.shape[2]]
    boost = dataclasses.replace(gain_map.boost, base_is_hdr=False, in_base_colours=True)
    own = None if space.is_srgb else space
    return dataclasses.replace(
        photo,
        pixels=pixels,
        space=own,
        icc=None if own is None else spaces.profile(own, gray=pixels.shape[2] == 1),
        gain_map=dataclasses.replace(gain_map, boost=boost, encoded=None, sdr_space=None),
    )


def changed(photo: Photo, before: np.ndarray, after: np.ndarray) -> Photo:
    """Such a photo, changed as its SDR rendition was.

    HDR' = (HDR + k) * (SDR' + r k) / (SDR + k) - r k, where shadows became r times as bright (`GainMap.following`).

    Args:
        before, after: the pixels of `sdr`, and what they became.
    """
    if np.array_equal(before, after):
        return photo
    gain_map, space = _parts(photo)
    followed = gain_map.following(before, after)
    (low, high), (new_low, new_high) = gain_map.boost.offsets, followed.boost.offsets
    least = np.where(low > 0, 0, np.float32(_LEAST_LIGHT)).astype(np.float32)
    pixels = np.empty_like(photo.pixels)
    for top in range(0, len(pixels), _ROWS):
        rows = slice(top, top + _ROWS)
        ratio = (_decoded(after[rows]) + new_low + least) / np.maximum(_decoded(before[rows]) + low + least, 1e-6)
        light = (_light(photo, space, top) + high) * ratio - new_high
        pixels[rows] = _stored(photo, space, light)[..., : pixels.shape[2]]
    return dataclasses.replace(photo, pixels=pixels, gain_map=followed)


def _parts(photo: Photo) -> tuple[GainMap, Space]:
    """The map, and the space in whose primaries boosts apply, with sRGB's curve."""
    gain_map = photo.gain_map
    assert gain_map is not None
    assert photo.space is not None
    other = None if gain_map.boost.in_base_colours else gain_map.sdr_space
    return gain_map, dataclasses.replace(other or photo.space, curve="srgb", codes=None, peak=0.0, name="")


def _light(photo: Photo, space: Space, top: int) -> np.ndarray:
    """Some rows of an HDR picture as linear light, (rows, W, 3) float32, 1 is SDR white, on `space`'s primaries."""
    assert photo.space is not None
    rows = photo.pixels[top : top + _ROWS]
    rows = rows if rows.shape[2] == 3 else np.repeat(rows, 3, axis=2)
    light = hdr.to_nits(rows, photo.space) / np.float32(hdr.WHITE_NITS)
    return light @ hdr.between(photo.space, space).T


def _stored(photo: Photo, space: Space, light: np.ndarray) -> np.ndarray:
    """The values of an HDR picture of what `_light` returns."""
    assert photo.space is not None
    nits = light @ hdr.between(space, photo.space).T * np.float32(hdr.WHITE_NITS)
    top = np.iinfo(photo.pixels.dtype).max
    values = hdr.of_nits(np.maximum(nits, 0), photo.space)
    return np.rint(np.clip(values, 0, 1) * np.float32(top)).astype(photo.pixels.dtype)


def _decoded(values: np.ndarray) -> np.ndarray:
    return linear(values.astype(np.float32) * np.float32(1 / 65535)).astype(np.float32)


def _encoded(light: np.ndarray) -> np.ndarray:
    return np.rint(hdr.srgb_encoded(np.clip(light, 0, 1)) * np.float32(65535)).astype(np.uint16)
