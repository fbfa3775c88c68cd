"""Threads: how many cores are available, and how OpenMP threads wait."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

# GNU's library counts iterations; LLVM's and Intel's count milliseconds. Unset, GNU's threads spin for as long as no
# more threads run than there are cores: eight 13-megapixel photos beside one busy process took 110 s instead of 22 s.
# A spin of 1,000 iterations took 17 s there, but 13.8 s instead of 10.8 s on a quiet machine.
_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_CHOSEN_BY_USER = ("OMP_WAIT_POLICY", *_SPIN)
NUMBER_OF_USER = "OMP_NUM_THREADS"


def bound_spin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make OpenMP's waiting threads sleep after a short spin, unless the user has set a policy.

    OpenMP reads these variables once, when it is loaded: call this before torch is first imported.
    """
    if not any(name in environment for name in _CHOSEN_BY_USER):
        environment.update(_SPIN)


def bound_number(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Limit libraries' threads to the CPU quota, unless the user has set their number.

    By default they start one per core; with a smaller quota these use it up early and all stall until the next period.
    Call this before NumPy is first imported.
    """
    cores = usable_cores(root)
    if NUMBER_OF_USER not in environment and cores < _cores_to_run_on():
        environment[NUMBER_OF_USER] = str(cores)


def usable_cores(root: Path = Path("/")) -> int:
    """Cores available to this process: its CPU affinity, or its CPU quota rounded up if that is less.

    Quotas of its cgroups (version 1 or 2) and their parents count; `root` is where /proc and /sys are found.
    """
    return max(1, min([_cores_to_run_on(), *(math.ceil(quota) for quota in _quotas(root))]))


def _cores_to_run_on() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    for folder in _cgroups(root):
        try:
            version_2 = folder / "cpu.max"
            if version_2.exists():
                quota, period = version_2.read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            cores = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no limit ("max"), or the root, which has no such file
            continue
        if cores > 0:  # version 1 says -1 for no limit
            yield cores


def _cgroups(root: Path) -> Iterator[Path]:
    """Folders of this process's CPU cgroups and their parents, as far as they are mounted.

    See cgroups(7) and proc_pid_mountinfo(5). In a container the path may be the host's, with only the container's part
    mounted.
    """
    paths = {}  # by version
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            paths[1 if controllers else 2] = PurePosixPath(path)
    for line in _lines(root / "proc/self/mountinfo"):
        mounted, _, kind = line.partition(" - ")
        mounted_part, point = mounted.split()[3:5]
        file_system, _, options = kind.split()[:3]
        version = {"cgroup2": 2, "cgroup": 1}.get(file_system)
        if version not in paths or (version == 1 and "cpu" not in options.split(",")):
            continue
        top = root / point.lstrip("/")
        member = paths[version]
        own = member.relative_to(mounted_part) if member.is_relative_to(mounted_part) else PurePosixPath()
        yield from (top / part for part in (own, *own.parents))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []
