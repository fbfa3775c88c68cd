"""Photos enhanced without PyTorch, and engines that take over from each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image
from samples import FINE, LOCAL, LOCAL_BY_LUMA, random_weights, with_local_tone

import qatie_cli
from qatie_cli import engines, installation, kernels, metrics
from qatie_cli.engines import built
from qatie_cli.engines.light import Graphs
from qatie_cli.enhance.pixels import enhance
from qatie_cli.enhance.tiling import residual_of
from qatie_cli.errors import EngineError, PinnedEngineError, UsageError
from qatie_cli.graphs import parts
from qatie_cli.kernels import threads
from qatie_cli.model import checkpoint, folding, network, shipped, tensors, tone, whole
from qatie_cli.model.config import ModelConfig, NetworkConfig, ToneConfig

TONES = [None, ToneConfig(), ToneConfig(channels=0, bins=16, quantiles=True), LOCAL, LOCAL_BY_LUMA, FINE]


def _without_torch(code: str, *arguments: object) -> str:
    """Run code in a process where importing torch fails; it sees `arguments` as sys.argv[1:]."""
    hidden = f"import sys\nsys.modules['torch'] = None\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", hidden, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_COMMAND = """
from qatie_cli import cli
try:
    cli.main()
except SystemExit as ended:
    print("code", ended.code or 0)
"""


def _command(*arguments: object) -> str:
    return _without_torch(_COMMAND, *arguments)


@pytest.fixture
def photo(coffee, tmp_path) -> Path:
    path = tmp_path / "coffee.jpg"
    Image.fromarray(coffee).save(path, quality=95)
    return path


# --- without torch ------------------------------------------------------------------------------------------------


def test_python_enhances_without_torch(photo, tmp_path):
    code = """
import qatie_cli
model = qatie_cli.load()
assert set(qatie_cli.available_engines()) <= {"llvm", "onnxruntime"}
qatie_cli.enhance_file(sys.argv[1], sys.argv[2], model=model)
better = model(qatie_cli.read(sys.argv[1]).pixels)
print(model.engine, better.shape)
"""
    engine = "llvm" if "llvm" in engines.available() else "onnxruntime"
    assert _without_torch(code, photo, tmp_path / "better.png").split(maxsplit=1) == [engine, "(400, 600, 3)\n"]
    with_torch = qatie_cli.load(engine="float").enhance(qatie_cli.read(photo)).pixels
    assert metrics.psnr(qatie_cli.read(tmp_path / "better.png").pixels, with_torch) > 40


def test_the_command_enhances_without_torch(photo, tmp_path):
    assert _command("enhance", photo, "-o", tmp_path / "out", "--gallery", "--report", tmp_path / "report.json") == (
        "code 0\n"
    )
    assert json.loads((tmp_path / "report.json").read_text())["engine"] == "onnxruntime"
    assert (tmp_path / "out" / "index.html").exists()
    assert _command("compare", photo, tmp_path / "out" / "coffee.jpg", "-o", tmp_path / "page.html") == "code 0\n"
    assert _command("enhance", photo, "-o", tmp_path / "one.png", "--strength", "0.5") == "code 0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--clean", ".", "--out", "run"],
        ["evaluate", "--data", "."],
        ["bench"],
        ["export", "qatie-c16", "-f", "onnx", "-o", "a.onnx"],
        ["weights", "import", "a.tflite"],
        ["pairs", "make", ".", "-o", "out"],
        ["enhance", ".", "-o", "out", "--engine", "fbgemm"],
        ["enhance", ".", "-o", "out", "--device", "cuda"],
    ],
)
def test_what_needs_torch_says_so_in_one_line(arguments, photo, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys\nsys.modules['torch'] = None\n{_COMMAND}", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "code 2\n", done.stderr
    assert "needs PyTorch" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_torch_installed_a_photo_is_enhanced_without_importing_it(photo, tmp_path):
    code = """
import sys, qatie_cli
qatie_cli.enhance_file(sys.argv[1], sys.argv[2])
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-P", "-c", code, photo, tmp_path / "a.jpg"], check=True)


# --- what is installed --------------------------------------------------------------------------------------------


