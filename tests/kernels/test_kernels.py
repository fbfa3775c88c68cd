"""Compiled passes: the bits of NumPy, a cache in the user's folder, and neither where numba is missing."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from qatie_cli import engines, kernels
from qatie_cli.enhance.guided import GuidedResidual
from qatie_cli.enhance.tiling import Region, residual_of
from qatie_cli.enhance.toned_rows import ToneRows
from qatie_cli.kernels import threads
from qatie_cli.model import moments, tone_map
from qatie_cli.model.tone_map import ToneMap

needs_numba = pytest.mark.skipif(not kernels.installed(), reason="numba is not installed")


@pytest.fixture
def compiled(monkeypatch):
    """A switch between the compiled passes and their twins."""

    def switch(on: bool) -> None:
        monkeypatch.setattr(kernels, "usable", lambda pixels: on)

    return switch


def _photo(coffee: np.ndarray, dtype: type) -> np.ndarray:
    if dtype == np.uint8:
        return coffee
    noise = np.random.default_rng(0).integers(0, 257, coffee.shape)
    return np.minimum(coffee.astype(np.uint32) * 257 + noise, 65535).astype(np.uint16)


def _tone_rows(photo: np.ndarray, kind: str) -> ToneRows:
    rng = np.random.default_rng(1)
    curves = np.linspace(0, 1, 17, dtype=np.float32) + rng.normal(0, 0.05, (3, 17)).astype(np.float32)
    matrix = (np.eye(3) + rng.normal(0, 0.1, (3, 3))).astype(np.float32)
    grid = np.clip(rng.normal(0, 0.7, (16, 8, 5)), -1.5, 1.5).astype(np.float32)
    share, kept = rng.random((2, 40, 33)), rng.uniform(-1, 1, (40, 33))
    fine = np.stack([share[0], kept, share[1] - 0.2, 0.2 - 0.5 * share[1]], axis=1).astype(np.float32)
    decided = {
        "none": None,
        "global": ToneMap(curves, matrix),
        "local": ToneMap(curves, matrix, grid),
        "local by largest": ToneMap(curves, matrix, grid, "largest"),
        "fine": ToneMap(curves, matrix, grid, "largest", fine),
    }[kind]
    return ToneRows.of(decided, np.iinfo(photo.dtype).max + 1, photo.shape[:2])


REGIONS = [Region(0, 400, 0, 600), Region(37, 118, 51, 384), Region(399, 400, 0, 1), Region(0, 7, 595, 600)]


@needs_numba
@pytest.mark.parametrize("kind", ["none", "global", "local", "local by largest", "fine"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("region", REGIONS)
def test_tone_is_that_of_numpy_bit_by_bit(compiled, coffee, kind, dtype, region):
    photo = _photo(coffee, dtype)
    tone = _tone_rows(photo, kind)
    rng = np.random.default_rng(2)
    residual = rng.normal(0, 0.1, (region.height, region.width, 3)).astype(np.float32)
    results = []
    for on in (False, True):
        compiled(on)
        floats = tone.floats(photo, region, region.place)
        rounded = np.zeros((region.height, region.width + 3, 3), np.uint8)
        tone.rounded(photo, region, region.place, rounded)
        means = [np.zeros((region.height // f + 9, region.width // f + 9, 3), np.uint8) for f in (2, 3)]
        for factor, out in zip((2, 3), means, strict=True):
            tone.means(photo, region, region.place, factor, out)
        finished = [np.zeros_like(photo) for _ in range(2)]
        for strength, out in zip((1.0, 0.3), finished, strict=True):
            tone.finished(photo, region, residual, strength, out)
        results.append([floats, rounded, *means, *finished])
    for numpys, compileds in zip(*results, strict=True):
        np.testing.assert_array_equal(numpys, compileds)


@needs_numba
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_guided_results_are_those_of_numpy_bit_by_bit(compiled, coffee, factor, dtype):
    photo = _photo(coffee, dtype)[:391, :592].copy()
    tone = _tone_rows(photo, "local")
    reduced = np.zeros((400 // factor // 8 * 8 + 8, 600 // factor // 8 * 8 + 8, 3), np.uint8)
    tone.means(photo, Region(0, 391, 0, 592), (0, 0), factor, reduced)
    residual = np.random.default_rng(0).normal(0, 0.05, reduced.shape).astype(np.float32)
    results = []
    for on in (False, True):
        compiled(on)
        guided = GuidedResidual(reduced, residual, factor)
        out = [np.zeros_like(photo) for _ in range(2)]
        for strength, each in zip((1.0, 0.3), out, strict=True):
            tone.finished_by(photo, guided, strength, each)
        results.append([guided.lines(3, 90), guided.lines(0, 1), guided.lines(60, 999), *out])
    for numpys, compileds in zip(*results, strict=True):
        np.testing.assert_array_equal(numpys, compileds)


def test_powers_of_two_are_right():
    ev = np.linspace(-2, 2, 10_001, dtype=np.float32)
    np.testing.assert_allclose(tone_map.exp2(ev), np.exp2(ev.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 100])
def test_strips_cover_every_row_once(monkeypatch, number, rows):
    monkeypatch.setattr(threads, "number", lambda: number)
    times = np.zeros(rows, int)

    def work(first: int, last: int) -> None:
        times[first:last] += 1

    threads.over_rows(rows, 1 << 30, work)
    assert (times == 1).all()


@pytest.mark.parametrize("rows", [0.001, 1, 2.5, 8, math.inf])
@pytest.mark.parametrize("number", [1, 3])
def test_pieces_cover_every_row_once_and_none_is_empty(monkeypatch, rows, number):
    monkeypatch.setattr(threads, "number", lambda: number)
    found = threads.pieces(5, 25, rows, 4)
    assert [row for first, last in found for row in range(first, last)] == list(range(5, 25))
    assert all(first < last for first, last in found)
    assert rows == math.inf or max(last - first for first, last in found) <= max(math.ceil(rows), 1)
    assert len(found) >= number
    assert threads.pieces(5, 5, rows, 4) == [(5, 5)]


def test_every_thread_gets_as_many_pieces(monkeypatch):
    monkeypatch.setattr(threads, "number", lambda: 2)
    assert len(threads.pieces(0, 540, 204, 8)) == 4
    assert len(threads.pieces(0, 20, 10, 9)) == 2
    assert len(threads.pieces(0, 20, 7, 9)) == 3  # a fourth would be too short


def test_an_error_in_any_strip_comes_out(monkeypatch):
    monkeypatch.setattr(threads, "number", lambda: 2)

    def work(first: int, last: int) -> None:
        if first:
            raise ValueError("of the second strip")

    with pytest.raises(ValueError, match="second strip"):
        threads.over_rows(10, 1 << 30, work)


def _run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_TONE_A_PHOTO = """
import hashlib, sys
import numpy as np
from qatie_cli.enhance.tiling import Region
from qatie_cli.enhance.toned_rows import ToneRows
photo = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
out = ToneRows.of(None, 256, (800, 800)).floats(photo, Region(0, 800, 0, 800), (0, 0))
print(hashlib.sha256(out.tobytes()).hexdigest(), "numba" in sys.modules)
"""


@needs_numba
def test_compiled_kernels_are_kept_in_the_users_folder(tmp_path):
    first = _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").rglob("*.nb*")}
    assert first.endswith("True")
    assert kept
    assert _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path)) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").rglob("*.nb*")} == kept


@needs_numba
def test_a_damaged_cache_is_compiled_anew(tmp_path):
    first = _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path))
    for path in (tmp_path / "kernels").rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[:100])
    assert _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path)) == first


@needs_numba
def test_a_folder_that_cannot_be_written_to_is_no_obstacle(tmp_path):
    (tmp_path / "file").touch()
    assert _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path / "file" / "home")).endswith("True")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_numba_the_result_is_the_same(tmp_path):
    without = _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path), QATIE_NO_NUMBA="1")
    assert without.endswith("False")
    assert without.split()[0] == _run(_TONE_A_PHOTO, QATIE_HOME=str(tmp_path)).split()[0]


@pytest.mark.parametrize(
    "command", [["--help"], ["enhance", "--help"], ["enhance", "{folder}/in", "-o", "{folder}/out"]]
)
def test_what_computes_nothing_does_not_import_numba(tmp_path, command):
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    given = [word.format(folder=tmp_path) for word in command]
    code = f"""
