"""A batch never mixes engines: a run that resumes one stays on its engine, or says that it is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image
from samples import small_photos

import qatie_cli
from qatie_cli import installation
from qatie_cli.batch.made import Ledger
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import PinnedEngineError


@pytest.fixture
def folder(tmp_path, coffee) -> Path:
    return small_photos(tmp_path / "in", coffee, 2)


@pytest.fixture
def uninstall(monkeypatch) -> Callable[[str], None]:
    """Let a module be gone from this machine."""

    def gone(module: str) -> None:
        there = installation.has
        monkeypatch.setattr(installation, "has", lambda asked: asked != module and there(asked))

    return gone


def _engines(out: Path) -> list[str]:
    rows = map(json.loads, (out / ".qatie" / "made.jsonl").read_text().split())
    return [row["engine"] for row in rows if "output" in row]


def _begun_on_fbgemm(folder: Path, out: Path, weights: Path) -> tuple[object, ...]:
    """Enhance a folder on fbgemm; returns the command without the engine."""
    given = "enhance", folder, "-o", out, "--weights", weights
    qatie_here(*given, "--engine", "fbgemm")
    return given


def _more(folder: Path, coffee: np.ndarray) -> None:
    Image.fromarray(coffee[50:90, :60]).save(folder / "more.png")


def test_a_folder_whose_engine_is_gone_is_left_as_it_is_in_one_line(folder, tmp_path, weights_file, uninstall, coffee):
    given = _begun_on_fbgemm(folder, out := tmp_path / "out", weights_file)
    _more(folder, coffee)
    uninstall("torch")
    refused = qatie_here(*given, "--quiet", code=1)
    assert len(refused.stderr.splitlines()) <= 3  # of 100 columns
    said = " ".join(refused.stderr.split())
    assert "The batch was begun on fbgemm" in said
    assert "--engine onnxruntime" in said or "--engine llvm" in said
    assert "--overwrite" in said
    assert not (out / "more.png").exists()
    assert _engines(out) == ["fbgemm", "fbgemm"]


def test_naming_an_engine_goes_on_with_it(folder, tmp_path, weights_file, uninstall, coffee):
    given = _begun_on_fbgemm(folder, out := tmp_path / "out", weights_file)
    _more(folder, coffee)
    uninstall("torch")
    qatie_here(*given, "--engine", "onnxruntime")
    assert _engines(out) == ["fbgemm", "fbgemm", "onnxruntime"]


def test_overwriting_begins_anew(folder, tmp_path, weights_file, uninstall):
    given = _begun_on_fbgemm(folder, out := tmp_path / "out", weights_file)
    uninstall("torch")
    qatie_here(*given, "--overwrite")
    assert len(_engines(out)) == 4
    assert "fbgemm" not in _engines(out)[2:]


def test_nothing_is_left_to_agree_with_where_the_outputs_were_removed(folder, tmp_path, weights_file, uninstall):
    out = tmp_path / "out"
    given = "enhance", folder, "-o", out, "--weights", weights_file
    qatie_here(*given, "--engine", "fbgemm")
    for output in out.glob("*.png"):
        output.unlink()
    uninstall("torch")
    qatie_here(*given)
    assert "fbgemm" not in _engines(out)[2:]


def test_photos_written_to_files_of_their_own_are_no_batch(folder, tmp_path, weights_file, uninstall):
    qatie_here("enhance", folder / "0.png", "-o", tmp_path / "a.png", "--weights", weights_file, "--engine", "fbgemm")
    uninstall("torch")
    qatie_here("enhance", folder / "1.png", "-o", tmp_path / "b.png", "--weights", weights_file)


def test_in_place_a_folder_stays_on_its_engine_or_is_left(folder, weights_file, uninstall, coffee):
    given = "enhance", folder, "--in-place", "--yes", "--weights", weights_file
    qatie_here(*given, "--engine", "fbgemm")
    _more(folder, coffee)
    before = (folder / "more.png").read_bytes()
    uninstall("torch")
    assert "The batch was begun on fbgemm" in " ".join(qatie_here(*given, code=1).stderr.split())
    assert (folder / "more.png").read_bytes() == before


def test_in_place_the_engine_is_that_of_the_photos_in_question(folder, tmp_path, weights_file, coffee):
    given = "--in-place", "--yes", "--weights", weights_file
    qatie_here("enhance", folder, *given, "--engine", "fbgemm")
    other = small_photos(tmp_path / "other", coffee, 1)
    assert "begun" not in qatie_here("enhance", other, *given, "--verbose").stderr
    _more(folder, coffee)
    assert "fbgemm (the batch was begun on it)" in qatie_here("enhance", folder, *given, "--verbose").stderr


def test_python_is_told_that_the_engine_is_gone(folder, tmp_path, uninstall, coffee):
    out = tmp_path / "out"
    assert qatie_cli.enhance_folder(folder, out, model=qatie_cli.load(engine="fbgemm")).complete
    _more(folder, coffee)
    uninstall("torch")
    with pytest.raises(PinnedEngineError, match="begun on fbgemm"):
        qatie_cli.enhance_folder(folder, out)
    assert qatie_cli.enhance_folder(folder, out, overwrite=True).complete


def test_the_last_output_that_is_there_says_the_engine(tmp_path):
    def record(name: str, engine: str, settings: Settings) -> None:
        ledger = Ledger(tmp_path, settings)
        ledger.engine = engine
        (tmp_path / name).write_bytes(b"output")
        ledger.record(tmp_path / name, tmp_path / "source", (1, 1), tmp_path / name)

    one, other = Settings("w", "0" * 64), Settings("w", "0" * 64, strength=0.5)
    for name, engine, settings in (("a", "x86", one), ("b", "onednn", one), ("c", "fbgemm", other), ("a", "llvm", one)):
        record(name, engine, settings)
    assert Ledger(tmp_path, one).begun_on() == "llvm"
    assert Ledger(tmp_path, other).begun_on() == "fbgemm"
    (tmp_path / "a").unlink()
    assert Ledger(tmp_path, one).begun_on() == "onednn"
    (tmp_path / "b").unlink()
    assert Ledger(tmp_path, one).begun_on() == ""
