"""Atomic writes: a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed: that is lock enough
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".qatie-tmp-"  # hidden, so that discovery never takes a temporary file for a photo


@contextlib.contextmanager
def atomic_path(
    path: Path, mode: int | None = None, before_replace: Callable[[Path], None] = lambda _: None
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block succeeds and is removed otherwise.

    It is locked while it is written, which distinguishes it from the leftovers of a killed process (`remove_stale`).

    Args:
        mode: permissions of the file; None for the default of new files.
        before_replace: called with the finished temporary file.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    handle, temporary = _locked_temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        with contextlib.suppress(OSError):  # a file system without permissions, such as FAT
            temporary.chmod(0o666 & ~_umask() if mode is None else mode)
        before_replace(temporary)
        if fcntl is None:
            os.close(handle)
            handle = None
        temporary.replace(path)
    finally:
        if handle is not None:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=path.suffix, dir=path.parent)
        if fcntl is None:
            return handle, Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process is about to remove it as stale
            os.close(handle)
            continue
        except OSError:  # a file system without locks
            return handle, Path(name)
        # Another process may have taken it for stale before it was locked.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name).st_ino == os.fstat(handle).st_ino:  # noqa: PTH116 (a name, not a Path)
                return handle, Path(name)
        os.close(handle)


def try_lock(file: IO) -> bool:
    """Lock an open file until it is closed; False if another process holds the lock."""
    if fcntl is None:
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_stale(folder: Path) -> int:
    """Remove temporary files of killed processes from `folder`, return how many; those being written are locked."""
    removed = 0
    for path in _entries(folder):
        if not path.name.startswith(TEMPORARY_PREFIX) or not path.is_file():
            continue
        with contextlib.suppress(OSError):
            if fcntl is None:
                path.unlink()
            else:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            removed += 1
    return removed


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` atomically; text as UTF-8, undecodable bytes of file names in it restored."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with a header row to `path` in one step; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def check_writable(folder: Path) -> None:
    """Create `folder` if it is missing, and check that files can be created in it.

    Raises:
        OSError: either fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
    os.close(handle)
    Path(name).unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
