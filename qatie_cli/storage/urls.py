"""URLs of files in stores: what is one, how names below it are made, and what of them may be shown."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from qatie_cli.errors import UsageError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_QUERY = re.compile(r"(?<=\?)[^\s'\"<>]+")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CONNECTION_STRING", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters; a shorter value of such a variable may be any word
FILE = "file"


def is_url(text: str) -> bool:
    """Whether it is a URL rather than a path."""
    return _SCHEME.match(text) is not None


def protocol(text: str) -> str:
    """`s3` of `s3://bucket/key`; `file` of a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else FILE


def checked(text: str) -> str:
    """The URL without a slash at its end.

    Raises:
        UsageError: it holds a password, names no bucket or folder, or is of several parts.
    """
    if _PASSWORD.search(text):
        raise UsageError(
            f"{shown(text)} holds a password, which logs and reports would show.",
            "Give credentials as the store's own tools take them: environment variables or a profile.",
        )
    if "::" in text:
        raise UsageError(f"{text} is a chain of URLs.", "Name one.")
    rest = text[text.index("://") + 3 :]
    if not rest.strip("/"):
        raise UsageError(f"{text} names no bucket or folder.", f"Write it as {protocol(text)}://BUCKET/FOLDER.")
    return text.rstrip("/")


def of_path(path: Path) -> str:
    """The URL of a file or folder of this machine."""
    return f"{FILE}://{Path(os.path.abspath(path)).as_posix()}"  # noqa: PTH100 (links stay)


def to_path(url: str) -> Path:
    """The inverse of `of_path`."""
    return Path(url.removeprefix(f"{FILE}://"))


def join(folder: str, name: str) -> str:
    """The URL of `name`, a relative path with slashes, below `folder`."""
    return f"{folder.rstrip('/')}/{name}" if name else folder


def below(url: str, folder: str) -> str | None:
    """The path of `url` relative to `folder`; None where it is not below it."""
    start = folder.rstrip("/") + "/"
    return url[len(start) :] if url.startswith(start) else None


def relative(url: str, folder: str) -> str:
    """The path of `url` from `folder`, upwards, too, where one bucket holds both; else the URL."""
    bucket = _bucket(folder)
    if _bucket(url) != bucket:
        return url
    return posixpath.relpath(url.removeprefix(bucket) or ".", folder.removeprefix(bucket) or ".")


def absolute(place: str, folder: str) -> str:
    """The inverse of `relative`."""
    if is_url(place):
        return place
    bucket = _bucket(folder)
    return bucket + posixpath.normpath(posixpath.join(folder.removeprefix(bucket), place))


def _bucket(url: str) -> str:
    """`s3://bucket/`; `file:///` for files of this machine."""
    start = url.index("://") + 3
    end = url.find("/", start)
    return f"{url}/" if end < 0 else url[: end + 1]


def name(url: str) -> str:
    """The last part."""
    return url.rstrip("/").rpartition("/")[2]


def shown(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A message without what may be a credential: passwords and signatures in URLs, values of secret variables."""
    text = _QUERY.sub("...", _PASSWORD.sub("...@", text))
    for variable, value in environment.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.search(variable):
            text = text.replace(value, "...")
    return text


def people_s(url: str) -> str:
    """The URL for people: files of this machine by their path."""
    return str(to_path(url)) if protocol(url) == FILE else url
