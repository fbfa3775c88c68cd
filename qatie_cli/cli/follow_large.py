"""What a large run prints before, during and after the run: counts, and the first photos that failed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain, progress
from qatie_cli.cli.telling import Teller, Totals

if TYPE_CHECKING:
    from rich.console import Console

    from qatie_cli.cloud.items import ItemOutcome
    from qatie_cli.cloud.session import Executor, Session
    from qatie_cli.gallery.stored import StoredAlbum


class Follower(Teller):
    """Reports a run on standard error; only errors when quiet."""

    def __init__(self, run: Session, screen: Console, quiet: bool, verbose: bool) -> None:
        super().__init__(screen, quiet, verbose)
        self.run = run

    # --- before -------------------------------------------------------------------------------------------------------

    def show_plan(self) -> None:
        """What --dry-run prints: each source and output, and estimates of time and size."""
        from qatie_cli.cloud.table import TODO
        from qatie_cli.storage.urls import people_s

        run = self.run
        for page in run.table.pages(TODO):
            for row in page:
                print(f"{people_s(row.source)} -> {people_s(row.output)}")
        self._tell_estimate(run.todo, run.done, run.estimate(), " on one machine")
        self.tell_remarks()

    def tell_remarks(self) -> None:
        """Report how many outputs are made again, files are not photos, folders not searched, and refused photos."""
        from qatie_cli.batch import report
        from qatie_cli.cloud.table import TODO

        self._tell_again(self.run.table.reasons(TODO))
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
            self._tell_failure(row.reason)
        if self.run.refused > MOST_NAMED:
            self.screen.print(f"[red]Failed:[/] {self.run.refused - MOST_NAMED:,} more; --report has all.")

    def tell_nothing_to_do(self) -> None:
        """Report why there is nothing to enhance."""
        self._tell_nothing_to_do(self.run.done, self.run.refused)

    # --- while it runs ------------------------------------------------------------------------------------------------

    def work(self, executor: Executor, album: StoredAlbum | None) -> None:
        """Run under a progress bar."""
        from qatie_cli.storage.urls import people_s

        run = self.run
        if self.verbose and not self.quiet:
            self.screen.print(f"Workers: up to {executor.workers:,}.")
        told = 0
        with progress("[dim]{task.fields[state]}", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=run.todo, state="")

            def on_outcome(outcome: ItemOutcome) -> None:
                nonlocal told
                if outcome.status == "failed":
                    told += 1
                    self._tell_one_of_many(outcome.reason, told)
                else:
                    if self.verbose and not self.quiet:
                        self.screen.print(f"{plain(people_s(outcome.output))}  {outcome.megapixels:.1f} MP")
                    self._tell_notes(people_s(outcome.output), outcome.notes)
                if album is not None:
                    self._enter(album, outcome)
                bar.update(shown, completed=run.reached, state=self._state())

            run.run(executor, on_outcome)

    def _state(self) -> str:
        run = self.run
        workers = f"  {len(run.workers):,} workers" if len(run.workers) > 1 else ""
        repeated = f"  {run.repeated:,} requests retried" if run.repeated else ""
        return f"{run.megapixels / run.seconds:.1f} MP/s{workers}{repeated}"

    def _tell_one_of_many(self, reason: str, number: int) -> None:
        from qatie_cli.cloud.session import MOST_NAMED

        if number <= MOST_NAMED or self.verbose:
            self._tell_failure(reason)
        elif number == MOST_NAMED + 1:
            self.screen.print("[red]Failed:[/] more; --report has all.")

    def _enter(self, album: StoredAlbum, outcome: ItemOutcome) -> None:
        source = self.run.table.source(outcome.number)
        if outcome.status == "failed":
            album.fail(source, outcome.reason)
        elif outcome.change is None:
            album.missing[outcome.output] = outcome.previews_lack or "it has no previews"
        else:
            seconds, size = outcome.seconds.total, (outcome.width, outcome.height)
            album.add(source, outcome.output, size, outcome.output_bytes, outcome.change, seconds, outcome.notes)

    # --- after --------------------------------------------------------------------------------------------------------

    def finish(self, album: StoredAlbum) -> bool:
        """Write the gallery; returns whether it is complete."""
        from qatie_cli.cloud.table import REFUSED

        for page in self.run.table.pages(REFUSED):
            for row in page:
                album.fail(row.source, row.reason)
        write = functools.partial(album.write, self.run.bytes_of, self.run.not_begun)
        return self._finish_gallery(album.missing, album.url, write)

    def summarize(self, how: str, album: StoredAlbum | None) -> None:
        """Print the closing lines; `how` names the engine, empty if nothing had to be done."""
        from qatie_cli.batch.outcomes import Status
        from qatie_cli.storage.urls import people_s

        run = self.run
        enhanced = run.counts[Status.ENHANCED]
        if run.interrupted:
            self._tell_interrupted(enhanced)
        elif how:
            numbers = enhanced, run.done + run.counts[Status.SKIPPED], run.failed
            beside = [f"{len(run.workers):,} workers"] if len(run.workers) > 1 else []
            beside += [f"{run.repeated:,} requests retried"] if run.repeated else []
            names = list(map(people_s, run.failures))
            self._tell_totals(Totals(*numbers, names, run.megapixels, run.seconds, tuple(beside)), how)
        if not run.interrupted:
            self._tell_not_begun(run.not_begun)
        if album is not None:
            self._tell_gallery(album.url, album.missing)


def _counted(number: int, what: str) -> str:
    """`1 file`, `2 files`, with what follows."""
    first, _, rest = what.partition(" ")
    return f"{number:,} {first.removesuffix('s') if number == 1 else first} {rest}".rstrip()
