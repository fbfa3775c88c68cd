"""What a batch prints before, during and after the run."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain, progress
from qatie_cli.cli.telling import Teller, Totals

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from qatie_cli.batch.outcomes import Result
    from qatie_cli.batch.session import Session
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.album import Album


class Follower(Teller):
    """Reports a run on standard error; only errors when quiet."""

    def __init__(self, run: Session, screen: Console, quiet: bool, verbose: bool) -> None:
        super().__init__(screen, quiet, verbose)
        self.run = run

    # --- before -------------------------------------------------------------------------------------------------------

    def show_plan(self) -> None:
        """What --dry-run prints: each source and output, and estimates of time and size."""
        plan = self.run.plan
        for task in plan.tasks:
            print(f"{task.source} -> {task.output}")
        self._tell_estimate(len(plan.tasks), len(plan.done), self.run.estimate())
        self.tell_remarks()

    def tell_remarks(self) -> None:
        """Report outputs that are made again, files that are not photos, folders not searched, and refused photos."""
        self._tell_again(Counter(self.run.plan.again.values()))
        if not self.quiet:
            self._tell_others()
        self._tell_system_folders()
        self._tell_refused()

    def _tell_others(self) -> None:
        from qatie_cli.photo import unreadable

        for paths, what in unreadable.sorted_out(self.run.plan.not_photos):
            named = ", ".join(plain(path) for path in paths) if self.verbose else _files(paths, what[0])
            self.screen.print(f"[yellow]Skipped:[/] {named}{what[1]}.")

    def _tell_system_folders(self) -> None:
        folders = self.run.plan.system_folders
        if folders and not self.quiet:
            names = folders if self.verbose else sorted({path.name for path in folders})
            counted = "1 folder" if len(folders) == 1 else f"{len(folders):,} folders"
            self.screen.print(f"[yellow]Skipped:[/] {counted} of a system's own: {', '.join(map(plain, names))}.")

    def _tell_refused(self) -> None:
        for result in self.run.refused:
            self._tell_failure(result.reason)

    def tell_nothing_to_do(self) -> None:
        """Report why there is nothing to enhance."""
        self._tell_nothing_to_do(len(self.run.plan.done), len(self.run.refused))

    # --- while it runs ------------------------------------------------------------------------------------------------

    def enhance(self, enhancer: Enhancer, album: Album | None) -> None:
        """Run the batch under a progress bar."""
        run, tasks = self.run, self.run.plan.tasks
        if self.verbose and not self.quiet:
            self.screen.print(f"Engine: {enhancer.engine.described} ({enhancer.engine.reason}).")
        with progress("[dim]{task.fields[speed]:.1f} MP/s  {task.fields[name]}", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=len(tasks), speed=0.0, name=plain(tasks[0].source.name))

            def on_result(result: Result) -> None:
                self._tell(result)
                if album is not None:
                    album.add(result)
                done = len(run.results)
                following = plain(tasks[min(done, len(tasks) - 1)].source.name)
                bar.update(shown, completed=done, speed=run.megapixels / run.seconds, name=following)

            run.run(enhancer, on_result, album)

    def _tell(self, result: Result) -> None:
        if result.status == "failed":
            self._tell_failure(result.reason)  # which contains what matters in its notes
            return
        if result.status == "enhanced" and self.verbose:
            seconds = result.seconds
            self.screen.print(
                f"{plain(result.task.output)}  {result.megapixels:.1f} MP  decode {seconds.decode:.2f} s  "
                f"network {seconds.network:.2f} s at {_size(result.reduction)}  encode {seconds.encode:.2f} s"
                f"{'  (coarse JPEG restored)' if result.restored else ''}"
            )
        self._tell_notes(result.task.source, result.notes)

    # --- after --------------------------------------------------------------------------------------------------------

    def catch_up(self, album: Album) -> None:
        """Make previews of earlier outputs under a progress bar."""
        with progress("[dim]previews", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=None)
            album.catch_up(lambda done, total: bar.update(shown, completed=done, total=total))

    def finish(self, album: Album) -> bool:
        """Write the gallery; returns whether it is complete."""
        return self._finish_gallery(album.missing, album.path, album.write)

    def summarize(self, how: str, album: Album | None) -> None:
        """Print the summary; `how` names the engine, empty if nothing had to be done."""
        run = self.run
        enhanced, failed = run.with_status("enhanced"), run.with_status("failed")
        if run.interrupted:
            self._tell_interrupted(len(enhanced))
        elif how:
            numbers = len(enhanced), run.skipped, len(failed)
            names = [result.task.source for result in failed]
            self._tell_totals(Totals(*numbers, names, run.megapixels, run.seconds), how)
        if not run.interrupted:
            for path, reason in run.plan.unsearched:
                self.screen.print(f"[red]Not searched:[/] {plain(path)}: {reason}.")
            self._tell_not_begun(run.not_begun)
        if album is not None:
            self._tell_gallery(album.path, album.missing)


def _size(reduction: int) -> str:
    return "full size" if reduction == 1 else f"1/{reduction} size"


def _files(paths: tuple[Path, ...], what: str = "files") -> str:
    return plain(paths[0]) if len(paths) == 1 else f"{len(paths):,} {what}"
