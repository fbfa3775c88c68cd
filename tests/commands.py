"""The command qatie, run in a process of its own."""

from __future__ import annotations

import subprocess
import sys

QATIE = [sys.executable, "-P", "-m", "qatie_cli"]


def qatie(*arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run the command; it must end with this exit code."""
    done = subprocess.run([*QATIE, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done
