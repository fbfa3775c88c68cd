"""Atomic writes, file locks and durable appends."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import os
import re
import secrets
import socket
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows does not remove open files, so no lock is needed
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX = ".qatie-tmp-"  # hidden, so that discovery ignores temporary files
# Names of the standard streams' descriptors.
_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


@contextlib.contextmanager
def atomic_path(
    path: Path, mode: int | None = None, before_replace: Callable[[Path], None] = lambda _: None
) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` when the block succeeds and is removed otherwise.

    It is locked while it is written, so that `remove_stale` can tell it from the leftovers of a killed process.
    Where `path` is a symbolic link, the file that it points to is replaced and the link stays.

    Args:
        mode: permissions of the file; None for the default of new files.
        before_replace: called with the finished temporary file.

    Raises:
        OSError: the folder cannot be written to, the disk is full, or `path` cannot be replaced (`is_special`).
    """
    path = _link_target(path)
    if is_special(path):
        raise OSError(errno.EINVAL, "It is not a regular file", str(path))
    handle, temporary = _locked_temporary(path, 0o666 if mode is None else 0o600)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if mode is not None:
            with contextlib.suppress(OSError):  # a file system without permissions, such as FAT
                temporary.chmod(mode)
        before_replace(temporary)
        if fcntl is None:
            os.close(handle)
            handle = None
        temporary.replace(path)
        _flush_folder(path.parent)
    finally:
        if handle is not None:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _link_target(path: Path) -> Path:
    """The final target of a symbolic link, existing or not; any other path unchanged."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _flush_folder(folder: Path) -> None:
    """Flush a folder, so that a rename survives a power cut (where supported)."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _locked_temporary(path: Path, mode: int) -> tuple[int, Path]:
    """Create a locked file beside `path`; the umask applies to `mode`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = str(path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}{path.suffix}")
        try:
            handle = os.open(name, flags, mode)
        except FileExistsError:
            continue
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

        file.seek(0)  # it locks bytes, from here on
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
    """Write `content` to `path` atomically; text is UTF-8, with undecodable bytes of file names restored.

    A regular file is replaced atomically; a device, FIFO, socket or open descriptor (`is_special`) is written to.
    """
    whole = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    if is_special(path):
        _write_through(path, whole)
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(whole)


def append_line(path: Path, line: bytes) -> None:
    """Append a line with a single write and flush it to disk, so that neither a kill nor another process can split it.

    Raises:
        OSError: it cannot be written, or the disk takes only a part of it.
    """
    is_new = not path.exists()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    try:
        whole = b"\n" + line + b"\n"  # the leading newline ends a line that a killed run left incomplete
        if os.write(handle, whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        _flush_folder(path.parent)


def is_special(path: Path) -> bool:
    """Whether `path` is a device, FIFO, socket or open descriptor, which cannot be replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _descriptor(path: Path) -> int | None:
    """The number behind /dev/stdout, /dev/fd/N and links to them."""
    for _ in range(40):  # Linux follows as many links
        name = os.fspath(path)
        if name in _STREAMS and fcntl is not None:
            return _STREAMS[name]
        if found := _DESCRIPTOR.fullmatch(name):
            return int(found[1])
        try:
            path = path.parent / path.readlink()
        except OSError:
            return None
    return None


def _write_through(path: Path, content: bytes) -> None:
    number = _descriptor(path)
    if number is None and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.fspath(path))
            connection.sendall(content)
        return
    if number == 1:
        sys.stdout.flush()  # keeps the order of output
    # A duplicate: opening /dev/stdout anew would truncate the file that it is.
    handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table with a header row atomically; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def check_writable(folder: Path) -> None:
    """Create `folder` if necessary, and check that it is writable.

    Raises:
        OSError: either fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=folder)
    os.close(handle)
    Path(name).unlink(missing_ok=True)


def keep_attributes(source: Path, target: Path) -> None:
    """Give `target` the owner, group, permissions, extended attributes and ACLs of `source`.

    Raises:
        OSError: one of them cannot be set.
    """
    wanted, there = source.stat(), target.stat()
    if hasattr(os, "chown") and (wanted.st_uid, wanted.st_gid) != (there.st_uid, there.st_gid):
        os.chown(target, wanted.st_uid, wanted.st_gid)
    with contextlib.suppress(OSError):  # a file system without permissions, such as FAT
        target.chmod(wanted.st_mode & 0o7777)
    if not hasattr(os, "listxattr"):
        return
    try:
        names = os.listxattr(source)
        held = {name: os.getxattr(target, name) for name in os.listxattr(target)}
    except OSError:  # a file system without them
        return
    for name in names:  # ACLs are among them
        value = os.getxattr(source, name)
        if held.get(name) != value:
            os.setxattr(target, name, value)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
