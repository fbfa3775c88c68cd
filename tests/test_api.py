"""The Python API: what it returns, what it refuses, and what it leaves alone in the process that calls it."""

from __future__ import annotations

import inspect
import logging
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

import qatie_cli
from qatie_cli import PhotoResult, Status, Summary, api, engines
from qatie_cli.enhance import memory, pixels
from qatie_cli.kernels import threads
from qatie_cli.photo import colour

INT8 = [name for name in engines.available() if name != "float"]


def _python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-P", *options, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def model(weights_file) -> api.Model:
    return qatie_cli.load(weights_file)


@pytest.fixture
def folder(tmp_path, coffee, astronaut) -> Path:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(coffee[:80, :120]).save(root / "a.jpg", quality=92)
    Image.fromarray(astronaut[:64, :64]).save(root / "sub" / "b.png")
    (root / "broken.jpg").write_bytes(b"no photo")
    (root / "notes.txt").write_text("x")
    return root


# --- importing ----------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys; before = set(sys.modules); import qatie_cli; print(*sorted(set(sys.modules) - before))"
    imported = _python(script).stdout.split()
    packages = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert packages == {"qatie_cli"}
    assert "qatie_cli.api" not in imported
    assert len(imported) < 60


def test_reading_and_writing_photos_does_without_torch(folder, tmp_path):
    script = (
        f"import sys, qatie_cli\nphoto = qatie_cli.read({str(folder / 'a.jpg')!r})\n"
        f"qatie_cli.write(photo, {str(tmp_path / 'b.png')!r})\nprint('torch' in sys.modules)"
    )
    assert _python(script).stdout.strip() == "False"


def test_public_names_are_there_and_documented():
    assert set(api.__all__) | {"__version__"} == set(qatie_cli.__all__) <= set(dir(qatie_cli))
    for name in api.__all__:
        found = getattr(qatie_cli, name)
        assert found is getattr(api, name)
        documented = inspect.getdoc(found)
        assert documented
        if inspect.isfunction(found):
            assert all(parameter in documented for parameter in inspect.signature(found).parameters)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        qatie_cli.nonsense  # noqa: B018


# --- one photo ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_pixels_come_out_as_the_engine_makes_them(weights, weights_file, coffee, depth):
    array = coffee.astype(depth) * (257 if depth is np.uint16 else 1)
    before = array.copy()
    for name in ("float", INT8[0]):
        found = qatie_cli.load(weights_file, engine=name)(array, 0.5)
        assert found.dtype == depth
        assert np.array_equal(found, pixels.enhance(array, engines.load(weights, name), 0.5))
    assert np.array_equal(array, before)


def test_views_of_any_layout_are_taken(model, coffee):
    turned = coffee[::-1, ::2]
    assert np.array_equal(model(turned), model(np.ascontiguousarray(turned)))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_that_are_no_pixels_are_refused(model, wrong):
    with pytest.raises(ValueError, match="pixels are"):
        model(wrong)
    with pytest.raises(TypeError, match="NumPy array"):
        model(wrong.tolist())


def test_a_photo_keeps_its_space_depth_transparency_and_metadata(model, weights, coffee, tmp_path):
    profile = imagecodecs.cms_profile("adobergb")
    image = Image.fromarray(np.dstack([coffee, coffee[..., :1]]))
    exif = Image.Exif()
    exif[0x010F] = "A phone"
    image.save(tmp_path / "a.png", icc_profile=profile, exif=exif)
    photo = qatie_cli.read(tmp_path / "a.png")
    better = model.enhance(photo, strength=0.7)
    expected = pixels.enhance(coffee, engines.load(weights), 0.7, colours=colour.of_profile(profile))
    assert np.array_equal(better.pixels, expected)
    qatie_cli.write(better, tmp_path / "b.webp", quality=100)
    with Image.open(tmp_path / "b.webp") as written:
        assert written.getexif()[0x010F] == "A phone"
        assert written.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(written)[..., 3], coffee[..., 0])


def test_gray_stays_gray(model, coffee, tmp_path):
    Image.fromarray(coffee[..., 0]).save(tmp_path / "a.png")
    better = model.enhance(qatie_cli.read((tmp_path / "a.png").read_bytes()))
    assert better.pixels.shape == (400, 600, 1)
    assert np.abs(better.pixels[..., 0].astype(int) - coffee[..., 0]).mean() > 1


def test_less_memory_means_tiles_and_the_same_photo(model, coffee, monkeypatch):
    large = qatie_cli.Photo(np.tile(coffee, (3, 3, 1)), "png")
    whole = model.enhance(large)
    seen = []
    real = pixels.tiled
    monkeypatch.setattr(pixels, "tiled", lambda network, photo, side: seen.append(side) or real(network, photo, side))
    per_pixel = model._engine.network.bytes_per_pixel
    room = memory.held_bytes(1800, 1200) + int(900 * 900 * per_pixel) - large.pixels.nbytes
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1_000_000_000)
    assert np.array_equal(model.enhance(large, max_memory=1_000_000_000 + room).pixels, whole.pixels)
    assert seen[-1] is not None
    with pytest.raises(qatie_cli.QatieError, match="megapixels and needs"):
        model.enhance(large, max_memory="1MB")
    with pytest.raises(qatie_cli.QatieError, match="Invalid size 'much'"):
        model.enhance(large, max_memory="much")


