"""The one family of errors a user can cause, each saying what happened and what to do next."""

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
    """Something outside the program is wrong; `hint` is the next step for the person who reads it."""

    exit_code = Exit.NOTHING_DONE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def one_line(self) -> str:
        """Message and hint joined, for a report's `reason`."""
        return f"{self} {self.hint}".strip()


class UsageError(QatieError):
    """The command line cannot be carried out as written."""

    exit_code = Exit.USAGE


class PhotoError(QatieError):
    """A photo cannot be read or written."""


class WeightsError(QatieError):
    """A weights file is missing, damaged or not one of ours."""


class EngineError(QatieError):
    """The engine asked for does not exist on this machine."""

    exit_code = Exit.USAGE


class DataError(QatieError):
    """A folder of training or evaluation photos cannot be used."""
