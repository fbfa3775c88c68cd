"""Files of the paper's authors and qatie's own exports become weights; all others are refused in one line."""

from __future__ import annotations

import json
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from commands import qatie_here
from PIL import Image
from samples import FINE, LOCAL, as_tensor, random_weights

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import DataError, QatieError, WeightsError
from qatie_cli.exchange import calibrating, exported, formats, photos, reading, runtimes
from qatie_cli.exchange.agreement import ExportAgreement
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import OPTIONS, NetworkConfig, ToneConfig
from qatie_cli.model.network import Network
from qatie_cli.model.quantization.fake import weight_scales
from qatie_cli.model.quantization.integers import integer_convs
from qatie_cli.model.quantization.scheme import WEIGHT_MAX, WEIGHT_MIN

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnx")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from qatie_cli.exchange.tflite.writing import Tensor, Writer

PARTS = {"local": "conv_1", "side": "conv_1_1_1", "inner": "conv_2", "outer": "conv_3", "shortcut": "conv_1_1"}
BLOCKS = {
    "refine1": "unet_s2", "refine2": "unet_s4", "bottleneck": "bottleneck", "decode2": "fuse4_refine",
    "decode1": "fuse2_refine",
}  # fmt: skip
OTHERS = {
    "fuse2.up": "up_to_s4.conv", "fuse2.reduce": "fuse4_reduce", "fuse1.up": "up_to_s2.conv",
    "fuse1.reduce": "fuse2_reduce", "up": "up_to_s1.conv", "head": "head",
}  # fmt: skip


@pytest.fixture(scope="module")
def random_network() -> Network:
    """A network of width 4, its norms' gains and offsets random, too."""
    torch.manual_seed(3)
    made = Network(NetworkConfig(4)).requires_grad_(False)
    for block in made.refinements():
        block.norm.weight.uniform_(0.5, 1.5)
        block.norm.bias.uniform_(-0.5, 0.5)
    return made


def _authors_state(net: Network) -> dict[str, torch.Tensor]:
    """A state dictionary by the names of the authors' modules."""
    state = {}
    for name in ("down1", "down2"):
        pair = net.get_submodule(name).pair
        for half, (weight, bias) in zip("ab", zip(pair.weight.chunk(2), pair.bias.chunk(2), strict=True), strict=True):
            state |= {f"{name}.{half}.weight": weight, f"{name}.{half}.bias": bias}
    plain = net.config.plain
    names = {f"{b}.{p}": f"{BLOCKS[b]}.{PARTS[p]}" for b in BLOCKS if b not in plain for p in PARTS} | OTHERS
    names |= {f"{b}.norm": f"{BLOCKS[b]}.norm1" for b in BLOCKS if b not in plain}
    names |= {f"{b}.local": f"{BLOCKS[b]}.conv" for b in plain}
    for ours, theirs in names.items():
        layer = net.get_submodule(ours)
        state |= {f"{theirs}.weight": layer.weight, f"{theirs}.bias": layer.bias}
    return {name: t.clone() for name, t in state.items()}


def _authors_tflite(net: Network, without: str = "") -> bytes:
    """A TFLite file with the authors' operators in their order, in int8, and the network changed to what it holds."""
    file = Writer()
    x = file.input("serving_default_args_0", (1, 32, 32, 3), None, any_size=False)

    def stored(values: torch.Tensor, scale: np.ndarray, zero_point: int = 0):
        shape = (-1, *[1] * (values.dim() - 1)) if len(scale) > 1 else (1,) * values.dim()
        integers = (
            (values.numpy() / scale.reshape(shape) + zero_point)
            .round()
            .astype(np.int8 if zero_point or values.dim() == 4 else np.int32)
        )
        made = file.constant(integers)
        how = schema.QuantizationParametersT()
        how.scale, how.zeroPoint = scale, np.full(len(scale), zero_point, np.int64)
        how.quantizedDimension = 0
        file.tensors[made.index].quantization = how
        values.copy_(
            torch.from_numpy(((integers.astype(np.float64) - zero_point) * scale.reshape(shape)).astype(np.float32))
        )
        return made

    def operator(name: str, *inputs: Tensor) -> Tensor:
        return file.operator(name, *inputs, shape=x.shape)

    def conv(weight: torch.Tensor, bias: torch.Tensor) -> None:
        scale = weight.abs().amax((1, 2, 3)).numpy() / 127
        ohwi = weight.permute(0, 2, 3, 1)
        operator("CONV_2D", x, stored(ohwi, scale), stored(bias, (scale * 0.01).astype(np.float32)))

    def refine(name: str) -> None:
        block = net.get_submodule(name)
        for part in ("local", "norm", "side", "inner", "shortcut", "outer"):
            layer = block.get_submodule(part)
            if f"{name}.{part}" == without:
                continue
            if part == "norm":
                operator("ADD", x, file.constant(np.array(1e-5, np.float32)))
                gain = stored(layer.weight.data, np.array([2 / 255], np.float32), -128)
                operator("MUL", operator("MUL", x, gain), x)
                operator("ADD", x, stored(layer.bias.data, np.array([1 / 255], np.float32), 5))
            else:
                conv(layer.weight.data, layer.bias.data)

    def gate(name: str) -> None:
        pair = net.get_submodule(name).pair
        for weight, bias in zip(pair.weight.data.chunk(2), pair.bias.data.chunk(2), strict=True):
            conv(weight, bias)

    gate("down1")
    refine("refine1")
    gate("down2")
    refine("refine2")
    refine("bottleneck")
    for fuse, after in (("fuse2", "decode2"), ("fuse1", "decode1")):
        for layer in (net.get_submodule(fuse).up, net.get_submodule(fuse).reduce):
            conv(layer.weight.data, layer.bias.data)
        refine(after)
    conv(net.up.weight.data, net.up.bias.data)
    conv(net.head.weight.data, net.head.bias.data)
    return file.packed([x], x, {})


