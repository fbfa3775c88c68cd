"""The bench: what it measures is what ran; times themselves are nobody's to assert."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from commands import qatie, qatie_here
from PIL import Image

from qatie_cli import engines
from qatie_cli.bench import contenders, measuring, pictures, processes
from qatie_cli.bench.contenders import Contender
from qatie_cli.bench.measuring import Machine, Timing
from qatie_cli.errors import DataError, UsageError
from qatie_cli.model import checkpoint, network


def test_photos_get_the_size_asked_for_in_eights(coffee):
    assert pictures.resized(coffee, (121, 83)).shape == (80, 120, 3)
    assert pictures.resized(coffee, None).shape == (400, 600, 3)
    height, width, _ = pictures.resized(coffee, 1e6).shape
    assert height * width == pytest.approx(1e6, rel=0.02)
    assert width / height == pytest.approx(1.5, rel=0.02)


def test_all_run_in_turns_and_warming_up_does_not_count():
    order: list[str] = []
    both = [Contender(name, "int8", lambda name=name: order.append(name)) for name in "ab"]
    measuring.race(both, 3)
    assert order == ["a", "b"] * (3 + measuring.WARM_UP)
    assert all(len(c.seconds) == len(c.processor_seconds) == 3 and min(c.seconds) > 0 for c in both)


def test_figures_follow_from_the_times(weights, coffee):
    photo = pictures.resized(coffee, (96, 64))
    exact = measuring.exact_residuals(weights, [photo], 1)
    rows = [contenders.load(name, "", weights, photo, 1) for name in ("float", "qnnpack")]
    rows[0].seconds, rows[1].seconds = [0.02] * 5, [0.05] * 4 + [0.5]
    slow = measuring.judged(rows[1], Machine(1, 1e9, 1e9), weights, [photo], exact, rows[0])
    assert slow.network.median == 0.05
    assert slow.network.p90 > 0.05
    assert slow.megapixels_per_second == pytest.approx(96 * 64 / 1e6 / 0.05)
    work = network.work(weights.config.network)
    assert slow.rate == pytest.approx((work.integer + work.tail) * 96 * 64 / 0.05)
    assert slow.peak_share == pytest.approx(slow.rate / 1e9)
    assert "takes 2.50 times as long as float here: qnnpack is made for ARM" in slow.remark
    assert 30 < slow.agreement_db < 99
    fast = measuring.judged(rows[0], Machine(1, 1e9, 1e9), weights, [photo], exact)
    assert not fast.remark
    assert fast.agreement_db is None


def test_timings_are_quantiles():
    t = Timing.of(range(101))
    assert (t.median, t.p10, t.p90) == (50, 10, 90)


def test_the_machine_has_peaks_above_what_the_network_reaches(weights):
    found = measuring.measure_machine(1)
    assert found.int8_peak > 1e8
    assert found.float_peak > 1e8


@pytest.mark.parametrize("name", list(contenders.RUNTIMES))
def test_other_runtimes_compute_the_same(weights, coffee, name):
    if name not in contenders.installed_runtimes():
        pytest.skip(f"{name} is not installed")
    photo = pictures.resized(coffee, (96, 64))
    exact = measuring.exact_residuals(weights, [photo], 1)
    ours = contenders.load("auto", "int8", weights, photo, 1)
    found = {}
    for arithmetic in contenders.arithmetics(name, weights):
        run = contenders.load(name, arithmetic, weights, photo, 1)
        run.run()
        run.seconds = [0.1]
        found[arithmetic] = run.residual(photo)
        row = measuring.judged(run, Machine(1, 1e9, 1e9), weights, [photo], exact)
        assert row.agreement_db > {"float": 70, "int8": 35}[arithmetic]
    np.testing.assert_allclose(found["float"], exact[0], atol=1e-4)
    assert np.abs(found["int8"] - ours.residual(photo)).mean() < 2 / 255


def test_a_runtime_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(contenders, "find_spec", lambda module: None if module == "openvino" else object())
    assert list(contenders.installed_runtimes()) == ["onnxruntime", "litert"]
    with pytest.raises(UsageError, match="openvino needs openvino"):
        contenders.check_runtime("openvino")


def test_the_network_is_shown_toned_pictures(weights, coffee):
    photo = pictures.resized(coffee, (96, 64))
    seen = measuring.as_seen(weights, photo)
    assert seen.shape == photo.shape
    assert seen.dtype == np.uint8


def test_other_processes_are_noticed():
    """By the processor's time, of which this process' own is taken off."""
    meter = measuring._OtherProcesses()
    meter._began -= 10
    meter._before = meter._seconds() - 15
    assert meter.cores() == pytest.approx(1.5, rel=0.2)
    assert Machine(2, 1, 1, cores=2, others=1.5).is_busy
    assert not Machine(2, 1, 1, cores=2, others=0.1).is_busy


def test_instructions_are_those_of_the_processor(tmp_path):
    (tmp_path / "x86").write_text("processor\t: 0\nflags\t\t: fpu avx2 ssse3 avx512_vnni amx_int8 avx512f\n")
    (tmp_path / "arm").write_text("Features\t: fp asimd asimddp crc32\n")
    assert measuring._instructions(tmp_path / "x86") == ("avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert measuring._instructions(tmp_path / "arm") == ("asimd", "asimddp")
    assert measuring._instructions(tmp_path / "none") == ()


def test_files_that_cannot_be_run_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be run"):
        contenders.load_file(tmp_path / "a.txt", 1)
    with pytest.raises(DataError, match="no file"):
        contenders.load_file(tmp_path / "a.onnx", 1)
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot be run"):
        contenders.load_file(tmp_path / "a.onnx", 1)


def test_a_process_is_measured_by_itself():
    """Not by the memory of the one that started it."""
    held = np.ones(200_000_000, np.uint8)
    process = subprocess.Popen([sys.executable, "-c", "import time; x = b'1' * 50_000_000; time.sleep(0.2)"])
    peak = processes.peak_memory(process)
    assert 50e6 < peak < 150e6
    assert held.nbytes == 200_000_000


ROW = {
    "backend": str,
    "weights": str,
    "width_px": int,
    "height_px": int,
    "threads": int,
    "median_s": float,
    "p10_s": float,
    "p90_s": float,
    "megapixels_per_s": float,
    "peak_mb": float,
    "agreement_db": float,
}


def test_the_command_reports_engines_as_json(tmp_path, coffee, weights_file):
    """Scripts rely on these names and types."""
    Image.fromarray(coffee[:120, :160]).save(tmp_path / "a.png")
    options = ("--weights", weights_file, "--rounds", 1)
    report = json.loads(qatie_here("bench", tmp_path, *options, "--backend", "qnnpack", "--json").stdout)
    (row,) = report["rows"]
    assert {name: type(row[name]) for name in ROW} == ROW
    assert (row["backend"], row["weights"], row["arithmetic"]) == ("qnnpack", str(weights_file), "int8")
    assert (row["width_px"], row["height_px"]) == (160, 120)
    assert row["p10_s"] <= row["median_s"] <= row["p90_s"]
    assert row["megapixels_per_s"] == pytest.approx(160 * 120 / 1e6 / row["median_s"])
    assert row["agreement_db"] > 30
    assert 50 < row["peak_mb"] < 3000
    assert 50 < row["file_to_file_peak_mb"] < 3000
    assert row["start_up_s"] > 0
    assert row["gmac_per_s"] > 0


def test_one_backend_or_all_of_them(tmp_path, coffee, weights_file):
    Image.fromarray(coffee[:120, :160]).save(tmp_path / "a.png")
    options = ("--weights", weights_file, "--rounds", 1, "--no-commands", "--json", "--size", "64x64")
    rows = json.loads(qatie_here("bench", tmp_path, *options).stdout)["rows"]
    assert {row["backend"] for row in rows} == {
        *engines.available_for(checkpoint.read(weights_file)),
        *contenders.installed_runtimes(),
    }
    assert all(row["peak_mb"] is None for row in rows)
    (row,) = json.loads(qatie_here("bench", *options, "--backend", "float").stdout)["rows"]
    assert (row["backend"], row["agreement_db"]) == ("float", None)
    refused = qatie_here("bench", *options, "--backend", "tensorflow", code=2)
    assert "Unknown engine or runtime 'tensorflow'" in refused.stderr
    shown = qatie_here("bench", tmp_path / "a.png", *options[:-3], "--size", "64x64", "--backend", "onednn")
    assert "64x64" in shown.stderr
    assert "Peak of this machine" in shown.stderr
    assert "GMAC/s" in shown.stderr


def test_it_says_what_it_measures_where_there_is_no_terminal(weights_file):
    """A minute without a line looks like a command that hangs; standard output holds only what was asked for."""
    options = ("--weights", weights_file, "--rounds", 1, "--size", "64x64", "--json", "--backend", "onednn")
    done = qatie_here("bench", *options)
    assert [line for line in done.stderr.splitlines() if "busy" not in line and "numba" not in line] == [
        "Measuring the peak rates of this machine.",
        "Loading onednn int8.",
        "Timing 1 in turns, 3 rounds.",
        *(f"Round {n} of 3 done." for n in (1, 2, 3)),
        "Running float to compare with.",
        "Comparing onednn int8 with float.",
        "Running onednn int8 in processes of its own.",
    ]
    assert len(json.loads(done.stdout)["rows"]) == 1
    assert "Loading" not in qatie_here("bench", *options, "--quiet", "--no-commands").stderr


def test_a_runtime_does_not_announce_itself(weights_file):
    """Its C library writes to the descriptor of a process's standard error."""
    pytest.importorskip("ai_edge_litert")
    options = ("--weights", weights_file, "--rounds", 1, "--no-commands", "--size", "64x64", "--threads", 1)
    shown = qatie("bench", *options, "--backend", "litert").stderr
    assert "INFO" not in shown
    assert "64x64, 1 thread\n" in shown.replace(" \n", "\n")


def test_a_model_file_runs_beside_them(tmp_path, weights, weights_file):
    pytest.importorskip("onnxruntime")
    from qatie_cli.exchange import onnx

    path = tmp_path / "a.onnx"
    path.write_bytes(onnx.build(weights, int8=False, size=(64, 64), whole=False).SerializeToString())
    options = ("--weights", weights_file, "--rounds", 1, "--json", "--size", "64x64", "--backend", "float")
    rows = json.loads(qatie_here("bench", *options, "--against", path).stdout)["rows"]
    assert [row["backend"] for row in rows] == ["float", "a.onnx"]
    assert rows[1]["gmac_per_s"] is None
    assert rows[1]["peak_mb"] > 50
