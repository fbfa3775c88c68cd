"""The command qatie, in a process of its own and in this one."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys

from qatie_cli import cli

QATIE = [sys.executable, "-P", "-m", "qatie_cli"]

# Makes decoders do what a photo's name says, in the process that runs this.
FRAGILE_DECODERS = """
import os, signal, time
from pathlib import Path
from qatie_cli.photo import apart, decoding
real = decoding._decode
def decode(image, file):
    name = Path(file.name).stem
    if name == "aborts":
        os.abort()
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "hangs":
        time.sleep(600)
    if name == "killed-once" and not (tried := Path(file.name).with_suffix(".tried")).exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(image, file)
decoding._decode = decode
"""
SERVING_FRAGILE = f"{FRAGILE_DECODERS}\napart.serve()\n"  # the process that decodes apart
# The command, with such decoders here and apart.
FRAGILE_QATIE = [
    *(sys.executable, "-P", "-c"),
    f"{FRAGILE_DECODERS}\nimport sys\nfrom qatie_cli import cli\n"
    f"apart.Reader.__init__.__defaults__ = ({SERVING_FRAGILE!r}, 60.0)\ncli.run(sys.argv[1:])\n",
]


def qatie(*arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run the command in a process of its own; it must end with this exit code."""
    done = subprocess.run([*QATIE, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def qatie_here(*arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run the command in this process, which saves the second or three of its start.

    For what concerns neither the process itself (streams, signals, imports, threads) nor how it is started.
    """
    words = [*map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    status: object = None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.run(words)
    except SystemExit as end:
        status = end.code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    done = subprocess.CompletedProcess(words, status, *(s.buffer.getvalue().decode() for s in (out, err)))
    assert (done.returncode or 0) == code, done.stderr
    return done
