"""Estimates, and photos that wait for each other's memory."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
import re
import tempfile
import threading
import types
from pathlib import Path

import pytest

from qatie_cli import engines
from qatie_cli.batch import running
from qatie_cli.batch.planning import Task
from qatie_cli.batch.running import Runner, Writing
from qatie_cli.enhance import memory, photos
from qatie_cli.enhance.photos import Enhancer
from qatie_cli.errors import PhotoError
from qatie_cli.model import moments
from qatie_cli.photo import apart, decoding, encoding
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.content import Photo
from qatie_cli.photo.decoding import Header


def test_a_photo_is_worked_on_whole_where_memory_allows_and_in_tiles_where_it_does_not():
    assert memory.tile_side(4000, 3000, 100, 4 << 30) is None
    side = memory.tile_side(12000, 9000, 100, 1_300_000_000)
    assert side % 8 == 0
    seen = (side + 160) ** 2 * 100 + memory.held_bytes(12000, 9000)
    assert seen <= 1_300_000_000
    assert memory.tile_side(20000, 500, 100, 600_000_000) >= side


def test_a_photo_that_no_tile_makes_small_enough_is_refused_with_figures():
    with pytest.raises(PhotoError, match=r"108\.0 megapixels.* MB") as refused:
        memory.tile_side(12000, 9000, 100, 500_000_000)
    more = int(re.fullmatch(r"Raise --max-memory by ([\d,]+) MB or more\.", refused.value.hint)[1].replace(",", ""))
    assert memory.tile_side(12000, 9000, 100, 500_000_000 + more * 10**6), "as much more is enough"
    with pytest.raises(PhotoError):
        memory.tile_side(12000, 9000, 100, 500_000_000 + (more - 1) * 10**6)


@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (4000, 300), (300, 4000), (40, 30)])
def test_a_tile_is_charged_with_its_halo_on_both_axes(width, height):
    """What the largest tile shows the network, times what the network takes."""
    largest = max(
        (tile.seen[1] - tile.seen[0]) * (tile.seen[3] - tile.seen[2]) for tile in moments.tiles(height, width, 512)
    )
    assert largest * 10 <= memory.network_bytes(width, height, 10, 512)
    assert memory.network_bytes(width, height, 10, None) == width * height * 10


def test_a_reduced_photo_is_charged_with_what_the_network_sees_and_with_its_residual():
    pixels = 2000 * 1500
    whole = memory.network_bytes(4000, 3000, 50, None, reduction=2)
    # At least the residual, 12 bytes, and two pictures of 3; at most half of the photo at full size.
    assert pixels * (50 + 18) < whole < 4000 * 3000 * 50 / 2
    assert pixels * 18 < memory.network_bytes(4000, 3000, 50, 256, reduction=2) < whole


@pytest.mark.parametrize(
    ("sample_bytes", "gray", "arrays"), [(1, False, 6), (2, False, 12), (1, True, 8), (2, True, 16)]
)
def test_a_photo_holds_its_source_and_its_result_in_its_depth(sample_bytes, gray, arrays):
    """Gray is held in one channel, shown to the network in three, and so is its result."""
    held = memory.held_bytes(4000, 3000, sample_bytes, gray) - memory.held_bytes(0, 0)
    assert held == 4000 * 3000 * arrays
    room = memory.held_bytes(4000, 3000) + memory.network_bytes(4000, 3000, 10, 512)
    assert memory.tile_side(4000, 3000, 10, room) == 512
    if arrays > 6:
        with pytest.raises(PhotoError):
            memory.tile_side(4000, 3000, 10, room, sample_bytes, gray=gray)


# --- what a batch reserves before it decodes a photo -----------------------------------------------------------------


def _reserved(header: Header, fmt: str, start: bytes = b"", suspect: bool = False, **options) -> int:
    """Bytes that are reserved for a photo with this header, in a file that starts like this."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo"
        path.write_bytes(start.ljust(12, b"\0"))
        reader = types.SimpleNamespace(header=lambda *_: header, takes=apart.Reader().takes)
        runner = Runner(lambda photo, _: photo, Writing(), reader=reader, **options)
        hand = running._InHand(Task(path, path), 0.0, suspect=suspect)
        runner._reserve(hand, fmt)
    assert runner._budget.total - runner._budget.left == hand.held
    return hand.held


@pytest.mark.parametrize(
    ("header", "fmt", "pixel_bytes", "fixed"),
    [
        (Header(4000, 3000, 4000 * 3000 * 24), "png", 24, 0),  # decoding
        (Header(4000, 3000, 0), "jpeg", 6, 64 << 20),  # source and result
        (Header(4000, 3000, 0, sample_bytes=2), "tiff", 12, 64 << 20),
        (Header(4000, 3000, 0, sample_bytes=2, gray=True), "tiff", 16, 64 << 20),
        (Header(4000, 3000, 0, progressive=True), "jpeg", 14, 16 << 20),  # encoding
        (Header(4000, 3000, 0), "avif", 32, 16 << 20),
        (Header(4000, 3000, 0, sample_bytes=2), "avif", 35, 16 << 20),
    ],
)
def test_a_photo_reserves_what_its_hungriest_step_takes(header, fmt, pixel_bytes, fixed):
    assert _reserved(header, fmt) == 4000 * 3000 * pixel_bytes + fixed


