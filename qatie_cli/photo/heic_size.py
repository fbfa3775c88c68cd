"""The size above which a HEIC cannot be read again.

libde265, which decodes HEIC in libheif and with it in Pillow, GIMP and most viewers on Linux, refuses a NAL unit above
16 MiB, and x265 writes a picture as one. Measured with 1.1.3: 16.6 MB are read, 20.7 MB are not. x265's slices would
be shorter, but in narrow pictures they hold other pixels, or end the process.
"""

from __future__ import annotations

from qatie_cli.errors import PhotoError

LARGEST = 16 << 20  # bytes


def checked(content: bytes, name: str) -> bytes:
    """The content of an encoded HEIC, named `name`.

    Raises:
        PhotoError: it is too long to be read again.
    """
    if len(content) > LARGEST:
        size, most = len(content) / 1e6, LARGEST / 1e6
        raise PhotoError(
            f"{name} would have {size:,.1f} MB as HEIC, and most programs read at most {most:,.1f}.",
            "Use a lower --quality, or -o with another --format.",
        )
    return content
