"""Process-wide settings of a decoder call, restored when it ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from PIL import Image

from qatie_cli import chatter

_LOCK = threading.Lock()
_calls = 0  # that run now
_host_limit: int | None = None  # Pillow's limit before the first of them


@contextlib.contextmanager
def decoder_call() -> Iterator[None]:
    """Lift Pillow's pixel limit, which a caller's `max_pixels` replaces, and silence C libraries.

    Pillow has one limit per process, so overlapping calls share the change: the first makes it, the last restores it.
    """
    global _calls, _host_limit  # noqa: PLW0603
    with _LOCK:
        if not _calls:
            _host_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _calls += 1
    try:
        with chatter.hidden():
            yield
    finally:
        with _LOCK:
            _calls -= 1
            if not _calls:
                Image.MAX_IMAGE_PIXELS = _host_limit
