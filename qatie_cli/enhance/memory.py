"""Memory: what is free, what a photo needs, and tiles that make it fit."""

from __future__ import annotations

import contextlib
import ctypes
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
# Bytes a pixel beside the photo's own while it is encoded, measured.
_ENCODE_BYTES = {"jpeg": 5, "png": 4, "tiff": 2, "webp": 24, "heic": 26, "avif": 29}
_GUIDED_BYTES = 30  # a pixel of a reduced photo, while its residual is fitted to it; 20 measured, 28 without numba
_KEPT_CONVOLUTIONS = 256  # those of one size of photo, and no more
# What the first photos leave in a process for good: numba with its kernels, 90 MB, and the convolutions that oneDNN
# compiles for every shape, up to 150 MB with `_KEPT_CONVOLUTIONS`. Measured.
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
    """Memory that this process holds."""
    import psutil

    return psutil.Process().memory_info().rss


def keep_together(bounded: bool = False) -> None:
    """Let all threads share one malloc arena; glibc has one for each thread. A setting of the whole process.

    The network can then reuse what a decoding thread has freed: a 108-megapixel photo took 1.36 GB instead of 1.65 GB,
    in the same time.

    Args:
        bounded: memory has a limit, so oneDNN is to keep fewer compiled convolutions. It makes one for every shape and
            keeps 1,024, which took 10 MB for every new size of photo. Call it before torch is imported.
    """
    if bounded:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT_CONVOLUTIONS))
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_free_memory_back() -> None:
    """Return freed memory that malloc keeps to the system (glibc)."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def available(max_memory: int | None) -> int:
    """Bytes that photos may take: up to `max_memory` in all with what this process holds, or 60% of what is free."""
    if max_memory is None:
        return int(free_bytes() * SHARE_OF_FREE)
    return max(0, max_memory - resident_bytes() - (0 if _loaded.is_set() else LOADED_BYTES))


_loaded = threading.Event()


def note_loaded() -> None:
    """Say that this process has enhanced a large photo: what that loads is part of `resident_bytes` from then on."""
    _loaded.set()


def held_bytes(width: int, height: int, sample_bytes: int = 1, gray: bool = False) -> int:
    """What a photo takes while it is enhanced, the network aside: source and result, and a strip's floats.

    A gray photo is held in one channel and, for the network, in three.
    """
    return width * height * (8 if gray else 6) * sample_bytes + (64 << 20)


def encode_bytes(width: int, height: int, fmt: str, progressive: bool = False, sample_bytes: int = 1) -> int:
    """What a photo takes while it is encoded: itself, Pillow's copy of it, and the encoder's own."""
    pixel = _ENCODE_BYTES[fmt] + (6 if progressive else 0) + 3 * sample_bytes
    return width * height * pixel + (16 << 20)


def seen_sides(width: int, height: int, reduction: int) -> tuple[int, int]:
    """Width and height of what the network sees of a photo reduced by `reduction`: mirrored edges included."""
    if reduction == 1:
        return width, height
    from qatie_cli.enhance.guided import MIRRORED_PX  # imports NumPy, which who only parses a size can do without

    return -(-width // reduction) + 2 * MIRRORED_PX, -(-height // reduction) + 2 * MIRRORED_PX


def network_bytes(width: int, height: int, bytes_per_pixel: float, side: int | None, reduction: int = 1) -> int:
    """What the network takes of a photo beside `held_bytes`.

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
    """The side of the tiles in which a photo stays below `budget` bytes; None where the whole photo does.

    Where the network sees the photo reduced, tiles are of the reduced one.

    Raises:
        PhotoError: not even the smallest tiles would do.
    """
    held, needed = held_bytes(width, height, sample_bytes, gray), 0
    for side in (None, *_TILE_SIDES):
        needed = held + network_bytes(width, height, network_bytes_per_pixel, side, reduction)
        if needed <= budget:
            return side
    raise PhotoError(
        f"It has {width * height / 1e6:,.0f} megapixels and needs {needed / 1e6:,.0f} MB of memory; "
        f"{max(0, budget) / 1e6:,.0f} MB are left of what is allowed.",
        "Allow more with --max-memory.",
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
        """Let nobody wait any longer, for room that may never be given back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