import sys
import qatie_cli
from qatie_cli import cli
sys.argv = ["qatie", *{given}]
try:
    cli.main()
except SystemExit:
    pass
sys.stdout.flush()
assert "numba" not in sys.modules
"""
    _run(code)


@needs_numba
@pytest.mark.parametrize("name", [name for name in engines.available() if name not in ("float", "llvm")])
@pytest.mark.parametrize("tile_side", [None, 128])
def test_the_int8_network_gives_the_same_bits_compiled(compiled, weights, coffee, name, tile_side):
    engine = engines.load(weights, name)
    results = []
    for on in (False, True):
        compiled(on)
        results.append(residual_of(engine.network, coffee[:200, :304].copy(), tile_side))
    np.testing.assert_array_equal(*results)


@needs_numba
@pytest.mark.parametrize("shape", [(7, 5, 3), (200, 300, 16), (1, 1, 64)])
def test_moments_are_exact(compiled, shape):
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    sums = []
    for on in (False, True):
        compiled(on)
        sums.append(moments.Sums.of(x))
    assert sums[0].count == sums[1].count
    np.testing.assert_array_equal(sums[0].total, sums[1].total)
    np.testing.assert_array_equal(sums[0].squares, sums[1].squares)


@needs_numba
def test_the_float_engine_is_that_of_torch_bit_by_bit(compiled, weights, coffee):
    photo = np.ascontiguousarray(coffee[:200, :304])
    found = []
    for on in (True, False):
        compiled(on)
        found.append(residual_of(engines.load(weights, "float").network, photo, None))
    np.testing.assert_array_equal(*found)
