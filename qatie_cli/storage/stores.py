"""Reading, writing and listing files by URL, through fsspec."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qatie_cli import files, installation
from qatie_cli.errors import UsageError
from qatie_cli.storage import patience, urls
from qatie_cli.storage.patience import StoreError

# Stores whose put is atomic: a reader sees the old object or the new one, never half a file.
ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory", urls.FILE)
_OF_EXTRA = ("fsspec", "s3fs")
_S3 = ("s3", "s3a")
_GOOGLE = ("gs", "gcs")
_AZURE = ("az", "abfs", "abfss")
_KEYS_A_PAGE = 1000  # S3's maximum
_MD5_DIGITS = 32
_S3_WHOLE = 5 << 29  # bytes; s3fs puts files in parts from twice that on, and S3 takes 5 GiB at once
_VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class Entry:
    """A file in a store.

    Attributes:
        version: changes with the content: an ETag, a digest or a time, whichever the store provides.
        md5: of the content, 32 hexadecimal digits; empty if the store does not provide it.
    """

    url: str
    size: int
    version: str
    md5: str = ""


class Store:
    """The files of one protocol. Safe to call from several threads; each process opens its own (`of`)."""

    def __init__(self, protocol: str, system: Any) -> None:
        self.protocol, self._system = protocol, system

    def reach(self, url: str) -> None:
        """Check that the store answers, whether or not `url` exists.

        Raises:
            StoreError: the store refuses, or does not answer within seconds.
        """
        name, path = urls.people_s(url), self._path(url)
        with contextlib.suppress(FileNotFoundError):
            patience.patiently(name, lambda: self._system.info(path), patience.SECONDS_AT_FIRST)

    # --- listing ------------------------------------------------------------------------------------------------------

    def entry(self, url: str) -> Entry | None:
        """The file at `url`, or None.

        Raises:
            StoreError: the store refuses or does not answer.
        """
        info = self._info(url)
        return None if info is None or info["type"] == "directory" else self._entry(url, info)

    def is_folder(self, url: str) -> bool:
        """Whether `url` is a folder, or a prefix of keys."""
        info = self._info(url)
        return info is not None and info["type"] == "directory"

    def _info(self, url: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._try(url, lambda: self._system.info(self._path(url)))
        except FileNotFoundError:
            return None
        return found

    def pages(self, folder: str, recursive: bool = True) -> Iterator[list[Entry]]:
        """The files below `folder`, a page at a time.

        A page of S3 is 1,000 keys. Elsewhere it is one folder, in the order of names. A missing folder has no pages.
        On this machine, links are followed, and a folder that is reached twice is searched once.

        Raises:
            StoreError: it cannot be listed.
        """
        if self.protocol in _S3:
            yield from self._pages_of_s3(folder, recursive)
            return
        left, seen = [folder], set[tuple[int, int]]()
        while left:
            here = left.pop()
            if self.protocol == urls.FILE and not _is_new(here, seen):
                continue
            try:
                listed = self._try(here, functools.partial(self._system.ls, self._path(here), detail=True))
            except FileNotFoundError:
                continue
            found = {urls.join(here, urls.name(str(info["name"]))): info for info in listed}
            found.pop(here, None)
            folders = {url for url, info in found.items() if _is_folder(url, info)}
            yield [self._entry(url, info) for url, info in sorted(found.items()) if url not in folders]
            if recursive:
                left += sorted(folders, reverse=True)

    def _pages_of_s3(self, folder: str, recursive: bool) -> Iterator[list[Entry]]:
        bucket, _, prefix = self._path(folder).partition("/")
        start = f"{self.protocol}://{bucket}/"
        asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", "MaxKeys": _KEYS_A_PAGE}
        asked |= {} if recursive else {"Delimiter": "/"}
        while True:
            try:
                page = self._try(folder, lambda: self._system.call_s3("list_objects_v2", **asked))
            except FileNotFoundError:  # the bucket
                return
            listed = [(start + found["Key"], found) for found in page.get("Contents", ())]
            # Keys with a trailing slash stand for folders.
            yield [self._entry(url, info | {"size": info["Size"]}) for url, info in listed if not url.endswith("/")]
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _entry(self, url: str, info: dict[str, Any]) -> Entry:
        version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "").strip('"')
        return Entry(url, int(info["size"] or 0), version, md5_of(version) or _md5_beside(info))

    # --- reading and writing ------------------------------------------------------------------------------------------

    def read(self, url: str) -> bytes:
        """The content of a file.

        Raises:
            StoreError: it does not exist, or cannot be read.
        """
        content: bytes = self._there(url, lambda: self._system.cat_file(self._path(url)))
        return content

    def fetch(self, url: str, target: Path) -> None:
        """Download a file to `target`.

        Raises:
            StoreError: it does not exist, or cannot be read.
            OSError: `target` cannot be written.
        """
        if self.protocol == urls.FILE:
            self._there(url, lambda: shutil.copyfile(urls.to_path(url), target))
            return
        target.touch()  # an error of the local disk shows here, before the store's
        self._there(url, lambda: self._system.get_file(self._path(url), str(target)))

    def _there(self, url: str, call: Callable[[], Any]) -> Any:
        try:
            return self._try(url, call)
        except FileNotFoundError:
            raise StoreError(f"No such file: {urls.people_s(url)}.") from None

    def put(self, url: str, content: bytes | Path, content_type: str = "application/octet-stream") -> None:
        """Write a file atomically.

        Raises:
            StoreError: it cannot be written.
        """
        whole = content if isinstance(content, bytes) else content.read_bytes()
        if self.protocol == urls.FILE:
            path = urls.to_path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._try(url, lambda: files.write_atomic(path, whole))
            return
        typed = self._typed(content_type)
        try:
            self._try(url, lambda: self._system.pipe_file(self._path(url), whole, **typed))
        except FileNotFoundError:
            raise StoreError(f"The bucket of {url} does not exist.", "Create it, or choose another with -o.") from None

    def _typed(self, content_type: str) -> dict[str, Any]:
        if self.protocol in _S3:
            return {"ContentType": content_type, "chunksize": _S3_WHOLE}
        if self.protocol in _GOOGLE:
            return {"content_type": content_type}
        if self.protocol in _AZURE:
            from azure.storage.blob import ContentSettings

            return {"content_settings": ContentSettings(content_type=content_type)}
        return {}

    def remove(self, names: list[str]) -> None:
        """Remove files, ignoring those that do not exist.

        Raises:
            StoreError: one cannot be removed.
        """
        for start in range(0, len(names), _KEYS_A_PAGE):
            page = names[start : start + _KEYS_A_PAGE]
            try:
                self._try(page[0], functools.partial(self._system.rm, [self._path(url) for url in page]))
            except FileNotFoundError:
                for url in page:
                    with contextlib.suppress(FileNotFoundError):
                        self._try(url, functools.partial(self._system.rm_file, self._path(url)))

    # --- within -------------------------------------------------------------------------------------------------------

    def _path(self, url: str) -> str:
        path: str = self._system._strip_protocol(url)
        return path

    @staticmethod
    def _try(url: str, call: Callable[[], Any]) -> Any:
        return patience.patiently(urls.people_s(url), call)


def of(url: str) -> Store:
    """The store that holds `url`.

    Raises:
        UsageError: no installed package opens such URLs; the hint says what to install.
    """
    return _opened(urls.protocol(url))


@functools.cache
def _opened(protocol: str) -> Store:
    needed = [name for name in _OF_EXTRA[: 2 if protocol in _S3 else 1] if not installation.has(name)]
    if needed:
        command = installation.extra("cloud")
        raise UsageError(f"{protocol}:// needs {' and '.join(needed)}.", f"Run: {command}")
    import fsspec
    from fsspec.registry import known_implementations

    known = known_implementations.get(protocol)
    if known is None and protocol not in fsspec.available_protocols():
        raise UsageError(f"fsspec does not know {protocol}://.", "Use s3://, gs:// or az://, for example.")
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError:
        package = str((known or {}).get("class", "")).partition(".")[0]
        raise UsageError(f"{protocol}:// needs {package}.", f"Run: pip install {package}") from None
    # fsspec would cache listings forever. It shares connections between instances with the same options.
    system = kind(use_listings_cache=False)
    if protocol in _S3 and system.session is None:
        _parse_times_fast(system)
    return Store(protocol, system)


def _parse_times_fast(system: Any) -> None:
    """Parse the times of listed keys by `_time`: botocore's own parser is four fifths of a listing's processor time."""
    from aiobotocore.session import AioSession

    system.session = AioSession(**system.kwargs)  # as s3fs would make it
    system.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)


def _time(text: Any) -> datetime.datetime:
    """What botocore's parser returns."""
    try:
        return datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):  # a number, or the form of HTTP headers
        from botocore.utils import parse_timestamp

        parsed: datetime.datetime = parse_timestamp(text)
        return parsed