def _packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _equal(state: dict[str, torch.Tensor], net: Network) -> bool:
    expected = net.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(t, expected[name]) for name, t in state.items())


# --- the authors' files -------------------------------------------------------------------------------------------


def test_an_int8_tflite_file_gives_what_its_integers_stand_for(random_network, tmp_path):
    (tmp_path / "a.tflite").write_bytes(_authors_tflite(random_network))
    found = reading.read(tmp_path / "a.tflite")
    assert found.weights is None
    assert found.config == NetworkConfig(4)
    assert found.kind == "TFLite file of the paper's network"
    assert _equal(found.state, random_network)


@pytest.mark.parametrize("prefix", ["model.", "model.inner_model.", "net.", ""])
def test_a_checkpoint_gives_its_tensors_whatever_wraps_them(prefix, random_network, tmp_path):
    state = {prefix + name: t for name, t in _authors_state(random_network).items()}
    state[f"{prefix}down1.a.weight_fake_quant.scale"] = torch.ones(1)
    state[f"{prefix}activation_post_process_0.min_val"] = torch.zeros(())
    content = {"state_dict": state | {"zero": torch.zeros(())}, "epoch": 3, "pytorch-lightning_version": "2.5"}
    torch.save(content, tmp_path / "a.ckpt")
    found = reading.read(tmp_path / "a.ckpt")
    assert found.config == NetworkConfig(4)
    assert _equal(found.state, random_network)


@pytest.mark.parametrize(
    ("variant", "config"),
    [
        ("hybrid_ablate_residual", NetworkConfig(4, residual=False)),
        ("hybrid_ablate_fuse_refine", NetworkConfig(4, fusion_refiner=False)),
        ("hybrid_ablate_resolution_refine", NetworkConfig(4, encoder_refiner=False)),
        ("hybrid_ablate_all", NetworkConfig(4, residual=False, fusion_refiner=False, encoder_refiner=False)),
    ],
)
def test_a_checkpoint_of_an_ablation_gives_that_network(variant, config, tmp_path, coffee):
    torch.manual_seed(3)
    net = Network(config).requires_grad_(False)
    torch.save(
        {"state_dict": _authors_state(net), "hyper_parameters": {"ablation_model": variant}}, tmp_path / "a.ckpt"
    )
    found = reading.read(tmp_path / "a.ckpt")
    assert found.config == config
    assert _equal(found.state, net)
    made = reading.finished(found, {"coffee": coffee})
    assert made.config.network == config
    x = as_tensor(coffee)
    with torch.no_grad():
        before, after = net(x), made.build().network(x)
    assert 10 * np.log10(float(before.square().mean() / (before - after).square().mean())) > 30


def test_the_published_files_hold_the_paper_s_network(shared):
    states = []
    for name in ("1920x1080", "100x100"):
        found = reading.read(shared / "reference" / f"qatie-official-c32-int8-{name}.tflite")
        assert found.config == NetworkConfig(32)
        states.append(found.state)
    assert sum(t.numel() for t in states[0].values()) == 915_331
    # Only biases differ a little, since their scales depend on the activation ranges of each file.
    apart = {name: float((t - states[1][name]).abs().max()) for name, t in states[0].items()}
    assert all(name.endswith(".bias") for name, most in apart.items() if most > 0)
    assert max(apart.values()) < 2e-3


