"""What a call of a decoder changes in the process, put back when the call ends."""

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
    """Lift Pillow's own limit of pixels, which a caller's `max_pixels` replaces, and hide C libraries' remarks.

    Pillow has one limit for the process, so calls of several threads share the change: the first makes it, the last
    puts it back.
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
