"""Engines: what is there, what is refused, and that the integers compute what training saw."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from samples import EVERY_NETWORK, as_tensor, random_weights

from qatie_cli import engines, installation, metrics
from qatie_cli.engines import int8, light
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import EngineError, WeightsError
from qatie_cli.model import checkpoint
from qatie_cli.model import shipped as shipped_weights
from qatie_cli.model.network import interleave
from qatie_cli.model.quantization.fake import FakeQuantizer
from qatie_cli.model.quantization.scheme import TANH, Activation

HERE = [name for name in engines.INT8 if name in torch.backends.quantized.supported_engines]
INTEGERS = [*HERE, engines.LIGHT]


def _residual(engine: engines.Engine, photo: np.ndarray, strip: int) -> np.ndarray:
    features = engine.network.features(photo)
    height = photo.shape[0]
    strips = [engine.network.residual(features, top, min(top + strip, height)) for top in range(0, height, strip)]
    return np.concatenate(strips)


@EVERY_NETWORK
@pytest.mark.parametrize("name", INTEGERS)
def test_int8_computes_what_fake_quantization_showed_in_training(name, weights, astronaut):
    with torch.no_grad():
        trained = weights.build().network(as_tensor(astronaut), FakeQuantizer(weights.activations))
    trained = trained[0].permute(1, 2, 0).numpy()
    computed = _residual(engines.load(weights, name), astronaut, 512)
    assert np.abs(trained).max() > 0.1
    # A rounding that falls the other way once is amplified by random weights more than by trained ones, see below.
    assert 10 * np.log10(1 / np.mean((trained - computed) ** 2)) > 40


@pytest.mark.parametrize("name", INTEGERS)
def test_int8_of_the_shipped_weights_computes_what_training_saw(name, astronaut):
    shipped = checkpoint.read(shipped_weights.locate(shipped_weights.DEFAULT))
    with torch.no_grad():
        trained = shipped.build().network(as_tensor(astronaut), FakeQuantizer(shipped.activations))
    computed = _residual(engines.load(shipped, name), astronaut, 512)
    assert 10 * np.log10(1 / np.mean((trained[0].permute(1, 2, 0).numpy() - computed) ** 2)) > 50


@pytest.mark.parametrize("name", INTEGERS)
def test_int8_of_the_shipped_weights_equals_float_to_the_eye(name, coffee):
    shipped = checkpoint.read(shipped_weights.locate(shipped_weights.DEFAULT))
    expected = enhance(coffee, engines.load(shipped, "float"))
    assert metrics.psnr(enhance(coffee, engines.load(shipped, name)), expected) > 40


@EVERY_NETWORK
@pytest.mark.parametrize("name", ["float", *INTEGERS])
def test_strips_of_the_residual_equal_the_whole(name, weights, coffee):
    engine = engines.load(weights, name)
    whole = _residual(engine, coffee, 400)
    np.testing.assert_allclose(_residual(engine, coffee, 36), whole, atol=1e-6)


@EVERY_NETWORK
def test_float_engine_is_the_network(weights, coffee):
    with torch.no_grad():
        expected = weights.build().network(as_tensor(coffee))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(_residual(engines.load(weights, "float"), coffee, 400), expected, atol=1e-5)


def _quantized(x: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(x.contiguous(memory_format=torch.channels_last), 1 / 255, 3, torch.quint8)


@pytest.mark.parametrize("channels", [3, 4, 6, 8, 12, 16, 24])
def test_joining_bytes_is_interleaving_and_concatenating(channels):
    phases, other = _quantized(torch.rand(1, 4 * channels, 5, 6)), _quantized(torch.rand(1, 2 * channels, 8, 10))
    expected = torch.cat([interleave(phases.dequantize()), other.dequantize()], dim=1)
    assert torch.equal(int8._joined([other], phases).dequantize(), expected)
    for half, there in zip(int8._halves(other), other.dequantize().chunk(2, dim=1), strict=True):
        assert torch.equal(half.dequantize(), there)


def test_tanh_is_looked_up_as_the_engine_computes_it():
    at = Activation(0.031, 117)
    x = torch._make_per_tensor_quantized_tensor(
        torch.randint(0, 256, (1, 6, 9, 7), dtype=torch.uint8).contiguous(memory_format=torch.channels_last),
        at.scale, at.zero_point,
    )  # fmt: skip
    table = int8._table(torch.tanh(int8._every_byte(at)))
    found = int8._looked_up(x, int8._of_pairs(table), TANH)
    assert torch.equal(found.int_repr(), torch.tanh(x).int_repr())
    assert found.q_scale() == torch.tanh(x).q_scale()


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    ("width", "without"), [(3, ""), (4, ""), (24, ""), (4, "residual"), (4, "fusion_refiner"), (4, "encoder_refiner")]
)
def test_strips_are_the_whole_bit_by_bit(name, width, without, astronaut, monkeypatch):
    """However few rows are computed at a time, at any width of the network and with every kind of block."""
    engine = engines.load(random_weights([astronaut[:64, :64]], width, without=without), name)
    photo = np.ascontiguousarray(astronaut[:136, :88])
    whole = engine.network.features(photo)
    monkeypatch.setattr(int8, "STRIP_VALUES", 1)
    monkeypatch.setattr(light, "STRIP_VALUES", 1)
    monkeypatch.setattr(light, "FEWEST_VALUES", 1)
    strips = engine.network.features(photo)
    for a, b in ((whole.local, strips.local), (whole.side, strips.side)):
        assert np.array_equal(*(x if name == engines.LIGHT else x.int_repr() for x in (a, b)))
    at_once = engine.network.residual(whole, 0, 136)
    for top in range(0, 136, 34):
        np.testing.assert_allclose(engine.network.residual(strips, top, top + 34), at_once[top : top + 34], atol=1e-6)


def test_auto_is_an_int8_engine_of_this_machine():
    assert engines.resolve("auto") in (*INTEGERS, engines.COMPILED)


def test_a_missing_engine_is_refused_with_a_list_of_those_there(weights, monkeypatch):
    monkeypatch.setattr(engines, "available", lambda: ("float", "qnnpack"))
    monkeypatch.setattr(installation, "has", lambda module: module == "torch")
    with pytest.raises(EngineError) as refused:
        engines.load(weights, "fbgemm")
    assert "fbgemm" in str(refused.value)
    assert "qnnpack" in refused.value.hint
    assert engines.resolve("auto") == "qnnpack"


def test_int8_on_a_gpu_is_refused(weights):
    with pytest.raises(EngineError, match="CPU only"):
        engines.load(weights, "fbgemm", device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test wants missing")
def test_a_missing_device_is_refused(weights):
    with pytest.raises(EngineError, match="no device cuda"):
        engines.load(weights, "auto", device="cuda")


def test_weights_without_ranges_run_in_float_only(weights):
    uncalibrated = dataclasses.replace(weights, activations=None)
    assert engines.load(uncalibrated).name == "float"
    with pytest.raises(WeightsError, match="no int8 ranges"):
        engines.load(uncalibrated, HERE[0])


def test_running_an_engine_leaves_the_process_setting_alone(weights, coffee):
    before = torch.backends.quantized.engine
    other = next(name for name in HERE if name != before)
    engines.load(weights, other).network.features(coffee)
    assert torch.backends.quantized.engine == before


# --- the float engine in strips -----------------------------------------------------------------------------------


@EVERY_NETWORK
@pytest.mark.parametrize("values", [1, 1 << 18])
def test_float_in_strips_is_the_network(weights, coffee, monkeypatch, values):
    """The smallest strips have edges and neighbours everywhere."""
    from qatie_cli.engines import floating

    monkeypatch.setattr(floating, "STRIP_VALUES", values)
    photo = np.ascontiguousarray(coffee[:392, :96])
    whole = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        expected = weights.build().network(whole)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(_residual(engines.load(weights, "float"), photo, 392), expected, atol=1e-5)


def test_rows_are_let_go_block_by_block():
    from qatie_cli.engines.floating import Rows

    rows, numbers = Rows(), torch.arange(12.0).view(1, 1, 12, 1)
    for block in numbers.split(4, 2):
        rows.append(block)
    assert rows.height == 12
    assert rows.between(3, 9).flatten().tolist() == [3, 4, 5, 6, 7, 8]
    assert rows.between(5, 8).data_ptr() == numbers[0, 0, 5].data_ptr()
    assert [block.flatten().tolist() for block in rows.let_go(7)] == [[0, 1, 2, 3]]
    assert len(rows.blocks) == 2
    assert rows.between(7, 12).flatten().tolist() == [7, 8, 9, 10, 11]
    rows.let_go(12)
    assert not rows.blocks


def test_an_engine_takes_one_photo_at_a_time(weights):
    """Two at once would take twice the memory that was reckoned with."""
    engine = engines.load(weights)
    inside = threading.Event()

    def compute():
        with engine.computing():
            inside.set()

    with engine.computing(), engine.computing():  # whoever has it may ask again
        other = threading.Thread(target=compute)
        other.start()
        assert not inside.wait(0.2)
    assert inside.wait(5)
    other.join()
