"""Messages shared by batches of every size: estimates, failures, closing lines."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain
from qatie_cli.cli.stream import DASH, standard_output

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from qatie_cli.batch.session import Estimate
    from qatie_cli.engines import Engine


@dataclass(frozen=True)
class Totals:
    """A run in figures.

    Attributes:
        names: the photos that failed, or the first of them.
        beside: more figures for the line about speed.
    """

    enhanced: int
    skipped: int
    failed: int
    names: Sequence[object]
    megapixels: float
    seconds: float
    beside: tuple[str, ...] = ()


class Teller:
    """Prints to standard error; only errors when quiet."""

    def __init__(self, screen: Console, quiet: bool, verbose: bool) -> None:
        self.screen, self.quiet, self.verbose = screen, quiet, verbose

    @staticmethod
    def check_report(path: Path | None) -> None:
        """Raise QatieError if `write_report` could not write the report."""
        from qatie_cli.batch import report

        if path == DASH:
            standard_output()
        elif path is not None:
            report.check_writable(path)

    def write_report(self, path: Path, parts: Iterable[bytes]) -> bool:
        """Write the report; returns whether that worked."""
        from qatie_cli.batch import report

        try:
            if path == DASH:
                standard_output().writelines(parts)
                standard_output().flush()
            else:
                report.write(path, parts)
        except OSError as error:
            self.screen.print(f"[red]The report {plain(path)} could not be written:[/] {error.strerror or error}.")
            return False
        return True

    def _tell_estimate(self, photos: int, done: int, estimate: Estimate, where: str = "") -> None:
        """The line of --dry-run below the photos: how many, how large, how long."""
        duration = datetime.timedelta(seconds=round(estimate.seconds))
        how = "as in the last run here" if estimate.measured else "typical of two cores"
        parts = [f"{count(photos)} to enhance, {estimate.megapixels:,.1f} MP"]
        parts += [f"about {duration}{where} at {estimate.speed:.1f} MP/s, {how}"]
        parts += [f"{done:,} already done"] if done else []
        parts += [f"{estimate.unreadable:,} of them cannot be read"] if estimate.unreadable else []
        self.screen.print("; ".join(parts) + ".")

    def _tell_again(self, reasons: Mapping[str, int]) -> None:
        """Report how many outputs of earlier runs are made again, a line for each reason."""
        for reason, number in () if self.quiet else reasons.items():
            outputs = "1 output" if number == 1 else f"{number:,} outputs"
            self.screen.print(f"[yellow]Made again:[/] {outputs}, because of {plain(reason)}.")

    def _tell_nothing_to_do(self, done: int, refused: int) -> None:
        if not self.quiet and (done or not refused):
            self.screen.print(f"Nothing to do: {count(done)} already done." if done else "No photos found.")

    def _tell_failure(self, reason: str) -> None:
        self.screen.print(f"[red]Failed:[/] {plain(reason)}")

    def _tell_notes(self, place: object, notes: Sequence[str]) -> None:
        for note in () if self.quiet else notes:
            self.screen.print(f"[yellow]Note:[/] {plain(place)}: {plain(note)}.")

    def _finish_gallery(self, missing: dict, page: object, write: Callable[[], None]) -> bool:
        """Write the gallery, and report what is missing from it; returns whether it is complete."""
        from qatie_cli.errors import QatieError

        try:
            write()
        except QatieError as error:
            missing[page] = error.one_line()
        except OSError as error:
            missing[page] = str(error.strerror or error)
        for place, reason in missing.items():
            self.screen.print(f"[red]Missing from the gallery:[/] {_named(place)}: {plain(reason)}")
        return not missing

    def _tell_totals(self, totals: Totals, how: str) -> None:
        """Print what was enhanced and what failed; `how` names the weights and the engine."""
        if not self.quiet:
            already = f", {totals.skipped:,} already done" if totals.skipped else ""
            speed = f"{totals.megapixels / totals.seconds:.1f} MP/s"
            figures = "; ".join((f"{totals.megapixels:.1f} MP in {totals.seconds:.1f} s, {speed}", *totals.beside))
            self.screen.print(f"{count(totals.enhanced)} enhanced{already} ({figures}; {plain(how)}).")
        if totals.failed:
            more = ", ..." if totals.failed > len(totals.names) else ""
            self.screen.print(f"[red]{count(totals.failed)} failed:[/] {', '.join(map(plain, totals.names))}{more}")

    def _tell_interrupted(self, enhanced: int) -> None:
        self.screen.print(f"[red]Interrupted[/] after {count(enhanced)}; run the same command to resume.")

    def _tell_not_begun(self, number: int) -> None:
        if number:
            self.screen.print(f"[red]{count(number)} not begun;[/] run the same command to resume.")

    def _tell_gallery(self, page: object, missing: dict) -> None:
        if not self.quiet and page not in missing:
            self.screen.print(f"Browse them: {_named(page)}")


def _named(place: object) -> str:
    """A path or URL for display."""
    from qatie_cli.storage.urls import people_s

    return plain(people_s(str(place)))


def how(weights: str, engine: Engine, without_gps: bool) -> str:
    """What the closing line says about how photos were enhanced."""
    return f"{weights}, {engine.described}" + ("; location left out" if without_gps else "")


def count(number: int) -> str:
    """`1 photo`, `2 photos`."""
    return "1 photo" if number == 1 else f"{number:,} photos"
