"""What the driver and its workers exchange: batches of photos, and their outcomes."""

from __future__ import annotations

from dataclasses import dataclass

from qatie_cli.batch.outcomes import Outcome


@dataclass(frozen=True)
class Item:
    """One photo to enhance, by URLs.

    Attributes:
        number: its position in the plan.
        with_alpha: replaces `output` if a HEIC photo turns out to have transparency.
        size, version: of the source when it was listed.
    """

    number: int
    source: str
    output: str
    with_alpha: str | None = None
    size: int = 0
    version: str = ""


@dataclass(frozen=True)
class Batch:
    """Photos that one worker takes at once, and records with one write."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class ItemOutcome(Outcome):
    """The outcome of an item.

    Attributes:
        change: of the preview, in percent; None if there is no preview, for the reason in `previews_lack`.
        unreachable: it failed because a store did not answer.
    """

    number: int
    output: str
    change: float | None = None
    previews_lack: str = ""
    unreachable: bool = False


@dataclass(frozen=True)
class Done:
    """What a worker reports of a batch.

    Attributes:
        record: the lines that it added to the output folder's record.
        repeated: number of requests that were retried.
        worker: the name of the process.
    """

    batch: int
    outcomes: tuple[ItemOutcome, ...]
    record: bytes = b""
    repeated: int = 0
    worker: str = ""

    @property
    def unreachable(self) -> bool:
        """Whether all of its photos failed because a store did not answer."""
        return bool(self.outcomes) and all(outcome.unreachable for outcome in self.outcomes)
