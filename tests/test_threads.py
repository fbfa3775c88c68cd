"""How waiting threads spin, and how many threads there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


# --- cores --------------------------------------------------------------------------------------------------------

V2 = "41 31 0:38 {part} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "32 31 0:29 {part} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that writes the files of a machine on whose 16 cores this process may run; it returns their root."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

    def write(memberships: str, mounts: str, **quotas: str) -> Path:
        files = {"proc/self/cgroup": memberships, "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/a rw\n" + mounts}
        for name, content in (files | quotas).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return write


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(("quota", "cores"), [("max", 16), ("200000", 2), ("150000", 2), ("10000", 1), ("9900000", 16)])
def test_a_container_has_the_cores_of_its_quota(machine, quota, cores):
    root = machine("0::/\n", V2.format(part="/"), **{"sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert threads.usable_cores(root) == cores


def test_the_smallest_quota_on_the_way_up_holds(machine):
    above = "sys/fs/cgroup/machine.slice"
    quotas = {f"{above}/app.service/cpu.max": "max 100000\n", f"{above}/cpu.max": "50000 10000\n"}
    root = machine("0::/machine.slice/app.service\n", V2.format(part="/"), **quotas)
    assert threads.usable_cores(root) == 5


@pytest.mark.parametrize(("quota", "cores"), [(-1, 16), (300_000, 3), (50_000, 1)])
def test_version_1_says_it_in_two_files(machine, quota, cores):
    group = v1("sys/fs/cgroup/cpu,cpuacct/job", quota)
    root = machine("4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n", V1.format(part="/"), **group)
    assert threads.usable_cores(root) == cores


def test_a_container_of_version_1_sees_its_own_part_of_the_tree(machine):
    """The membership is the path on the host, of which only the container's part is mounted."""
    group = v1("sys/fs/cgroup/cpu,cpuacct", 400_000)
    for part, member in (("/docker/abc", "/docker/abc"), ("/", "/docker/abc"), ("/docker/abc", "/")):
        root = machine(f"3:cpu,cpuacct:{member}\n", V1.format(part=part), **group)
        assert threads.usable_cores(root) == 4


def test_quotas_of_other_groups_do_not_count(machine):
    quotas = v1("sys/fs/cgroup/cpu,cpuacct/other", 100_000) | {"sys/fs/cgroup/cpu.max": "100000 100000\n"}
    root = machine("4:cpuset:/other\n3:cpu,cpuacct:/job\n", V1.format(part="/") + V2.format(part="/"), **quotas)
    assert threads.usable_cores(root) == 16


@pytest.mark.parametrize("content", ["", "max", "nonsense 100000", "100000 0"])
def test_files_that_say_nothing_set_no_limit(machine, content):
    root = machine("0::/\n", V2.format(part="/"), **{"sys/fs/cgroup/cpu.max": content})
    assert threads.usable_cores(root) == 16
    assert threads.usable_cores(root / "nowhere") == 16


def test_affinity_counts_where_it_is_less(machine, monkeypatch):
    root = machine("0::/\n", V2.format(part="/"), **{"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7}, raising=False)
    assert threads.usable_cores(root) == 3


def test_libraries_start_as_many_threads_as_the_quota_allows(machine):
    root = machine("0::/\n", V2.format(part="/"), **{"sys/fs/cgroup/cpu.max": "200000 100000\n"})
    environment: dict[str, str] = {}
    threads.bound_number(environment, root)
    assert environment == {"OMP_NUM_THREADS": "2"}
    chosen = {"OMP_NUM_THREADS": "7"}
    threads.bound_number(chosen, root)
    assert chosen == {"OMP_NUM_THREADS": "7"}
    (root / "sys/fs/cgroup/cpu.max").write_text("max 100000")
    free: dict[str, str] = {}
    threads.bound_number(free, root)
    assert free == {}


def test_an_engine_stays_within_the_quota(weights, monkeypatch):
    """Also where torch was imported before anything could be set."""
    import torch

    from qatie_cli import engines
    from qatie_cli.engines import process

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(process, "usable_cores", lambda: 3)
    assert engines.load(weights, "float").threads == 3
    assert engines.load(weights, "float", threads=5).threads == 5
    monkeypatch.setattr(process, "usable_cores", lambda: 8)
    assert engines.load(weights, "float").threads == 0
    monkeypatch.setattr(process, "usable_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert engines.load(weights, "float").threads == 0
