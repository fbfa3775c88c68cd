"""One decoded photo: pixels, and everything that travels beside them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from qatie_cli.photo import exif, segments


@dataclass(frozen=True)
class JpegTraits:
    """How a JPEG was compressed, so that its successor can be compressed alike."""

    subsampling: int | None  # Pillow's code: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; None where it is another
    quantization: tuple[tuple[int, ...], ...]  # 64 values each, as Pillow orders them
    progressive: bool


@dataclass(frozen=True)
class Photo:
    """One decoded photo, upright.

    `pixels` is (H, W, 3) or, for a gray photo, (H, W, 1); uint8 or uint16; encoded as `icc` says, sRGB without one.
    `alpha` is (H, W) of the same type. `exif` is a TIFF block without prefix whose orientation is 1 and whose thumbnail
    is gone. `notes` are remarks for the user about what the file held and the photo does not.
    """

    pixels: np.ndarray
    source_format: str  # an option name of `formats`, or "bmp"
    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    jpeg_segments: tuple[tuple[int, bytes], ...] = ()  # marker and payload: XMP's extension, makers' own segments
    photoshop: bytes | None = None  # image resource block with IPTC, without signature
    comment: bytes | None = None  # of a JPEG
    png_chunks: tuple[tuple[bytes, bytes], ...] = ()  # texts and colour chunks of a PNG
    dpi: tuple[float, float] | None = None
    jpeg: JpegTraits | None = None
    lossless: bool = False  # a WebP that was
    notes: tuple[str, ...] = ()

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.pixels.shape[0] * self.pixels.shape[1] / 1e6

    @property
    def has_transparency(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha is not None and bool(self.alpha.min() < np.iinfo(self.alpha.dtype).max)

    def rgb(self) -> np.ndarray:
        """(H, W, 3) in the photo's own bit depth; gray is repeated."""
        if self.pixels.shape[2] == 3:
            return self.pixels
        return np.repeat(self.pixels, 3, axis=2)

    def rgb_u8(self) -> np.ndarray:
        """(H, W, 3) of 8 bit."""
        return to_eight_bit(self.rgb())

    def without_metadata(self) -> Photo:
        """The pixels with their colours, which they need, and nothing else."""
        colours = tuple(chunk for chunk in self.png_chunks if chunk[0] in segments.PNG_COLOUR_CHUNKS)
        return dataclasses.replace(
            self, exif=None, xmp=None, jpeg_segments=(), photoshop=None, comment=None, png_chunks=colours, dpi=None
        )

    def without_gps(self) -> Photo:
        """The photo without the place it was taken at, in EXIF, XMP and IPTC."""
        return dataclasses.replace(
            self,
            exif=self.exif and exif.without_gps(self.exif),
            xmp=self.xmp and segments.xmp_without_gps(self.xmp),
            photoshop=self.photoshop and segments.photoshop_without_places(self.photoshop),
            # Words, makers' own data, and XMP split at arbitrary bytes: what they hold cannot be told.
            comment=None,
            jpeg_segments=(),
            png_chunks=tuple(chunk for chunk in self.png_chunks if chunk[0] in segments.PNG_COLOUR_CHUNKS),
        )

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """This photo's surroundings with other pixels (H, W, 3); a gray photo stays gray (Rec. 709 luma)."""
        if self.pixels.shape[2] == 1:
            gray = np.empty_like(pixels[..., :1])
            for top in range(0, len(pixels), 256):  # in strips: floats of a whole photo take four times its bytes
                luma = pixels[top : top + 256].astype(np.float32) @ np.array([[0.2126], [0.7152], [0.0722]], np.float32)
                gray[top : top + 256] = np.round(luma)
            pixels = gray
        return dataclasses.replace(self, pixels=pixels)


def to_eight_bit(values: np.ndarray) -> np.ndarray:
    """uint8 as it is; uint16 rounded to uint8 (exact for values that were 8 bit before)."""
    if values.dtype == np.uint8:
        return values
    out = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 256):
        out[top : top + 256] = (values[top : top + 256].astype(np.uint32) + 128) // 257
    return out
