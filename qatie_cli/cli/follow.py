"""What a batch prints before, during and after the run."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain, progress
from qatie_cli.cli.stream import DASH, standard_output

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from qatie_cli.batch.running import Result
    from qatie_cli.batch.session import Session
    from qatie_cli.enhance.photos import Enhancer
    from qatie_cli.gallery.album import Album


class Follower:
    """Reports a run on standard error; only errors when quiet."""

    def __init__(self, run: Session, screen: Console, quiet: bool, verbose: bool) -> None:
        self.run, self.screen, self.quiet, self.verbose = run, screen, quiet, verbose

    # --- before -------------------------------------------------------------------------------------------------------

    def show_plan(self) -> None:
        """What --dry-run prints: each source and output, and estimates of time and size."""
        plan, estimate = self.run.plan, self.run.estimate()
        for task in plan.tasks:
            print(f"{task.source} -> {task.output}")
        duration = datetime.timedelta(seconds=round(estimate.seconds))
        how = "as in the last run here" if estimate.measured else "typical of two cores"
        parts = [f"{count(len(plan.tasks))} to enhance, {estimate.megapixels:,.1f} MP"]
        parts += [f"about {duration} at {estimate.speed:.1f} MP/s, {how}"]
        parts += [f"{len(plan.done):,} done already"] if plan.done else []
        parts += [f"{estimate.unreadable:,} of them cannot be read"] if estimate.unreadable else []
        parts += [f"{_files(plan.not_photos)} not named like photos"] if plan.not_photos else []
        self.screen.print("; ".join(parts) + ".")
        self._tell_system_folders()
        self._tell_refused()

    @staticmethod
    def check_report(path: Path | None) -> None:
        """Raise QatieError if `write_report` could not write the report."""
        from qatie_cli.batch import report

        if path == DASH:
            standard_output()
        elif path is not None:
            report.check_writable(path)

    def tell_left_out(self) -> None:
        """Report files that are not photos, folders that are not searched, and photos that are refused."""
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
            self.screen.print(f"[red]Failed:[/] {plain(result.reason)}")

    def tell_nothing_to_do(self) -> None:
        """Report why there is nothing to enhance."""
        done = self.run.plan.done
        if not self.quiet and (done or not self.run.refused):
            self.screen.print(f"Nothing to do: {count(len(done))} done already." if done else "No photos found.")

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
            self.screen.print(f"[red]Failed:[/] {plain(result.reason)}")
        elif result.status == "enhanced" and self.verbose:
            seconds = result.seconds
            self.screen.print(
                f"{plain(result.task.output)}  {result.megapixels:.1f} MP  decode {seconds.decode:.2f} s  "
                f"network {seconds.network:.2f} s at {_size(result.reduction)}  encode {seconds.encode:.2f} s"
            )
        told = self.quiet or result.status == "failed"  # the reason already contains what matters in them
        for note in () if told else result.notes:
            self.screen.print(f"[yellow]Note:[/] {plain(result.task.source)}: {plain(note)}.")

    # --- after --------------------------------------------------------------------------------------------------------

    def catch_up(self, album: Album) -> None:
        """Make previews of earlier outputs under a progress bar."""
        with progress("[dim]previews", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=None)
            album.catch_up(lambda done, total: bar.update(shown, completed=done, total=total))

    def finish(self, album: Album) -> bool:
        """Write the gallery; returns whether it is complete."""
        try:
            album.write()
        except OSError as error:
            album.missing[album.path] = str(error.strerror or error)
        for path, reason in album.missing.items():
            self.screen.print(f"[red]The gallery lacks[/] {plain(path)}: {plain(reason)}")
        return not album.missing

    def write_report(self, path: Path, content: dict[str, object]) -> bool:
        """Write the report; returns whether that worked."""
        from qatie_cli.batch import report

        try:
            if path == DASH:
                standard_output().write(report.encoded(content))
                standard_output().flush()
            else:
                report.write(path, content)
        except OSError as error:
            self.screen.print(f"[red]The report {plain(path)} could not be written:[/] {error.strerror or error}.")
            return False
        return True

    def summarize(self, how: str, album: Album | None) -> None:
        """Print the summary; `how` names the engine, empty if nothing had to be done."""
        run = self.run
        if run.interrupted:
            enhanced = count(len(run.with_status("enhanced")))
            self.screen.print(f"[red]Interrupted[/] after {enhanced}; run the same command to resume.")
        elif how:
            self._count_up(how)
        if not run.interrupted:
            for path, reason in run.plan.unsearched:
                self.screen.print(f"[red]Not searched:[/] {plain(path)}: {reason}.")
            if run.not_begun:
                self.screen.print(f"[red]{count(run.not_begun)} not begun;[/] run the same command to resume.")
        if album is not None and not self.quiet and album.path not in album.missing:
            self.screen.print(f"Browse them: {plain(album.path)}")

    def _count_up(self, how: str) -> None:
        run, failed = self.run, self.run.with_status("failed")
        if not self.quiet:
            enhanced = count(len(run.with_status("enhanced")))
            already = f", {run.skipped:,} done already" if run.skipped else ""
            speed = f"{run.megapixels:.1f} MP in {run.seconds:.1f} s, {run.megapixels / run.seconds:.1f} MP/s"
            self.screen.print(f"{enhanced} enhanced{already} ({speed}; {plain(how)}).")
        if failed:
            names = ", ".join(plain(result.task.source) for result in failed)
            self.screen.print(f"[red]{count(len(failed))} failed:[/] {names}")


def _size(reduction: int) -> str:
    return "full size" if reduction == 1 else f"1/{reduction} size"


def _files(paths: tuple[Path, ...], what: str = "files") -> str:
    return plain(paths[0]) if len(paths) == 1 else f"{len(paths):,} {what}"


def count(number: int) -> str:
    """`1 photo`, `2 photos`."""
    return "1 photo" if number == 1 else f"{number:,} photos"
