"""Speed against agreement with float, as a picture."""

from __future__ import annotations

from pathlib import Path

from qatie_cli import engines, installation
from qatie_cli.bench.measuring import Bench
from qatie_cli.errors import DataError, UsageError

_FLOAT_DB = 60.0  # upper limit of the axis, where float itself is drawn


def write(path: Path, bench: Bench) -> None:
    """Write the picture in the format of the file's name.

    Raises:
        UsageError: matplotlib is not installed.
        DataError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("Plots need matplotlib.", f"Run: {installation.extra('bench')}") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in bench.rows:
        if row.agreement_db is None and row.name != engines.FLOAT:
            continue
        at = row.megapixels_per_second, min(row.agreement_db or _FLOAT_DB, _FLOAT_DB)
        axes.plot(*at, "o")
        label = row.name if row.arithmetic == row.name else f"{row.name} {row.arithmetic}"
        axes.annotate(label, at, xytext=(6, 4), textcoords="offset points")
    axes.axhline(42, linewidth=1, linestyle="--", color="gray")
    axes.set_xlabel(f"megapixels a second, network alone, {bench.width}x{bench.height}")
    axes.set_ylabel(f"agreement with float, dB (float itself at {_FLOAT_DB:.0f})")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} could not be written: {error}.", "Give a .png, .svg or .pdf file.") from error