def test_int8_of_the_published_weights_works_where_the_published_file_does_not(shared, coffee, monkeypatch):
    from skimage import data

    monkeypatch.setattr(calibrating, "LONGEST_PX", 192)
    path = shared / "reference" / "qatie-official-c32-int8-100x100.tflite"
    found = reading.read(path)
    seen = {"astronaut": data.astronaut(), "chelsea": data.chelsea(), "rocket": data.rocket()}
    made = reading.finished(found, seen)
    photo = np.array(Image.fromarray(coffee[:400, :400]).resize((100, 100), Image.Resampling.BICUBIC))
    exact = enhance(photo, engines.load(reading.as_written(found), "float"))
    assert metrics.psnr(exact, enhance(photo, engines.load(made, "float"))) > 50
    ours = [metrics.psnr(exact, enhance(photo, engines.load(made, name))) for name in engines.available_for(made)[1:]]
    assert min(ours) > 37
    assert min(ours) > metrics.psnr(exact, runtimes.litert(path, photo)) + 8


def test_imported_weights_say_where_they_are_from(random_network, tmp_path, coffee):
    torch.save(_authors_state(random_network), tmp_path / "a.ckpt")
    made = reading.finished(reading.read(tmp_path / "a.ckpt"), {"coffee": coffee})
    checkpoint.write(tmp_path / "a.safetensors", made)
    told = checkpoint.read(tmp_path / "a.safetensors")
    origin = told.recipe["imported"]
    assert origin["file"] == "a.ckpt"
    assert origin["kind"] == "training checkpoint of the paper's network"
    assert re.fullmatch("[0-9a-f]{64}", origin["sha256"])
    assert told.data["calibration_photos"] == ["coffee"]
    assert told.activations


def test_calibration_leaves_the_float_network_alone(random_network, coffee):
    state = {name: t.clone() for name, t in random_network.state_dict().items()}
    made = calibrating.calibrated(NetworkConfig(4), state, [coffee])
    assert _equal(state, random_network)
    x = as_tensor(coffee)
    with torch.no_grad():
        expected, found = random_network(x), made.build().network(x)
    assert 10 * np.log10(float(expected.square().mean() / (expected - found).square().mean())) > 40


# --- what qatie exported ------------------------------------------------------------------------------------------


def _exported(weights: Weights, kind: str, int8: bool, path: Path) -> Path:
    path = path / f"a.{kind}"
    path.write_bytes(formats.build(weights, kind, int8=int8, size=None))
    return path


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("tone", "without"),
    [
        (None, ""),
        (ToneConfig(channels=0, bins=16, quantiles=True), ""),
        (ToneConfig(channels=4), ""),
        (LOCAL, ""),
        (FINE, ""),
    ]
    + [(None, option) for option in OPTIONS],
)
def test_export_and_import_give_the_same(kind, tone, without, astronaut, tmp_path):
    weights = random_weights([astronaut], 4, tone, without)
    back = reading.read(_exported(weights, kind, False, tmp_path)).weights
    assert back.config == weights.config
    assert back.activations == weights.activations
    assert back.state.keys() == weights.state.keys()
    assert all(np.array_equal(t, back.state[name]) for name, t in weights.state.items())
    back = reading.read(_exported(weights, kind, True, tmp_path)).weights
    photo = astronaut[:128, :192]
    for name in engines.available_for(weights)[1:]:
        expected = enhance(photo, engines.load(weights, name))
        assert np.array_equal(enhance(photo, engines.load(back, name)), expected)


def test_integers_come_back_with_exactly_their_scales():
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(500, 3, 3, 3, generator=generator) * torch.rand(500, 1, 1, 1, generator=generator)
    weight[7] = 0
    scales = weight_scales(weight)
    values = (weight / scales.view(-1, 1, 1, 1)).round().clamp(WEIGHT_MIN, WEIGHT_MAX).to(torch.int8)
    back = torch.from_numpy(exported.restored(values.numpy(), scales.numpy()))
    assert torch.equal(weight_scales(back), scales)
    assert torch.equal((back / scales.view(-1, 1, 1, 1)).round().to(torch.int8), values)


# --- refusals -----------------------------------------------------------------------------------------------------


class _Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (Path.write_text, (Path("sprung"), "x"))


