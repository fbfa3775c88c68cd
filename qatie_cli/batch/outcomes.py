"""The outcome of a photo, whichever machine enhanced it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qatie_cli.batch.planning import Task


class Status(StrEnum):
    """Whether a photo was enhanced."""

    ENHANCED = "enhanced"
    SKIPPED = "skipped"  # the output existed
    FAILED = "failed"
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Seconds:
    """Time spent on a photo; stages of neighbouring photos overlap."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0

    @property
    def total(self) -> float:
        """All stages together."""
        return self.decode + self.network + self.encode


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a photo.

    Attributes:
        width, height: of the output, in pixels.
        reason: why it failed.
        notes: what was left out of the output.
        reduction: the factor by which the photo was reduced for the network.
        restored: whether it was a coarse JPEG (`enhance.jpeg`).
    """

    status: Status
    seconds: Seconds = Seconds()
    width: int = 0
    height: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()
    reduction: int = 1
    restored: bool = False

    @property
    def megapixels(self) -> float:
        """Millions of pixels; 0 for a photo that could not be read."""
        return self.width * self.height / 1e6


@dataclass(frozen=True)
class Result(Outcome):
    """The outcome of a task."""

    task: Task
