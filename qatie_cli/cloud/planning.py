"""The plan of a run over stores: inputs, outputs, and what is done, by the rules of `batch.planning`.

Memory holds one page of the listing; everything else is in the table, on disk.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qatie_cli.batch import report
from qatie_cli.batch.made import FOLDER
from qatie_cli.batch.planning import Naming, folded
from qatie_cli.batch.settings import CHANGED
from qatie_cli.cloud.record import Record
from qatie_cli.cloud.table import DONE, REFUSED, TODO, Made, Row, Table
from qatie_cli.errors import UsageError
from qatie_cli.photo import discovery, formats, unreadable
from qatie_cli.photo.discovery import GALLERY_FOLDER
from qatie_cli.storage import stores, urls
from qatie_cli.storage.stores import Entry

_REDO = "Use --overwrite to redo it, or another folder with -o."


@dataclass(frozen=True)
class Places:
    """Where photos come from and go to, as URLs without trailing slashes.

    `listed` are more inputs, which keep their path below their bucket.
    """

    inputs: tuple[str, ...]
    out: str
    listed: tuple[str, ...] = ()

    @classmethod
    def of(cls, inputs: Sequence[str], out: str, listed: Sequence[str] = ()) -> Places:
        """From the URLs and local paths of a command line.

        Raises:
            UsageError: a URL is invalid, or the package for its store is not installed.
            StoreError: a store refuses or does not answer.
        """
        made = cls(tuple(map(_url, inputs)), _url(out), tuple(map(_url, listed)))
        opened = {url: stores.of(url) for url in (*made.inputs, made.out, *made.listed)}
        stores.check_writable(made.out)
        for url in (*made.inputs, made.out):
            opened[url].reach(url)
        return made


def _url(text: str) -> str:
    return urls.checked(text) if urls.is_url(text) else urls.of_path(Path(text))


def plan(places: Places, naming: Naming, table: Table, record: Record | None) -> str:
    """Fill the table; returns the folder that outputs go to. Without a record every output is redone.

    Raises:
        UsageError: an input does not exist, `places.out` cannot be used, or all photos are refused for their outputs.
        StoreError: a store cannot be listed.
    """
    out = _names(places, naming, table)
    _tell_apart(table, naming)
    _find_places_for_alpha(table, naming)
    _refuse(table)
    total, refused = sum(table.count(state) for state in (TODO, REFUSED)), table.count(REFUSED)
    if total and refused == total:
        raise UsageError(next(table.pages(REFUSED))[0].reason)
    if record is not None and table.count(TODO):
        _read_what_is_there(out, table, record)
        _tell_done(table, record, naming)
    return out


# --- names ------------------------------------------------------------------------------------------------------------


def _names(places: Places, naming: Naming, table: Table) -> str:
    out, single = places.out, PurePosixPath(urls.name(places.out))
    store = stores.of(out)
    if formats.format_of_name(single) and not store.is_folder(out):
        one = stores.of(places.inputs[0]).entry(places.inputs[0]) if len(places.inputs) == 1 else None
        if one is None or places.listed:
            raise UsageError(f"{out} is one photo, but there are several inputs.", "Give a folder with -o.")
        wanted = formats.format_of_name(single)
        if (
            naming.fmt != formats.KEEP
            and formats.output_format(PurePosixPath(urls.name(one.url)), naming.fmt) != wanted
        ):
            raise UsageError(f"-o {single} and --format {naming.fmt} contradict each other.", "Leave one out.")
        table.add([(one.url, one.size, one.version, out, folded(out))])
        return posixpath.dirname(out)
    if store.entry(out) is not None:
        raise UsageError(f"{urls.people_s(out)} is a file.", "Give a folder with -o.")
    for url in places.inputs:
        _search(url, "", out, naming, table)
    for url in places.listed:
        _search_listed(url, out, naming, table)
    if naming.suffix:
        _forget_results(table, naming.suffix)
    return out


def _forget_results(table: Table, suffix: str) -> None:
    """Drop earlier outputs with the suffix that lie beside their originals: they are not inputs."""
    for page in table.pages():
        named = [row for row in page if PurePosixPath(row.source).stem.endswith(suffix)]
        table.remove([row.number for row in named if table.has_output(row.source)])


def _search(url: str, relative: str, out: str, naming: Naming, table: Table) -> None:
    store = stores.of(url)
    if (one := store.entry(url)) is not None:
        _add([(one, relative)], out, naming, table)
        return
    found = False
    for page in store.pages(url, naming.recursive):
        found = found or bool(page)
        _add(_kept(page, url, relative, out, table), out, naming, table)
    if not found and not store.is_folder(url):
        raise UsageError(f"There is no file or folder {urls.people_s(url)}.", "Check its spelling.")


def _search_listed(url: str, out: str, naming: Naming, table: Table) -> None:
    place = url.partition("://")[2]
    relative = posixpath.dirname(place.partition("/")[2]) if urls.protocol(url) != urls.FILE else ""
    try:
        _search(url, relative, out, naming, table)
    except UsageError as error:
        table.refuse(url, out, f"{error} Check the list.")


def _kept(page: Sequence[Entry], folder: str, relative: str, out: str, table: Table) -> Iterator[tuple[Entry, str]]:
    """The files of a page, without outputs and system files, and their folder below `out`."""
    for entry in page:
        inner = posixpath.dirname(urls.below(entry.url, folder) or "")
        if folder != out and urls.below(entry.url, out) is not None:
            continue
        parts = inner.split("/") if inner else []
        system = next((i for i, part in enumerate(parts) if discovery.is_system_folder(part)), None)
        if system is not None and not any(map(discovery.is_hidden, parts[:system])):
            table.add_other(report.NOT_SEARCHED, urls.join(folder, "/".join(parts[: system + 1])))
        elif system is None and not any(map(discovery.is_hidden, (*parts, urls.name(entry.url)))):
            yield entry, posixpath.join(relative, inner) if inner else relative


def _add(
    found: Sequence[tuple[Entry, str]] | Iterator[tuple[Entry, str]], out: str, naming: Naming, table: Table
) -> None:
    rows = []
    for entry, folder in found:
        name = PurePosixPath(urls.name(entry.url))
        if formats.has_photo_suffix(name):
            output = urls.join(out, posixpath.join(folder, formats.output_name(name, naming.fmt, naming.suffix)))
            rows.append((entry.url, entry.size, entry.version, output, folded(output)))
        elif (why := unreadable.named(name)) is not None:
            table.refuse(entry.url, out, why.one_line().replace(str(name), urls.people_s(entry.url), 1))
        else:
            table.add_other(report.NOT_A_PHOTO, entry.url)
    table.add(rows)


# --- clashes ----------------------------------------------------------------------------------------------------------


def _tell_apart(table: Table, naming: Naming) -> None:
    """Resolve clashes that come from a change of format by keeping the source's suffix in the name: a.heic.jpg."""
    table.make_key_index()
    for group in table.sharing():
        changed = []
        for row in group:
            source, output = PurePosixPath(urls.name(row.source)), PurePosixPath(urls.name(row.output))
            if output.suffix != source.suffix:
                name = formats.long_output_name(source, naming.fmt, naming.suffix)
                longer = urls.join(posixpath.dirname(row.output), name)
                changed.append((row.number, longer, folded(longer), None))
        table.change(changed)


