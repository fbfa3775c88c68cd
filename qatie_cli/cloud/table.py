"""The plan of a large run: a database in a scratch file, read a page at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli.cloud.items import Batch, Item

TODO, DONE, REFUSED = "todo", "done", "refused"
_PAGE = 1000  # rows
MOST_ITEMS = 16  # of a batch
_MOST_BYTES = 32_000_000  # of a batch's sources; a larger photo has a batch of its own
_SCHEMA = """
CREATE TABLE photos (number INTEGER PRIMARY KEY, source TEXT, size INTEGER, version TEXT, output TEXT, alpha TEXT,
    key TEXT, state TEXT DEFAULT 'todo', reason TEXT DEFAULT '', outcome TEXT);
CREATE UNIQUE INDEX sources ON photos (source);
CREATE TABLE others (number INTEGER PRIMARY KEY, kind TEXT, url TEXT, reason TEXT DEFAULT '');
CREATE UNIQUE INDEX other_urls ON others (kind, url);
CREATE TABLE there (url TEXT PRIMARY KEY, size INTEGER, md5 TEXT) WITHOUT ROWID;
CREATE TABLE made (output TEXT, size INTEGER, md5 TEXT, source TEXT, source_size INTEGER, version TEXT, settings TEXT);
CREATE INDEX made_outputs ON made (output);
"""


@dataclass(frozen=True)
class Row:
    """A photo of the plan."""

    number: int
    source: str
    size: int
    version: str
    output: str
    alpha: str | None
    state: str = TODO
    reason: str = ""
    outcome: str | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Where its output may be: the second for transparency."""
        return (self.output,) if self.alpha is None else (self.output, self.alpha)


_COLUMNS = "number, source, size, version, output, alpha, state, reason, outcome"


@dataclass(frozen=True)
class Made:
    """A record of an output: its size and digest, and what it was made from."""

    output: str
    size: int
    md5: str
    source: str
    source_size: int
    version: str
    settings: str


