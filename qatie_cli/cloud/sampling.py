"""Estimates of a plan's size from a sample of headers: reading all would take as long as a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qatie_cli.cloud import scratch
from qatie_cli.cloud.table import Row, Table
from qatie_cli.photo import decoding
from qatie_cli.photo.decoding import Header
from qatie_cli.storage import stores, urls
from qatie_cli.storage.patience import StoreError

_MOST = 64  # photos; smaller plans are read completely
_READERS = 16


def estimate(table: Table, photos: int) -> tuple[float, int]:
    """Megapixels of a plan with `photos` photos, and how many of them are unreadable."""
    headers = sample(table)
    if not headers:
        return 0.0, 0
    megapixels = sum(header.width * header.height / 1e6 for header in headers if header)
    return megapixels * photos / len(headers), round(headers.count(None) * photos / len(headers))


def sample(table: Table) -> list[Header | None]:
    """The headers of a sample of the photos to do; None for unreadable ones."""
    with scratch.folder() as folder, ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda row: _header(row, folder), table.sample(_MOST)))


def _header(row: Row, folder: Path) -> Header | None:
    if urls.protocol(row.source) == urls.FILE:
        return decoding.header(urls.to_path(row.source))
    target = folder / str(row.number)
    try:
        stores.of(row.source).fetch(row.source, target)
        return decoding.header(target)
    except (StoreError, OSError):
        return None
    finally:
        target.unlink(missing_ok=True)
