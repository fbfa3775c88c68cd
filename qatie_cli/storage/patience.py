"""Retries of requests to a store; its errors as messages."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from qatie_cli.errors import QatieError
from qatie_cli.storage import urls

T = TypeVar("T")

SECONDS = 300.0  # that a store may be down, on top of its client's own retries
SECONDS_AT_FIRST = 15.0  # before the first success, when the address may be wrong
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0  # seconds
# Retrying does not help with these.
_FINAL = (
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    TypeError,
    ValueError,
    QatieError,
)
_FINAL_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EINVAL, errno.ENAMETOOLONG, errno.EPERM, errno.ENOSYS, errno.EROFS)
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "CredentialRetrievalError",
)


class StoreError(QatieError):
    """A store refuses a request, or does not answer (`unreachable`)."""

    def __init__(self, message: str, hint: str = "", unreachable: bool = False) -> None:
        super().__init__(message, hint)
        self.unreachable = unreachable

    def __reduce__(self) -> tuple[type, tuple[str, str, bool]]:
        return type(self), (str(self), self.hint, self.unreachable)


class _Counter:
    """Counts this process's retries."""

    def __init__(self) -> None:
        self._lock, self._number = threading.Lock(), 0

    def add(self) -> None:
        with self._lock:
            self._number += 1

    def taken(self) -> int:
        """The count since the last call."""
        with self._lock:
            number, self._number = self._number, 0
            return number


repeated = _Counter()


def patiently(
    name: str,
    call: Callable[[], T],
    seconds: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return `call()`, retried with growing waits while the store of the file `name` does not answer.

    Raises:
        FileNotFoundError: no such file.
        StoreError: the store refuses, or has not answered for `seconds`.
    """
    end = time.monotonic() + (SECONDS if seconds is None else seconds)
    wait = _FIRST_WAIT
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            if type(error).__name__ in _NO_CREDENTIALS:
                raise StoreError(
                    f"No credentials for {name}.",
                    "Set them as for the store's own tools: in environment variables or a profile.",
                ) from None
            if isinstance(error, QatieError):
                raise
            if _is_final(error):
                raise StoreError(f"{name}: {_in_words(error)}.", _hint(error)) from None
            if time.monotonic() + wait > end:
                raise StoreError(
                    f"{name} cannot be reached: {_in_words(error)}.", "Run the same command later to resume.", True
                ) from None
        repeated.add()
        sleep(wait * random.uniform(0.5, 1.0))
        wait = min(2 * wait, _LONGEST_WAIT)


def _is_final(error: Exception) -> bool:
    return isinstance(error, _FINAL) or (isinstance(error, OSError) and error.errno in _FINAL_CODES)


def _in_words(error: Exception) -> str:
    """The error in one line, without credentials."""
    if isinstance(error, PermissionError):
        return "access is denied"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(urls.shown(str(said)).split()).rstrip(".")


def _hint(error: Exception) -> str:
    return "Check your credentials and the store's permissions." if isinstance(error, PermissionError) else ""
