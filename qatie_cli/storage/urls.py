"""URLs of files in stores."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from qatie_cli.errors import UsageError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_SIGNED = re.compile(r"[?&](sig|[^=&]*(key|secret|token|password|signature|credential)[^=&]*)=", re.IGNORECASE)
_QUERY = re.compile(r"(?<=\?)[^\s'\"<>]+")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CONNECTION_STRING", re.IGNORECASE)
_SHORTEST_SECRET = 8  # characters; a shorter value may be an ordinary word
FILE = "file"


def is_url(text: str) -> bool:
    """Whether `text` is a URL rather than a path."""
    return _SCHEME.match(text) is not None


def protocol(text: str) -> str:
    """`s3` of `s3://bucket/key`; `file` of a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else FILE


def checked(text: str) -> str:
    """The URL without a trailing slash.

    Raises:
        UsageError: it contains a password or a signature, has no bucket or folder, or is a chain.
    """
    if _PASSWORD.search(text) or _SIGNED.search(text):
        raise UsageError(
            f"{shown(text)} contains a password or a signature, which would end up in logs and reports.",
            "Set credentials as for the store's own tools: in environment variables or a profile.",
        )
    if "::" in text:
        raise UsageError(f"{text} is a chain of URLs.", "Give a single URL.")
    rest = text[text.index("://") + 3 :]
    if not rest.strip("/"):
        raise UsageError(f"{text} has no bucket or folder.", f"Write it as {protocol(text)}://BUCKET/FOLDER.")
    return text.rstrip("/")


def of_path(path: Path) -> str:
    """The URL of a local file or folder."""
    return f"{FILE}://{Path(os.path.abspath(path)).as_posix()}"  # noqa: PTH100 (links stay)


def to_path(url: str) -> Path:
    """The inverse of `of_path`."""
    return Path(url.removeprefix(f"{FILE}://"))


def join(folder: str, name: str) -> str:
    """The URL of `name`, a relative path with slashes, below `folder`."""
    return f"{folder.rstrip('/')}/{name}" if name else folder


def below(url: str, folder: str) -> str | None:
    """The path of `url` relative to `folder`; None if it is not below it."""
    start = folder.rstrip("/") + "/"
    return url[len(start) :] if url.startswith(start) else None


def relative(url: str, folder: str) -> str:
    """The path of `url` from `folder`, with `..` if needed; the URL itself if it is in another bucket."""
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
    """`s3://bucket/`; `file:///` for local files."""
    start = url.index("://") + 3
    end = url.find("/", start)
    return f"{url}/" if end < 0 else url[: end + 1]


def name(url: str) -> str:
    """The last part."""
    return url.rstrip("/").rpartition("/")[2]


def shown(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A message without possible credentials: passwords and signatures in URLs, values of secret variables."""
    text = _QUERY.sub("...", _PASSWORD.sub("...@", text))
    for variable, value in environment.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.search(variable):
            text = text.replace(value, "...")
    return text


def people_s(url: str) -> str:
    """The URL for messages: a path for local files."""
    return str(to_path(url)) if protocol(url) == FILE else url
