"""The record of what the outputs in a store were made from.

OUT/.qatie/made/ holds lines like those of OUT/.qatie/made.jsonl in local folders (`batch.made`): an output with its
size and MD5, its source with size and version, the digest of the settings, and the engine. Stores cannot append, so a
worker writes a file for each batch, before it uploads the batch's outputs: an output without a line is not ours. The
driver merges these files into compressed ones of up to `MERGED` batches. Lines without an output, left by killed runs,
are harmless.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qatie_cli import parsing
from qatie_cli.batch.made import FOLDER
from qatie_cli.batch.outcomes import Seconds, Status
from qatie_cli.batch.settings import Settings
from qatie_cli.cloud.items import Batch, Done, Item, ItemOutcome
from qatie_cli.cloud.table import Made
from qatie_cli.storage import stores, urls

MERGED = 512  # files of batches per merged file
_READERS = 16
_LINES = "application/jsonl"
_GZIP = "application/gzip"


class Record:
    """The record of the output folder `out`. Thread- and process-safe."""

    def __init__(self, out: str, settings: Settings, run: str, engine: str = "") -> None:
        """`run` is a unique name, so that no two runs write to one file."""
        self._out, self._run, self._engine = out, run, engine
        self.settings, self.digest = settings, settings.digest
        self._folder = urls.join(out, f"{FOLDER}/made")
        self.begun_on = ""  # the engine of the last run with these settings, after `read`
        self.earlier: dict[str, dict[str, Any]] = {}  # settings of earlier runs by digest, after `read`

    # --- by workers ---------------------------------------------------------------------------------------------------

    def line(self, item: Item, outcome: ItemOutcome, content: bytes) -> bytes:
        """The line of an output that is about to be uploaded."""
        row: dict[str, Any] = {
            "output": urls.below(outcome.output, self._out) or outcome.output,
            "made": [len(content), md5(content)],
            "from": [urls.relative(item.source, self._out), item.size, item.version],
            "settings": self.digest,
            "engine": self._engine,
            "result": [
                outcome.width,
                outcome.height,
                outcome.reduction,
                *dataclasses.astuple(outcome.seconds),
                *outcome.notes,
            ],
            "restored": outcome.restored,
        }
        return _line(row)

    def write(self, batch: Batch, lines: bytes) -> None:
        """Write the lines of a batch.

        Raises:
            StoreError: they cannot be written; the batch's outputs must not be uploaded then.
        """
        stores.of(self._out).put(self._file(batch.number), self._spelt_out() + lines, _LINES)

    def _spelt_out(self) -> bytes:
        return json.dumps({"settings": self.digest, "are": dataclasses.asdict(self.settings)}).encode() + b"\n"

    def begun(self, batch: Batch) -> tuple[dict[str, ItemOutcome], bytes]:
        """What an earlier attempt at this batch in this run uploaded, by source, and its lines.

        There is one if a worker died before it could report.

        Raises:
            StoreError: the store cannot be asked.
        """
        store = stores.of(self._out)
        if store.entry(self._file(batch.number)) is None:
            return {}, b""
        items = {urls.relative(item.source, self._out): item for item in batch.items}
        found, lines = {}, b""
        for row in _rows(store.read(self._file(batch.number))):
            item = items.get(row["from"][0])
            output = urls.join(self._out, row["output"])
            size, digest = row["made"]
            there = store.entry(output)
            if item is not None and there is not None and there.size == size and there.md5 in ("", digest):
                width, height, reduction, *rest = row["result"]
                found[item.source] = ItemOutcome(
                    item.number,
                    output,
                    status=Status.ENHANCED,
                    seconds=Seconds(*rest[:3]),
                    width=width,
                    height=height,
                    reduction=reduction,
                    restored=row.get("restored", False),
                    input_bytes=item.size,
                    output_bytes=size,
                    notes=tuple(rest[3:]),
                )
                lines += _line(row)
        return found, lines

    def _file(self, number: int) -> str:
        return f"{self._folder}/{self._run}/{number:08}.jsonl"

    # --- by the driver ------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[list[Made]]:
        """All records, one file at a time, oldest run first.

        Raises:
            StoreError: they cannot be read.
        """
        store = stores.of(self._out)
        names = (entry.url for page in store.pages(self._folder) for entry in page)
        with ThreadPoolExecutor(_READERS) as readers:
            for content in _in_order(readers, store.read, names):
                yield [self._made(row) for row in self._outputs(content)]

    def _outputs(self, content: bytes) -> Iterator[dict[str, Any]]:
        """The lines of outputs; those of settings are kept."""
        for row in _lines(content):
            match row:
                case {"settings": str(digest), "are": dict(settings)}:
                    self.earlier[digest] = settings
                case _ if _is_output(row):
                    yield row

    def _made(self, row: dict[str, Any]) -> Made:
        size, digest = row["made"]
        source, source_size, version = row["from"]
        output = urls.join(self._out, row["output"])
        if row["settings"] == self.digest:
            self.begun_on = str(row.get("engine", ""))
        return Made(output, size, digest, urls.absolute(source, self._out), source_size, version, row["settings"])


class Merger:
    """Merges the files of a run's batches; for the driver."""

    def __init__(self, record: Record) -> None:
        self._record, self._merged = record, 0
        self._waiting: list[Done] = []

    def add(self, done: Done) -> None:
        """Note a batch; after every `MERGED` of them, a merged file replaces those of the batches.

        Raises:
            StoreError: it cannot be written; the files of the batches remain.
        """
        if done.record:
            self._waiting.append(done)
        if len(self._waiting) >= MERGED:
            self.merge()

    def merge(self) -> None:
        """Merge the batches noted since the last merge.

        Raises:
            StoreError: as for `add`.
        """
        if len(self._waiting) < 2:
            return
        record, waiting, self._waiting = self._record, self._waiting, []
        store = stores.of(record._out)
        lines = record._spelt_out() + b"".join(done.record for done in waiting)
        name = f"{record._folder}/{record._run}/merged-{self._merged:06}.jsonl.gz"
        self._merged += 1
        store.put(name, gzip.compress(lines, mtime=0), _GZIP)
        store.remove([record._file(done.batch) for done in waiting])


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def _rows(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines of outputs, without damaged ones."""
    return filter(_is_output, _lines(content))


def _is_output(row: Any) -> bool:
    match row:
        case {"output": str(), "made": [int(), str()], "from": [str(), int(), str()], "settings": str()}:
            return True
    return False


def _lines(content: bytes) -> Iterator[Any]:
    """The lines that can be read."""
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            return
    for line in content.split(b"\n"):
        try:
            yield parsing.from_json(line)
        except ValueError:
            continue


def _in_order(pool: ThreadPoolExecutor, call: Any, values: Iterable[str]) -> Iterator[bytes]:
    """`pool.map` that takes values only as its results are consumed."""
    waiting = []
    for value in values:
        waiting.append(pool.submit(call, value))
        if len(waiting) == 2 * _READERS:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def md5(content: bytes) -> str:
    """The digest that stores provide."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
