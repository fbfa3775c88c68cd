"""`qatie evaluate`: how good weights are on pairs of photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from qatie_cli.cli.console import console, progress
from qatie_cli.cli.options import EngineName, EngineOption, Quiet, Threads, WeightsOption, load_engine
from qatie_cli.weights import DEFAULT


def evaluate(
    data: Annotated[Path, typer.Option("--data", help="Folder with input/ and target/, or of photos to leave alone.")],
    weights: WeightsOption = DEFAULT,
    engine: EngineOption = EngineName.auto,
    threads: Threads = 0,
    longest: Annotated[int, typer.Option(min=8, help="Photos with a longer side are reduced to it first.")] = 1024,
    as_json: Annotated[bool, typer.Option("--json", help="Figures of every photo on standard output.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure weights on pairs: PSNR and SSIM to the target before and after, and int8 against float.

    Needs the extra `train`. In a folder without input/ and target/ every photo is its own target.
    """
    from qatie_cli import engines, evaluation, pairs

    ready = load_engine(weights, engine, threads)
    reference = load_engine(weights, EngineName.float, threads) if ready.name != engines.FLOAT else None
    found = pairs.find_pairs(data)
    rows = []
    with progress("[dim]{task.fields[name]}", quiet=quiet) as bar:
        shown = bar.add_task("", total=len(found), name="")
        for pair in found:
            bar.update(shown, name=pair.name)
            rows.append(evaluation.compare(pair.name, pairs.load_pair(pair, longest), ready, reference))
            bar.advance(shown)
    summary = evaluation.summarize(rows)
    if as_json:
        print(json.dumps({"engine": ready.name, "weights": weights, "mean": summary, "photos": rows}, indent=1))
        return
    _show(rows, summary, f"{data.name}: {weights} on {ready.name}, {len(rows)} photos")


def _show(rows: list[dict], summary: dict, title: str) -> None:
    from rich.table import Table

    table = Table("photo", *(name.replace("_", " ") for name in summary), title=title)
    for row in [*rows, {"photo": "mean"} | summary]:
        table.add_row(row["photo"], *(f"{row[n]:.4f}" if "ssim" in n else f"{row[n]:.2f}" for n in summary))
    console().print(table)
