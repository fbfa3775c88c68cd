"""Decoding and encoding of photo files, with everything that travels beside the pixels."""

from __future__ import annotations

import dataclasses
import io
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin, UnidentifiedImageError

from qatie_cli import files
from qatie_cli.errors import PhotoError

# A photo of more pixels is refused unless the caller allows it: 108 MP phones and panoramas pass, bombs do not.
MAX_PIXELS = 250_000_000
DEFAULT_QUALITY = 95

# Output formats by their option name: the suffix a new name gets, and Pillow's name.
FORMATS = {
    "jpeg": (".jpg", "JPEG"),
    "png": (".png", "PNG"),
    "webp": (".webp", "WEBP"),
    "tiff": (".tif", "TIFF"),
    "heic": (".heic", "HEIF"),
    "avif": (".avif", "AVIF"),
}
_FORMAT_OF_SUFFIX = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".mpo": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".heic": "heic",
    ".heif": "heic",
    ".hif": "heic",
    ".avif": "avif",
    ".bmp": "bmp",
    ".gif": "gif",
}
_HEIF_SUFFIXES = {".heic", ".heif", ".hif"}
_EXIF_PREFIX = b"Exif\x00\x00"
# TIFF 6.0 and its supplements: sizes, strips, tiles, colour storage; then XMP, IPTC, Photoshop and ICC blocks, which
# travel by themselves or not at all.
_TIFF_STORAGE_TAGS = {*range(254, 260), 262, 266, 273, *range(277, 282), 284, 317, 320, *range(322, 326), 330, 338, 339,
                      347, *range(512, 533), 700, 33723, 34377, 34675}  # fmt: skip
_GRAY_MODES = {"1", "L", "LA", "La", "I", "F"}

# Phone photos with strange marker or chunk data raise nearly anything in the decoders.
_DECODE_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, SyntaxError, EOFError, struct.error,
                  OverflowError, ZeroDivisionError, AttributeError, RuntimeError, NotImplementedError)  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """One decoded photo, upright.

    `pixels` is (H, W, 3) or, for a gray photo, (H, W, 1); uint8 or uint16; encoded as `icc` says, sRGB without one.
    `alpha` is (H, W) of the same type. `exif` is a TIFF block without prefix whose orientation is 1 and whose thumbnail
    is gone. `notes` are remarks for the user about what the file held and the photo does not.
    """

    pixels: np.ndarray
    source_format: str
    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    jpeg_subsampling: int | None = None  # Pillow's code: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0
    notes: tuple[str, ...] = ()

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.pixels.shape[0] * self.pixels.shape[1] / 1e6

    def rgb(self) -> np.ndarray:
        """(H, W, 3) in the photo's own bit depth; gray is repeated."""
        if self.pixels.shape[2] == 3:
            return self.pixels
        return np.repeat(self.pixels, 3, axis=2)

    def rgb_u8(self) -> np.ndarray:
        """(H, W, 3) of 8 bit."""
        rgb = self.rgb()
        return rgb if rgb.dtype == np.uint8 else np.round(rgb / np.float32(257)).astype(np.uint8)

    def without_metadata(self) -> Photo:
        """The pixels with their colour profile, which they need, and nothing else."""
        return dataclasses.replace(self, exif=None, xmp=None, dpi=None)

    def with_pixels(self, pixels: np.ndarray) -> Photo:
        """This photo's surroundings with other pixels (H, W, 3); a gray photo stays gray."""
        if self.pixels.shape[2] == 1:
            mean = pixels.astype(np.float32) @ np.array([[0.2126], [0.7152], [0.0722]], np.float32)
            pixels = np.round(mean).astype(pixels.dtype)
        return dataclasses.replace(self, pixels=pixels)


def has_photo_suffix(path: Path) -> bool:
    """Whether the name looks like a photo's; the case does not matter."""
    return path.suffix.lower() in _FORMAT_OF_SUFFIX


def format_of_name(path: Path) -> str | None:
    """The output format that a file name asks for, or None if it is none that can be written."""
    named = _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    return named if named in FORMATS else None


def output_format(source: Path, asked: str) -> str:
    """The format to write: what was asked for, or the source's own.

    HEIC and HEIF become JPEG, as most other programs cannot read them; BMP becomes PNG, which loses nothing and keeps
    metadata.
    """
    if asked != "keep":
        return asked
    own = format_of_name(source)
    return {"heic": "jpeg", None: "png"}.get(own, own)


