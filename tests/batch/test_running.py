"""A batch at work: failures, full disks, interruptions, other processes; and its report."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import interrupted_at, inverted, small_photos

from qatie_cli.batch import journal, planning, report
from qatie_cli.batch.journal import Journal
from qatie_cli.batch.made import Ledger
from qatie_cli.batch.planning import Naming, Plan
from qatie_cli.batch.running import Result, Runner, Status, Writing, remove_stale
from qatie_cli.batch.settings import Settings
from qatie_cli.enhance import memory
from qatie_cli.errors import QatieError, UsageError
from qatie_cli.photo import decoding, encoding
from qatie_cli.photo.content import Photo

SETTINGS = Settings("qatie-c16", "0" * 64)


@pytest.fixture
def folder(tmp_path, coffee) -> Path:
    return small_photos(tmp_path / "in", coffee, 6)


def _run(folder: Path, out: Path, enhance=inverted, writing: Writing | None = None) -> list[Result]:
    results: list[Result] = []
    Runner(enhance, writing or Writing()).run(planning.plan([folder], out, Naming()).tasks, results.append)
    return results


def _files(out: Path) -> list[str]:
    return sorted(p.name for p in out.rglob("*") if p.is_file())


def test_every_photo_is_enhanced_once_and_reported_in_order(folder, tmp_path):
    results = _run(folder, tmp_path / "out")
    assert [r.task.source.name for r in results] == [f"{i}.png" for i in range(6)]
    assert all(r.status is Status.ENHANCED for r in results)
    assert all((r.width, r.height) == (60, 40) for r in results)
    assert all(r.output_bytes == r.task.output.stat().st_size for r in results)
    source, made = (np.asarray(Image.open(p)).astype(int) for p in (folder / "3.png", tmp_path / "out" / "3.png"))
    assert (source + made == 255).all()


@pytest.fixture
def together(monkeypatch) -> set[frozenset[str]]:
    """What a run does at the same time; decoding and writing take 20 ms or more."""
    monkeypatch.setattr(decoding, "read", _seen("decode", decoding.read, 0.02))
    monkeypatch.setattr(encoding, "write", _seen("encode", encoding.write, 0.02))
    _busy.clear()
    _together.clear()
    return _together


_busy: set[str] = set()
_together: set[frozenset[str]] = set()
_lock = threading.Lock()


def _seen(name, function, seconds):
    def wrapped(*arguments, **options):
        with _lock:
            _busy.add(name)
            _together.add(frozenset(_busy))
        threading.Event().wait(seconds)
        try:
            return function(*arguments, **options)
        finally:
            with _lock:
                _busy.discard(name)

    return wrapped


def test_decoding_and_encoding_overlap_the_network(folder, tmp_path, together):
    """While one photo is in the network, the next is decoded and the one before is written."""
    _run(folder, tmp_path / "out", _seen("network", inverted, 0.02))
    assert any({"decode", "network"} <= found for found in together)
    assert any({"encode", "network"} <= found for found in together)


def test_a_photo_is_not_decoded_while_another_is_written_if_the_network_takes_longer_than_both(
    folder, tmp_path, together
):
    """Both hold copies of a photo, and one after the other is still in time."""
    _run(folder, tmp_path / "out", _seen("network", inverted, 1.0))
    assert not any({"decode", "encode"} <= found for found in together)
    assert any({"encode", "network"} <= found for found in together)


def test_photos_are_decoded_and_written_at_once_if_the_network_waits_for_them(folder, tmp_path, together):
    _run(folder, tmp_path / "out")
    assert any({"decode", "encode"} <= found for found in together)


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), ValueError("bad\nvalue")])
def test_whatever_the_network_says_of_one_photo_the_others_are_enhanced(folder, tmp_path, error):
    calls = iter(range(10))

    def enhance(photo, _):
        if next(calls) == 2:
            raise error
        return inverted(photo)

    results = _run(folder, tmp_path / "out", enhance)
    assert [r.status for r in results].count(Status.FAILED) == 1
    assert results[2].status is Status.FAILED
    assert "2.png" in results[2].reason
    assert "\n" not in results[2].reason
    assert len(_files(tmp_path / "out")) == 5


def test_a_folder_in_the_way_of_an_output_fails_that_photo_only(folder, tmp_path):
    (tmp_path / "out" / "1.png").mkdir(parents=True)
    results = _run(folder, tmp_path / "out")
    assert [r.task.source.name for r in results if r.status is Status.FAILED] == ["1.png"]
    assert "could not be written" in results[1].reason


def test_a_pipe_or_a_device_in_the_way_of_an_output_fails_that_photo_only(folder, tmp_path):
    """A pipe that nobody reads would stop the batch, and what is written to a device is lost."""
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "1.png")
    (tmp_path / "out" / "3.png").symlink_to("/dev/null")
    results = _run(folder, tmp_path / "out")
    assert [r.task.source.name for r in results if r.status is Status.FAILED] == ["1.png", "3.png"]
    assert all("is a pipe or a device" in results[index].reason for index in (1, 3))


def test_a_full_disk_stops_the_batch_when_nothing_can_succeed(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encoding, "write", full)
    results = _run(folder, tmp_path / "out")
    assert results[0].status is Status.FAILED
    assert "No space left" in results[0].reason
    assert "Make room" in results[0].reason
    assert results[-1].status is Status.NOT_BEGUN
    assert len(results) == 6
    assert not _files(tmp_path / "out")


@pytest.mark.parametrize("damaged", [(), ("1.png", "3.png")])
def test_a_disk_without_room_for_a_claim_stops_the_batch_too(folder, tmp_path, monkeypatch, damaged):
    """Where inodes are used up there are bytes left. Photos that fail for another reason do not count."""
    (tmp_path / "out").mkdir()
    for name in damaged:
        (folder / name).write_bytes(b"no photo")
    ledger = Ledger(tmp_path / "out", SETTINGS)
    real = Ledger.claim

    def full(self, output, *arguments):
        if output.name in damaged:
            return real(self, output, *arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "claim", full)
    found = _run(folder, tmp_path / "out", writing=Writing(ledger=ledger))
    without_room = [r for r in found if "No space left" in r.reason]
    assert len(without_room) == 3
    assert found[-1].status is Status.NOT_BEGUN


def test_one_photo_too_large_for_the_disk_does_not_stop_smaller_ones(folder, tmp_path, monkeypatch):
    real = encoding.write

    def sometimes_full(path, *arguments, **options):
        if path.name == "2.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(encoding, "write", sometimes_full)
    results = _run(folder, tmp_path / "out")
    assert [r.status for r in results].count(Status.ENHANCED) == 5


def test_an_interruption_finishes_the_photo_being_written_and_no_other(folder, tmp_path):
    results: list[Result] = []
    tasks = planning.plan([folder], tmp_path / "out", Naming()).tasks
    with pytest.raises(KeyboardInterrupt):
        Runner(interrupted_at(3), Writing()).run(tasks, results.append)
    assert [r.task.source.name for r in results] == ["0.png", "1.png", "2.png"]
    assert _files(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    rest = _run(folder, tmp_path / "out")
    assert [r.task.source.name for r in rest] == ["3.png", "4.png", "5.png"]


def test_an_interruption_ends_a_batch_whose_next_photo_waits_for_memory(folder, tmp_path, monkeypatch):
    """The photo that is interrupted in the network never gives its own back."""
    monkeypatch.setattr(memory, "available", lambda _: memory.held_bytes(60, 40))
    waits = threading.Event()
    real = memory.Budget.take

    def take(self, size):
        if self._held:
            waits.set()
        real(self, size)

    def enhance(photo, _):
        assert waits.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(memory.Budget, "take", take)
    decoded = []
    monkeypatch.setattr(decoding, "read", lambda *a, read=decoding.read: decoded.append(a) or read(*a))
    runner = Runner(enhance, Writing())
    ended = threading.Event()

    def run():
        with pytest.raises(KeyboardInterrupt):
            runner.run(planning.plan([folder], tmp_path / "out", Naming()).tasks, lambda result: None)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(30)
    assert len(decoded) == 1


def test_what_another_process_made_meanwhile_is_not_made_again(folder, tmp_path):
    tasks = planning.plan([folder], tmp_path / "out", Naming()).tasks
    results: list[Result] = []

    def enhance(photo, _):
        if not (tmp_path / "out").exists():
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "4.png").write_bytes(b"made elsewhere")
        return inverted(photo)

    Runner(enhance, Writing()).run(tasks, results.append)
    assert results[4].status is Status.SKIPPED
    assert (tmp_path / "out" / "4.png").read_bytes() == b"made elsewhere"


def test_stale_temporary_files_beside_outputs_are_removed(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".qatie-tmp-abc.png").write_bytes(b"half")
    assert remove_stale(planning.plan([folder], out, Naming()).tasks) == 1
    assert not _files(out)


def test_a_file_that_changes_while_it_is_read_is_not_trusted(folder, tmp_path, monkeypatch):
    real = decoding._decode

    def growing(image, file):
        with (folder / "1.png").open("ab") as more:
            more.write(b"more")
        return real(image, file)

    monkeypatch.setattr(decoding, "_decode", growing)
    results = _run(folder, tmp_path / "out")
    assert results[1].status is Status.FAILED
    assert "changed while it was read" in results[1].reason


def test_a_photo_is_not_refused_for_the_memory_of_its_neighbours(folder, tmp_path, monkeypatch):
    """Alone it would fit into the budget; the one behind it may then wait or overlap a little."""
    per_pixel = 1000.0
    alone = memory.held_bytes(60, 40) + int(60 * 40 * per_pixel)
    monkeypatch.setattr(memory, "available", lambda _: alone + (8 << 20))
    runner = Runner(inverted, Writing(), per_pixel)
    results: list[Result] = []
    runner.run(planning.plan([folder], tmp_path / "out", Naming()).tasks, results.append)
    assert [r.status for r in results] == [Status.ENHANCED] * 6


def _at_once(folder: Path, out: Path, total: int, monkeypatch) -> int:
    """How many photos a batch with `total` bytes for photos ever has in hand, from decoding to written."""
    held, most, lock = [0], [0], threading.Lock()
    read, write = decoding.read, encoding.write

    def counted_read(*arguments):
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        return read(*arguments)

    def counted_write(*arguments):
        threading.Event().wait(0.05)  # long enough for the next one to be decoded, where it may
        with lock:
            held[0] -= 1
        return write(*arguments)

    monkeypatch.setattr(decoding, "read", counted_read)
    monkeypatch.setattr(encoding, "write", counted_write)
    monkeypatch.setattr(memory, "available", lambda _: total)
    results = _run(folder, out)
    assert [r.status for r in results] == [Status.ENHANCED] * 6
    return most[0]


def test_a_batch_waits_for_memory(folder, tmp_path, monkeypatch):
    one = memory.held_bytes(60, 40)
    with monkeypatch.context() as patched:
        assert _at_once(folder, tmp_path / "one", one, patched) == 1
    with monkeypatch.context() as patched:
        assert _at_once(folder, tmp_path / "all", 10 * one, patched) > 1


def test_what_stands_beside_a_photo_is_no_room_for_its_network(folder, tmp_path, monkeypatch):
    """Such as a video, which stays in memory until it is written."""
    tile = memory.network_bytes(600, 800, 1000, 256)
    monkeypatch.setattr(memory, "available", lambda _: memory.held_bytes(600, 800) + tile)
    real = decoding.header
    sides = []

    def enhance(photo, how):
        sides.append(how.tile_side)
        return inverted(photo)

    for beside in (0, 1 << 20):
        header = lambda path, beside=beside: dataclasses.replace(real(path), beside_bytes=beside)  # noqa: E731
        monkeypatch.setattr(decoding, "header", header)
        Image.fromarray(np.zeros((600, 800, 3), np.uint8)).save(folder / "0.png")
        results: list[Result] = []
        tasks = planning.plan([folder / "0.png"], tmp_path / f"{beside}", Naming()).tasks
        Runner(enhance, Writing(), 1000).run(tasks, results.append)
        assert results[0].status is (Status.FAILED if beside else Status.ENHANCED)
    assert sides == [256]


def test_a_photo_in_the_network_is_charged_with_what_the_network_takes(folder, tmp_path, monkeypatch):
    """And gives it back: 16 bit, in tiles, and where it fails."""
    rng = np.random.default_rng(0)
    for path in folder.iterdir():
        path.unlink()
    deep = rng.integers(0, 65536, (600, 800, 3), dtype=np.uint16)
    for index in range(3):
        encoding.write(folder / f"{index}.png", Photo(deep, "png"), "png")
    held = max(decoding.header(folder / "0.png").decode_bytes, memory.held_bytes(800, 600, 2))
    held = max(held, memory.encode_bytes(800, 600, "png", sample_bytes=2))
    tile = memory.network_bytes(800, 600, 1000, 256)
    total = memory.held_bytes(800, 600, 2) + tile
    monkeypatch.setattr(memory, "available", lambda _: total)
    sides, left = [], []

    def enhance(photo, how):
        sides.append(how.tile_side)
        left.append(runner._budget.left)
        if len(sides) == 2:
            raise RuntimeError
        return photo.with_pixels(65535 - photo.rgb())

    runner = Runner(enhance, Writing(), 1000)
    results: list[Result] = []
    runner.run(planning.plan([folder], tmp_path / "out", Naming()).tasks, results.append)
    assert [r.status for r in results] == [Status.ENHANCED, Status.FAILED, Status.ENHANCED]
    assert sides == [256] * 3
    assert max(left) <= total - held - tile
    assert runner._budget.left == total


def test_a_heic_with_transparent_parts_becomes_png_and_is_done_then(tmp_path, coffee):
    decoding.open_heif()
    folder, out = tmp_path / "heic", tmp_path / "out"
    folder.mkdir()
    alpha = np.full((40, 60, 1), 255, np.uint8)
    Image.fromarray(np.dstack([coffee[:40, :60], alpha])).save(folder / "opaque.heic")
    Image.fromarray(np.dstack([coffee[:40, :60], alpha // 2])).save(folder / "clear.heic")
    plan = planning.plan([folder], out, Naming())
    results: list[Result] = []
    Runner(inverted, Writing()).run(plan.tasks, results.append)
    assert _files(out) == ["clear.png", "opaque.jpg"]
    run = report.Run(datetime.datetime.now(datetime.UTC), 1.0, False, "fbgemm", "cpu", "qatie-c16", 1.0)
    table = report.as_table(run, plan, results)
    assert table["counts"] == {"enhanced": 2}
    assert [Path(photo["output"]).name for photo in table["photos"]] == ["clear.png", "opaque.jpg"]
    assert planning.plan([folder], out, Naming()).tasks == ()


def test_heic_stays_heic_in_a_mixed_folder_where_that_is_asked_for(tmp_path, coffee):
    decoding.open_heif()
    folder, out = tmp_path / "mixed", tmp_path / "out"
    folder.mkdir()
    for name in ("a.heic", "b.jpg", "c.png", "d.HEIF", "e.bmp"):
        Image.fromarray(coffee[:40, :60]).save(folder / name)
    alpha = np.full((40, 60, 1), 99, np.uint8)
    Image.fromarray(np.dstack([coffee[:40, :60], alpha])).save(folder / "clear.heic")
    plan = planning.plan([folder], out, Naming("same"))
    Runner(inverted, Writing()).run(plan.tasks, lambda result: None)
    assert _files(out) == ["a.heic", "b.jpg", "c.png", "clear.heic", "d.HEIF", "e.png"]
    formats = {name: decoding.read(out / name).source_format for name in _files(out)}
    assert [*formats.values()] == ["heic", "jpeg", "png", "heic", "heic", "png"]
    assert decoding.read(out / "clear.heic").has_transparency
    named = planning.plan([folder / "a.heic"], tmp_path / "x.heic", Naming("same"))
    assert [task.output.name for task in named.tasks] == ["x.heic"]
    with pytest.raises(UsageError, match="contradict"):
        planning.plan([folder / "a.heic"], tmp_path / "x.jpg", Naming("same"))


# --- in place -----------------------------------------------------------------------------------------------------


def _plan_in_place(folder: Path, tmp_path: Path) -> Plan:
    return planning.plan_in_place([folder], Naming(), Journal(tmp_path / "journal"))


def _in_place(folder: Path, known: Journal, enhance=inverted) -> list[Result]:
    results: list[Result] = []
    tasks = planning.plan_in_place([folder], Naming(), known).tasks
    Runner(enhance, Writing(journal=known)).run(tasks, results.append)
    return results


def test_photos_are_replaced_once_and_never_enhanced_twice(folder, tmp_path):
    before = np.asarray(Image.open(folder / "0.png")).astype(int)
    (folder / "0.png").chmod(0o640)
    _in_place(folder, Journal(tmp_path / "journal"))
    assert (np.asarray(Image.open(folder / "0.png")) + before == 255).all()
    assert (folder / "0.png").stat().st_mode & 0o777 == 0o640
    assert _in_place(folder, Journal(tmp_path / "journal")) == []
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")  # the owner put another photo there
    assert [r.task.source.name for r in _in_place(folder, Journal(tmp_path / "journal"))] == ["0.png"]


def test_a_run_killed_between_journal_and_replacement_leaves_the_photo_to_be_done(folder, tmp_path):
    known = Journal(tmp_path / "journal")
    (tmp_path / "new.png").write_bytes(b"the enhanced photo")
    known.record((folder / "0.png").resolve(), tmp_path / "new.png")
    with (tmp_path / "journal").open("a") as file:
        file.write('{"path": "half')
    assert len(_in_place(folder, Journal(tmp_path / "journal"))) == 6
    assert _in_place(folder, Journal(tmp_path / "journal")) == []


def test_a_second_enhancement_that_was_killed_leaves_the_first_one_known(folder, tmp_path):
    """With --overwrite; the next run without it must not take the photo for an original."""
    _in_place(folder, Journal(tmp_path / "journal"))
    (tmp_path / "new.png").write_bytes(b"enhanced twice")
    Journal(tmp_path / "journal").record((folder / "0.png").resolve(), tmp_path / "new.png")
    assert _in_place(folder, Journal(tmp_path / "journal")) == []


def test_a_photo_whose_time_alone_changed_is_not_enhanced_twice(folder, tmp_path):
    """As copies, restored backups and some file systems change it."""
    _in_place(folder, Journal(tmp_path / "journal"))
    os.utime(folder / "0.png", (1, 1))
    content = bytearray((folder / "1.png").read_bytes())
    content[-1] ^= 1
    (folder / "1.png").write_bytes(content)  # edited, of the same size
    assert [task.source.name for task in _plan_in_place(folder, tmp_path).tasks] == ["1.png"]
    strong = dataclasses.replace(SETTINGS, strength=0.5)
    assert not Journal(tmp_path / "journal").differs((folder / "0.png").resolve(), strong)
    Journal(tmp_path / "journal").record(folder / "0.png", folder / "0.png", SETTINGS)
    assert Journal(tmp_path / "journal").differs(folder / "0.png", strong)
    assert not Journal(tmp_path / "journal").differs(folder / "0.png", SETTINGS)


def test_lines_that_a_power_cut_damaged_hide_no_others(folder, tmp_path):
    _in_place(folder, Journal(tmp_path / "journal"))
    whole = (tmp_path / "journal").read_bytes()
    damage = b'\xff\x00{"path": []\n[1]\n7\n{"path": ["a"], "size": 1, "mtime_ns": 1}\n\0\0\0'
    (tmp_path / "journal").write_bytes(damage + whole + damage)
    assert _in_place(folder, Journal(tmp_path / "journal")) == []


def test_a_journal_of_an_earlier_version_is_read(folder, tmp_path):
    photo = (folder / "0.png").resolve()
    status = photo.stat()
    row = {"path": str(photo), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    (tmp_path / "journal").write_text(f"\n{json.dumps(row)}\n")
    assert Journal(tmp_path / "journal").holds(photo)
    assert not Journal(tmp_path / "journal").differs(photo, SETTINGS)
    os.utime(photo, (1, 1))
    assert not Journal(tmp_path / "journal").holds(photo)


def test_a_link_stays_a_link(folder, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(folder / "0.png")
    _in_place(tmp_path / "links" / "a.png", Journal(tmp_path / "journal"))
    assert (tmp_path / "links" / "a.png").is_symlink()
    assert Journal(tmp_path / "journal").holds((folder / "0.png").resolve())


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_tells_of_every_photo(folder, tmp_path):
    (folder / "broken.png").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("x")
    (folder / "z\udcff.png").write_bytes((folder / "0.png").read_bytes())  # a name that is no UTF-8
    plan = planning.plan([folder], tmp_path / "out", Naming())
    results: list[Result] = []
    Runner(inverted, Writing()).run(plan.tasks[:-1], results.append)
    run = report.Run(datetime.datetime.now(datetime.UTC), 1.5, True, "fbgemm", "cpu", "qatie-c16", 1.0)
    report.write(tmp_path / "report.json", [report.encoded(report.as_table(run, plan, results))])
    read = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert read["schema"] == report.SCHEMA
    assert read["counts"] == {"enhanced": 6, "failed": 1, "not begun": 1, "not a photo": 1}
    by_name = {Path(photo["input"]).name: photo for photo in read["photos"]}
    assert by_name["0.png"]["seconds"].keys() == {"decode", "network", "encode"}
    assert "not a photo" in by_name["broken.png"]["reason"]
    assert by_name["notes.txt"]["status"] == report.NOT_A_PHOTO
    assert "z\udcff.png" in by_name
    assert read["network_seconds"] == pytest.approx(sum(r.seconds.network for r in results), abs=1e-3)


# --- what must not be lost ----------------------------------------------------------------------------------------


def test_an_output_that_turns_out_to_be_an_original_is_not_written(folder, tmp_path):
    """The folder `new` is there only when the run has made it, so that the plan cannot see where ../in leads."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "new" / ".." / "in"
    tasks = planning.plan([folder], out, Naming(overwrite=True)).tasks
    results: list[Result] = []
    Runner(inverted, Writing(overwrite=True)).run(tasks, results.append)
    assert {r.status for r in results} == {Status.FAILED}
    assert "0.png is one of the originals" in results[0].reason
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_edit_made_while_a_photo_was_enhanced_in_place_is_kept(folder, tmp_path):
    def enhance(photo, _):
        (folder / "0.png").write_bytes(b"the owner's edit")
        return inverted(photo)

    results = _in_place(folder, Journal(tmp_path / "journal"), enhance)
    assert results[0].status is Status.FAILED
    assert "changed while it was being enhanced" in results[0].reason
    assert (folder / "0.png").read_bytes() == b"the owner's edit"


