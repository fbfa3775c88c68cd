"""A Ray cluster: connected to, and its nodes checked before work begins."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qatie_cli import __version__, engines
from qatie_cli.errors import EngineError, QatieError, UsageError

LOCAL, AUTO = "local", "auto"
_SECONDS_TO_CONNECT = 10.0
_SECONDS = 120.0  # that a node may take to answer: its first process imports qatie
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        name: for people.
        cpus, memory: what Ray may use of it; memory in bytes.
        engines: that it has, where it was asked for them.
    """

    id: str
    name: str
    cpus: float
    memory: float
    engines: tuple[str, ...] = ()


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected to a cluster; its actors end with the block, and a local one with them.

    Args:
        address: `local` starts one on this machine, `auto` is the one that this machine belongs to.

    Raises:
        QatieError: there is no such cluster.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _SETTINGS.items()})
    _check_that_something_listens(os.environ.get("RAY_ADDRESS", "") if address == AUTO else address)
    import ray

    if ray.is_initialized():  # by a program that goes on using it
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            # Its actors import the code that this process runs.
            ray.init(address=LOCAL, include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise _no_cluster(address, str(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_that_something_listens(address: str) -> None:
    """Raise QatieError where nothing does: Ray would try for eight minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str, reason: str) -> QatieError:
    where = "that this machine belongs to" if address == AUTO else f"at {address}"
    short = " ".join(reason.split()).partition(". ")[0].rstrip(".")
    hint = "Start one (ray start --head), name its address, or use --cluster local."
    return QatieError(f"There is no Ray cluster {where} ({short}).", hint)


def nodes() -> list[Node]:
    """The machines of the cluster that can run something."""
    import ray

    found = []
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and resources.get("CPU"):
            name = node.get("NodeName") or node["NodeManagerAddress"]
            found.append(Node(node["NodeID"], name, resources["CPU"], resources.get("memory", 0.0)))
    return found


def check(places: Sequence[str], engine: str) -> list[Node]:
    """The nodes with their engines. Each has this version of qatie and the engine, and sees `places`, which are URLs.

    Raises:
        QatieError: one does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = nodes()
    if not here:
        raise QatieError("The Ray cluster has no node with a CPU to use.", "Add one, or use --cluster local.")
    probe = ray.remote(num_cpus=0, max_retries=1)(_probe)
    there = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in here]
    answers = [probe.options(scheduling_strategy=one).remote(list(places), engine) for one in there]
    checked = []
    for node, answer in zip(here, answers, strict=True):
        try:
            checked.append(_checked(node, ray.get(answer, timeout=_SECONDS), engine))
        except ray.exceptions.GetTimeoutError:
            raise QatieError(f"The node {node.name} does not answer.", "Look at it with: ray status") from None
        except (ray.exceptions.RayError, ImportError) as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, ImportError):
                raise QatieError(
                    f"The node {node.name} cannot import qatie ({cause}).", "Install the same qatie on every node."
                ) from None
            reason = str(cause).strip().splitlines()[-1:]
            raise QatieError(f"The node {node.name} cannot be used: {''.join(reason)}.") from None
    return checked


def _checked(node: Node, answer: tuple[Any, ...], engine: str) -> Node:
    """The node with its engines.

    Args:
        answer: of `_probe`; that of another version may have other fields behind the first.
    """
    if answer[0] != __version__:
        raise QatieError(
            f"The node {node.name} has qatie {answer[0]}, this one {__version__}.", "Install the same on every node."
        )
    _, unseen, lacks, there, compiled = answer
    if unseen:
        raise UsageError(
            f"The node {node.name} does not see all places: {unseen}",
            "Folders must be mounted everywhere under one path; each node needs its own credentials for a store.",
        )
    if lacks:
        raise EngineError(f"On the node {node.name}: {lacks}", "Choose an --engine that every node has.")
    if engine == engines.FLOAT and compiled != engines.has_compiled():
        where = f"on the node {node.name} but not here" if compiled else f"here but not on the node {node.name}"
        raise EngineError(
            f"float runs in compiled convolutions {where}, so outputs would differ.",
            "Use --engine onnxruntime, or nodes of one kind.",
        )
    return dataclasses.replace(node, engines=tuple(there))


def common_engines(machines: Sequence[Node]) -> tuple[str, ...]:
    """The engines that this process and every node have: `engines.load` chooses one, since a batch never mixes them."""
    own = engines.available_without_torch() or engines.available()
    return tuple(name for name in own if all(name in node.engines for node in machines))


def _probe(places: list[str], engine: str) -> tuple[str, str, str, tuple[str, ...], bool]:
    """What a node has: qatie's version, why it does not see a place, why it lacks the engine, engines, compiled code.

    Only `auto` is answered with engines.
    """
    import qatie_cli
    from qatie_cli.storage import stores, urls

    unseen = ""
    for place in places:
        try:
            if urls.protocol(place) == urls.FILE:
                if not os.path.lexists(urls.to_path(place)):
                    unseen = f"there is no {urls.to_path(place)}."
            else:
                stores.of(place).entry(place)
        except QatieError as error:
            unseen = error.one_line()
    lacks, there = "", tuple[str, ...]()
    try:
        engines.resolve(engine)
        if engine == "auto":
            there = engines.available_without_torch() or engines.available()
    except QatieError as error:
        lacks = str(error)
    return qatie_cli.__version__, unseen, lacks, there, engines.has_compiled()