def _find_places_for_alpha(table: Table, naming: Naming) -> None:
    """Give HEIC photos, which become JPEG by default, the name of a PNG in case they have transparency."""
    if naming.fmt != formats.KEEP:
        return
    for page in table.pages(TODO):
        changed = []
        for row in page:
            if formats.format_of_name(PurePosixPath(urls.name(row.source))) == "heic":
                stem, _, _ = row.output.rpartition(".")
                png = f"{stem}.png"
                if not table.has_key(folded(png)):
                    changed.append((row.number, row.output, folded(row.output), png))
        table.change(changed)


def _refuse(table: Table) -> None:
    """Refuse photos whose output is an original, or another photo's output."""
    why = "{} is one of the originals. Choose another folder with -o, or use --suffix."
    table.set_states([(row.number, REFUSED, why.format(row.output)) for row in table.replacing_originals()])
    for group in table.sharing():
        for row in group:
            other = next(r for r in group if r is not row)
            reason = f"{row.source} and {other.source} would both become {row.output}. Enhance one into another folder."
            table.set_states([(row.number, REFUSED, reason)])


# --- what is done -----------------------------------------------------------------------------------------------------


def _read_what_is_there(out: str, table: Table, record: Record) -> None:
    """Fill the table with existing outputs, and with their records if there are any."""
    some = False
    for page in stores.of(out).pages(out):
        rows = [(entry.url, entry.size, entry.md5) for entry in page if not _is_own(urls.below(entry.url, out) or "")]
        some = some or bool(rows)
        table.add_there(rows)
    for records in record.read() if some else ():
        table.add_made(records)


def _is_own(name: str) -> bool:
    return name.startswith((f"{FOLDER}/", f"{GALLERY_FOLDER}/"))


def _tell_done(table: Table, record: Record, naming: Naming) -> None:
    if naming.overwrite:
        return
    for page in table.pages(TODO):
        places = [place for row in page for place in row.places]
        there, made = table.there(places), table.made(places)
        states = []
        for row in page:
            found = [_state(row, place, there, made, table, record) for place in row.places]
            found.sort(key=lambda one: one == (TODO, ""))  # the one that is there, if one is
            state, reason = next((one for one in found if one[0] == DONE), found[0])
            if (state, reason) != (TODO, ""):
                states.append((row.number, state, reason))
        table.set_states(states)


def _state(
    row: Row,
    place: str,
    there: dict[str, tuple[int, str]],
    made: dict[str, list[Made]],
    table: Table,
    record: Record,
) -> tuple[str, str]:
    """The state of a photo's output, by the rules of `batch.made.Ledger.find` for local folders."""
    size, digest = there.get(place, (0, ""))
    if not size:
        return TODO, ""
    known = made.get(place, [])
    fitting = next((m for m in reversed(known) if m.size == size and digest in ("", m.md5)), None)
    if fitting is None:
        why = "was changed since qatie made it" if known else "exists, and qatie has no record of making it"
        return REFUSED, f"{urls.people_s(place)} {why}; it stays as it is. {_REDO}"
    if fitting.source != row.source and (
        table.has_source(fitting.source) or stores.of(fitting.source).entry(fitting.source)
    ):
        return REFUSED, f"{urls.people_s(place)} was made from another photo, {fitting.source}. {_REDO}"
    if fitting.settings != record.digest:
        return TODO, record.settings.unlike(record.earlier.get(fitting.settings))
    from_this = (fitting.source_size, fitting.version) == (row.size, row.version)
    return (DONE, "") if from_this else (TODO, CHANGED)
