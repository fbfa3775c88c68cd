"""Errors that users can act on: what happened, and what to do next."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    NOTHING_DONE = 1
    USAGE = 2
    SOME_FAILED = 3
    INTERRUPTED = 130


class QatieError(Exception):
    """Base of all errors that a user can fix; `hint` is the next step."""

    exit_code = Exit.NOTHING_DONE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def one_line(self) -> str:
        """Message and hint joined, for a report's `reason`."""
        return f"{self} {self.hint}".strip()


class UsageError(QatieError):
    """Options or arguments are invalid."""

    exit_code = Exit.USAGE


class PhotoError(QatieError):
    """A photo cannot be read or written."""


class WeightsError(QatieError):
    """A weights file is missing, damaged or not a qatie file."""


class EngineError(QatieError):
    """The engine asked for does not exist on this machine."""

    exit_code = Exit.USAGE


class PinnedEngineError(EngineError):
    """The engine that a batch was begun on is missing here."""

    exit_code = Exit.NOTHING_DONE


class DataError(QatieError):
    """A folder of training or evaluation photos cannot be used."""
