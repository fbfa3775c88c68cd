"""What a batch shows while it runs and when it is done."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qatie_cli.cli.console import plain, progress
from qatie_cli.errors import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from qatie_cli.batch.planning import Plan
    from qatie_cli.batch.running import Result
    from qatie_cli.gallery.album import Album


class Follower:
    """Collects results, and tells of them on standard error."""

    def __init__(self, plan: Plan, screen: Console, quiet: bool, verbose: bool) -> None:
        self.plan, self.screen, self.quiet, self.verbose = plan, screen, quiet, verbose
        self.results: list[Result] = []
        self.began, self._ended = time.monotonic(), None

    @property
    def seconds(self) -> float:
        """From the beginning to the batch's end, or until now."""
        return (self._ended or time.monotonic()) - self.began

    def during(self, run: Callable[[Callable[[Result], None]], None], album: Album | None = None) -> None:
        """Run a batch under a progress bar; `run` takes what is to be called with each result."""
        tasks = self.plan.tasks
        with progress("[dim]{task.fields[speed]:.1f} MP/s  {task.fields[name]}", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=len(tasks), speed=0.0, name=plain(tasks[0].source.name))

            def on_result(result: Result) -> None:
                self._tell(result)
                if album is not None:
                    album.add(result)
                done = len(self.results)
                following = plain(tasks[min(done, len(tasks) - 1)].source.name)
                bar.update(shown, completed=done, speed=self.megapixels() / self.seconds, name=following)

            try:
                run(on_result)
            finally:
                self._ended = time.monotonic()

    def _tell(self, result: Result) -> None:
        self.results.append(result)
        if result.status == "failed":
            self.screen.print(f"[red]Failed:[/] {plain(result.reason)}")
        elif result.status == "enhanced" and self.verbose:
            seconds = result.seconds
            self.screen.print(
                f"{plain(result.task.output)}  {result.megapixels:.1f} MP  decode {seconds.decode:.2f} s  "
                f"network {seconds.network:.2f} s  encode {seconds.encode:.2f} s"
            )
        for note in () if self.quiet else result.notes:
            self.screen.print(f"[yellow]Note:[/] {plain(result.task.source)}: {plain(note)}.")

    def _with(self, status: str) -> list[Result]:
        return [result for result in self.results if result.status == status]

    def megapixels(self) -> float:
        """Enhanced so far, in millions of pixels."""
        return sum(result.megapixels for result in self._with("enhanced"))

    def summarize(self, how: str) -> None:
        """The closing lines; failures are named even when quiet."""
        enhanced, failed = self._with("enhanced"), self._with("failed")
        not_begun = len(self.plan.tasks) - len(self.results) + len(self._with("not begun"))
        if not self.quiet:
            skipped = len(self.plan.done) + len(self._with("skipped"))
            already = f", {skipped} done already" if skipped else ""
            speed = f"{self.megapixels():.1f} MP in {self.seconds:.1f} s, {self.megapixels() / self.seconds:.1f} MP/s"
            self.screen.print(f"{count(len(enhanced))} enhanced{already} ({speed}; {plain(how)}).")
        if failed:
            names = ", ".join(plain(result.task.source) for result in failed)
            self.screen.print(f"[red]{count(len(failed))} failed:[/] {names}")
        self.tell_unsearched()
        if not_begun:
            self.screen.print(f"[red]{count(not_begun)} not begun;[/] the same command goes on from there.")

    def tell_unsearched(self) -> None:
        """Name the folders that could not be looked into."""
        for path, reason in self.plan.unsearched:
            self.screen.print(f"[red]Not searched:[/] {plain(path)}: {reason}.")

    def catch_up(self, album: Album) -> None:
        """Make previews of photos done before under a progress bar."""
        with progress("[dim]previews", quiet=self.quiet) as bar:
            shown = bar.add_task("", total=None)
            album.catch_up(lambda done, total: bar.update(shown, completed=done, total=total))

    def finish(self, album: Album) -> bool:
        """Write the gallery; whether it is there, whole."""
        try:
            album.write()
        except OSError as error:
            album.missing[album.path] = str(error.strerror or error)
        for path, reason in album.missing.items():
            self.screen.print(f"[red]The gallery lacks[/] {plain(path)}: {plain(reason)}")
        return not album.missing

    def tell_gallery(self, album: Album) -> None:
        """Say where the gallery is."""
        if not self.quiet and album.path not in album.missing:
            self.screen.print(f"Look through them: {plain(album.path)}")

    def exit_code(self) -> Exit:
        """What the process ends with."""
        well = all(result.status in ("enhanced", "skipped") for result in self.results)
        if well and not self.plan.unsearched and (self.results or self.plan.done):
            return Exit.OK
        return Exit.SOME_FAILED if self._with("enhanced") or self.plan.done else Exit.NOTHING_DONE


def count(number: int) -> str:
    """`1 photo`, `2 photos`."""
    return "1 photo" if number == 1 else f"{number:,} photos"
