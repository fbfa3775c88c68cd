"""The README says what there is, and what it says can be run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer.main
from PIL import Image

from qatie_cli import engines, metrics
from qatie_cli.cli import app
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.enhance.pixels import enhance
from qatie_cli.exchange import formats
from qatie_cli.model import checkpoint
from qatie_cli.model import shipped as shipped_weights

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("weights/**/*.md"), *ROOT.glob("weights/**/*.toml")]


def _commands(group, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every command below a group, by the words that call it."""
    if not hasattr(group, "commands"):
        return {prefix: group}
    found = {}
    for name, command in group.commands.items():
        found |= _commands(command, (*prefix, name))
    return found


COMMANDS = _commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name):
    written = f"qatie {' '.join(name)}"
    short = f"qatie {name[0]} " + "|".join(n[1] for n in COMMANDS if n[0] == name[0] and len(n) > 1)
    assert written in README or short in README


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text(name):
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", "") or parameter.name == "help", f"{name}: {parameter.name}"


def test_every_option_in_the_readme_exists():
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"`?(--[a-z][a-z0-9-]*)", README)) <= known | {"--help", "--version", "--nproc-per-node"}


def test_the_setup_commands_come_first():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "python -m venv v && v/bin/pip install '.[demo]' && v/bin/qatie demo -o out/"
    assert second == "pip install '.[test]' && pytest"


def test_ci_runs_the_documented_gates_and_then_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^run_documented (.*)", script, re.MULTILINE) == [
        "CONTRIBUTING.md gates",
        'README.md "test command"',
    ]
    assert "pip install" not in script  # it has no other command of its own
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    gates = re.search(r"<!-- gates -->\n```sh\n(.*?)\n```", contributing, re.DOTALL)[1].splitlines()
    assert gates == ["pip install '.[lint]'", "ruff check", "ruff format --check", "python .ci/check_types.py"]


def test_files_that_documents_name_exist():
    missing = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        linked = [document.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
        ours = r"(?<![\w./-])(?:\.ci|docs|qatie_cli|tests|weights)/[\w./-]*\w"
        named = [ROOT / path for path in re.findall(ours, text)]
        missing += [f"{document.name}: {path.relative_to(ROOT)}" for path in (*linked, *named) if not path.exists()]
    assert not missing, missing


def test_every_shipped_model_has_its_card_and_recipe():
    for name in shipped_weights.manifest():
        assert (ROOT / "weights" / f"{name}.md").is_file()
        assert (ROOT / "weights" / "recipes" / f"{name}.toml").is_file()


def test_photos_are_degraded_by_default_as_the_recipes_of_the_shipped_weights_say():
    for name in shipped_weights.manifest():
        recipe = tomllib.loads((ROOT / "weights" / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))
        assert DegradationConfig.from_table(recipe["degradation"]) == DegradationConfig()


# --- the examples for phones --------------------------------------------------------------------------------------

EXAMPLES = dict(re.findall(r"\n([A-Za-z]+)[^\n]*:\n\n```python\n(.*?)\n```", README, re.DOTALL))


def _run(name: str, tmp_path: Path, monkeypatch, weights, photo: np.ndarray, kind: str, **how) -> np.ndarray:
    """What an example makes of a photo, with a model of the kind that it reads."""
    file = re.search(r'"(qatie[^"]*)"', EXAMPLES[name])[1]
    (tmp_path / file).write_bytes(formats.build(weights, kind, **how))
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name].replace("(1920, 1080)", str(photo.shape[1::-1])), name, "exec"), {})
    return np.asarray(Image.open("enhanced.png"))


def _expected(tmp_path: Path, weights, engine: str) -> np.ndarray:
    return enhance(np.asarray(Image.open(tmp_path / "photo.jpg")), engines.load(weights, engine))


def test_the_examples_are_short():
    assert sorted(EXAMPLES) == ["ExecuTorch", "LiteRT", "ONNX"]
    for text in EXAMPLES.values():
        body = [line for line in text.splitlines() if line and not line.startswith(("import", "from"))]
        assert len(body) <= 10


def test_the_litert_example_computes_what_qatie_does(tmp_path, monkeypatch, coffee):
    pytest.importorskip("ai_edge_litert")
    # Trained weights: int8 of random ones depends too much on which way a value is rounded.
    shipped = checkpoint.read(shipped_weights.locate(shipped_weights.DEFAULT))
    found = _run("LiteRT", tmp_path, monkeypatch, shipped, coffee[:301, :450], "tflite", int8=True, size=None)
    assert metrics.psnr(found, _expected(tmp_path, shipped, "auto")) > 40


def test_the_onnx_example_computes_what_qatie_does(tmp_path, monkeypatch, weights, coffee):
    pytest.importorskip("onnxruntime")
    found = _run("ONNX", tmp_path, monkeypatch, weights, coffee[:101, :150], "onnx", int8=False, size=None)
    assert metrics.psnr(found, _expected(tmp_path, weights, "float")) > 55


def test_the_executorch_example_computes_what_qatie_does(tmp_path, monkeypatch, weights, coffee):
    pytest.importorskip("executorch")
    photo = np.ascontiguousarray(coffee[:64, :96])
    found = _run("ExecuTorch", tmp_path, monkeypatch, weights, photo, "executorch", int8=False, size=(64, 96))
    assert metrics.psnr(found, _expected(tmp_path, weights, "float")) > 55
