"""The bench: what it measures is what ran; times themselves are nobody's to assert."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import qatie
from PIL import Image

from qatie_cli import bench, engines
from qatie_cli.bench import Contender, Machine, Timing
from qatie_cli.errors import DataError, UsageError
from qatie_cli.model import network
from qatie_cli.photo.content import Photo


def test_photos_get_the_size_asked_for_in_eights(coffee):
    assert bench.resized(coffee, (121, 83)).shape == (80, 120, 3)
    assert bench.resized(coffee, None).shape == (400, 600, 3)
    height, width, _ = bench.resized(coffee, 1e6).shape
    assert height * width == pytest.approx(1e6, rel=0.02)
    assert width / height == pytest.approx(1.5, rel=0.02)


def test_all_run_in_turns_and_warming_up_does_not_count():
    order: list[str] = []
    both = [Contender(name, "int8", lambda name=name: order.append(name)) for name in "ab"]
    bench.race(both, 3)
    assert order == ["a", "b"] * (3 + bench.WARM_UP)
    assert all(len(c.seconds) == 3 and min(c.seconds) > 0 for c in both)


def test_figures_follow_from_the_times(weights, coffee):
    photo = bench.resized(coffee, (96, 64))
    rows = [bench.engine_contender(weights, name, photo) for name in ("float", "qnnpack")]
    rows[0].seconds, rows[1].seconds = [0.02] * 5, [0.05] * 4 + [0.5]
    slow = bench.judged(rows[1], Machine(1, 1e9, 1e9), weights, photo, rows, [Photo(coffee, "png")])
    assert slow.network.median == 0.05
    assert slow.network.p90 > 0.05
    assert slow.megapixels_per_second == pytest.approx(96 * 64 / 1e6 / 0.05)
    work = network.work(weights.config.network)
    assert slow.peak_share == pytest.approx((work.integer + work.tail) * 96 * 64 / 0.05 / 1e9)
    assert "takes 2.50 times as long as float here: qnnpack is made for ARM" in slow.remark
    assert 30 < slow.agreement_db < 99
    fast = bench.judged(rows[0], Machine(1, 1e9, 1e9), weights, photo, rows, [Photo(coffee, "png")])
    assert not fast.remark
    assert fast.agreement_db is None


def test_timings_are_quantiles():
    t = Timing.of(range(101))
    assert (t.median, t.p10, t.p90) == (50, 10, 90)


def test_the_machine_has_peaks_above_what_the_network_reaches(weights):
    found = bench.measure_machine(1)
    assert found.int8_peak > 1e8
    assert found.float_peak > 1e8


def test_other_runtimes_compute_the_same(weights, coffee):
    pytest.importorskip("onnxruntime")
    photo = bench.resized(coffee, (96, 64))
    runs = [c for c in bench.onnx_contenders(weights, photo, 1) if c.name == "onnxruntime"]
    assert [c.arithmetic for c in runs] == ["int8", "float"]
    engine = engines.load(weights, "float")
    expected = engine.network.residual(engine.network.features(photo), 0, 64)
    found = runs[1].run()[0][0].transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_files_that_cannot_be_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be run"):
        bench.file_contender(tmp_path / "a.txt", 1)
    with pytest.raises(DataError, match="no file"):
        bench.file_contender(tmp_path / "a.onnx", 1)
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot be run"):
        bench.file_contender(tmp_path / "a.onnx", 1)


def test_a_process_is_measured_by_itself():
    """Not by the memory of the one that started it."""
    held = np.ones(200_000_000, np.uint8)
    process = subprocess.Popen([sys.executable, "-c", "import time; x = b'1' * 50_000_000; time.sleep(0.2)"])
    peak = bench._peak_memory(process)
    assert 50e6 < peak < 150e6
    assert held.nbytes == 200_000_000


def test_the_command_reports_engines_as_json(tmp_path, coffee, weights_file):
    Image.fromarray(coffee[:120, :160]).save(tmp_path / "a.png")
    options = ("--weights", weights_file, "--engine", "qnnpack", "--rounds", 1, "--no-runtimes")
    report = json.loads(qatie("bench", tmp_path, *options, "--json").stdout)
    assert [row["name"] for row in report["rows"]] == ["qnnpack", "float"]
    assert (report["width"], report["height"]) == (160, 120)
    assert report["rows"][0]["agreement_db"] > 30
    for row in report["rows"]:
        assert row["start_up"]["seconds"] > 0
        assert 50e6 < row["end_to_end"]["memory"] < 3e9
    shown = qatie("bench", tmp_path / "a.png", *options, "--no-commands", "--size", "64x64")
    assert "64x64" in shown.stderr
    assert "Peak of this machine" in shown.stderr