def check_writable(url: str) -> None:
    """Raise UsageError unless puts to the store of `url` are atomic."""
    if (protocol := urls.protocol(url)) not in ATOMIC:
        raise UsageError(
            f"Writes to {protocol}:// are not atomic, so qatie cannot use it for outputs.",
            "Use s3://, gs://, az:// or a folder with -o.",
        )


def _is_folder(url: str, info: dict[str, Any]) -> bool:
    """Whether it is a folder or, on this machine, a link to one."""
    linked = bool(info.get("islink")) and urls.protocol(url) == urls.FILE
    return info["type"] == "directory" or (linked and urls.to_path(url).is_dir())


def _is_new(url: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder of this machine is none of those `seen`, to which it is added."""
    try:
        status = urls.to_path(url).stat()
    except OSError:  # reported when it is listed
        return True
    identity = status.st_dev, status.st_ino
    is_new = identity not in seen
    seen.add(identity)
    return is_new


def _md5_beside(info: dict[str, Any]) -> str:
    """The digest that Google's and Azure's stores provide besides an ETag."""
    if isinstance(google := info.get("md5Hash"), str):
        return base64.b64decode(google).hex()
    azure = info.get("content_settings")
    found = azure.get("content_md5") if isinstance(azure, dict) else None
    return bytes(found).hex() if found else ""


def md5_of(version: str) -> str:
    """The MD5 that an ETag is for an object put in one part, not encrypted with a customer's key; else empty."""
    lower = version.lower()
    return lower if len(lower) == _MD5_DIGITS and set(lower) <= set("0123456789abcdef") else ""
