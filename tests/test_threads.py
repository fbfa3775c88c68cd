"""How waiting threads spin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qatie_cli import threads


def test_the_spin_is_bounded_where_the_user_chose_nothing():
    environment = {"HOME": "/home/a"}
    threads.bound_spin(environment)
    assert int(environment["GOMP_SPINCOUNT"]) < 100_000
    assert int(environment["KMP_BLOCKTIME"]) <= 1


@pytest.mark.parametrize(
    "chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}, {"KMP_BLOCKTIME": "infinite"}]
)
def test_what_the_user_chose_stays(chosen):
    environment = dict(chosen)
    threads.bound_spin(environment)
    assert environment == chosen


@pytest.mark.parametrize("start", ["from qatie_cli.cli import main", "import qatie_cli.__main__ as m; main = m.main"])
def test_the_command_line_bounds_it_before_torch_is_loaded(start):
    script = (
        f"import sys, os\n{start}\nsys.argv = ['qatie', 'weights', 'path']\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    free = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run([sys.executable, "-c", script], env=free, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "10000"
