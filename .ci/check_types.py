"""Check types: no error in the API, and elsewhere no more of them than there were: python .ci/check_types.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
API = ("qatie_cli/__init__.py", "qatie_cli/api.py")  # strict in pyproject.toml, too
KNOWN = 17

run = subprocess.run(
    [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", "--show-error-codes"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
)
errors = [line for line in run.stdout.splitlines() if re.match(r"[^:]+\.py:\d+: error: ", line)]
if run.returncode not in (0, 1) or run.stderr or (run.returncode == 1 and not errors):
    sys.exit(f"mypy did not finish:\n{run.stdout}{run.stderr}")  # a syntax error, say, ends it before it has seen all

in_api = [line for line in errors if Path(line.split(":", 1)[0]).as_posix() in API]
elsewhere = [line for line in errors if line not in in_api]
if in_api:
    sys.exit("\n".join([*in_api, f"Types: {len(in_api)} errors in the API, which must have none."]))
if len(elsewhere) > KNOWN:
    sys.exit("\n".join([*elsewhere, f"Types: {len(elsewhere)} errors outside the API, {KNOWN} are allowed."]))
print(f"Types: none wrong in the API, {len(elsewhere)} errors elsewhere of {KNOWN} allowed.")
if len(elsewhere) < KNOWN:
    print(f"Lower KNOWN in .ci/check_types.py to {len(elsewhere)}.")
