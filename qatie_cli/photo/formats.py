"""File formats by name: which are read, which are written, and what an output is called."""

from __future__ import annotations

from pathlib import Path

# Output formats by their option name: the suffix a new name gets, and Pillow's name.
FORMATS = {
    "jpeg": (".jpg", "JPEG"),
    "png": (".png", "PNG"),
    "webp": (".webp", "WEBP"),
    "tiff": (".tif", "TIFF"),
    "heic": (".heic", "HEIF"),
    "avif": (".avif", "AVIF"),
}
# Pillow's names of what is read, and the option name that keeps the format.
OF_CONTENT = {"JPEG": "jpeg", "MPO": "jpeg", "PNG": "png", "WEBP": "webp", "TIFF": "tiff", "HEIF": "heic",
              "AVIF": "avif", "BMP": "bmp"}  # fmt: skip
SIXTEEN_BIT = ("png", "tiff")  # formats that a 16-bit photo keeps its precision in
LOSSLESS = ("png", "tiff")
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


def has_photo_suffix(path: Path) -> bool:
    """Whether the name looks like a photo's; the case does not matter."""
    return path.suffix.lower() in _OF_SUFFIX


def format_of_name(path: Path) -> str | None:
    """The output format that a file name asks for, or None if it is none that can be written."""
    named = _OF_SUFFIX.get(path.suffix.lower())
    return named if named in FORMATS else None


def kept_format(own: str | None) -> str:
    """What a photo of the format `own` is written as unless another is asked for.

    HEIC becomes JPEG (PNG, should it have transparent parts), as most other programs cannot read it; BMP becomes PNG,
    which loses nothing and keeps metadata.
    """
    return {"heic": "jpeg", "bmp": "png", "gif": "png", None: "png"}.get(own, own)


def output_format(source: Path, asked: str) -> str:
    """The format to write: what was asked for, or that of the source's name."""
    return kept_format(format_of_name(source)) if asked == "keep" else asked


def output_name(source: Path, asked: str, suffix: str = "") -> str:
    """The file name to write for `source`: its own, with `suffix` behind the stem, renamed where the format changes."""
    fmt = output_format(source, asked)
    extension = source.suffix if format_of_name(source) == fmt else FORMATS[fmt][0]
    return source.stem + suffix + extension


def long_output_name(source: Path, asked: str, suffix: str = "") -> str:
    """Like `output_name` for a photo whose format changes, with the source's whole name in it: a.heic.jpg."""
    return source.name + suffix + FORMATS[output_format(source, asked)][0]
