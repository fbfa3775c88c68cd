"""Memory: how much is free, how much a photo needs, and the tiles that make it fit."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import threading
from pathlib import Path

from qatie_cli.errors import PhotoError

SHARE_OF_FREE = 0.6  # of the free memory that is used by default
_M_ARENA_MAX = -8  # of malloc.h
_CGROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
# Bytes per pixel that encoding takes beside the photo itself, measured.
_ENCODE_BYTES = {"jpeg": 5, "png": 4, "tiff": 2, "webp": 24, "heic": 26, "avif": 29}
_GUIDED_BYTES = 30  # per pixel of a reduced photo while its residual is fitted; 20 measured, 28 without numba
_KEPT_CONVOLUTIONS = 256  # enough for photos of one size
# What the first photos load for good: numba and its kernels (90 MB), and oneDNN's compiled convolutions (up to 150 MB
# with `_KEPT_CONVOLUTIONS`), measured.
LOADED_BYTES = 240 << 20
_TILE_SIDES = (4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256)


def free_bytes() -> int:
    """Free memory of the machine, or of the container where that is less."""
    import psutil

    free = psutil.virtual_memory().available
    for folder, limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            # The page cache counts as used, but is reclaimed on demand.
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
            taken = int((folder / used).read_text()) - (int(cached[1]) if cached else 0)
            free = min(free, int((folder / limit).read_text()) - taken)
    return max(0, free)


def resident_bytes() -> int:
    """Resident memory of this process."""
    import psutil

    return psutil.Process().memory_info().rss


def keep_together(bounded: bool = False) -> None:
    """Make all threads share one malloc arena (glibc has one per thread), for the whole process.

    The network can then reuse memory freed by a decoding thread: 1.36 GB instead of 1.65 GB for 108 megapixels, in the
    same time.

    Args:
        bounded: limit oneDNN's cache of compiled convolutions, too: it keeps 1,024, 10 MB for every new photo size.
            Must be called before torch is imported.
    """
    if bounded:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_CONVOLUTIONS))
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_free_memory_back() -> None:
    """Return memory that malloc keeps after free() to the system (glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def available(max_memory: int | None) -> int:
    """Bytes that photos may take: up to `max_memory` in all with what this process holds, or 60% of what is free."""
    if max_memory is None:
        return int(free_bytes() * SHARE_OF_FREE)
    return max(0, max_memory - resident_bytes() - (0 if _loaded.is_set() else LOADED_BYTES))


_loaded = threading.Event()


def note_loaded() -> None:
    """Record that a large photo was enhanced: what that loads is part of `resident_bytes` from now on."""
    _loaded.set()


def held_bytes(width: int, height: int, sample_bytes: int = 1, gray: bool = False) -> int:
    """Bytes that a photo takes while it is enhanced, without the network: source, result and a strip of floats.

    A gray photo is held in one channel and, for the network, in three.
    """
    return width * height * (8 if gray else 6) * sample_bytes + (64 << 20)


def encode_bytes(width: int, height: int, fmt: str, progressive: bool = False, sample_bytes: int = 1) -> int:
    """Bytes that a photo takes while it is encoded: itself, Pillow's copy and the encoder's memory."""
    pixel = _ENCODE_BYTES[fmt] + (6 if progressive else 0) + 3 * sample_bytes
    return width * height * pixel + (16 << 20)


def seen_sides(width: int, height: int, reduction: int) -> tuple[int, int]:
    """Width and height of what the network sees of a photo reduced by `reduction`: mirrored edges included."""
    if reduction == 1:
        return width, height
    from qatie_cli.enhance.guided import MIRRORED_PX  # imports NumPy, which parsing a size does not need

    return -(-width // reduction) + 2 * MIRRORED_PX, -(-height // reduction) + 2 * MIRRORED_PX


def network_bytes(width: int, height: int, bytes_per_pixel: float, side: int | None, reduction: int = 1) -> int:
    """Bytes that the network takes for a photo, beside `held_bytes`.

    Args:
        bytes_per_pixel: of what the network sees.
        side: of its tiles, which it sees with their halo; None where it sees the photo, or the reduced one, whole.
    """
    from qatie_cli.model.moments import HALO  # imports NumPy

    width, height = seen_sides(width, height, reduction)
    fixed = width * height * _GUIDED_BYTES if reduction > 1 else 0
    if side is not None:
        width, height = min(side + 2 * HALO, width), min(side + 2 * HALO, height)
    return fixed + int(width * height * bytes_per_pixel)


def tile_side(
    width: int,
    height: int,
    network_bytes_per_pixel: float,
    budget: int,
    sample_bytes: int = 1,
    reduction: int = 1,
    gray: bool = False,
) -> int | None:
    """The largest tile side that keeps a photo within `budget` bytes; None if no tiles are needed.

    Where the network sees the photo reduced, tiles are of the reduced one.

    Raises:
        PhotoError: even the smallest tiles need more.
    """
    held, needed = held_bytes(width, height, sample_bytes, gray), 0
    for side in (None, *_TILE_SIDES):
        needed = held + network_bytes(width, height, network_bytes_per_pixel, side, reduction)
        if needed <= budget:
            return side
    raise PhotoError(
        f"It has {width * height / 1e6:,.1f} megapixels and needs {needed / 1e6:,.0f} MB of memory; "
        f"{max(0, budget) / 1e6:,.0f} MB are left of what is allowed.",
        f"Raise --max-memory by {math.ceil((needed - budget) / 1e6):,} MB or more.",
    )


class Budget:
    """A memory budget shared by photos in several stages: `take` waits until there is room."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._held = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until `size` bytes fit beside what is held; a photo larger than all of it gets it alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._held or self._held + size <= self.total)
            self._held += size

    def add(self, size: int) -> None:
        """Take `size` bytes without waiting: for a photo that has begun."""
        with self._changed:
            self._held += size

    @property
    def left(self) -> int:
        """Bytes that are not taken."""
        with self._changed:
            return self.total - self._held

    def give_back(self, size: int) -> None:
        """Release `size` bytes."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Release all waiting threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