def test_what_cannot_be_loaded_read_or_written_is_a_qatie_error(model, coffee, tmp_path, weights_file):
    photo = qatie_cli.Photo(coffee, "png")
    for wrong in (
        lambda: qatie_cli.load("nonsense"),
        lambda: qatie_cli.load(weights_file, engine="turbo"),
        lambda: qatie_cli.read(tmp_path / "none.jpg"),
        lambda: qatie_cli.read(b"no photo"),
        lambda: qatie_cli.write(photo, tmp_path / "a.txt"),
        lambda: qatie_cli.write(photo, tmp_path / "none" / "a.png"),
    ):
        with pytest.raises(qatie_cli.QatieError):
            wrong()
    for wrong in (
        lambda: model.enhance(photo, strength=1.5),
        lambda: qatie_cli.write(photo, tmp_path / "a.jpg", quality=101),
        lambda: qatie_cli.load(weights_file, threads=-1),
    ):
        with pytest.raises(ValueError, match=r"lies in|must be"):
            wrong()
    assert list(tmp_path.glob("*.*")) == []


# --- threads ------------------------------------------------------------------------------------------------------


def test_four_threads_get_what_one_gets(model, coffee, astronaut):
    photos = [
        np.ascontiguousarray(photo[top : top + 200]) for photo in (coffee, astronaut) for top in (0, 57, 101, 180)
    ]
    serial = [model(photo) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            for found, expected in zip(pool.map(model, photos), serial, strict=True):
                assert np.array_equal(found, expected)


def test_models_of_different_engines_and_threads_run_beside_each_other(weights_file, coffee):
    photo = np.ascontiguousarray(coffee[:160])
    names = [*INT8[:2], "float"]
    models = [qatie_cli.load(weights_file, name, threads=index) for index, name in enumerate(names)]
    serial = [model(photo) for model in models]
    before = torch.backends.quantized.engine, torch.get_num_threads()
    with ThreadPoolExecutor(len(models)) as pool:
        for _ in range(4):
            found = list(pool.map(lambda model: model(photo), models))
            assert all(np.array_equal(a, b) for a, b in zip(found[:2], serial[:2], strict=True))
            assert np.abs(found[2].astype(int) - serial[2]).max() <= 1  # float sums depend on the number of threads
    assert (torch.backends.quantized.engine, torch.get_num_threads()) == before


def test_threads_are_set_while_the_network_runs_and_put_back(weights_file, coffee, monkeypatch):
    model = qatie_cli.load(weights_file, INT8[0], threads=2)
    before, during = torch.get_num_threads(), []
    real = model._engine.network.features
    monkeypatch.setattr(
        model._engine.network,
        "features",
        lambda *arguments: during.append(torch.get_num_threads()) or real(*arguments),
    )
    torch.set_num_threads(1)
    try:
        model(coffee[:64, :64])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert during == [2]


def test_without_torch_threads_are_those_asked_for(weights_file, coffee, monkeypatch):
    model, during = qatie_cli.load(weights_file, "onnxruntime", threads=3), []
    real = model._engine.network.features
    monkeypatch.setattr(
        model._engine.network, "features", lambda *arguments: during.append(threads.number()) or real(*arguments)
    )
    model(coffee[:64, :64])
    assert (model.threads, during) == (3, [3])


# --- the process that calls ---------------------------------------------------------------------------------------


def test_the_host_process_is_as_before(folder, tmp_path, weights_file, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # less than the photos have: the host's limit is the host's
    logging.getLogger("tifffile").setLevel(logging.DEBUG)

    def state() -> tuple:
        levels = {name: logging.getLogger(name).level for name in ("", "PIL", "tifffile", "torch")}
        stderr = os.fstat(2)
        torch_settings = torch.backends.quantized.engine, torch.get_num_threads(), torch.is_grad_enabled()
        return (
            Image.MAX_IMAGE_PIXELS, list(warnings.filters), levels, torch_settings, stderr.st_ino, id(sys.stderr),
            dict(os.environ),
        )  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = state()
        model = qatie_cli.load(weights_file, threads=1)
        photo = qatie_cli.read(folder / "a.jpg")
        qatie_cli.write(model.enhance(photo), tmp_path / "b.jpg")
        qatie_cli.enhance_folder(folder, tmp_path / "out", model=model)
        with pytest.raises(qatie_cli.QatieError):
            qatie_cli.read(folder / "broken.jpg")
        assert state() == before


def test_pillow_s_limit_is_put_back_however_threads_overlap(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: qatie_cli.read(folder / "a.jpg"), range(40)))
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_host_that_makes_errors_of_warnings_gets_none(weights_file):
    script = (
        "import numpy, torch, warnings\nwarnings.simplefilter('error')\nimport qatie_cli\n"
        f"model = qatie_cli.load({str(weights_file)!r})\nprint(model(numpy.zeros((9, 9, 3), numpy.uint8)).shape)"
    )
    assert _python(script).stdout.strip() == "(9, 9, 3)"


def test_c_libraries_are_silenced_in_a_command_line_only():
    script = (
        "import os, sys\nfrom qatie_cli import chatter\n"
        "{}with chatter.hidden():\n    os.write(2, b'remark')\n    print('ours', file=sys.stderr)\n"
        "os.write(2, b'after')"
    )
    assert _python(script.format("")).stderr == "remarkours\nafter"
    assert _python(script.format("chatter.separate_python()\n")).stderr == "ours\nafter"


# --- files and folders --------------------------------------------------------------------------------------------


def test_a_file_is_enhanced_once_and_never_over_its_original(folder, tmp_path, model):
    source, target = folder / "a.jpg", tmp_path / "b.png"
    before = source.read_bytes()
    qatie_cli.enhance_file(source, target, model=model)
    expected = model.enhance(qatie_cli.read(source)).pixels
    assert np.array_equal(qatie_cli.read(target).pixels, expected)
    with pytest.raises(qatie_cli.QatieError, match="exists"):
        qatie_cli.enhance_file(source, target, model=model)
    qatie_cli.enhance_file(source, target, model=model, strength=0, overwrite=True)
    assert np.array_equal(qatie_cli.read(target).pixels, qatie_cli.read(source).pixels)
    (tmp_path / "link.jpg").symlink_to(source)
    for original in (source, tmp_path / "link.jpg"):
        with pytest.raises(qatie_cli.QatieError, match="is the original"):
            qatie_cli.enhance_file(source, original, model=model, overwrite=True)
    assert source.read_bytes() == before


def test_a_folder_is_enhanced_resumed_and_summed_up(folder, tmp_path, model):
    told: list[api.PhotoResult] = []
    summary = qatie_cli.enhance_folder(folder, tmp_path / "out", model=model, on_result=told.append)
    assert told == list(summary.results)
    assert {r.source.name: r.status for r in summary.results} == {
        "a.jpg": "enhanced", "b.png": "enhanced", "broken.jpg": "failed",
    }  # fmt: skip
    assert not summary.complete
    assert str(summary).splitlines() == ["3 photos: 2 enhanced, 1 failed", summary.with_status("failed")[0].reason]
    (failed,) = summary.with_status("failed")
    assert "broken.jpg" in failed.reason
    assert summary.not_photos == (folder / "notes.txt",)
    assert (tmp_path / "out" / "sub" / "b.png").is_file()
    expected = model(np.asarray(Image.open(folder / "sub" / "b.png")))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "sub" / "b.png")), expected)
    (folder / "broken.jpg").unlink()
    (tmp_path / "out" / "a.jpg").unlink()
    again = qatie_cli.enhance_folder(folder, tmp_path / "out", model=model)
    assert {r.source.name: r.status for r in again.results} == {"a.jpg": "enhanced", "b.png": "skipped"}
    assert again.complete
    assert str(again) == "2 photos: 1 enhanced, 1 skipped"


