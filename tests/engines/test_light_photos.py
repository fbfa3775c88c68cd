"""Every kind of photo and every way in, enhanced without PyTorch; and batches that go on after a kill."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from commands import QATIE, qatie, qatie_here
from PIL import Image

import qatie_cli
from qatie_cli import engines, metrics
from qatie_cli.photo import spaces
from qatie_cli.photo.beside.gain_map import linear

HIDDEN = """
import sys
sys.modules["torch"] = None
from qatie_cli import cli
cli.main()
"""
TORCHLESS = [name for name in engines.available() if name in engines.WITHOUT_TORCH]


def _hidden(*arguments: object, given: bytes = b"") -> bytes:
    """What the command writes in a process that cannot import PyTorch."""
    command = [sys.executable, "-P", "-c", HIDDEN, *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _ultra_hdr(pixels: np.ndarray) -> bytes:
    light = linear(pixels / 255).astype(np.float32)
    light = np.concatenate([light * (1 + 3 * light), np.ones_like(light[..., :1])], axis=2)
    return imagecodecs.ultrahdr_encode(light.astype(np.float16), gamut=0, transfer=0)


@pytest.fixture
def photos(coffee, tmp_path) -> Path:
    """A folder with a photo of each kind."""
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.ascontiguousarray(coffee[:240, :320])
    deep = pixels.astype(np.uint16) * 257
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    (folder / "hdr.jpg").write_bytes(_ultra_hdr(pixels))
    Image.fromarray(pixels).save(folder / "p3.jpg", quality=95, icc_profile=spaces.profile(spaces.of_codes(12, 13)))
    Image.fromarray(pixels).convert("L").save(folder / "gray.png")
    alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 120, np.uint8)], axis=2)
    Image.fromarray(alpha).save(folder / "alpha.png")
    import tifffile

    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb")
    return folder


@pytest.mark.parametrize("engine", TORCHLESS)
def test_every_kind_of_photo_is_what_float_makes_of_it(engine, photos, tmp_path):
    ours, floats = tmp_path / "ours", tmp_path / "float"
    _hidden("enhance", photos, "-o", ours, "--engine", engine)
    qatie_here("enhance", photos, "-o", floats, "--engine", "float")
    names = {path.name for path in photos.iterdir()}
    assert {path.name for path in ours.iterdir() if path.is_file()} == names
    for name in names:
        found, expected, source = (qatie_cli.read(folder / name) for folder in (ours, floats, photos))
        assert found.pixels.dtype == expected.pixels.dtype == source.pixels.dtype
        assert found.pixels.shape == source.pixels.shape
        assert found.icc == source.icc
        assert (found.gain_map is None) == (source.gain_map is None)
        values = [photo.pixels / np.iinfo(photo.pixels.dtype).max for photo in (found, expected, source)]
        levels = [np.rint(255 * part).astype(np.uint8) for part in values]
        assert metrics.finite_psnr(levels[0], levels[1]) > 38
        assert not np.array_equal(levels[0], levels[2])
    assert np.asarray(Image.open(ours / "alpha.png"))[..., 3].tolist() == np.full((240, 320), 120).tolist()
    assert len(np.unique(qatie_cli.read(ours / "deep.png").pixels)) > 300  # more than 8 bit can hold


def test_streams_and_the_demo_do_without_torch(photos, tmp_path):
    streamed = _hidden("enhance", "-", "-o", "-", "--format", "png", given=(photos / "p3.jpg").read_bytes())
    assert Image.open(io.BytesIO(streamed)).size == (320, 240)
    _hidden("demo", "-o", tmp_path / "demo")
    assert list((tmp_path / "demo").rglob("*.png")) or list((tmp_path / "demo").rglob("*.jpg"))


def test_phones_hdr_files_keep_their_maps_without_torch(shared, tmp_path):
    _hidden("enhance", shared / "realworld" / "hdr", "-o", tmp_path / "out")
    for path in (shared / "realworld" / "hdr").iterdir():
        made = next((tmp_path / "out").glob(f"{path.stem}.*"))
        before, after = qatie_cli.read(path), qatie_cli.read(made)
        assert (after.gain_map is None) == (before.gain_map is None), path.name


# --- killed, and gone on with ---------------------------------------------------------------------------------------


def _engines_of(out: Path) -> list[str]:
    rows = [json.loads(line) for line in (out / ".qatie" / "made.jsonl").read_text().split("\n") if line]
    return [row["engine"] for row in rows if "output" in row]


@pytest.mark.parametrize("first", [name for name in ("onnxruntime", "llvm", "onednn") if name in engines.available()])
def test_a_killed_batch_goes_on_with_its_engine_whatever_auto_would_take(first, coffee, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(12):
        Image.fromarray(np.roll(coffee, index, axis=1)).save(folder / f"{index:02}.png")
    command = [*QATIE, "enhance", str(folder), "-o", str(out), "--engine", first, "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None and len(list(out.glob("*.png"))) < 2:
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
    begun = len(list(out.glob("*.png")))
    assert 2 <= begun < 12
    told = qatie("enhance", folder, "-o", out, "--verbose").stderr
    assert f"int8 on {first} (the batch was begun on it)" in told
    assert sorted(path.name for path in out.glob("*.png")) == [f"{index:02}.png" for index in range(12)]
    assert set(_engines_of(out)) == {first}
    again = tmp_path / "again"
    qatie("enhance", folder, "-o", again, "--engine", first, "--threads", "1")
    for path in out.glob("*.png"):
        assert path.read_bytes() == (again / path.name).read_bytes()