def test_previews_and_the_process_that_decodes_apart_are_charged_on_top():
    header = Header(4000, 3000, 0)
    alone = _reserved(header, "png")
    assert _reserved(dataclasses.replace(header, beside_bytes=7 << 20), "png") == alone + (7 << 20)
    assert _reserved(header, "png", previews=object()) == alone + (48 << 20)
    assert _reserved(header, "png", start=b"II*\0") == alone + apart.BYTES
    for start in (b"\xff\xd8\xff", b"\x89PNG", b"BM"):
        assert _reserved(header, "png", start=start) == alone
        assert _reserved(header, "png", start=start, suspect=True) == alone + apart.BYTES


@pytest.mark.parametrize("fmt", ["jpeg", "heic", "png"])
def test_a_video_and_long_metadata_are_charged_until_they_are_written(fmt, coffee, tmp_path):
    beside = {"motion": Motion(b"\0\0\0\x18ftypmp42" + bytes(30 << 20))} if fmt != "png" else {"xmp": b" " * (30 << 20)}
    path = tmp_path / f"a.{fmt}"
    path.write_bytes(encoding.encoded(Photo(coffee, fmt), fmt))
    assert decoding.header(path).beside_bytes == 0
    path.write_bytes(encoding.encoded(Photo(coffee, fmt, **beside), fmt))
    # Held once, and read or assembled into one more copy; twice between processes.
    assert 4 * (29 << 20) < decoding.header(path).beside_bytes <= 4 * (31 << 20)


# --- what is free -------------------------------------------------------------------------------------------------


def test_the_free_memory_is_that_of_the_machine_or_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CGROUPS", ())
    machine = memory.free_bytes()
    assert machine > 1 << 20
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\nactive_file 7\n")
    monkeypatch.setattr(memory, "_CGROUPS", ((tmp_path, "memory.max", "memory.current"),))
    assert memory.free_bytes() == 1_500_000  # the page cache is reclaimed
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() > 1 << 20
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory.free_bytes() == 0


def test_resident_memory_is_what_was_touched_and_not_what_was_reserved():
    before = memory.resident_bytes()
    with mmap.mmap(-1, 256 << 20) as block:
        reserved = memory.resident_bytes()
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        touched = memory.resident_bytes()
    assert reserved - before < 32 << 20
    assert 240 << 20 < touched - reserved < 272 << 20
    assert memory.resident_bytes() < touched - (200 << 20)


def test_a_limit_counts_what_the_process_holds_and_what_it_is_yet_to_load(monkeypatch):
    monkeypatch.setattr(memory, "_loaded", threading.Event())
    monkeypatch.setattr(memory, "resident_bytes", lambda: 300_000_000)
    assert memory.available(1_000_000_000) == 700_000_000 - memory.LOADED_BYTES
    memory.note_loaded()
    assert memory.available(1_000_000_000) == 700_000_000
    assert memory.available(200_000_000) == 0
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    assert memory.available(None) == 600


def test_a_limit_bounds_the_convolutions_that_are_kept_and_threads_share_an_arena(monkeypatch):
    calls = []
    malloc = types.SimpleNamespace(mallopt=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: malloc)
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    memory.keep_together(bounded=True)
    assert os.environ[name] == "7"  # the user's own wish
    monkeypatch.delenv(name)
    memory.keep_together()
    assert name not in os.environ
    memory.keep_together(bounded=True)
    assert 0 < int(os.environ[name]) < 1024  # its default
    assert calls == [(-8, 1)] * 3  # M_ARENA_MAX of glibc's malloc.h


def test_a_large_photo_loads_all_there_is_to_load(weights, coffee, monkeypatch):
    monkeypatch.setattr(memory, "_loaded", threading.Event())
    monkeypatch.setattr(photos, "_LARGE", coffee[:64].size)  # a really large one compiles the kernels, which takes long
    better = Enhancer(engines.load(weights))
    better(Photo(coffee[:56], "png"))
    assert not memory._loaded.is_set()
    better(Photo(coffee[:64], "png"))
    assert memory._loaded.is_set()


def _check_waiting(budget: memory.Budget, size: int, until: int) -> None:
    """Whoever takes `size` waits for `until` to be given back, and no longer."""
    went_on = threading.Event()
    waiting = threading.Thread(target=lambda: (budget.take(size), went_on.set()))
    waiting.start()
    assert not went_on.wait(0.1)
    budget.give_back(until)
    assert went_on.wait(5)
    waiting.join()


def test_a_photo_waits_until_another_has_given_its_memory_back():
    budget = memory.Budget(100)
    budget.take(70)
    _check_waiting(budget, 60, until=70)


def test_all_photos_go_on_that_what_is_given_back_is_enough_for():
    budget = memory.Budget(100)
    budget.take(100)
    waiting = [threading.Thread(target=budget.take, args=(50,), daemon=True) for _ in range(2)]
    for photo in waiting:
        photo.start()
        photo.join(0.1)
        assert photo.is_alive()
    budget.give_back(100)
    for photo in waiting:
        photo.join(5)
        assert not photo.is_alive()


def test_a_photo_larger_than_the_budget_gets_all_of_it():
    budget = memory.Budget(100)
    budget.take(1000)
    assert budget.left == -900
    _check_waiting(budget, 1, until=1000)
    assert budget.left == 99


def test_a_photo_that_has_begun_takes_what_it_needs_and_others_wait():
    budget = memory.Budget(100)
    budget.take(40)
    budget.add(70)
    assert budget.left == -10
    budget.give_back(70)
    budget.take(60)
    assert budget.left == 0


def test_nobody_waits_for_a_budget_that_is_closed():
    budget = memory.Budget(100)
    budget.take(100)
    waiting = threading.Thread(target=lambda: budget.take(100))
    waiting.start()
    budget.close()
    waiting.join(5)
    assert not waiting.is_alive()
