"""The pipeline of a batch: decoding, network and encoding overlap, and a photo's error does not stop the others."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from qatie_cli import files
from qatie_cli.batch import reasons, sidecars, targets
from qatie_cli.batch.claims import Claim
from qatie_cli.batch.journal import Journal
from qatie_cli.batch.made import Ledger, State
from qatie_cli.batch.outcomes import Result, Seconds, Status
from qatie_cli.batch.planning import Originals, Task, state_of
from qatie_cli.batch.settings import Settings
from qatie_cli.enhance import jpeg, memory
from qatie_cli.enhance.refinement import Refinement
from qatie_cli.errors import PhotoError
from qatie_cli.photo import MAX_PIXELS, apart, encoding, fineness, formats
from qatie_cli.photo.beside import renditions
from qatie_cli.photo.content import Photo
from qatie_cli.photo.fineness import SOURCE, Quality

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FAILURES_OF_A_FULL_DISK = 3  # in a row, which stop the run
_NO_SPACE_LEFT = 1 << 16  # bytes
_PREVIEW_BYTES = 48 << 20  # while previews of a photo are made and compressed
_LARGE = 32_000_000  # pixels; above, freed memory is returned to the system between the stages, limit or not


@dataclass(frozen=True)
class Writing:
    """How outputs are written."""

    quality: Quality = None
    strip_metadata: bool = False
    strip_gps: bool = False
    overwrite: bool = False
    preserve_times: bool = False  # outputs get the times of their sources
    max_pixels: int = MAX_PIXELS
    no_hdr: bool = False  # leave out HDR gain maps
    no_motion: bool = False  # leave out motion photos' videos
    sidecars: bool = False  # XMP files beside photos are copied beside their outputs
    settings: Settings | None = None  # to record with each output
    ledger: Ledger | None = None  # of the output folder
    journal: Journal | None = None  # of photos that replace their originals

    def prepared(self, photo: Photo) -> Photo:
        """The photo without what the user excluded."""
        photo = photo.without_metadata() if self.strip_metadata else photo
        photo = renditions.without_hdr(photo) if self.no_hdr else photo
        photo = photo.without(motion=True) if self.no_motion else photo
        if self.quality == SOURCE:
            photo = dataclasses.replace(photo, fineness=fineness.of_photo(photo))
        return photo.without_gps() if self.strip_gps else photo


class Previews(Protocol):
    """Makes previews while the pixels are in memory; called in the pipeline's threads.

    Neither method raises: a failed preview must not fail its photo.
    """

    def reduced(self, photo: Photo) -> np.ndarray | None:
        """What `keep` will need of a decoded photo."""

    def keep(self, task: Task, before: np.ndarray | None, photo: Photo) -> None:
        """Called when the output is written; `before` is what `reduced` returned."""


# (photo, how the network sees it) to the enhanced photo.
Enhance = Callable[[Photo, Refinement], Photo]


@dataclass
class _InHand:
    """A photo in progress."""

    task: Task
    began: float
    photo: Photo | None = None
    held: int = 0  # bytes of the budget
    beside: int = 0  # of them, what its pixels cannot take: metadata, video, previews, the process that decodes
    decode: float = 0.0
    network: float = 0.0
    width: int = 0
    height: int = 0
    input_bytes: int = 0
    seen: tuple[int, int, int] | None = None  # size, time and inode of the file that was read
    notes: tuple[str, ...] = ()
    reduction: int = 1  # by which the network sees it reduced
    restored: bool = False  # from a coarse JPEG
    before: np.ndarray | None = None  # the original, reduced for a preview
    early: Result | None = None  # set if it ended before the network
    elsewhere: bool = False  # another run is working on it
    suspect: bool = False  # a process died while working on it


class Runner:
    """The pipeline of one run.

    At most one photo is decoded ahead, one is in the network and one is being encoded; fewer if `max_memory` (bytes,
    for the whole process) requires it. While the network takes longer than decoding and encoding together, the next
    photo is decoded after the one before is encoded: both take copies of a photo, and are in time one after the other.
    """

    def __init__(
        self,
        enhance: Enhance,
        writing: Writing,
        network_bytes_per_pixel: float = 0.0,
        max_memory: int | None = None,
        refinement: Callable[[np.ndarray], Refinement] = lambda pixels: Refinement(),
        previews: Previews | None = None,
        reader: apart.Reader | None = None,
        budget: memory.Budget | None = None,
    ) -> None:
        """`refinement` says how the network sees a photo, apart from tiles; `budget` replaces `max_memory`."""
        self._previews = previews
        self._reader = reader or apart.Reader()
        self._enhance, self._writing, self._refinement = enhance, writing, refinement
        self._network_bytes = network_bytes_per_pixel
        self._budget = budget or memory.Budget(memory.available(max_memory))
        # Freed memory counts where there is a limit, too: malloc kept 100 MB of a 12-megapixel photo.
        self._trimmed_above = _LARGE if max_memory is None else 0
        self._stop = threading.Event()
        self._full_in_a_row = 0
        self._covered = True  # the network takes longer than decoding and encoding together, as far as is known
        self._claims: dict[Task, Claim] = {}
        self._originals = Originals(())

    def run(self, tasks: Sequence[Task], on_result: Callable[[Result], None]) -> None:
        """Enhance `tasks`; `on_result` is called for each, in this thread and in their order.

        Photos that another run is working on come last, once it has finished or ended.
        KeyboardInterrupt passes through after the photo being written is written or gone; no temporary file stays.
        """
        self._originals = Originals(tasks)
        try:
            elsewhere = self._pass(tasks, on_result, wait=False)
            self._pass(elsewhere, on_result, wait=True)
        finally:
            self._reader.close()
            for claim in self._claims.values():
                claim.give_up(made=False)
            self._claims.clear()

    def stop(self) -> None:
        """Make `run` end soon, from another thread: photos that have not reached the network are not begun."""
        self._stop.set()
        self._budget.close()  # the next photo may wait for what this one holds
        self._reader.interrupt()

    def _pass(self, tasks: Sequence[Task], on_result: Callable[[Result], None], wait: bool) -> list[Task]:
        """Enhance `tasks`, except those that another run is working on: they are waited for or returned."""
        elsewhere: list[Task] = []
        pending: list[Future[Result]] = []
        begun = 0
        with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
            try:
                ahead = decoder.submit(self._decode, tasks[0], wait) if tasks and not self._stop.is_set() else None
                while ahead is not None:
                    hand = ahead.result()
                    begun += 1
                    before = pending[-1] if pending and self._covered else None
                    ahead = decoder.submit(self._decode, tasks[begun], wait, before) if begun < len(tasks) else None
                    if hand.elsewhere:
                        elsewhere.append(hand.task)
                        continue
                    self._through_the_network(hand)
                    self._report(pending, on_result)
                    pending.append(encoder.submit(self._finish, hand))
                    del hand
                    if self._stop.is_set():
                        # The next photo may be what stopped the run: its own reason is reported.
                        if ahead is not None and not ahead.cancel() and ahead.result().early is not None:
                            begun += 1
                            pending.append(encoder.submit(self._finish, ahead.result()))
                        break
            except BaseException:
                self.stop()
                raise
            finally:
                if ahead is not None:
                    ahead.cancel()
                self._report(pending, on_result)
        for task in tasks[begun:]:
            on_result(Result(task, status=Status.NOT_BEGUN, reason="Nothing more could be written."))
        return elsewhere

    @staticmethod
    def _report(pending: list[Future[Result]], on_result: Callable[[Result], None]) -> None:
        """Report photos that are written; those that an interruption leaves pending are reported when `run` ends."""
        for result in [written.result() for written in pending]:
            pending.pop(0)
            on_result(result)

    # --- the three stages; none of them lets an error of one photo out -------------------------------------------

    def _decode(self, task: Task, wait: bool = False, before: Future[Result] | None = None) -> _InHand:
        if before is not None:
            futures.wait([before])
        hand = _InHand(task, time.monotonic())
        if self._stop.is_set():
            return hand
        try:
            if not self._begin(hand, wait):
                return hand
            fmt = self._format(task)
            targets.check(task)
            if task.in_place:
                targets.check_names(task.source)
            hand.seen = targets.identity(task.source)
            hand.input_bytes = hand.seen[0]
            self._reserve(hand, fmt)
            if self._stop.is_set():
                return hand
            hand.began = time.monotonic()
            photo = self._writing.prepared(self._reader.read(task.source, self._writing.max_pixels, hand.suspect))
            if task.with_alpha is not None and photo.has_transparency:
                task = self._with_alpha(hand, task.with_alpha)
                fmt = self._format(task)
            encoding.check_encodable(photo, fmt)
            hand.photo, hand.notes = photo, photo.notes + encoding.left_out(photo, fmt)
            hand.height, hand.width = photo.pixels.shape[:2]
            if task.in_place and hand.notes:
                hand.photo = None
                lost = "; ".join(hand.notes)
                raise PhotoError(f"{task.source} would lose data in place ({lost}).", "Use -o for it.")
        except Exception as error:
            self._stop_where_the_disk_is_full(task, error)  # a claim needs room, too
            hand.early = self._failed(hand, error)
        hand.decode = time.monotonic() - hand.began
        if self._previews is not None and hand.photo is not None:
            hand.before = self._previews.reduced(hand.photo)
        return hand

    def _begin(self, hand: _InHand, wait: bool) -> bool:
        """Claim the photo's output; returns whether it still has to be made.

        Raises:
            PhotoError: another file has appeared there.
            OSError: the claim cannot be written.
        """
        task, ledger = hand.task, self._writing.ledger
        record = ledger or self._writing.journal
        if record is not None:
            claim = record.claim(task.output, wait, self._stop.is_set)
            if claim is None:
                hand.elsewhere = not self._stop.is_set()
                return False
            self._claims[task], hand.suspect = claim, claim.suspect
        if task.in_place or self._writing.overwrite:
            return True
        there = state_of(task, ledger)
        if there.state is State.DONE:
            hand.early = Result(task, status=Status.SKIPPED, reason="Another run has written it.")
        elif there.state is State.LEFT:
            raise PhotoError(there.reason)
        return hand.early is None

    def _with_alpha(self, hand: _InHand, output: Path) -> Task:
        """Give a photo with transparency an output that can hold it."""
        ledger = self._writing.ledger
        if ledger is not None and not self._writing.overwrite:
            there = ledger.find(output, hand.task.source)
            if there.state is State.LEFT:
                raise PhotoError(there.reason)
        made = Task(hand.task.source, output)
        if hand.task in self._claims:
            self._claims[made] = self._claims.pop(hand.task)
        hand.task = made
        return made

    def _reserve(self, hand: _InHand, fmt: str) -> None:
        """Wait for the memory to decode, hold and encode the photo; the network's is added while it runs."""
        header = self._reader.header(hand.task.source, hand.suspect)
        if header is None or header.width * header.height > self._writing.max_pixels:
            return  # `decoding.read` will refuse it
        size, sample_bytes = (header.width, header.height), header.sample_bytes
        held = max(
            header.decode_bytes,
            memory.held_bytes(*size, sample_bytes, header.gray),
            memory.encode_bytes(*size, fmt, header.progressive, sample_bytes),
        )
        apart_bytes = apart.BYTES if self._reader.takes(hand.task.source, hand.suspect) else 0
        hand.beside = header.beside_bytes + (0 if self._previews is None else _PREVIEW_BYTES) + apart_bytes
        self._budget.take(held + hand.beside)
        hand.held = held + hand.beside

    @staticmethod
    def _format(task: Task) -> str:
        fmt = formats.format_of_name(task.output)
        if fmt is None:
            raise PhotoError(f"{task.output.name} is in a format that qatie reads but does not write.", "Use -o.")
        return fmt

    def _through_the_network(self, hand: _InHand) -> None:
        if hand.photo is None:
            return
        began = time.monotonic()
        network = 0
        trimmed = hand.width * hand.height > self._trimmed_above
        if trimmed:
            memory.give_free_memory_back()
        try:
            how = self._refinement(hand.photo.pixels)
            hand.reduction, hand.restored = how.reduction, hand.photo.components is not None
            side = self._tile_side(hand, hand.photo.pixels)
            network = memory.network_bytes(hand.width, hand.height, self._network_bytes, side, hand.reduction)
            network = max(network, jpeg.WORKING_BYTES if hand.restored else 0)
            self._budget.add(network)
            hand.photo = self._enhance(hand.photo, dataclasses.replace(how, tile_side=side))
        except Exception as error:
            hand.early = self._failed(hand, error)
            hand.photo = None
        finally:
            self._budget.give_back(network)
            if trimmed:
                memory.give_free_memory_back()
        hand.network = time.monotonic() - began

    def _tile_side(self, hand: _InHand, pixels: np.ndarray) -> int | None:
        """Tiles that fit beside the neighbouring photos or, if none do, into the whole budget."""
        size = hand.width, hand.height, self._network_bytes
        kind = pixels.itemsize, hand.reduction, pixels.shape[2] == 1
        try:
            return memory.tile_side(*size, self._budget.left + hand.held - hand.beside, *kind)
        except PhotoError:
            return memory.tile_side(*size, self._budget.total - hand.beside, *kind)

    def _finish(self, hand: _InHand) -> Result:
        began, made = time.monotonic(), False
        try:
            if hand.photo is None:
                return hand.early or Result(hand.task, status=Status.NOT_BEGUN, reason="The run was stopped.")
            size = self._write(hand, hand.photo)
            made = True
            self._full_in_a_row = 0
            encode = time.monotonic() - began
            self._covered = hand.decode + encode < hand.network
            if self._previews is not None:
                self._previews.keep(hand.task, hand.before, hand.photo)
        except Exception as error:
            self._stop_where_the_disk_is_full(hand.task, error)
            return self._failed(hand, error)
        finally:
            hand.photo = None
            if hand.held:
                self._budget.give_back(hand.held)
            if claim := self._claims.pop(hand.task, None):
                claim.give_up(made)
        seconds = Seconds(hand.decode, hand.network, encode)
        return self._result(hand, Status.ENHANCED, seconds, output_bytes=size)

    def _write(self, hand: _InHand, photo: Photo) -> int:
        task, writing = hand.task, self._writing
        fmt, mode = self._format(task), task.source.stat().st_mode & 0o7777 if task.in_place else None

        def before_replace(made: Path) -> None:
            if task.in_place:
                if targets.identity(task.source) != hand.seen:
                    changed = f"{task.source} was changed while it was being enhanced; it is left unchanged."
                    raise PhotoError(changed, "Try again.")
                targets.keep_attributes(task.source, made)
            elif reason := self._originals.refusal(task.output):
                raise PhotoError(reason)
            if writing.preserve_times:
                status = task.source.stat()
                os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
            if writing.journal is not None:
                writing.journal.record(task.output, made, writing.settings)
            if writing.ledger is not None and hand.seen is not None:
                writing.ledger.record(task.output, task.source, hand.seen[:2], made)

        task.output.parent.mkdir(parents=True, exist_ok=True)
        encoding.write(task.output, photo, fmt, self._writing.quality, mode, before_replace)
        if writing.sidecars and not task.in_place:
            further = sidecars.copy(task.source, task.output, photo, writing.strip_gps, writing.overwrite)
            hand.notes += further
        return task.output.stat().st_size

    # --- failures -------------------------------------------------------------------------------------------------

    def _failed(self, hand: _InHand, error: Exception) -> Result:
        seconds, reason = Seconds(hand.decode, hand.network), reasons.of(hand.task, error)
        return self._result(hand, Status.FAILED, seconds, reason=reason)

    @staticmethod
    def _result(hand: _InHand, status: Status, seconds: Seconds, output_bytes: int = 0, reason: str = "") -> Result:
        return Result(
            hand.task,
            status=status,
            seconds=seconds,
            width=hand.width,
            height=hand.height,
            input_bytes=hand.input_bytes,
            output_bytes=output_bytes,
            reason=reason,
            notes=hand.notes,
            reduction=hand.reduction,
            restored=hand.restored,
        )

    def _stop_where_the_disk_is_full(self, task: Task, error: Exception) -> None:
        """Stop the run if the disk is full, unless smaller photos may still fit."""
        if not isinstance(error, OSError) or error.errno not in _FULL:
            return
        self._full_in_a_row += 1
        try:
            free = shutil.disk_usage(task.output.parent).free
        except OSError:
            free = 0
        if free < _NO_SPACE_LEFT or self._full_in_a_row >= _FAILURES_OF_A_FULL_DISK:
            self._stop.set()


def remove_stale(tasks: Sequence[Task]) -> int:
    """Remove temporary files that killed runs left beside the outputs; returns how many."""
    folders = {os.fspath(task.output.parent): task.output.parent for task in tasks}
    return sum(files.remove_stale(folder) for folder in folders.values())
