"""Compiled passes over pixels and feature maps: what NumPy does in several passes over memory, numba does in one.

Every kernel has a twin in NumPy or PyTorch that gives the same bits and takes over where numba is missing, but for
those of the engine `llvm`, which does not run then.
"""

from __future__ import annotations

import functools
import os
import sys

# Importing numba takes 0.2 s and loading a kernel 10 ms, so a process that never sees a large picture does without.
WORTH_IMPORTING = 1 << 19  # pixels


def usable(pixels: int) -> bool:
    """Whether a pass over so many pixels should be a compiled one. `QATIE_NO_NUMBA` in the environment forbids it."""
    if os.environ.get("QATIE_NO_NUMBA"):
        return False
    return (pixels >= WORTH_IMPORTING or "numba" in sys.modules) and installed()


@functools.cache
def installed() -> bool:
    """Whether numba can be imported here; it is not made for every processor and refuses a NumPy it does not know."""
    try:
        import numba  # noqa: F401
    except Exception:  # not only ImportError: a damaged llvmlite raises OSError, a wrong NumPy SystemError
        return False
    return True
