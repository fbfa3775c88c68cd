"""`qatie demo`: before/after pictures of sample photos."""

from __future__ import annotations

from qatie_cli.cli.console import console
from qatie_cli.cli.options import EngineName, EngineOption, Out, Threads, WeightsOption, load_engine
from qatie_cli.errors import QatieError
from qatie_cli.model.shipped import DEFAULT


def demo(
    out: Out, engine: EngineOption = EngineName.auto, weights: WeightsOption = DEFAULT, threads: Threads = 0
) -> None:
    """Enhance sample photos: before and after.

    Degrades photos that ship with scikit-image (extra `demo`) as a phone would, enhances them, and writes pictures of
    phone, enhanced and original side by side into the folder OUT/before-after.
    """
    from rich.table import Table

    from qatie_cli.data import demo as library

    library.originals()  # reports a missing extra before anything is loaded
    from qatie_cli.enhance.photos import Enhancer

    ready = load_engine(weights, engine, threads)
    try:
        shown = library.make(out, Enhancer(ready))
    except OSError as error:
        raise QatieError(
            f"{out} cannot be written: {error.strerror or error}.", "Choose another folder with -o."
        ) from error
    table = Table("photo", "phone, dB", "qatie, dB", title=f"PSNR to the original ({weights} on {ready.name})")
    for row in shown:
        table.add_row(row.name, f"{row.before_db:.1f}", f"{row.after_db:.1f}")
    screen = console()
    screen.print(table)
    for row in shown:
        if row.remark:
            screen.print(f"[yellow]Note:[/] {row.remark}")
    screen.print(f"Before/after pictures: {out / 'before-after'}")
