"""`qatie evaluate`: how good weights are on pairs of photos."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qatie_cli.cli.console import console, plain, progress
from qatie_cli.cli.options import (
    Cluster,
    EngineName,
    EngineOption,
    Folders,
    Quiet,
    Threads,
    WeightsOption,
    WorkersOption,
    check_cluster,
    need_extra,
    need_torch,
)
from qatie_cli.errors import DataError, QatieError
from qatie_cli.model.shipped import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Callable

    from qatie_cli.data.layouts import PairFiles
    from qatie_cli.evaluation.measuring import Measurement, Outcome
    from qatie_cli.evaluation.pairs import Scores

_MODULES = "skimage", "scipy"
# Columns of the figures: attribute, heading, digits.
_COLUMNS = (
    ("psnr_db", "PSNR dB", 2),
    ("ssim", "SSIM", 4),
    ("ciede2000", "CIEDE2000", 2),
    ("aligned_db", "aligned dB", 2),
    ("agreement_db", "to float dB", 2),
)


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder of pairs, or of good photos to leave alone.")],
    weights: WeightsOption = DEFAULT,
    engine: EngineOption = EngineName.auto,
    threads: Threads = 0,
    folders: Folders = None,
    longest: Annotated[int, typer.Option(min=32, help="Photos with a longer side are reduced to it first.")] = 1024,
    reduction: Annotated[
        int,
        typer.Option(min=1, help="Run the network on photos reduced by this factor, as --fast does for large ones."),
    ] = 1,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Measure autocontrast and CLAHE, too.")
    ] = True,
    cluster: Cluster = None,
    workers: WorkersOption = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the figures of every photo and method to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Scores of every photo on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the quality of weights on pairs.

    Prints PSNR, SSIM and CIEDE2000 to the target and PSNR of int8 to float. In a folder without pairs every photo is
    its own target. "aligned" is PSNR after fitting one cubic curve per channel from output to target, which leaves
    noise and detail; "identity" is the input unchanged. Needs the extra `train`, and `cluster` for --cluster.
    """
    need_torch("evaluate")
    need_extra("train", *_MODULES)
    check_cluster(cluster, workers)
    from qatie_cli.data import layouts
    from qatie_cli.evaluation import pairs
    from qatie_cli.evaluation.measuring import Measurement

    layout = layouts.pairs_or_photos(data, folders)
    methods = tuple(pairs.BASELINES) if baselines else ("identity",)
    screen = console()
    for left in layout.skipped:
        screen.print(f"[yellow]Left out:[/] {plain(left.file)} {plain(left.reason)}.")
    with progress("[dim]{task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=len(layout.pairs), name="")

        def on_one(name: str) -> None:
            bar.update(shown, advance=1, name=plain(name))

        asked = _Asked(layout.pairs, weights, engine, threads, Measurement(longest, reduction, methods))
        if cluster is None:
            used, outcomes = _here(asked, on_one)
        else:
            used, outcomes = _on_cluster(asked, data, cluster, workers, on_one)
    named = dict(zip([pair.name for pair in layout.pairs], outcomes, strict=True))
    measured = {name: found for name, found in named.items() if isinstance(found, dict)}
    failed = [found for found in outcomes if isinstance(found, QatieError)]
    for fault in failed:
        screen.print(f"[yellow]Left out:[/] {plain(fault.one_line())}")
    if not measured:
        raise DataError(f"None of the {len(failed)} pairs in {data} can be used.")
    means = pairs.means(list(measured.values()))
    if as_json:
        as_tables = {name: _tables(found) for name, found in measured.items()}
        report = {"weights": weights, "engine": used, "mean": _tables(means), "photos": as_tables}
        print(json.dumps(report | {"left_out": len(failed) + len(layout.skipped)}, indent=1))
    else:
        _show(measured, means, used, f"{data.name}: {weights}, {len(measured)} photos")
    if csv_file is not None:
        _write_csv(csv_file, measured)


@dataclass(frozen=True)
class _Asked:
    """What is measured, and how."""

    pairs: tuple[PairFiles, ...]
    weights: str
    engine: EngineName
    threads: int
    how: Measurement


def _here(asked: _Asked, on_one: Callable[[str], None]) -> tuple[str, list[Outcome]]:
    """The engine, and the outcomes of all pairs."""
    from qatie_cli import engines
    from qatie_cli.evaluation import measuring
    from qatie_cli.model import checkpoint, shipped

    found = checkpoint.read(shipped.locate(asked.weights))
    engine = engines.load(found, asked.engine, threads=asked.threads)
    measure = measuring.measurer(found, engine, asked.threads, asked.how)
    outcomes = []
    for pair in asked.pairs:
        outcomes.append(measure(pair))
        on_one(pair.name)
    return engine.name, outcomes


def _on_cluster(
    asked: _Asked, data: Path, cluster: str, workers: str | None, on_one: Callable[[str], None]
) -> tuple[str, list[Outcome]]:
    """The same on a cluster, whose nodes all have the data under its path."""
    from qatie_cli import engines
    from qatie_cli.cluster import actors, nodes, scoring
    from qatie_cli.model import checkpoint, shipped
    from qatie_cli.storage import urls

    chosen = None if workers is None else actors.Workers.parse(workers)
    found, threads = checkpoint.read(shipped.locate(asked.weights)), asked.threads or 1
    wanted: str = asked.engine
    if asked.engine is EngineName.auto and found.activations is None:
        wanted = EngineName.float
    with nodes.connected(cluster):
        machines = nodes.check([urls.of_path(data)], wanted, nodes.Need(_MODULES, "train", float_too=True))
        among = nodes.common_engines(machines) if wanted == EngineName.auto else None
        engine = engines.load(found, wanted, threads=threads, among=among)
        job = scoring.Job(found, engine.name, threads, asked.how)
        return engine.name, scoring.outcomes(job, asked.pairs, machines, chosen, on_one)


def _tables(found: dict[str, Scores]) -> dict[str, dict]:
    return {method: dataclasses.asdict(f) for method, f in found.items()}


def _write_csv(path: Path, measured: dict[str, dict[str, Scores]]) -> None:
    from qatie_cli import files

    names = [name for name, _, _ in _COLUMNS]
    rows = (
        [photo, method, *(getattr(f, name) for name in names)]
        for photo, found in measured.items()
        for method, f in found.items()
    )
    try:
        files.write_csv(path, ["photo", "method", *names], rows)
    except OSError as error:
        raise DataError(f"{path} could not be written: {error.strerror}.", "Choose another file.") from error


def _show(measured: dict[str, dict[str, Scores]], means: dict[str, Scores], engine: str, title: str) -> None:
    from rich import box
    from rich.table import Table

    def table(first: str, title: str) -> Table:
        return Table(first, *(heading for _, heading, _ in _COLUMNS), title=title, box=box.SIMPLE_HEAD, pad_edge=False)

    photos = table("photo", f"{title}, on {engine}")
    for name, found in measured.items():
        photos.add_row(plain(name), *_cells(found[engine]))
    methods = table("method", "Means")
    for method, f in means.items():
        methods.add_row(method, *_cells(f))
    console().print(photos)
    console().print(methods)


def _cells(f: Scores) -> list[str]:
    values = [(getattr(f, name), digits) for name, _, digits in _COLUMNS]
    return ["-" if value is None else f"{value:.{digits}f}" for value, digits in values]
