"""The colour space that a file declares without an ICC profile."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
from PIL import ImageFile

from qatie_cli.photo import exif, hdr, spaces
from qatie_cli.photo.containers import Chunk
from qatie_cli.photo.item_properties import Properties
from qatie_cli.photo.spaces import Space

_COLOUR_SPACE, _INTEROPERABILITY, _INDEX, _GAMMA = 0xA001, 0xA005, 0x0001, 0xA500
_WHITE_POINT, _PRIMARIES = 318, 319
_SRGB, _ADOBE_RGB = 1, 2  # of EXIF's ColorSpace; the second is non-standard, but in use
_PNG_SCALE = 100_000  # of gAMA and cHRM (PNG specification, 11.3.2)


def space(
    image: ImageFile.ImageFile, described: Properties, block: bytes | None, chunks: tuple[Chunk, ...], has_profile: bool
) -> Space | None:
    """The colour space of an opened image; None for sRGB, for an invalid one, and if a profile takes precedence.

    Args:
        described: the properties of a HEIC's or AVIF's picture.
        block: its EXIF.
        chunks: its PNG chunks.
        has_profile: whether it has an ICC profile, which only cICP in PNG and PQ and HLG take precedence over.
    """
    if image.format in ("HEIF", "AVIF"):
        codes = described.nclx()
        found = spaces.of_codes(*codes) if codes else None
    elif image.format == "PNG":
        found = _of_chunks(dict(chunks), has_profile)
        has_profile = has_profile and not (found and found.codes)
    elif image.format in ("JPEG", "MPO", "TIFF") and block and not has_profile:
        found = _of_exif(block)
    else:
        return None
    if found is None or (has_profile and not found.is_hdr):
        return None
    return None if found.is_srgb or not found.is_possible else found


def finished(found: Space, pixels: np.ndarray) -> tuple[Space, bytes | None]:
    """The space of a decoded photo (H, W, 1 or 3), and an ICC profile equal to it; None for PQ and HLG."""
    if found.is_hdr:
        return dataclasses.replace(found, peak=hdr.peak_of(pixels, found)), None
    return found, spaces.profile(found, gray=pixels.shape[2] == 1)


def _of_chunks(chunks: dict[bytes, bytes], has_profile: bool) -> Space | None:
    """By cICP, else sRGB, else gAMA and cHRM (PNG specification, third edition, 4.3)."""
    coding = chunks.get(b"cICP", b"")
    if len(coding) == 4 and (found := spaces.of_codes(coding[0], coding[1])) and not coding[2]:
        return found
    if has_profile or b"sRGB" in chunks:
        return None
    gamma, chromaticities = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    if len(gamma) != 4:
        return None  # cHRM alone does not define the transfer curve
    (stored,) = struct.unpack(">I", gamma)
    if not stored:
        return None
    white, primaries = spaces.D65, spaces.BT709
    if len(chromaticities) == 32:
        white_x, white_y, *others = (value / _PNG_SCALE for value in struct.unpack(">8I", chromaticities))
        white, primaries = (white_x, white_y), tuple(others)
    return Space(primaries, white, _PNG_SCALE / stored, name="RGB of gAMA and cHRM")


def _of_exif(block: bytes) -> Space | None:
    """By DCF's optional file (DCF 2.0, 3.3.1.4: interoperability index R03), else by EXIF's chromaticities."""
    block = block.removeprefix(exif.PREFIX)
    named = exif.numbers(block, _COLOUR_SPACE, (exif.EXIF_POINTER,))
    index = exif.raw(block, _INDEX, (exif.EXIF_POINTER, _INTEROPERABILITY))
    if named[:1] == (_ADOBE_RGB,) or (index or b"").startswith(b"R03"):
        return spaces.DCF_ADOBE_RGB
    if named[:1] == (_SRGB,):
        return None
    white, primaries = exif.numbers(block, _WHITE_POINT), exif.numbers(block, _PRIMARIES)
    if len(white) != 2 or len(primaries) != 6:
        return None
    gamma = exif.numbers(block, _GAMMA, (exif.EXIF_POINTER,))
    near_adobe = all(abs(a - b) < 0.005 for a, b in zip(primaries, spaces.ADOBE_RGB, strict=True))
    curve: spaces.Curve = gamma[0] if gamma else spaces.ADOBE_RGB_GAMMA if near_adobe else "srgb"
    x, y = white
    rx, ry, gx, gy, bx, by = primaries
    return Space((rx, ry, gx, gy, bx, by), (x, y), curve, name="RGB of EXIF's chromaticities")