def output_name(source: Path, asked: str) -> str:
    """The file name to write for `source`: its own, with another suffix where the format changes."""
    fmt = output_format(source, asked)
    return source.name if format_of_name(source) == fmt else source.stem + FORMATS[fmt][0]


def open_heif() -> None:
    """Make Pillow read and write HEIC; harmless to repeat."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def read(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a photo, upright, with its metadata.

    Raises:
        PhotoError: no file, no permission, no photo, a damaged one, an animation, or more than `max_pixels` pixels.
    """
    Image.MAX_IMAGE_PIXELS = None  # the check below replaces Pillow's, which only warns at first
    if path.suffix.lower() in _HEIF_SUFFIXES:
        open_heif()
    try:
        with Image.open(path) as image:
            _refuse(image, path, max_pixels)
            return _decode(image)
    except FileNotFoundError:
        raise PhotoError(f"There is no file {path}.") from None
    except PermissionError:
        raise PhotoError(f"{path} may not be read.", "Check its permissions.") from None
    except UnidentifiedImageError:
        raise PhotoError(f"{path} is not a photo in a format that qatie reads.") from None
    except MemoryError:
        raise PhotoError(f"{path} needs more memory than there is.") from None
    except _DECODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PhotoError(f"{path} is damaged: {reason}.", "Copy it again from where it came.") from error


def _refuse(image: Image.Image, path: Path, max_pixels: int) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise PhotoError(
            f"{path} says it has {pixels / 1e6:,.0f} megapixels; the limit is {max_pixels / 1e6:,.0f}.",
            "If it really is that large, allow it with --max-pixels.",
        )
    animated = getattr(image, "n_frames", 1) > 1 and image.format in ("GIF", "WEBP", "PNG", "AVIF")
    if image.format == "GIF" or animated:
        raise PhotoError(f"{path} is a GIF or an animation, not a photo.", "Save the picture you want as PNG first.")


def _decode(image: Image.Image) -> Photo:
    notes = []
    source_format = image.format or ""
    if source_format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        notes.append(f"first of {image.n_frames} pages")
    if _sixteen_bit_colour(image):
        notes.append("16-bit colour read as 8 bit")
    subsampling = JpegImagePlugin.get_sampling(image) if source_format in ("JPEG", "MPO") else None
    icc = image.info.get("icc_profile") or None
    exif = image.info.get("exif") or None
    if exif is None and source_format == "TIFF":
        exif = _tiff_exif(image)
    xmp = image.info.get("xmp") or None
    dpi = image.info.get("dpi")
    image.load()
    upright = ImageOps.exif_transpose(image)
    pixels, alpha = _pixels(upright)
    return Photo(
        pixels=pixels,
        source_format={"MPO": "JPEG"}.get(source_format, source_format),
        alpha=alpha,
        exif=upright_exif(exif.removeprefix(_EXIF_PREFIX)) if exif else None,
        icc=None if image.mode in ("CMYK", "LAB", "YCbCr") else icc,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and dpi[0] and dpi[1] else None,
        jpeg_subsampling=subsampling if subsampling in (0, 1, 2) else None,
        notes=tuple(notes),
    )


def _tiff_exif(image: Image.Image) -> bytes | None:
    """The metadata tags of a TIFF file as an EXIF block, without those that describe how its pixels are stored."""
    exif = image.getexif()
    for tag in _TIFF_STORAGE_TAGS & set(exif):
        del exif[tag]
    return exif.tobytes() if exif else None