def test_a_photo_that_would_lose_something_in_place_stays_as_it_is(folder, tmp_path, coffee):
    pages = [Image.fromarray(coffee[:20, :30]), Image.fromarray(coffee[20:40, :30])]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])
    before = (folder / "pages.tif").read_bytes()
    (result,) = (r for r in _in_place(folder, Journal(tmp_path / "journal")) if r.status is Status.FAILED)
    assert "first of 2 pages" in result.reason
    assert (folder / "pages.tif").read_bytes() == before


def test_only_one_process_replaces_photos_at_a_time(tmp_path):
    path = tmp_path / "home" / "in-place.jsonl"
    with journal.opened(path), pytest.raises(QatieError, match="Another qatie"), journal.opened(path):
        pass
    with journal.opened(path):
        pass


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_disk_that_takes_only_a_part_of_a_jpeg_is_noticed(tmp_path, coffee, options):
    """Pillow's encoders, left to write to the file themselves, do not notice."""
    import resource
    import signal

    Image.fromarray(coffee).save(tmp_path / "a.jpg", quality=95, **options)
    photo = decoding.read(tmp_path / "a.jpg")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            encoding.write(tmp_path / "b.jpg", photo, "jpeg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert _files(tmp_path) == ["a.jpg"]


def test_a_photo_written_before_an_interruption_is_in_the_results(folder, tmp_path, monkeypatch):
    """Also where the interruption comes while the batch waits for it to be written."""
    from concurrent.futures import Future

    real, interrupted = Future.result, []

    def result(self, timeout=None):
        value = real(self, timeout)
        if isinstance(value, Result) and not interrupted:
            interrupted.append(value)
            raise KeyboardInterrupt
        return value

    monkeypatch.setattr(Future, "result", result)
    results: list[Result] = []
    with pytest.raises(KeyboardInterrupt):
        Runner(inverted, Writing()).run(planning.plan([folder], tmp_path / "out", Naming()).tasks, results.append)
    assert [r.task.output.name for r in results] == _files(tmp_path / "out")


def test_a_vanished_photo_is_missed_by_its_name(folder, tmp_path):
    tasks = planning.plan([folder], tmp_path / "out", Naming()).tasks
    (folder / "2.png").unlink()
    results: list[Result] = []
    Runner(inverted, Writing()).run(tasks, results.append)
    assert results[2].reason.startswith(f"There is no file {folder / '2.png'}")