def _installed(monkeypatch, *names: str, origin: dict | None = None) -> None:
    def distribution(name):
        if name not in names:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(read_text=lambda file: json.dumps(origin) if origin else None)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_install_commands_name_what_is_installed(monkeypatch):
    _installed(monkeypatch, "qatie-light")
    monkeypatch.setattr(installation, "has", lambda module: False)
    assert installation.extra("demo") == "pip install 'qatie-light[demo]'"
    with pytest.raises(UsageError, match="leaves out") as refused:
        installation.need_torch("qatie train")
    assert refused.value.hint == "Run: pip uninstall qatie-light && pip install qatie"
    assert not installation.clash()
    _installed(monkeypatch, "qatie")
    assert installation.extra("demo") == "pip install 'qatie[demo]'"
    assert installation.reinstall() == "pip install --force-reinstall --no-deps qatie"
    with pytest.raises(UsageError) as refused:
        installation.need_torch("qatie train")
    assert refused.value.hint == "Run: pip install torch"


def test_what_was_installed_from_a_clone_is_extended_from_there(monkeypatch, tmp_path):
    """No index has it, or another version."""
    clone, light = tmp_path / "my clone", tmp_path / "my clone" / ".ci" / "light"
    light.mkdir(parents=True)
    for folder in (clone, light):
        (folder / "pyproject.toml").touch()
    _installed(monkeypatch, "qatie", origin={"url": clone.as_uri(), "dir_info": {}})
    assert installation.extra("demo") == f"pip install '{clone}[demo]'"
    _installed(monkeypatch, "qatie", origin={"url": clone.as_uri(), "dir_info": {"editable": True}})
    assert installation.extra("demo") == f"pip install -e '{clone}[demo]'"
    monkeypatch.chdir(clone)
    assert installation.extra("demo") == "pip install -e '.[demo]'"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(installation, "has", lambda module: False)
    _installed(monkeypatch, "qatie-light", origin={"url": light.as_uri(), "dir_info": {}})
    assert installation.extra("fast") == f"pip install '{light}[fast]'"
    with pytest.raises(UsageError) as refused:
        installation.need_torch("qatie train")
    assert refused.value.hint == f"Run: pip uninstall qatie-light && pip install '{clone}'"
    (clone / "pyproject.toml").unlink()  # moved or deleted since
    _installed(monkeypatch, "qatie", origin={"url": clone.as_uri(), "dir_info": {}})
    assert installation.extra("demo") == "pip install 'qatie[demo]'"


