"""What README and docs/ say can be run, is short enough, and is built without a warning."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image
from typer.testing import CliRunner

import qatie_cli
from qatie_cli import engines, metrics
from qatie_cli.cli import app, usage
from qatie_cli.enhance.pixels import enhance
from qatie_cli.exchange import formats
from qatie_cli.model import checkpoint
from qatie_cli.model import shipped as shipped_weights
from qatie_cli.photo import encoding
from qatie_cli.photo.content import Photo

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
# Makes a command short. A run of two steps is to leave the weights nearly as they are.
SHORTER = {
    "train": ["--steps", "1", "--tone-steps", "1", "--set", "qat_steps=2", "--set", "tone_batch=2", "--batch", "2",
              "--crop", "96", *(f"--set={stage}rate=1e-6" for stage in ("tone_", "", "qat_"))],
    "bench": ["--size", "96x64", "--rounds", "1", "--no-commands", "--no-runtimes"],
}  # fmt: skip
NOT_OURS = (
    "python",
    "v/bin/pip",
    "pip",
    "torchrun",
)  # they install, or start what tests of training start


def _commands(page: str) -> list[list[str]]:
    """The words of every line in a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)\n```", PAGES[page].read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


WITH_COMMANDS = [page for page in PAGES if any(words[0] == "qatie" for words in _commands(page))]


@pytest.fixture(scope="module")
def photos(astronaut: np.ndarray, coffee: np.ndarray) -> list[np.ndarray]:
    """Five small photos that differ."""
    pictures = (coffee, astronaut, coffee[:, ::-1], astronaut[:, ::-1], coffee[:300])
    return [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize((160, 120))) for p in pictures]


@pytest.fixture
def folder(tmp_path: Path, photos: list[np.ndarray], weights, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos and a model under the names that the pages use."""
    for name in ("photos", "good-photos", "pairs/input", "pairs/target"):
        (tmp_path / name).mkdir(parents=True)
    for index, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "good-photos" / f"{index}.png")
        Image.fromarray(photo).save(tmp_path / "pairs" / "target" / f"{index}.png")
        Image.fromarray(photo // 2).save(tmp_path / "pairs" / "input" / f"{index}.png")
    for index, photo in enumerate(photos[:2]):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{index}.jpg")
    encoding.write(tmp_path / "a.heic", Photo(photos[0], "heic"), "heic")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_of_a_page_run_one_after_the_other(page, folder, weights):
    if page == "docs/weights.md":
        pytest.importorskip("flatbuffers")
        (folder / "model.tflite").write_bytes(formats.build(weights, "tflite", int8=True, size=None))
    if page in ("README.md", "docs/export.md"):
        pytest.importorskip("ai_edge_litert")
        pytest.importorskip("onnxruntime")
    for words in _commands(page):
        assert words[0] in ("qatie", *NOT_OURS)
        if words[0] == "qatie":
            # The last of an option's values counts.
            done = CliRunner().invoke(app, words[1:] + SHORTER.get(words[1], []), catch_exceptions=False)
            assert done.exit_code == 0, f"{words}: {done.output}"


def test_pages_that_make_files_make_what_they_say(folder):
    for command in _commands("README.md")[2:5]:
        assert CliRunner().invoke(app, command[1:], catch_exceptions=False).exit_code == 0
    assert {path.name for path in (folder / "out").glob("*.*")} == {
        "0.jpg",
        "1.jpg",
        "index.html",
        ".qatie",
        ".gallery",
    }
    assert Image.open(folder / "a.jpg").format == "JPEG"


def test_a_photo_goes_through_pipes_as_the_page_on_batches_says(folder):
    assert "`qatie enhance - -o - < a.jpg > b.jpg`" in PAGES["docs/batch.md"].read_text(encoding="utf-8")
    command = [sys.executable, "-m", "qatie_cli", "enhance", "-", "-o", "-"]
    with (folder / "photos" / "0.jpg").open("rb") as source, (folder / "b.jpg").open("wb") as target:
        subprocess.run(command, stdin=source, stdout=target, check=True, cwd=ROOT)
    assert Image.open(folder / "b.jpg").size == (160, 120)


@pytest.mark.parametrize("page", PAGES)
def test_extras_that_a_page_installs_exist(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = PAGES[page].read_text(encoding="utf-8")
    installed = {extra for found in re.findall(r"pip install '\.\[([\w,]+)\]'", text) for extra in found.split(",")}
    assert installed <= set(extras)
    if page == "docs/install.md":
        assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) | {"lint", "docs"} >= set(extras) - {"test"}


def test_the_example_of_the_page_on_python_runs(folder, weights_file, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)\n```", PAGES["docs/python.md"].read_text(encoding="utf-8"), re.DOTALL)
    (folder / "photos" / "0.jpg").rename(folder / "photo.jpg")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    model = qatie_cli.load(weights_file)
    monkeypatch.setitem(vars(qatie_cli), "load", lambda: model)
    exec(compile(example, "docs/python.md", "exec"), {})
    assert "broken.jpg" in capsys.readouterr().out
    assert (folder / "better.jpg").is_file()


