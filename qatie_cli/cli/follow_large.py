"""What a large run prints before, while and after it runs: counts, and the names of the first photos that failed."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain, progress
from qatie_cli.cli.follow import Follower as SmallFollower
from qatie_cli.cli.follow import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from qatie_cli.cloud.items import Outcome
    from qatie_cli.cloud.session import Executor, Session
    from qatie_cli.gallery.stored import StoredAlbum


class Follower:
    """Tells of a run on standard error; errors even when quiet."""

    def __init__(self, run: Session, screen: Console, quiet: bool, verbose: bool) -> None:
        self.run, self.screen, self.quiet, self.verbose = run, screen, quiet, verbose

    check_report = staticmethod(SmallFollower.check_report)

    # --- before -------------------------------------------------------------------------------------------------------

    def show_plan(self) -> None:
        """What --dry-run prints: each source and output, and what the run would take."""
        from qatie_cli.batch import report
        from qatie_cli.cloud.table import TODO
        from qatie_cli.storage.urls import people_s

        run, estimate = self.run, self.run.estimate()
        for page in run.table.pages(TODO):
            for row in page:
                print(f"{people_s(row.source)} -> {people_s(row.output)}")
        duration = datetime.timedelta(seconds=round(estimate.seconds))
        how = "as in the last run here" if estimate.measured else "typical of two cores"
        parts = [f"{count(run.todo)} to enhance, {estimate.megapixels:,.1f} MP"]
        parts += [f"about {duration} on one machine at {estimate.speed:.1f} MP/s, {how}"]
        parts += [f"{run.done:,} done already"] if run.done else []
        parts += [f"{estimate.unreadable:,} of them cannot be read"] if estimate.unreadable else []
        others = run.table.count_others(report.NOT_A_PHOTO)
        parts += [f"{_counted(others, 'files')} not named like photos"] if others else []
        self.screen.print("; ".join(parts) + ".")
        self._tell_refused()

    def tell_left_out(self) -> None:
        """Count what is no photo and what is not searched, and name what cannot be enhanced as asked."""
        from qatie_cli.batch import report

        for kind, what in (
            (report.NOT_A_PHOTO, "files not named like photos"),
            (report.NOT_SEARCHED, "folders of a system's own"),
        ):
            number = self.run.table.count_others(kind)
            if number and not self.quiet:
                self.screen.print(f"[yellow]Skipped:[/] {_counted(number, what)}.")
        self._tell_refused()

    def _tell_refused(self) -> None:
        from qatie_cli.cloud.session import MOST_NAMED
        from qatie_cli.cloud.table import REFUSED

        for row in next(self.run.table.pages(REFUSED), [])[:MOST_NAMED]:
            self.screen.print(f"[red]Failed:[/] {plain(row.reason)}")
        if self.run.refused > MOST_NAMED:
            self.screen.print(f"[red]Failed:[/] {self.run.refused - MOST_NAMED:,} more; --report has all.")

    def tell_nothing_to_do(self) -> None:
        """Say why nothing is enhanced."""
        done = self.run.done
        if not self.quiet and (done or not self.run.refused):
            self.screen.print(f"Nothing to do: {count(done)} done already." if done else "No photos found.")

    # --- while it runs ------------------------------------------------------------------------------------------------

    def work(self, executor: Executor, album: StoredAlbum | None) -> None:
        """Run it under a progress bar."""
        run = self.run
        if self.verbose and not self.quiet:
            self.screen.print(f"Workers: up to {executor.workers:,}.")
        told = 0
        with progress("[dim]{task.fields[state]}", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=run.todo, state="")

            def on_outcome(outcome: Outcome) -> None:
                nonlocal told
                if outcome.status == "failed":
                    told += 1
                    self._tell_failure(outcome, told)
                elif self.verbose and not self.quiet:
                    self.screen.print(f"{plain(outcome.output)}  {outcome.megapixels:.1f} MP")
                for note in () if self.quiet or outcome.status == "failed" else outcome.notes:
                    self.screen.print(f"[yellow]Note:[/] {plain(outcome.output)}: {plain(note)}.")
                if album is not None:
                    self._enter(album, outcome)
                bar.update(shown, completed=run.reached, state=self._state())

            run.run(executor, on_outcome)

    def _state(self) -> str:
        run = self.run
        workers = f"  {len(run.workers):,} workers" if len(run.workers) > 1 else ""
        repeated = f"  {run.repeated:,} requests repeated" if run.repeated else ""
        return f"{run.megapixels / run.seconds:.1f} MP/s{workers}{repeated}"

    def _tell_failure(self, outcome: Outcome, number: int) -> None:
        from qatie_cli.cloud.session import MOST_NAMED

        if number <= MOST_NAMED or self.verbose:
            self.screen.print(f"[red]Failed:[/] {plain(outcome.reason)}")
        elif number == MOST_NAMED + 1:
            self.screen.print("[red]Failed:[/] more; --report has all.")

    def _enter(self, album: StoredAlbum, outcome: Outcome) -> None:
        source = self.run.table.source(outcome.number)
        if outcome.status == "failed":
            album.fail(source, outcome.reason)
        elif outcome.change is None:
            album.missing[outcome.output] = outcome.previews_lack or "it has no previews"
        else:
            seconds = outcome.seconds.decode + outcome.seconds.network + outcome.seconds.encode
            size = outcome.width, outcome.height
            album.add(source, outcome.output, size, outcome.output_bytes, outcome.change, seconds, outcome.notes)

    # --- after --------------------------------------------------------------------------------------------------------

    def finish(self, album: StoredAlbum) -> bool:
        """Write the gallery; whether it is complete."""
        from qatie_cli.errors import QatieError

        try:
            album.write(self.run.bytes_of, self.run.not_begun)
        except (QatieError, OSError) as error:
            album.missing[album.url] = str(error)
        for url, reason in album.missing.items():
            self.screen.print(f"[red]The gallery lacks[/] {plain(url)}: {plain(reason)}")
        return not album.missing

    def write_report(self, path: Path, parts: Iterator[bytes]) -> bool:
        """Write the report; whether that worked."""
        from qatie_cli.cli.large import written

        try:
            written(path, parts)
        except OSError as error:
            self.screen.print(f"[red]The report {plain(path)} could not be written:[/] {error.strerror or error}.")
            return False
        return True

    def summarize(self, how: str, album: StoredAlbum | None) -> None:
        """The closing lines; `how` names what enhanced, empty where nothing was to be done."""
        from qatie_cli.batch.running import Status
        from qatie_cli.storage.urls import people_s

        run = self.run
        enhanced = run.counts[Status.ENHANCED]
        if run.interrupted:
            self.screen.print(f"[red]Interrupted[/] after {count(enhanced)}; run the same command to resume.")
        elif how:
            self._count_up(how, enhanced)
        if not run.interrupted and run.not_begun:
            self.screen.print(f"[red]{count(run.not_begun)} not begun;[/] run the same command to resume.")
        if album is not None and not self.quiet and album.url not in album.missing:
            self.screen.print(f"Browse them: {plain(people_s(album.url))}")

    def _count_up(self, how: str, enhanced: int) -> None:
        from qatie_cli.batch.running import Status
        from qatie_cli.storage.urls import people_s

        run = self.run
        skipped = run.done + run.counts[Status.SKIPPED]
        if not self.quiet:
            already = f", {skipped:,} done already" if skipped else ""
            speed = f"{run.megapixels:.1f} MP in {run.seconds:.1f} s, {run.megapixels / run.seconds:.1f} MP/s"
            workers = f"; {len(run.workers):,} workers" if len(run.workers) > 1 else ""
            repeated = f"; {run.repeated:,} requests repeated" if run.repeated else ""
            self.screen.print(f"{count(enhanced)} enhanced{already} ({speed}{workers}{repeated}; {plain(how)}).")
        if run.failed:
            names = ", ".join(plain(people_s(url)) for url in run.failures)
            more = ", ..." if run.failed > len(run.failures) else ""
            self.screen.print(f"[red]{count(run.failed)} failed:[/] {names}{more}")


def _counted(number: int, what: str) -> str:
    """`1 file`, `2 files`, with what follows."""
    first, _, rest = what.partition(" ")
    return f"{number:,} {first.removesuffix('s') if number == 1 else first} {rest}".rstrip()
