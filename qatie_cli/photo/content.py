"""A decoded photo: pixels and metadata."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qatie_cli.photo import colour, containers, exif, extended_xmp, iptc, leftovers, xmp
from qatie_cli.photo.regions import Turn
from qatie_cli.photo.spaces import Space

if TYPE_CHECKING:
    from qatie_cli.photo.beside.gain_map import GainMap
    from qatie_cli.photo.beside.motion import Motion


@dataclass(frozen=True)
class JpegTraits:
    """How a JPEG was compressed, so that the output can match it."""

    subsampling: int | None  # Pillow's code: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; None for any other
    quantization: tuple[tuple[int, ...], ...]  # 64 values each, as Pillow orders them
    progressive: bool


@dataclass(frozen=True)
class Photo:
    """A decoded photo, upright.

    `pixels` is (H, W, 3) or, for a gray photo, (H, W, 1); uint8 or uint16; encoded as `icc` says, sRGB without one.
    `space` is set where the file names its colour space otherwise than by a profile; `icc` is a profile equal to it
    then, or None for PQ and HLG, which have none. `bits` are those that the source's values had, if not 8 or 16.
    `alpha` is (H, W) of the same type. `exif` is a TIFF block without prefix, with orientation 1 and without thumbnail.
    `notes` tell the user what the file held and the photo does not.
    """

    pixels: np.ndarray
    source_format: str  # an option name of `formats`, or "bmp"
    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    space: Space | None = None
    bits: int | None = None
    xmp: bytes | None = None
    jpeg_segments: tuple[tuple[int, bytes], ...] = ()  # marker and payload: extended XMP, vendor segments
    photoshop: bytes | None = None  # image resource block with IPTC, without signature
    comment: bytes | None = None  # of a JPEG
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()  # texts and colour chunks of a PNG
    dpi: tuple[float, float] | None = None
    jpeg: JpegTraits | None = None
    components: np.ndarray | None = (
        None  # of a coarse JPEG (`photo.components`): Y, Cb and Cr (H, W, 3) uint8, not turned
    )
    lossless: bool = False  # the source was a lossless WebP
    chroma: int | None = None  # subsampling of a HEIC, AVIF or lossy WebP, as `JpegTraits` has it
    gain_map: GainMap | None = None  # boosts for HDR screens
    motion: Motion | None = None  # a motion photo's video
    coded_bytes: int | None = None  # of the picture in a lossy WebP, HEIC or AVIF file
    turn: Turn | None = None  # how the stored pixels were rotated
    fineness: int | None = None  # of the source, 1..100 on JPEG's quality scale, if measured
    notes: tuple[str, ...] = ()

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.pixels.shape[0] * self.pixels.shape[1] / 1e6

    @property
    def has_transparency(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool(self.alpha.min() < np.iinfo(self.alpha.dtype).max)

    @property
    def subsampling(self) -> int:
        """Chroma subsampling for lossy outputs, coded as in `JpegTraits`: the source's, as far as it is known."""
        if self.jpeg is not None:
            return 2 if self.jpeg.subsampling is None else self.jpeg.subsampling
        return self.chroma or 0

    def rgb(self) -> np.ndarray:
        """(H, W, 3) in the photo's own bit depth; gray is repeated."""
        if self.pixels.shape[2] == 3:
            return self.pixels
        return np.repeat(self.pixels, 3, axis=2)

    def rgb_u8(self) -> np.ndarray:
        """(H, W, 3) uint8; gray is repeated."""
        return to_eight_bit(self.rgb())

    def without_metadata(self) -> Photo:
        """The photo with only its pixels and what defines their colours (profile, PNG colour chunks)."""
        colours = tuple(chunk for chunk in self.png_chunks if chunk[0] in containers.PNG_COLOUR_CHUNKS)
        return dataclasses.replace(
            self,
            exif=None,
            xmp=None,
            jpeg_segments=(),
            photoshop=None,
            comment=None,
            png_chunks=colours,
            dpi=None,
            gain_map=None,
            motion=None,
        )

    def without(self, *, gain_map: bool = False, motion: bool = False) -> Photo:
        """The photo without its gain map, or its video, or both."""
        return dataclasses.replace(
            self, gain_map=None if gain_map else self.gain_map, motion=None if motion else self.motion
        )

    def without_gps(self) -> Photo:
        """The photo without coordinates and place names in EXIF, XMP, IPTC and its video.

        A video whose location cannot be removed is dropped, with a note.
        """
        motion = self.motion and self.motion.without_places()
        gone = self.motion is not None and motion is None
        return dataclasses.replace(
            self,
            exif=self.exif and exif.without_gps(self.exif),
            xmp=self.xmp and extended_xmp.without_mention(xmp.without_places(self.xmp)),
            photoshop=self.photoshop and iptc.without_places(self.photoshop),
            motion=motion,
            notes=self.notes + ((f"{leftovers.VIDEO}, for the place in it",) if gone else ()),
            # Free text, vendor data and XMP split at arbitrary bytes cannot be searched for locations.
            comment=None,
            jpeg_segments=(),
            png_chunks=tuple(chunk for chunk in self.png_chunks if chunk[0] in containers.PNG_COLOUR_CHUNKS),
        )

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """This photo with other pixels (H, W, 3) of any type; a gray photo stays gray (BT.709 luma).

        Its gain map follows them (`GainMap.following`), unless they are the HDR picture (`beside.renditions`).
        """
        if self.pixels.shape[2] == 1:
            gray = np.empty_like(pixels[..., :1])
            for top in range(0, len(pixels), 256):  # in strips: a whole photo as floats takes four times its size
                gray[top : top + 256] = np.round(colour.luma(pixels[top : top + 256].astype(np.float32)))
            pixels = gray
        gain_map = self.gain_map
        if gain_map is not None and not gain_map.boost.base_is_hdr and pixels.shape == self.pixels.shape:
            gain_map = gain_map.following(self.pixels, pixels)
        return dataclasses.replace(self, pixels=pixels, components=None, gain_map=gain_map)


def to_eight_bit(values: np.ndarray) -> np.ndarray:
    """uint8 unchanged; uint16 rounded to uint8 (exact for values that were 8 bit before)."""
    if values.dtype == np.uint8:
        return values
    out = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):
        out[top : top + 256] = (values[top : top + 256].astype(np.uint32) + 128) // 257
    return out