def test_the_readme_is_one_page():
    assert len(PAGES["README.md"].read_text(encoding="utf-8").split()) <= 900


def test_pictures_are_small():
    assert all(path.stat().st_size <= 300_000 for path in (ROOT / "docs" / "pictures").iterdir())


def test_exit_codes_of_the_page_on_batches_are_those_of_the_help():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", PAGES["docs/batch.md"].read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == {str(code.value): meaning for code, meaning in usage.EXIT_CODES.items()}


def test_the_man_page_has_every_command_and_option():
    manual = subprocess.run(
        [sys.executable, ROOT / ".ci" / "make_manual.py"], capture_output=True, text=True, check=True
    )
    shown = manual.stdout.replace("\\-", "-")
    group = typer.main.get_command(app)
    inner = [c for command in group.commands.values() for c in getattr(command, "commands", {"": command}).values()]
    for command in inner:
        assert command.epilog.removeprefix("Example: ") in shown
        assert all(option in shown for parameter in command.params for option in parameter.opts if "-" in option)
    assert re.search(r"\.SH EXIT STATUS\n\.TP\n\.B 0\nsuccess", shown)


# --- the examples for phones --------------------------------------------------------------------------------------


def _run(name: str, folder: Path, weights, photo: np.ndarray, kind: str, **how) -> np.ndarray:
    """What an example makes of a photo, with a model of the kind that it reads."""
    (folder / "model").write_bytes(formats.build(weights, kind, **how))
    Image.fromarray(photo).save(folder / "photo.jpg", quality=100, subsampling=0)
    command = [sys.executable, ROOT / "docs" / "examples" / name, "model", "photo.jpg", "enhanced.png"]
    subprocess.run(command, check=True, cwd=folder)
    return np.asarray(Image.open(folder / "enhanced.png"))


def _expected(folder: Path, weights, engine: str) -> np.ndarray:
    return enhance(np.asarray(Image.open(folder / "photo.jpg")), engines.load(weights, engine))


def test_the_litert_example_computes_what_qatie_does(tmp_path, coffee):
    pytest.importorskip("ai_edge_litert")
    # Trained weights: int8 of random ones depends too much on which way a value is rounded.
    shipped = checkpoint.read(shipped_weights.locate(shipped_weights.DEFAULT))
    found = _run("litert.py", tmp_path, shipped, coffee[:301, :450], "tflite", int8=True, size=None)
    assert metrics.psnr(found, _expected(tmp_path, shipped, "auto")) > 40


def test_the_onnx_example_computes_what_qatie_does(tmp_path, weights, coffee):
    pytest.importorskip("onnxruntime")
    found = _run("onnx_runtime.py", tmp_path, weights, coffee[:101, :150], "onnx", int8=False, size=None)
    assert metrics.psnr(found, _expected(tmp_path, weights, "float")) > 55


def test_the_executorch_example_computes_what_qatie_does(tmp_path, weights, coffee):
    pytest.importorskip("executorch")
    photo = np.ascontiguousarray(coffee[:64, :96])
    found = _run("executorch_xnnpack.py", tmp_path, weights, photo, "executorch", int8=False, size=(64, 96))
    assert metrics.psnr(found, _expected(tmp_path, weights, "float")) > 55