def _sixteen_bit_colour(image: Image.Image) -> bool:
    """Whether Pillow silently drops the low byte of this file's colours."""
    if image.format == "PNG" and image.tile:
        return ";16B" in str(image.tile[0][3]) and not image.mode.startswith("I")
    if image.format == "TIFF" and image.mode in ("RGB", "RGBA"):
        return 16 in image.tag_v2.get(258, ())
    return False


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W, 1 or 3) pixels and (H, W) alpha of an image of any mode."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None], None
    if image.mode == "I":
        return np.clip(np.asarray(image), 0, 65535).astype(np.uint16)[..., None], None
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)
        return np.clip(values * (255 if values.max(initial=0) <= 1 else 1), 0, 255).astype(np.uint8)[..., None], None
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(image)), None
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    gray = image.mode in _GRAY_MODES
    if not has_alpha:
        converted = np.asarray(image.convert("L" if gray else "RGB"))
        return (converted[..., None] if gray else converted), None
    converted = np.asarray(image.convert("RGBA"))
    alpha = np.ascontiguousarray(converted[..., 3])
    colour = np.ascontiguousarray(converted[..., :1] if gray else converted[..., :3])
    return colour, alpha


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """sRGB of a CMYK image, through its own profile where it has a usable one."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile: the uncalibrated conversion below is what viewers show
    return image.convert("RGB")


def upright_exif(tiff: bytes) -> bytes:
    """An EXIF block (TIFF 6.0 structure, no prefix) with orientation 1 and without thumbnail, changed in place.

    Nothing moves, so that maker notes, which hold offsets into the block, stay readable. A block that cannot be
    understood is returned as it is.
    """
    block = bytearray(tiff)
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, first)
        for index in range(entries):
            entry = first + 2 + 12 * index
            tag, kind = struct.unpack_from(f"{order}HH", block, entry)
            if tag == 0x0112 and kind == 3:  # Orientation, SHORT
                struct.pack_into(f"{order}H", block, entry + 8, 1)
        _drop_thumbnail(block, order, first + 2 + 12 * entries)
    except struct.error:
        return tiff
    return bytes(block)


def _drop_thumbnail(block: bytearray, order: str, link: int) -> None:
    """Blank the thumbnail's JPEG data and unlink the directory (IFD1) that describes it."""
    (second,) = struct.unpack_from(f"{order}I", block, link)
    if not second:
        return
    struct.pack_into(f"{order}I", block, link, 0)
    (entries,) = struct.unpack_from(f"{order}H", block, second)
    values = {}
    for index in range(entries):
        tag, _, _, value = struct.unpack_from(f"{order}HHII", block, second + 2 + 12 * index)
        values[tag] = value
    start, length = values.get(0x0201, 0), values.get(0x0202, 0)  # JPEGInterchangeFormat and its length
    if start > 0 and start + length == len(block):
        del block[start:]
    elif 0 < start < start + length <= len(block):
        block[start : start + length] = bytes(length)


def check_encodable(photo: Photo, fmt: str) -> None:
    """Raise PhotoError where `fmt` cannot hold the photo; asked before the work rather than after it."""
    if fmt == "jpeg" and photo.alpha is not None and photo.alpha.min() < np.iinfo(photo.alpha.dtype).max:
        raise PhotoError("JPEG has no transparency.", "Use --format png or webp.")


def write(path: Path, photo: Photo, fmt: str, quality: int | None = None) -> None:
    """Encode to `path` in one step; metadata is carried as far as the format can hold it.

    Args:
        fmt: a key of `FORMATS`.
        quality: 1..100 for the lossy formats; None is 95.

    Raises:
        OSError: the file cannot be written.
        PhotoError: the format cannot hold the photo, or the encoder refuses.
    """
    check_encodable(photo, fmt)
    if fmt == "heic":
        open_heif()
    image = _to_image(photo, fmt)
    with files.atomic_path(path) as temporary:
        try:
            image.save(temporary, FORMATS[fmt][1], **_save_options(photo, fmt, quality or DEFAULT_QUALITY))
        except (ValueError, KeyError, struct.error) as error:
            raise PhotoError(f"{path} could not be encoded: {error}.", "Try another --format.") from error


def _to_image(photo: Photo, fmt: str) -> Image.Image:
    pixels = photo.pixels
    deep_gray = pixels.dtype == np.uint16 and pixels.shape[2] == 1 and photo.alpha is None and fmt in ("png", "tiff")
    if deep_gray:
        return Image.fromarray(pixels[..., 0])
    if pixels.dtype == np.uint16:
        pixels = np.round(pixels / np.float32(257)).astype(np.uint8)
    if photo.alpha is None or fmt == "jpeg":
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return Image.fromarray(np.dstack([pixels, photo.alpha.astype(np.uint8)]))


def _save_options(photo: Photo, fmt: str, quality: int) -> dict:
    options: dict = {}
    if photo.icc:
        options["icc_profile"] = photo.icc
    if photo.exif:
        options["exif"] = _EXIF_PREFIX + photo.exif
    if photo.xmp and fmt in ("jpeg", "webp", "heic", "avif"):
        options["xmp"] = photo.xmp
    if photo.dpi and fmt in ("jpeg", "png", "tiff"):
        options["dpi"] = photo.dpi
    if fmt == "jpeg":
        subsampling = photo.jpeg_subsampling
        if subsampling is None:
            subsampling = 2 if photo.source_format in ("HEIF", "AVIF", "WEBP") else 0
        options |= {"quality": quality, "subsampling": subsampling}
    elif fmt in ("webp", "heic", "avif"):
        options["quality"] = quality
    return options