def _newer(content: bytes, kind: str) -> bytes:
    """A TFLite file with an operator of a version that no runtime knows, or an export of a newer qatie."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    if kind == "operator":
        model.operatorCodes[0].version = 99
    else:
        entry = next(e for e in model.metadata if e.name == b"qatie")
        told = json.loads(bytes(model.buffers[entry.buffer].data)) | {"format": 99}
        model.buffers[entry.buffer].data = np.frombuffer(json.dumps(told).encode(), np.uint8)
    return _packed(model)


def _refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(QatieError) as refused:
        reading.read(path)
    told = refused.value.one_line()
    assert "\n" not in told
    assert str(path.name) in told
    assert refused.value.hint
    return told


def test_damaged_and_foreign_tflite_files_are_refused(random_network, weights, tmp_path):
    whole = _authors_tflite(random_network)
    own = formats.build(weights, "tflite", int8=True, size=None)
    path = tmp_path / "a.tflite"
    assert "not a TFLite file" in _refused(path, b"")
    assert "not a TFLite file" in _refused(path, b"no model at all, only text")
    for part in (0.02, 0.3, 0.7, 0.99):
        assert "damaged or incomplete" in _refused(path, whole[: int(len(whole) * part)])
        assert "damaged or incomplete" in _refused(path, own[: int(len(own) * part)])
    assert "needs a newer LiteRT" in _refused(path, _newer(whole, "operator"))
    assert "format 99; this qatie reads format 1" in _refused(path, _newer(own, "format"))
    told = _refused(path, _authors_tflite(random_network, without="refine2.side"))
    assert "34 convolutions and 5 instance norms, not 35 and 5" in told


def test_bytes_changed_at_random_never_crash(random_network, tmp_path):
    whole = bytearray(_authors_tflite(random_network))
    rng = np.random.default_rng(0)
    for _ in range(30):
        broken = bytearray(whole)
        for place in rng.integers(8, len(whole), 40):
            broken[place] = int(rng.integers(256))
        (tmp_path / "a.tflite").write_bytes(broken)
        try:
            reading.read(tmp_path / "a.tflite")
        except QatieError as error:
            assert "\n" not in error.one_line()


def test_foreign_damaged_and_hostile_checkpoints_are_refused(random_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.ckpt"

    def saved(content: object) -> bytes:
        torch.save(content, path)
        return path.read_bytes()

    state = _authors_state(random_network)
    whole = saved({"state_dict": state})
    assert "damaged, incomplete" in _refused(path, whole[: len(whole) // 2])
    assert "damaged, incomplete" in _refused(path, b"")
    assert "never executes" in _refused(path, saved({"state_dict": state, "callback": _Trap()}))
    assert "never executes" in _refused(path, pickle.dumps(_Trap(), protocol=2))
    assert not (tmp_path / "sprung").exists()
    assert "it has no down1.a.weight" in _refused(path, saved({"state_dict": {"conv.weight": torch.zeros(1)}}))
    assert "it has no state_dict" in _refused(path, saved([1, 2]))
    lacking = {name: t for name, t in state.items() if not name.startswith("unet_s4.conv_2")}
    assert "it has no unet_s4.conv_2.weight" in _refused(path, saved(lacking))
    other = {"state_dict": state, "hyper_parameters": {"ablation_model": "hybrid_ablate_gates"}}
    assert "its settings call it hybrid_ablate_gates" in _refused(path, saved(other))
    half = {name.replace("unet_s2.conv_1.", "unet_s2.conv."): t for name, t in state.items()}
    assert "it has no unet_s2.conv_1.weight" in _refused(path, saved(half))
    broken = state | {"down2.b.bias": torch.full((8,), torch.nan)}
    assert "down2.pair.bias holds NaN or infinite values" in _refused(path, saved(broken))
    misfit = state | {"head.weight": torch.zeros(3, 5, 3, 3)}
    assert "no convolution 4 -> 3, 3x3 at head" in _refused(path, saved(misfit))


def test_other_files_are_refused(weights, weights_file, tmp_path):
    import onnx

    own = formats.build(weights, "onnx", int8=False, size=None)
    assert "not an ONNX model, or incomplete" in _refused(tmp_path / "a.onnx", own[: len(own) // 2])
    foreign = onnx.load_model_from_string(own)
    del foreign.metadata_props[:]
    assert "qatie did not export" in _refused(tmp_path / "a.onnx", foreign.SerializeToString())
    assert "need no import" in _refused(tmp_path / "a.safetensors", weights_file.read_bytes())
    assert "unknown kind of file" in _refused(tmp_path / "a.jpg", b"\xff\xd8\xff")
    assert "ExecuTorch program" in _refused(tmp_path / "a.pte", struct.pack("<I", 16) + b"ET12" + bytes(20))
    with pytest.raises(WeightsError, match="There is no file"):
        reading.read(tmp_path / "none.tflite")
    with pytest.raises(WeightsError, match="cannot be read"):
        reading.read(tmp_path)
    changed = safetensors.torch.save({"network.head.bias": torch.zeros(1)})
    with pytest.raises(WeightsError, match="damaged"):
        exported.weights(tmp_path / "a.onnx", b'{"format": 1, "held": ["x"]}', changed, {}.__getitem__)


# --- the commands -------------------------------------------------------------------------------------------------


def test_the_commands_export_check_and_import(weights, weights_file, random_network, tmp_path, coffee):
    Image.fromarray(coffee[:160, :240]).save(tmp_path / "photo.png")
    done = qatie_here("export", weights_file, "-f", "tflite", "--int8", "--size", "64x96", "-o", tmp_path / "a.tflite",
                 "--least", 30)  # fmt: skip
    assert "int8 for LiteRT, 64x96" in done.stderr
    assert re.search(r"coffee at 64x96: [\d.]+ dB to qatie's int8, [\d.]+ dB to its float", done.stderr)
    done = qatie_here(
        "weights", "import", tmp_path / "a.tflite", "-o", tmp_path / "b.safetensors", "--photos", tmp_path
    )
    assert "TFLite file exported by qatie, width 8, with its tone stage" in done.stderr
    back = checkpoint.read(tmp_path / "b.safetensors")
    ours, theirs = (integer_convs(w.state) for w in (weights, back))
    assert all(np.array_equal(ours[name].weight, theirs[name].weight) for name in ours)


def test_an_export_that_does_not_agree_is_not_written(weights_file, tmp_path):
    out = tmp_path / "a.onnx"
    done = qatie_here("export", weights_file, "-f", "onnx", "--int8", "-o", out, "--least", 90, code=1)
    assert "below 90: not written" in done.stderr
    assert not out.exists()


def test_an_int8_export_must_agree_with_our_int8_and_our_float():
    ExportAgreement(to_float=41, to_int8=41, int8_to_float=50).check(int8=True, least=40)
    ExportAgreement(to_float=41, to_int8=30, int8_to_float=50).check(int8=False, least=40)
    with pytest.raises(DataError, match=r"30\.0 dB to qatie's int8"):
        ExportAgreement(to_float=50, to_int8=30, int8_to_float=50).check(int8=True, least=40)
    with pytest.raises(DataError, match=r"30\.0 dB to qatie's float") as refused:
        ExportAgreement(to_float=30, to_int8=50, int8_to_float=50).check(int8=True, least=40)
    assert "own int8" not in str(refused.value)
    with pytest.raises(DataError, match=r"own int8 reaches 35\.0 dB"):
        ExportAgreement(to_float=30, to_int8=50, int8_to_float=35).check(int8=True, least=40)


@pytest.mark.parametrize("size", ["1080", "1081x1920", "0x8", "axb", "8x-8"])
def test_sizes_that_no_model_has_are_refused(size, weights_file, tmp_path):
    from typer.testing import CliRunner

    from qatie_cli.cli import app

    done = CliRunner().invoke(app, ["export", str(weights_file), "-f", "onnx", "--size", size, "-o", "a.onnx"])
    assert isinstance(done.exception, QatieError)
    assert "Invalid size" in str(done.exception)


def test_photos_are_held_out_where_there_are_enough():
    few = {str(i): np.zeros((8, 8, 3), np.uint8) for i in range(7)}
    assert photos.split(few).shared
    made = photos.split(few | {"7": few["0"], "8": few["0"]})
    assert not made.shared
    assert list(made.check) == ["3", "7"]
    assert made.calibration.keys() | made.check.keys() == {str(i) for i in range(9)}


def test_photos_to_check_on_are_turned_to_the_model_s_orientation(coffee):
    assert photos.for_check(coffee, None).shape == coffee.shape
    assert photos.for_check(np.tile(coffee, (3, 1, 1)), None).shape == (768, 384, 3)
    assert photos.for_check(coffee, (96, 64)).shape == (96, 64, 3)
    portrait = photos.for_check(coffee, (600, 400))
    assert metrics.psnr(portrait, np.rot90(coffee)) > 60


def test_photos_are_found_with_the_extra_alone(tmp_path, coffee):
    """Neither scipy nor scikit-image comes with the extra `export`."""
    Image.fromarray(coffee[:40, :60]).save(tmp_path / "a.png")
    script = (
        "import sys\nfrom pathlib import Path\nsys.modules['scipy'] = sys.modules['skimage'] = None\n"
        "from qatie_cli.cli import photos\n"
        f"print(list(photos.named([Path({str(tmp_path)!r})], 1)), photos.at_hand())\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['a.png'] {}"
