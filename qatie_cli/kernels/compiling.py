"""The decorator that compiles a kernel; importing this module imports numba."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
from numba.core.caching import FunctionCache

from qatie_cli.home import user_folder


class _Cache(FunctionCache):
    """A disk cache of compiled kernels. A full disk or a damaged file only costs compile time."""

    def load_overload(self, *arguments):
        try:
            return super().load_overload(*arguments)
        except Exception:  # unpickling a damaged file may raise anything
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *arguments):
        with contextlib.suppress(OSError):
            super().save_overload(*arguments)


def kernel(function: Callable) -> Callable:
    """Compile `function` when it is first called, without the GIL, and keep the machine code in the user's folder.

    Never with fastmath, and so that LLVM fuses no multiplication with an addition: results are those of NumPy.
    """
    # Python's error model checks every divisor, which prevents vectorization: tone took 1.6 times as long.
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    with contextlib.suppress(OSError, RuntimeError), _cached_in(_folder()):  # RuntimeError: no folder is writable
        compiled._cache = _Cache(function)
    return compiled


def _folder() -> Path:
    """Kernels call each other across files, but numba looks at one file's age: each set of sources has a folder."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return user_folder() / "kernels" / f"{zlib.crc32(sources):08x}"


@contextlib.contextmanager
def _cached_in(folder: Path) -> Iterator[None]:
    """Let numba cache in `folder`, unless the user chose another with NUMBA_CACHE_DIR; other code is not affected.

    Raises:
        OSError: it cannot be written to.
    """
    before = numba.config.CACHE_DIR
    if not before:
        folder.mkdir(parents=True, exist_ok=True)
        numba.config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before