def test_a_folder_that_could_not_be_searched_is_not_complete():
    done = PhotoResult(Path("a.jpg"), Path("out/a.jpg"), Status.ENHANCED)
    assert Summary((done,)).complete
    assert not Summary((done,), unsearched=((Path("locked"), "Permission denied"),)).complete
    assert not Summary((done, replace(done, status=Status.FAILED))).complete


def test_folders_that_cannot_be_enhanced_are_refused_before_any_work(folder, tmp_path, model):
    for source, target in ((tmp_path / "none", tmp_path / "out"), (folder, folder), (folder, folder / "a.jpg")):
        with pytest.raises(qatie_cli.QatieError):
            qatie_cli.enhance_folder(source, target, model=model)
    for options in ({"format": "gif"}, {"strength": 2}, {"quality": 0}):
        with pytest.raises(ValueError, match=r"format is|lies in"):
            qatie_cli.enhance_folder(folder, tmp_path / "out", model=model, **options)
    assert not (tmp_path / "out").exists()


def test_the_readme_s_example_runs(folder, tmp_path, model, monkeypatch, capsys):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = (text for text in re.findall(r"```python\n(.*?)\n```", readme, re.DOTALL) if "qatie_cli" in text)
    monkeypatch.chdir(tmp_path)
    (folder / "a.jpg").rename(tmp_path / "photo.jpg")
    monkeypatch.setitem(vars(qatie_cli), "load", lambda: model)
    exec(compile(example, "README", "exec"), {})
    assert "broken.jpg" in capsys.readouterr().out
    assert (tmp_path / "better.jpg").is_file()
    assert (tmp_path / "out" / "sub" / "b.png").is_file()


def test_the_first_use_leaves_the_hosts_warning_filters():
    script = (
        "import warnings\nwarnings.filterwarnings('error', category=ResourceWarning)\nbefore = list(warnings.filters)\n"
        "import qatie_cli\nqatie_cli.load\nqatie_cli.available_engines()\n"
        "import sys\nassert 'torch' in sys.modules\nprint(list(warnings.filters) == before)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
