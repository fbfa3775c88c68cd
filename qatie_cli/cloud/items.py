"""What travels between the driver and its workers: photos to enhance, in batches, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from qatie_cli.batch.outcomes import Outcome


@dataclass(frozen=True)
class Item:
    """One photo to enhance, by URLs.

    Attributes:
        number: its place in the plan.
        with_alpha: replaces `output` for a HEIC photo that turns out to have transparent parts.
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
    """Photos that one worker takes at once: they are recorded by one write, and lost with it."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class ItemOutcome(Outcome):
    """What became of an item.

    Attributes:
        change: of the preview, in percent; None where there is no preview, which `previews_lack` explains.
        unreachable: it failed because a store did not answer.
    """

    number: int
    output: str
    change: float | None = None
    previews_lack: str = ""
    unreachable: bool = False


@dataclass(frozen=True)
class Done:
    """What a worker did with a batch.

    Attributes:
        record: the lines that it wrote into the output folder's record; empty where it wrote none.
        repeated: requests that the stores had to be asked again.
        worker: a name for the process.
    """

    batch: int
    outcomes: tuple[ItemOutcome, ...]
    record: bytes = b""
    repeated: int = 0
    worker: str = ""

    @property
    def unreachable(self) -> bool:
        """Whether no photo of it could be worked on, because a store did not answer."""
        return bool(self.outcomes) and all(outcome.unreachable for outcome in self.outcomes)
