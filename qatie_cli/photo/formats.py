"""File formats: which are read, which are written, and how outputs are named."""

from __future__ import annotations

from pathlib import PurePath

# Output formats by their option name: the suffix a new name gets, and Pillow's name.
FORMATS = {
    "jpeg": (".jpg", "JPEG"),
    "png": (".png", "PNG"),
    "webp": (".webp", "WEBP"),
    "tiff": (".tif", "TIFF"),
    "heic": (".heic", "HEIF"),
    "avif": (".avif", "AVIF"),
}
# Pillow's name of each format that is read, and the option name that keeps it.
OF_CONTENT = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "HEIF": "heic",
              "AVIF": "avif", "BMP": "bmp"}  # fmt: skip
KEEP, SAME = "keep", "same"  # what may be asked for beside them: the photo's own format, and HEIC as JPEG or as HEIC
CHROMA = ("4:4:4", "4:2:2", "4:2:0")  # subsampling by Pillow's code
SIXTEEN_BIT = ("png", "tiff")  # formats that hold 16 bit
DEEP = ("heic", "avif")  # formats that hold 10 and 12 bit
_OF_SUFFIX = {
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


def has_photo_suffix(path: PurePath) -> bool:
    """Whether the name has a photo's suffix, in any case."""
    return path.suffix.lower() in _OF_SUFFIX


def format_of_name(path: PurePath) -> str | None:
    """The output format of a file name's suffix, or None if qatie does not write it."""
    named = _OF_SUFFIX.get(path.suffix.lower())
    return named if named in FORMATS else None


def own_format(own: str | None, asked: str = KEEP) -> str:
    """The output format for a photo of the format `own` where its own is asked for.

    `KEEP`, the default, makes HEIC JPEG (PNG if it has transparent parts), as few other programs read it; `SAME` leaves
    it HEIC. BMP becomes PNG, which is lossless and holds metadata.
    """
    if own is None or own in ("bmp", "gif"):
        return "png"
    return "jpeg" if own == "heic" and asked == KEEP else own


def output_format(source: PurePath, asked: str) -> str:
    """The format to write: the one asked for, or the default for the source's suffix."""
    return own_format(format_of_name(source), asked) if asked in (KEEP, SAME) else asked


def output_name(source: PurePath, asked: str, suffix: str = "") -> str:
    """The output name for `source`: its stem plus `suffix`, with another extension where the format changes."""
    fmt = output_format(source, asked)
    extension = source.suffix if format_of_name(source) == fmt else FORMATS[fmt][0]
    return source.stem + suffix + extension


def long_output_name(source: PurePath, asked: str, suffix: str = "") -> str:
    """Like `output_name` where the format changes, but with the source's whole name in it: a.heic.jpg."""
    return source.name + suffix + FORMATS[output_format(source, asked)][0]
