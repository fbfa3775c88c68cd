"""Photos of pairs are measured as the product would treat their files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from qatie_cli import engines
from qatie_cli.data.layouts import PairFiles
from qatie_cli.enhance import jpeg
from qatie_cli.evaluation import measuring
from qatie_cli.model import checkpoint, shipped


def test_what_a_file_tells_of_its_compression_is_used_unless_its_pixels_were_changed(astronaut, tmp_path):
    Image.fromarray(astronaut).save(tmp_path / "a.jpg", quality=50)
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert measuring.as_read(tmp_path / "a.jpg", pixels).components is not None
    assert measuring.as_read(tmp_path / "a.jpg", pixels[::2, ::2]).components is None
    assert measuring.as_read(tmp_path / "a.png", astronaut).components is None


def test_coarse_jpegs_are_restored_in_an_evaluation(astronaut, tmp_path, monkeypatch):
    Image.fromarray(astronaut).save(tmp_path / "a.jpg", quality=30)
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    files = PairFiles("a", tmp_path / "a.jpg", tmp_path / "a.png")
    weights = checkpoint.read(shipped.locate("qatie-c16"))
    outcome = measuring.measurer(weights, engines.load(weights), 1, measuring.Measurement(1024, 1, ("identity",)))
    found = outcome(files)
    monkeypatch.setattr(jpeg, "restored", lambda photo, strength: photo)
    without = outcome(files)
    assert found["identity"] == without["identity"]
    (engine,) = set(found) - {"identity", "float"}
    assert found[engine].aligned_db > without[engine].aligned_db + 0.2
