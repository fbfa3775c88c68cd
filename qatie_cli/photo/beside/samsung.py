"""Samsung's trailer behind a JPEG: blocks of data, and a directory whose offsets count back from itself.

A block is two zeros, its type, the length of its name (little-endian), the name, and data. The directory is `SEFH`,
version, number of blocks, and for each zero, type, offset and length; then the directory's length and `SEFT`. Since
offsets count back, a trailer can be copied as a whole.
"""

from __future__ import annotations

import struct

END = b"SEFT"
_MOTION = b"MotionPhoto_Data"
_MOST_BLOCKS = 1000


def start(content: bytes, least: int) -> int:
    """Where the trailer begins, at `least` or behind; the end of the content where there is none."""
    if not content.endswith(END):
        return len(content)
    (size,) = struct.unpack_from("<I", content, len(content) - 8)
    directory = len(content) - 8 - size
    if directory < least or content[directory : directory + 4] != b"SEFH":
        return len(content)
    (count,) = struct.unpack_from("<I", content, directory + 8)
    if count > _MOST_BLOCKS or 12 + 12 * count > size:
        return len(content)
    offsets = [struct.unpack_from("<I", content, directory + 12 + 12 * index + 4)[0] for index in range(count)]
    begins = directory - max(offsets, default=0)
    return begins if begins >= least else len(content)


def with_moved_video(box: bytes, old: int, new: int) -> bytes:
    """A HEIC file's `sefd` box for a video that stood at `old` and stands at `new`, both from the file's beginning.

    Its block names the video's place as `mpv2`, offset and size (big-endian).
    """
    before = _MOTION + b"mpv2" + struct.pack(">I", old)
    return box.replace(before, _MOTION + b"mpv2" + struct.pack(">I", new))