class Table:
    """Photos, their outputs, what already exists there, and outcomes. For one thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        # Nobody reads it after a crash.
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768;" + _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # --- filling ------------------------------------------------------------------------------------------------------

    def add(self, photos: Iterable[tuple[str, int, str, str, str]]) -> None:
        """Add photos as (source, size, version, output, key), except those already in the plan."""
        self._db.executemany(
            "INSERT OR IGNORE INTO photos (source, size, version, output, key) VALUES (?, ?, ?, ?, ?)", photos
        )

    def refuse(self, source: str, output: str, reason: str) -> None:
        """Add a photo that is refused."""
        self._db.execute(
            "INSERT OR IGNORE INTO photos (source, size, version, output, key, state, reason) "
            "VALUES (?, 0, '', ?, '', ?, ?)",
            (source, output, REFUSED, reason),
        )

    def add_planned(self, rows: Iterable[Row]) -> None:
        """Add planned photos, with new numbers."""
        self._db.executemany(
            "INSERT OR IGNORE INTO photos (source, size, version, output, alpha, key, state, reason) "
            "VALUES (?, ?, ?, ?, ?, '', ?, ?)",
            ((r.source, r.size, r.version, r.output, r.alpha, r.state, r.reason) for r in rows),
        )

    def add_other(self, kind: str, url: str, reason: str = "") -> None:
        """Add something other than a photo; the kinds are statuses of `report`."""
        self._db.execute("INSERT OR IGNORE INTO others (kind, url, reason) VALUES (?, ?, ?)", (kind, url, reason))

    def add_there(self, outputs: Iterable[tuple[str, int, str]]) -> None:
        """Note existing outputs: URL, size and MD5."""
        self._db.executemany("INSERT OR REPLACE INTO there VALUES (?, ?, ?)", outputs)

    def add_made(self, records: Iterable[Made]) -> None:
        """Add records of outputs, oldest first."""
        self._db.executemany(
            "INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((m.output, m.size, m.md5, m.source, m.source_size, m.version, m.settings) for m in records),
        )

    # --- rules over all photos ----------------------------------------------------------------------------------------

    def sharing(self) -> Iterator[list[Row]]:
        """Groups of photos whose outputs share a key."""
        keys = self._db.execute("SELECT key FROM photos WHERE key != '' GROUP BY key HAVING count(*) > 1").fetchall()
        for (key,) in keys:
            yield self._rows("WHERE key = ? ORDER BY number", (key,))

    def make_key_index(self) -> None:
        """Speed up `sharing` and `has_key`."""
        self._db.execute("CREATE INDEX IF NOT EXISTS keys ON photos (key)")

    def has_key(self, key: str) -> bool:
        """Whether a photo has this key."""
        return self._db.execute("SELECT 1 FROM photos WHERE key = ? LIMIT 1", (key,)).fetchone() is not None

    def has_source(self, url: str) -> bool:
        """Whether it is a photo of the plan."""
        return self._db.execute("SELECT 1 FROM photos WHERE source = ?", (url,)).fetchone() is not None

    def has_output(self, url: str) -> bool:
        """Whether it is the output of a photo of the plan."""
        return self._db.execute("SELECT 1 FROM photos WHERE output = ? LIMIT 1", (url,)).fetchone() is not None

    def replacing_originals(self) -> list[Row]:
        """Photos whose output is a photo of the plan."""
        return self._rows("WHERE output IN (SELECT source FROM photos)")

    def change(self, changed: Iterable[tuple[int, str, str, str | None]]) -> None:
        """Set number, output, key and alpha."""
        self._db.executemany("UPDATE photos SET output = ?2, key = ?3, alpha = ?4 WHERE number = ?1", changed)

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove photos from the plan."""
        self._db.executemany("DELETE FROM photos WHERE number = ?", ((number,) for number in numbers))

    def set_states(self, states: Iterable[tuple[int, str, str]]) -> None:
        """Set number, state and reason."""
        self._db.executemany("UPDATE photos SET state = ?2, reason = ?3 WHERE number = ?1", states)

    def there(self, urls: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Size and MD5 of existing outputs, by URL."""
        return {url: (size, md5) for url, size, md5 in self._in("SELECT * FROM there WHERE url IN", urls)}

    def made(self, urls: Sequence[str]) -> dict[str, list[Made]]:
        """Records of these outputs, oldest first."""
        found: dict[str, list[Made]] = {}
        for row in self._in("SELECT * FROM made WHERE output IN", urls):
            found.setdefault(row[0], []).append(Made(*row))
        return found

    def _in(self, question: str, values: Sequence[str]) -> Iterator[tuple]:
        for start in range(0, len(values), _PAGE):
            part = values[start : start + _PAGE]
            yield from self._db.execute(f"{question} ({','.join('?' * len(part))})", part)

    # --- reading ------------------------------------------------------------------------------------------------------

    def count(self, state: str) -> int:
        """Number of photos in a state."""
        return int(self._db.execute("SELECT count(*) FROM photos WHERE state = ?", (state,)).fetchone()[0])

    def reasons(self, state: str) -> dict[str, int]:
        """How many photos in a state have each reason, where they have one."""
        counted = "SELECT reason, count(*) FROM photos WHERE state = ? AND reason != '' GROUP BY reason ORDER BY reason"
        return dict(self._db.execute(counted, (state,)))

    def pages(self, state: str | None = None) -> Iterator[list[Row]]:
        """Photos in plan order, a page at a time; the table may be changed between pages."""
        last, chosen = 0, "" if state is None else "AND state = ?2"
        while rows := self._rows(
            f"WHERE number > ?1 {chosen} ORDER BY number LIMIT {_PAGE}", (last, state)[: 1 + bool(chosen)]
        ):
            last = rows[-1].number
            yield rows

    def others(self, kind: str) -> Iterator[tuple[str, str]]:
        """URL and reason of everything of a kind."""
        yield from self._db.execute("SELECT url, reason FROM others WHERE kind = ? ORDER BY number", (kind,))

    def count_others(self, kind: str) -> int:
        """Number of entries of a kind."""
        return int(self._db.execute("SELECT count(*) FROM others WHERE kind = ?", (kind,)).fetchone()[0])

    def _rows(self, rest: str, values: Sequence[object] = ()) -> list[Row]:
        return [Row(*found) for found in self._db.execute(f"SELECT {_COLUMNS} FROM photos {rest}", values)]

    def source(self, number: int) -> str:
        """The source of a photo."""
        return str(self._db.execute("SELECT source FROM photos WHERE number = ?", (number,)).fetchone()[0])

    def sample(self, most: int) -> list[Row]:
        """At most `most` of the photos to do, evenly spaced."""
        step = max(1, -(-self.count(TODO) // most))
        numbered = f"SELECT {_COLUMNS}, row_number() OVER (ORDER BY number) AS place FROM photos WHERE state = '{TODO}'"
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM ({numbered}) WHERE (place - 1) % ? = 0", (step,))
        return [Row(*found) for found in rows]

    # --- while it runs ------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[Batch]:
        """The photos to do, in batches."""
        number, size = 0, 0
        items: list[Item] = []
        for page in self.pages(TODO):
            for row in page:
                if items and (len(items) == MOST_ITEMS or size + row.size > _MOST_BYTES):
                    yield Batch(number, tuple(items))
                    number, items, size = number + 1, [], 0
                items.append(Item(row.number, row.source, row.output, row.alpha, row.size, row.version))
                size += row.size
        if items:
            yield Batch(number, tuple(items))

    def keep(self, outcomes: Iterable[tuple[int, str]]) -> None:
        """Store outcomes as (number, text)."""
        self._db.executemany("UPDATE photos SET outcome = ?2 WHERE number = ?1", outcomes)
