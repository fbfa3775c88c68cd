"""Decoding in a separate process, for formats with large decoders: a crash there costs one photo.

HEIC, AVIF, WebP and TIFF are decoded apart; JPEG, PNG and BMP, whose decoders hardly ever crash, only where the caller
suspects the photo. The process is started for the first such photo (0.3 s) and serves all that follow. It costs 4 to 9%
CPU time on batches of 12-megapixel HEIC photos and no wall time; 20 to 55 ms for a JPEG of 12 megapixels. If no process
can be started, everything is decoded here.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

from qatie_cli.errors import PhotoError
from qatie_cli.photo import decoding
from qatie_cli.photo.content import Photo
from qatie_cli.photo.decoding import Header

SECONDS = 300.0  # that a photo may take to decode; 250 megapixels of HEIC take 20
BYTES = 90 << 20  # of the process itself, without photos
_PROGRAM = "from qatie_cli.photo import apart; apart.serve()"
_READY = b"ready"
_HEAD_BYTES = 12


class Reader:
    """Reads photos, some of them in the other process. Safe to call from several threads, which take turns."""

    def __init__(self, program: str = _PROGRAM, seconds: float = SECONDS) -> None:
        self._program, self._seconds = program, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._shared: int | None = None  # descriptor of the shared memory that photos arrive in (Linux)
        # False once a process could not be started. The executable of a frozen application is not an interpreter.
        self._works = bool(sys.executable) and not getattr(sys, "frozen", False)
        self._lock = threading.Lock()

    def takes(self, path: Path, suspect: bool = False) -> bool:
        """Whether a file is decoded in the other process, if one can be started."""
        return suspect or is_for_apart(path)

    def read(self, path: Path, max_pixels: int, suspect: bool = False) -> Photo:
        """As `decoding.read`; a `suspect` photo is decoded in the other process whatever its format.

        Raises:
            PhotoError: it cannot be read, its decoder crashes, or it takes more than `seconds`.
        """
        photo = self._ask("read", path, max_pixels) if self.takes(path, suspect) else None
        return decoding.read(path, max_pixels) if photo is None else photo

    def header(self, path: Path, suspect: bool = False) -> Header | None:
        """As `decoding.header`, in the process that `read` uses.

        Raises:
            PhotoError: its decoder crashes.
        """
        if not self._works or not self.takes(path, suspect):
            return decoding.header(path)
        return self._ask("header", path, 0)

    def interrupt(self) -> None:
        """Kill the process; a thread waiting for it gets PhotoError."""
        process = self._process  # without the lock, which the waiting thread holds
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, what: str, path: Path, max_pixels: int) -> Any:
        """The answer of the process; None if there is no process."""
        with self._lock:
            process = self._running()
            if process is None or process.stdin is None or process.stdout is None:
                return None
            late = threading.Event()

            def give_up() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self._seconds, give_up)
            timer.start()
            try:
                _send(process.stdin, (what, os.fspath(path), max_pixels), None)
                answer = _receive(process.stdout, self._shared)
            except (OSError, EOFError, pickle.UnpicklingError):
                self._end()
                raise _crash(path, process.returncode, late.is_set(), self._seconds) from None
            finally:
                timer.cancel()
        if isinstance(answer, PhotoError):
            raise answer
        return answer

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._process is None and self._works:
            if hasattr(os, "memfd_create"):
                with contextlib.suppress(OSError):
                    self._shared = os.memfd_create("photo")
            shared = () if self._shared is None else (self._shared,)
            command = [sys.executable, "-P", "-c", self._program, *map(str, shared)]
            package = str(Path(__file__).parents[2])
            paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=shared,
                    env=os.environ | {"PYTHONPATH": paths},
                )
                self._works = self._process.stdout is not None and self._process.stdout.read(5) == _READY
            except OSError:
                self._works = False
            if not self._works:
                self._end()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        process.kill()
        process.wait()


def is_for_apart(path: Path) -> bool:
    """Whether a file is decoded apart for its format: a TIFF, HEIC, AVIF or WebP, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False  # reading it reports the reason
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") or head[4:8] == b"ftyp" or head[8:12] == b"WEBP"


def _crash(path: Path, code: int | None, late: bool, seconds: float) -> PhotoError:
    if late:
        return PhotoError(f"{path} takes more than {seconds:,.0f} seconds to decode.", "Save it as PNG or JPEG first.")
    how = f"exit code {code}"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    return PhotoError(f"{path} makes its decoder crash ({how}).", "It is damaged or needs more memory than there is.")


# --- between the processes ----------------------------------------------------------------------------------------


def _send(stream: IO[bytes], value: object, shared: int | None) -> None:
    """Send a pickle and its arrays: in `shared` memory or, without it, after the pickle."""
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    raws = [array.raw() for array in arrays]
    sizes: list[int] = [raw.nbytes for raw in raws]
    if shared is not None and any(sizes):
        if os.fstat(shared).st_size < sum(sizes):  # it never shrinks: new memory takes longer than the copy
            os.ftruncate(shared, sum(sizes))
        with mmap.mmap(shared, sum(sizes)) as memory:
            for raw in raws:
                memory.write(raw)
    stream.write(struct.pack(f">QI{len(raws)}Q", len(body), len(raws), *sizes))
    stream.write(body)
    for raw in raws if shared is None else ():
        stream.write(raw)
    stream.flush()


def _receive(stream: IO[bytes], shared: int | None) -> Any:
    length, count = struct.unpack(">QI", _exactly(stream, 12))
    sizes = struct.unpack(f">{count}Q", _exactly(stream, 8 * count))
    body = _exactly(stream, length)
    if shared is None or not any(sizes):
        return pickle.loads(body, buffers=[bytearray(_exactly(stream, size)) for size in sizes])
    with mmap.mmap(shared, sum(sizes), access=mmap.ACCESS_READ) as memory:
        parts = np.split(np.frombuffer(memory, np.uint8), np.cumsum(sizes)[:-1])
        arrays: list[Any] = [part.copy() for part in parts]
        del parts
    return pickle.loads(body, buffers=arrays)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def serve() -> None:
    """Answer requests until the parent ends. Run by the separate process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    with contextlib.suppress(OSError):  # the first to be killed when memory runs out (Linux)
        Path("/proc/self/oom_score_adj").write_text("1000")
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    shared = int(sys.argv[1]) if len(sys.argv) > 1 else None
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            what, path, max_pixels = _receive(questions, None)
        except EOFError:
            return
        try:
            answer: object = decoding.read(Path(path), max_pixels) if what == "read" else decoding.header(Path(path))
        except PhotoError as error:
            answer = PhotoError(str(error), error.hint)
        try:
            _send(answers, answer, shared)
        except BrokenPipeError:
            return
