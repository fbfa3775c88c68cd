"""`qatie enhance` from and to stores, or on a cluster: the same messages, with counts in place of lists."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qatie_cli.cli import galleries
from qatie_cli.cli.console import console, show_error
from qatie_cli.cli.options import Device, EngineName, check_cluster, need_extra
from qatie_cli.cli.stream import DASH
from qatie_cli.cli.telling import how
from qatie_cli.errors import Exit, QatieError, UsageError

if TYPE_CHECKING:
    from qatie_cli.batch.planning import Naming
    from qatie_cli.batch.running import Writing
    from qatie_cli.batch.settings import Settings
    from qatie_cli.cli.follow_large import Follower
    from qatie_cli.cloud.session import Executor, Request, Session
    from qatie_cli.cloud.work import Job
    from qatie_cli.cluster.actors import Workers
    from qatie_cli.cluster.nodes import Node
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.stored import StoredAlbum


@dataclass(frozen=True)
class Asked:
    """What to enhance, and how."""

    inputs: tuple[str, ...]
    out: str | None
    listed: tuple[str, ...]
    naming: Naming
    writing: Writing
    settings: Settings
    engine: EngineName
    threads: int
    device: Device
    max_memory: int | None


@dataclass(frozen=True)
class Where:
    """The options --cluster and --workers."""

    cluster: str | None
    workers: str | None


@dataclass(frozen=True)
class Shown:
    """What to report of a run, and where."""

    report: Path | None
    gallery: bool | None
    dry_run: bool
    quiet: bool
    verbose: bool


def is_large(cluster: str | None, workers: str | None, places: tuple[str, ...]) -> bool:
    """Whether these options are for this module: URLs, or a cluster.

    Raises:
        UsageError: --workers without --cluster, or --cluster without its extra.
    """
    from qatie_cli.storage import urls

    check_cluster(cluster, workers)
    return cluster is not None or any(map(urls.is_url, places))


def refuse(options: Mapping[str, bool]) -> None:
    """Raise UsageError if an option is used that works only with folders on this machine."""
    if used := [option for option, is_used in options.items() if is_used]:
        only = f"{used[0]} works only with folders on this machine."
        raise UsageError(only, "Leave it out, or leave out URLs and --cluster.")


def run(asked: Asked, where: Where, shown: Shown) -> Exit:
    """Plan, run and report; returns the exit code.

    Raises:
        QatieError: the run cannot start.
    """
    from qatie_cli.cli.follow_large import Follower
    from qatie_cli.cloud import session
    from qatie_cli.cluster import actors

    workers = None if where.workers is None else actors.Workers.parse(where.workers)
    request = _request(asked, where.cluster)
    with ExitStack() as until_done:
        large = until_done.enter_context(session.opened(request))
        follower = Follower(large, console(), shown.quiet, shown.verbose)
        if shown.dry_run:
            follower.show_plan()
            return Exit.SOME_FAILED if large.refused or large.unsearched else Exit.OK
        follower.check_report(shown.report)
        follower.tell_remarks()
        has_gallery = galleries.wanted_in_store(large, shown.gallery)
        large.prepare()
        machines = until_done.enter_context(_nodes(asked, where.cluster, large)) if large.todo else None
        enhancer = _enhancer(asked, large.begun_on, machines) if large.todo else None
        album = galleries.in_store(large, enhancer) if enhancer and has_gallery else None
        code = Exit.OK
        if enhancer is None:
            follower.tell_nothing_to_do()
        else:
            job = _job(asked, large, enhancer, album is not None)
            executor = _executor(job, machines, workers, large, enhancer)
            code = _work(follower, executor, album)
        code = code or large.exit_code()
        name, device = ("", "") if enhancer is None else (enhancer.engine.name, enhancer.engine.device)
        if shown.report is not None:
            parts = large.report(name, device, asked.settings.weights, asked.settings.strength)
            if not follower.write_report(shown.report, parts) and code is Exit.OK:
                code = Exit.SOME_FAILED
        if not (album is None or follower.finish(album)) and code is Exit.OK:
            code = Exit.SOME_FAILED
        without_gps = asked.settings.strip_gps or asked.settings.strip_metadata
        done_by = "" if enhancer is None else how(asked.settings.weights, enhancer.engine, without_gps)
        follower.summarize(done_by, album)
        return code


def _request(asked: Asked, cluster: str | None) -> Request:
    from qatie_cli.cloud.planning import Places
    from qatie_cli.cloud.session import Request
    from qatie_cli.storage import urls

    if asked.out is None or str(DASH) in (asked.out, *asked.inputs):
        raise UsageError("URLs and --cluster need a folder to write to.", "Give one with -o.")
    if cluster is not None and not any(map(urls.is_url, (*asked.inputs, asked.out, *asked.listed))):
        inputs, listed = (tuple(map(_of_path, texts)) for texts in (asked.inputs, asked.listed))
        places = Places(inputs, _of_path(asked.out), listed)
        return Request(places, asked.naming, asked.writing, asked.settings, local=True)
    need_extra("cloud", "fsspec", subject="The URL of a store")
    places = Places.of(asked.inputs, asked.out, asked.listed)
    if cluster is not None and any(urls.protocol(p) == "memory" for p in (*places.inputs, places.out, *places.listed)):
        raise UsageError("memory:// exists within one process only.", "Leave out --cluster.")
    return Request(places, asked.naming, asked.writing, asked.settings)


def _of_path(text: str) -> str:
    from qatie_cli.storage import urls

    return urls.of_path(Path(text))


@contextlib.contextmanager
def _nodes(asked: Asked, cluster: str | None, large: Session) -> Iterator[list[Node] | None]:
    """Connect to the cluster and check its nodes; yields None without --cluster."""
    if cluster is None:
        yield None
        return
    from qatie_cli.cluster import nodes

    with nodes.connected(cluster):
        begun_on = large.begun_on if asked.engine is EngineName.auto else ""
        yield nodes.check(large.places(), _wanted(asked, begun_on), begun_on=begun_on)


def _wanted(asked: Asked, begun_on: str) -> str:
    """The engine that all nodes must have, or `auto`. A batch is finished on the engine that it was begun on."""
    from qatie_cli.model import checkpoint, shipped

    if asked.engine is not EngineName.auto:
        return asked.engine.value
    weights = checkpoint.read(shipped.locate(asked.settings.weights))
    has_int8 = weights.activations is not None and asked.device is Device.cpu
    return (begun_on or EngineName.auto.value) if has_int8 else EngineName.float.value


def _enhancer(asked: Asked, begun_on: str, machines: list[Node] | None) -> Enhancer:
    from qatie_cli.cli.options import load_engine
    from qatie_cli.enhance.photos import Effect, Enhancer

    among = None
    if machines is not None:
        from qatie_cli.cluster import nodes

        among = nodes.common_engines(machines)
    engine = load_engine(asked.settings.weights, asked.engine, asked.threads, asked.device, begun_on, among=among)
    return Enhancer(engine, Effect(asked.settings.strength, asked.settings.fast))


def _job(asked: Asked, large: Session, enhancer: Enhancer, previews: bool) -> Job:
    from qatie_cli.cloud.work import Job
    from qatie_cli.gallery.making import PreviewMaker
    from qatie_cli.model import checkpoint, shipped

    return Job(
        out=large.out,
        run=large.name,
        settings=asked.settings,
        writing=asked.writing,
        weights=checkpoint.read(shipped.locate(asked.settings.weights)),
        engine=enhancer.engine.name,
        threads=asked.threads,
        device=asked.device.value,
        max_memory=asked.max_memory,
        local=large.request.local,
        previews=PreviewMaker if previews else None,
    )


def _executor(
    job: Job, machines: list[Node] | None, workers: Workers | None, large: Session, enhancer: Enhancer
) -> Executor:
    if machines is None:
        from qatie_cli.cloud.here import Here
        from qatie_cli.cloud.work import Worker

        return Here(Worker(job, enhancer))
    from qatie_cli.cloud import sampling
    from qatie_cli.cluster import actors, estimates, pool

    threads = job.threads or 1
    needed = job.max_memory or estimates.worker_bytes(sampling.sample(large.table), enhancer)
    actors.check_room(machines, threads, needed)
    chosen = workers or actors.Workers.filling(machines, threads, needed)
    return pool.Pool(dataclasses.replace(job, threads=threads, max_memory=needed), chosen, needed)


def _work(follower: Follower, executor: Executor, album: StoredAlbum | None) -> Exit:
    """Run under a progress bar; returns `Exit.OK` unless it was interrupted or failed."""
    try:
        follower.work(executor, album)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except QatieError as error:
        show_error(error)
        return Exit.SOME_FAILED if follower.run.reached else Exit.NOTHING_DONE
    return Exit.OK