def test_what_was_installed_from_a_repository_or_a_wheel_is_extended_from_there(monkeypatch):
    repository = {"url": "https://host/qatie.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}}
    _installed(monkeypatch, "qatie", origin=repository)
    assert installation.extra("demo") == "pip install 'qatie[demo] @ git+https://host/qatie.git'"
    wheel = {"url": "https://host/qatie-0.2.0-py3-none-any.whl", "archive_info": {}}
    _installed(monkeypatch, "qatie", origin=wheel)
    assert installation.extra("demo") == f"pip install 'qatie[demo] @ {wheel['url']}'"


def test_what_an_uninstalled_source_tree_needs_is_installed_from_there(monkeypatch, tmp_path):
    _installed(monkeypatch)
    monkeypatch.setattr(installation, "__file__", str(tmp_path / "qatie_cli" / "installation.py"))
    assert installation.extra("demo") == "pip install 'qatie[demo]'"
    (tmp_path / "pyproject.toml").touch()
    assert installation.extra("demo") == f"pip install '{tmp_path}[demo]'"


def test_both_installed_at_once_are_named(monkeypatch):
    _installed(monkeypatch, "qatie", "qatie-light")
    assert "pip uninstall qatie-light" in installation.clash()


# --- the same model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", TONES)
def test_tensors_are_those_of_the_modules(stage):
    made = whole.create(ModelConfig(NetworkConfig(5), stage), seed=1)
    assert tensors.shapes(made.config) == {name: tuple(t.shape) for name, t in made.state_dict().items()}


def test_folding_is_that_of_the_network():
    built_network = whole.create(ModelConfig(NetworkConfig(6)), seed=1).requires_grad_(False).network
    built_network.head.weight.normal_()
    state = whole.arrays({f"network.{name}": t for name, t in built_network.state_dict().items()})
    folded = folding.fold_upsample(state["network.fuse1.up.weight"])
    np.testing.assert_allclose(folded, network.fold_upsample(built_network.fuse1.up.weight).numpy(), rtol=1e-5)
    for found, expected in zip(folding.fold_tail(state), built_network.tail(), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stage", TONES[1:])
def test_the_tone_stage_decides_what_it_decides_on_torch(stage, astronaut):
    weights = random_weights([astronaut], 4, stage)
    stage_on_torch = weights.build().tone
    decided = engines.load(weights, "onnxruntime").tone
    for photo in (astronaut, astronaut[:200, 30:].astype(np.uint16) * 257):
        expected, found = tone.decide(stage_on_torch, photo), decided(photo)
        np.testing.assert_allclose(found.curves, expected.curves, atol=1e-5)
        np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-5)
        assert (found.grid is None) == (expected.grid is None)
        if found.grid is not None:
            assert np.ptp(found.grid) > 0.1
            np.testing.assert_allclose(found.grid, expected.grid, atol=1e-4)


@pytest.mark.parametrize("name", ["onednn", "fbgemm"])
def test_shipped_weights_agree_with_the_engines_of_torch(name, coffee):
    if name not in engines.available():
        pytest.skip(f"there is no {name} here")
    weights = checkpoint.read(shipped.locate(shipped.DEFAULT))
    ours, theirs = (enhance(coffee, engines.load(weights, engine)) for engine in ("onnxruntime", name))
    assert metrics.finite_psnr(ours, theirs) > 48


@pytest.mark.parametrize("width", [3, 8])
def test_tiles_are_the_whole_within_a_level(width, astronaut):
    weights = with_local_tone(random_weights([astronaut], width))
    engine = engines.load(weights, "onnxruntime")
    whole_photo = enhance(astronaut, engine).astype(int)
    assert np.abs(enhance(astronaut, engine, tile_side=256).astype(int) - whole_photo).max() <= 1


@pytest.mark.parametrize("number", [1, 3])
def test_neither_threads_nor_numba_change_a_bit(number, weights, astronaut, monkeypatch):
    network = engines.load(weights, "onnxruntime").network
    expected = residual_of(network, astronaut, None)
    monkeypatch.setattr(kernels, "usable", lambda pixels: False)
    with threads.limited(number):
        np.testing.assert_array_equal(residual_of(network, astronaut, None), expected)


def test_pieces_are_handed_out_once_and_run_alone():
    seen, numbers = np.zeros(40, int), []

    def work(first: int, last: int) -> None:
        seen[first:last] += 1
        numbers.append(threads.number())

    with threads.limited(4):
        threads.in_turn(work, [(start, start + 4) for start in range(0, 40, 4)])
        assert threads.number() == 4
    assert (seen == 1).all()
    assert set(numbers) == {1}


def test_layers_run_in_integers(weights):
    """None is left to float: a pattern that onnxruntime does not know would cost time and nothing else would tell."""
    for name, graph in parts.build(weights).items():
        if name not in ("tone", "residual"):
            assert _operators(graph) <= {
                *("QLinearConv", "QLinearLeakyRelu", "QLinearAdd", "QLinearMul", "QLinearSigmoid"),
                *("NhwcMaxPool", "Split", "Slice", "Transpose"),
            }, name


def _operators(graph: bytes) -> set[str]:
    import onnx
    import onnxruntime

    path = Path(os.environ["QATIE_HOME"]) / "optimized.onnx"
    path.parent.mkdir(exist_ok=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 4
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(path).graph.node}


def test_nothing_is_kept_to_be_sent(photo, tmp_path):
    """onnxruntime leaves an ID of the machine and events in the home of its user, where it is not told otherwise."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {n: v for n, v in os.environ.items() if n != "ORT_DISABLE_TELEMETRY" and not n.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "qatie_cli", "enhance", photo, "-o", tmp_path / "out", "--engine", "onnxruntime"],
        env=environment | {"HOME": str(home), "QATIE_HOME": str(tmp_path / "qatie")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.relative_to(home) for path in home.rglob("*") if path.is_file()] == []


# --- graphs that are kept -----------------------------------------------------------------------------------------


def test_graphs_are_built_once_and_a_damaged_file_is_made_anew(weights, empty_home, monkeypatch):
    first = built.of(weights)
    (kept,) = (empty_home / "graphs").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert built.of(weights) == first
    assert kept.read_bytes() == content
    monkeypatch.setattr(parts, "build", lambda weights: pytest.fail("they are there"))
    assert built.of(weights) == first


def test_other_weights_have_other_graphs(weights, empty_home):
    built.of(weights)
    changed = with_local_tone(weights)
    assert built.of(changed) != built.of(weights)
    assert len(list((empty_home / "graphs").iterdir())) == 2


def test_a_home_that_cannot_be_written_to_is_no_obstacle(weights, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QATIE_HOME", str(tmp_path / "file" / "home"))
    assert Graphs(built.of(weights))


# --- which engine -------------------------------------------------------------------------------------------------


def test_auto_says_why(weights):
    assert "fastest" in engines.load(weights).reason
    assert engines.load(weights, "onnxruntime").reason == "as asked"
    assert "begun" in engines.load(weights, begun_on="fbgemm").reason
    assert engines.load(weights, begun_on="fbgemm").name == "fbgemm"
    assert engines.load(weights, "onnxruntime", begun_on="fbgemm").name == "onnxruntime"


@pytest.mark.parametrize("begun_on", ["fbgemm", "float", "llvm", "an engine of another machine"])
def test_auto_does_not_go_on_with_another_engine(begun_on, weights, monkeypatch):
    monkeypatch.setattr(installation, "has", lambda module: module != "torch")
    monkeypatch.setattr(engines, "has_compiled", lambda: False)
    with pytest.raises(
        PinnedEngineError, match=f"begun on {begun_on}, .* PyTorch|{begun_on} on this machine"
    ) as refused:
        engines.load(weights, begun_on=begun_on)
    assert "--engine onnxruntime" in refused.value.hint
    assert refused.value.exit_code == 1
    assert "\n" not in refused.value.one_line()
    assert engines.load(weights, "onnxruntime", begun_on=begun_on).name == "onnxruntime"


def test_where_there_is_no_engine_at_all_that_is_said(monkeypatch):
    monkeypatch.setattr(installation, "has", lambda module: False)
    with pytest.raises(EngineError, match="no engine") as refused:
        engines.resolve("auto")
    assert "pip install" in refused.value.hint


def test_a_batch_goes_on_with_the_engine_it_was_begun_on(photo, weights_file, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    given = folder, "-o", out, "--weights", weights_file
    qatie_here("enhance", *given, "--engine", "fbgemm")
    (folder / "b.jpg").write_bytes(photo.read_bytes())
    resumed = qatie_here("enhance", *given, "--verbose").stderr
    assert "int8 on fbgemm (the batch was begun on it)" in resumed
    (folder / "c.jpg").write_bytes(photo.read_bytes())
    qatie_here("enhance", *given, "--engine", "onnxruntime")
    (folder / "d.jpg").write_bytes(photo.read_bytes())
    assert "int8 on onnxruntime (the batch was begun on it)" in qatie_here("enhance", *given, "--verbose").stderr
    other = qatie_here("enhance", *given, "--verbose", "--strength", "0.5").stderr
    assert "int8 on onnxruntime (the fastest" in other
    assert {photo.name for photo in out.glob("*.jpg")} == {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}


def test_python_goes_on_with_the_engine_a_folder_was_begun_on(photo, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    assert qatie_cli.enhance_folder(folder, out, model=qatie_cli.load(engine="fbgemm")).complete
    (folder / "b.jpg").write_bytes(photo.read_bytes())
    assert qatie_cli.enhance_folder(folder, out).complete
    rows = [json.loads(line) for line in (out / ".qatie" / "made.jsonl").read_text().split("\n") if line]
    assert [row["engine"] for row in rows if "output" in row] == ["fbgemm", "fbgemm"]
