"""Decoders in a process of their own: crashes, hangs and kills cost one photo."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from commands import QATIE, SERVING_FRAGILE
from PIL import Image

from qatie_cli.batch import planning
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Result, Runner, Status, Writing
from qatie_cli.errors import PhotoError
from qatie_cli.photo import MAX_PIXELS, apart, decoding
from qatie_cli.photo.content import Photo


@pytest.fixture
def folder(tmp_path, coffee) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    for name in ("a.webp", "aborts.tif", "b.png", "c.tif", "hangs.webp", "killed.tif", "z.webp"):
        Image.fromarray(coffee[:40, :60]).save(root / name)
    return root


def test_a_decoder_that_crashes_hangs_or_is_killed_costs_one_photo(folder, tmp_path):
    results: list[Result] = []
    runner = Runner(lambda photo, _: photo, Writing(), reader=apart.Reader(SERVING_FRAGILE, seconds=3))
    runner.run(planning.plan([folder], tmp_path / "out", Naming()).tasks, results.append)
    found = {result.task.source.stem: result for result in results}
    assert {name for name, r in found.items() if r.status is Status.ENHANCED} == {"a", "b", "c", "z"}
    assert "aborts.tif makes its decoder crash (SIGABRT)" in found["aborts"].reason
    assert "killed.tif makes its decoder crash (SIGKILL)" in found["killed"].reason
    assert "hangs.webp takes more than 3 seconds to decode" in found["hangs"].reason


def test_an_interruption_does_not_wait_for_a_decoder(folder, tmp_path):
    began, ended = threading.Event(), threading.Event()
    reader = apart.Reader(SERVING_FRAGILE, seconds=10_000)
    real = reader._ask

    def ask(what, path, max_pixels):
        if path.stem == "hangs" and what == "read":
            began.set()
        return real(what, path, max_pixels)

    def enhance(photo, _):
        assert began.wait(60)
        raise KeyboardInterrupt

    def run():
        plan = planning.plan([folder / "b.png", folder / "hangs.webp"], tmp_path / "out", Naming())
        with pytest.raises(KeyboardInterrupt):
            Runner(enhance, Writing(), reader=reader).run(plan.tasks, lambda result: None)
        ended.set()

    reader._ask = ask
    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(120)
    assert reader._process is None


def _equal(a: Photo, b: Photo) -> bool:
    for field in dataclasses.fields(Photo):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if not (np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other):
            return False
    return True


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_suspect_photo_is_decoded_apart_whatever_its_format(tmp_path, coffee, suffix):
    path = tmp_path / f"aborts.{suffix}"
    Image.fromarray(coffee[:40, :60]).save(path)
    reader = apart.Reader(SERVING_FRAGILE)
    try:
        assert reader.takes(path, suspect=True)
        with pytest.raises(PhotoError, match=rf"aborts\.{suffix} makes its decoder crash \(SIGABRT\)"):
            reader.read(path, MAX_PIXELS, suspect=True)
    finally:
        reader.close()


def test_photos_come_over_as_they_are(tmp_path, coffee):
    decoding.open_heif()
    alpha = np.dstack([coffee[:40, :60], coffee[:40, :60, :1]])
    Image.fromarray(coffee[:40, :60]).save(tmp_path / "a.jpg")
    for name in ("a.heic", "a.avif", "a.webp", "a.tif", "a.png", "a.bmp"):
        Image.fromarray(alpha).save(tmp_path / name)
    tifffile.imwrite(tmp_path / "deep.tif", coffee[:40, :60].astype(np.uint16) * 257, photometric="rgb")
    reader = apart.Reader()
    try:
        for path in sorted(tmp_path.glob("*.*")):
            photo = reader.read(path, MAX_PIXELS, suspect=True)
            assert _equal(photo, decoding.read(path))
            assert photo.pixels.flags.writeable
            assert reader.header(path, suspect=True) == decoding.header(path)
        with pytest.raises(PhotoError, match="the limit is 0") as refused:
            reader.read(tmp_path / "a.webp", 10)
        assert "--max-pixels" in refused.value.hint
        (tmp_path / "broken.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:90])
        with pytest.raises(PhotoError, match=r"broken\.webp"):
            reader.read(tmp_path / "broken.webp", MAX_PIXELS)
    finally:
        reader.close()


@pytest.mark.parametrize("program", ["raise SystemExit(1)", "import no_such_module"])
def test_where_no_process_starts_photos_are_decoded_here(program, folder):
    reader = apart.Reader(program)
    assert _equal(reader.read(folder / "c.tif", MAX_PIXELS), decoding.read(folder / "c.tif"))
    assert reader.header(folder / "c.tif") == decoding.header(folder / "c.tif")


def test_jpeg_png_bmp_and_missing_files_need_no_process(folder, coffee):
    Image.fromarray(coffee[:40, :60]).save(folder / "a.jpg")
    Image.fromarray(coffee[:40, :60]).save(folder / "a.bmp")
    reader = apart.Reader("raise SystemExit('not needed')")
    for name in ("a.jpg", "a.bmp", "b.png"):
        assert not reader.takes(folder / name)
        reader.read(folder / name, MAX_PIXELS)
    with pytest.raises(PhotoError, match="no file"):
        reader.read(folder / "none.webp", MAX_PIXELS)
    assert reader._works


def test_the_time_limit_of_a_photo_ends_with_it(folder, monkeypatch):
    """Else the process is killed while it decodes a later one."""
    limits: list[threading.Timer] = []
    timer = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda *given: limits.append(timer(*given)) or limits[-1])
    reader = apart.Reader()
    try:
        for name in ("a.webp", "none.tif", "z.webp"):
            with contextlib.suppress(PhotoError):
                reader.read(folder / name, MAX_PIXELS, suspect=True)
    finally:
        reader.close()
    assert len(limits) == 3
    assert all(limit.finished.is_set() for limit in limits)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared memory is Linux's")
def test_memory_shared_with_a_process_is_freed_when_it_ends(folder):
    def shared() -> int:
        return sum("memfd:photo" in os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())

    before = shared()
    reader = apart.Reader(SERVING_FRAGILE)
    for name in ("a.webp", "aborts.tif", "c.tif", "killed.tif", "z.webp"):
        with contextlib.suppress(PhotoError):
            reader.read(folder / name, MAX_PIXELS)
    assert shared() == before + 1
    reader.close()
    assert shared() == before


def test_the_process_ends_with_its_reader_and_with_the_command(folder, tmp_path):
    reader = apart.Reader()
    reader.read(folder / "c.tif", MAX_PIXELS)
    process = reader._process
    reader.close()
    assert process is not None
    assert process.returncode is not None
    (folder / "aborts.tif").unlink()
    command = [*QATIE, "enhance", str(folder), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"6 photos enhanced" in done.stderr
