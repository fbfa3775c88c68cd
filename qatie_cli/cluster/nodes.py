"""Nodes of a Ray cluster, checked before a run starts."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qatie_cli import __version__, engines
from qatie_cli.errors import EngineError, PinnedEngineError, QatieError, UsageError

LOCAL, AUTO = "local", "auto"
_SECONDS_TO_CONNECT = 10.0
_SECONDS = 120.0  # for a node to answer; its first process has to import qatie
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        name: host name, for messages.
        cpus, memory: what Ray may use; memory in bytes.
        engines: those that it has, if it was asked.
    """

    id: str
    name: str
    cpus: float
    memory: float
    engines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """What nodes need beside an engine: `modules` of the extra `extra`, and the float engine."""

    modules: tuple[str, ...] = ()
    extra: str = ""
    float_too: bool = False


NOTHING = Need()


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster. Leaving the block ends our actors, and a cluster started by `local`.

    Args:
        address: `local` starts a cluster on this machine; `auto` finds the one this machine belongs to.

    Raises:
        QatieError: no such cluster.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _SETTINGS.items()})
    _check_that_something_listens(os.environ.get("RAY_ADDRESS", "") if address == AUTO else address)
    import ray

    if ray.is_initialized():  # by the host program, which keeps using it
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == LOCAL:
            ray.init(address=LOCAL, include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise _no_cluster(address, str(error)) from None
    # Ray prints there what happens to nodes, such as the log of one that was killed; some of it as it ends.
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            yield
        finally:
            ray.shutdown()


def _check_that_something_listens(address: str) -> None:
    """Raise QatieError if nothing listens at `address`: Ray would retry for eight minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _no_cluster(address: str, reason: str) -> QatieError:
    where = "for this machine" if address == AUTO else f"at {address}"
    short = " ".join(reason.split()).partition(". ")[0].rstrip(".")
    hint = "Start one (ray start --head), give its address, or use --cluster local."
    return QatieError(f"No Ray cluster found {where} ({short}).", hint)


def nodes() -> list[Node]:
    """The live nodes that have CPUs."""
    import ray

    found = []
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and resources.get("CPU"):
            name = node.get("NodeName") or node["NodeManagerAddress"]
            found.append(Node(node["NodeID"], name, resources["CPU"], resources.get("memory", 0.0)))
    return found


def check(places: Sequence[str], engine: str, needs: Need = NOTHING, begun_on: str = "") -> list[Node]:
    """Check that each node has this version of qatie and the engine, and can access `places` (URLs); return the nodes.

    Args:
        begun_on: the engine of the batch's existing outputs; the message says so if that is why `engine` is needed.

    Raises:
        QatieError: a node fails the check.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = nodes()
    if not here:
        raise QatieError("The Ray cluster has no node with CPUs.", "Add one, or use --cluster local.")
    probe = ray.remote(num_cpus=0, max_retries=1)(_probe)
    there = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in here]
    answers = [probe.options(scheduling_strategy=one).remote(list(places), engine, needs) for one in there]
    checked = []
    for node, answer in zip(here, answers, strict=True):
        try:
            checked.append(_checked(node, ray.get(answer, timeout=_SECONDS), engine, needs, begun_on))
        except ray.exceptions.TaskUnschedulableError:
            continue  # it has left the cluster since it was listed
        except ray.exceptions.GetTimeoutError:
            raise QatieError(f"Node {node.name} does not respond.", "Check it with: ray status") from None
        except (ray.exceptions.RayError, ImportError) as error:
            cause = getattr(error, "cause", None) or error
            if isinstance(cause, ImportError):
                raise QatieError(
                    f"Node {node.name} cannot import qatie ({cause}).", "Install the same version on every node."
                ) from None
            reason = str(cause).strip().splitlines()[-1:]
            raise QatieError(f"Node {node.name} failed the check: {''.join(reason)}.") from None
    if not checked:
        raise QatieError("All nodes have left the Ray cluster.", "Check it with: ray status")
    return checked


def _checked(node: Node, answer: tuple[Any, ...], engine: str, needs: Need = NOTHING, begun_on: str = "") -> Node:
    """The node, with its engines.

    Args:
        answer: what `_probe` returned. Other versions of qatie may return other fields after the first.
    """
    if answer[0] != __version__:
        raise QatieError(
            f"Node {node.name} has qatie {answer[0]}, this machine {__version__}.",
            "Install the same version on every node.",
        )
    _, unseen, lacks, there, compiled, missing = answer
    if unseen:
        raise UsageError(
            f"Node {node.name} cannot access the photos: {unseen}",
            "Mount folders under the same path on every node; give every node the store's credentials.",
        )
    if lacks and engine == begun_on:
        raise PinnedEngineError(
            f"Node {node.name}: the batch was begun on {engine}, and outputs of two engines differ. {lacks}",
            "Restore it, or continue with an --engine that every node has; --overwrite redoes all.",
        )
    if lacks:
        raise EngineError(f"Node {node.name}: {lacks}", "Choose an --engine that every node has.")
    if missing:
        raise UsageError(f"Node {node.name} has no {missing[0]}.", f"Run there: {missing[1]}")
    if (engine == engines.FLOAT or needs.float_too) and compiled != engines.has_compiled():
        where = f"on node {node.name} but not here" if compiled else f"here but not on node {node.name}"
        hint = "Use nodes of the same kind." if needs.float_too else "Use --engine onnxruntime, or nodes of one kind."
        raise EngineError(f"float uses compiled convolutions {where}, so results would differ.", hint)
    return dataclasses.replace(node, engines=tuple(there))


def common_engines(machines: Sequence[Node]) -> tuple[str, ...]:
    """The engines that this machine and all nodes share. A batch never mixes engines; `engines.load` picks one."""
    own = engines.available_without_torch() or engines.available()
    return tuple(name for name in own if all(name in node.engines for node in machines))


def _probe(
    places: list[str], engine: str, needs: Need
) -> tuple[str, str, str, tuple[str, ...], bool, tuple[str, str] | None]:
    """Run on a node.

    Returns qatie's version, why a place is inaccessible, why the engine is missing, the engines (for `auto` only),
    whether float is compiled, and the modules that are missing with the command that installs them.
    """
    import qatie_cli
    from qatie_cli import installation
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
    missing = [name for name in needs.modules if not installation.has(name)]
    install = (", ".join(missing), installation.extra(needs.extra)) if missing else None
    return qatie_cli.__version__, unseen, lacks, there, engines.has_compiled(), install
