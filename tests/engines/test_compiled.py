"""The engine llvm: compiled convolutions, the bits they give, and where they run."""

from __future__ import annotations

import dataclasses
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from commands import qatie
from PIL import Image
from samples import random_weights, with_local_tone

from qatie_cli import engines, kernels, metrics
from qatie_cli.engines import compiled_convs
from qatie_cli.engines.compiled import CompiledNetwork
from qatie_cli.engines.floating import FloatNetwork
from qatie_cli.engines.norms import Norms
from qatie_cli.enhance.pixels import enhance
from qatie_cli.enhance.tiling import residual_of
from qatie_cli.errors import EngineError, PinnedEngineError
from qatie_cli.kernels import avx2_convolutions, convolutions, float_convolutions, machine_code, threads, vectors
from qatie_cli.model import checkpoint, folding, shipped
from qatie_cli.model.quantization.integers import integer_convs
from qatie_cli.model.quantization.scheme import activation_at

needs_llvm = pytest.mark.skipif(engines.COMPILED not in engines.available(), reason="the processor is another one")


@pytest.fixture(scope="module")
def narrow(astronaut):
    """Weights of the smallest width that the engine runs."""
    return random_weights([astronaut], 16)


@pytest.fixture(params=["here", "avx2"])
def convs(request, narrow, monkeypatch):
    """int8 convolutions in this processor's best instructions, and in AVX2 where these are others."""
    if request.param == "avx2":
        if machine_code.instructions() == "avx2":
            pytest.skip("they are the best here")
        monkeypatch.setattr(machine_code, "instructions", lambda: "avx2")
    return compiled_convs.integers(narrow)[0]


def _sums(weights, name: str, x: np.ndarray) -> np.ndarray:
    """The convolution `name` of stored integers (h, w, C) as its results are stored, by its definition."""
    conv = integer_convs(weights.state)[name]
    block, part = name.split(".")
    before = activation_at(compiled_convs._input_of(block, part), weights.activations)
    after = activation_at(f"{block}.{compiled_convs._OUTPUTS.get(part, part)}", weights.activations)
    padded = np.pad(x.astype(np.int64) - before.zero_point, ((conv.padding,) * 2, (conv.padding,) * 2, (0, 0)))
    side = conv.weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (0, 1))[:: conv.stride, :: conv.stride]
    sums = np.einsum("hwcyx,ocyx->hwo", windows, conv.weight.astype(np.int64))
    scale = conv.scales.astype(np.float64) * before.scale
    return after.stored(sums * scale + np.rint(conv.bias / scale) * scale)


# --- convolutions -------------------------------------------------------------------------------------------------


@needs_llvm
@pytest.mark.parametrize("name", ["refine1.local", "refine2.local", "bottleneck.side", "fuse1.up", "fuse2.up"])
@pytest.mark.parametrize("width", [1, 11, 16, 37])
def test_a_convolution_is_what_its_definition_says(name, width, narrow, convs):
    channels = integer_convs(narrow.state)[name].weight.shape[1]
    x = np.random.default_rng(0).integers(0, 256, (9, width, channels), np.uint8)
    x[:4] = 255  # the largest sums
    expected = _sums(narrow, name, x)
    before = activation_at(compiled_convs._input_of(*name.split(".")), narrow.activations)
    margin = integer_convs(narrow.state)[name].padding
    padded = np.pad(x, ((margin,) * 2, (margin,) * 2, (0, 0)), constant_values=before.zero_point)
    found = np.full((*expected.shape[:2], expected.shape[2]), 77, np.uint8)
    convs[name](padded, found)
    # float32 and float64 round the other way where a sum lies in the middle.
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < 1e-3


@needs_llvm
@pytest.mark.parametrize("name", ["qatie-c16", "qatie-c32"])
def test_the_tail_is_that_of_floats(name):
    weights = checkpoint.read(shipped.locate(name))
    convs, at = compiled_convs.integers(weights)[0], activation_at("decode1.out", weights.activations)
    x = np.random.default_rng(0).integers(0, 256, (7, 20, weights.config.network.width), np.uint8)
    weight, bias = folding.fold_tail(weights.state)
    real = np.pad(at.real(x), ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(real, (3, 3), (0, 1))
    phases = np.einsum("hwcyx,ocyx->hwo", windows, weight) + bias
    expected = phases.reshape(7, 20, 3, 2, 2).transpose(0, 3, 1, 4, 2).reshape(14, 40, 3)
    stored = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=at.zero_point).astype(np.int16) - at.zero_point
    found = np.empty((14, 40, 3), np.float32)
    convs["tail"].phases(stored, found)
    assert np.abs(found - expected).max() < 0.01 / 255
    assert np.ptp(expected) > 10 / 255


def test_sums_of_the_tail_fit_into_int32_however_even_its_weights_are(narrow, monkeypatch):
    even = np.ones((12, 48, 3, 3)), np.zeros(12)
    monkeypatch.setattr(compiled_convs, "fold_tail", lambda state: even)
    tail = compiled_convs._tail(narrow, {})
    weights = tail.weights.astype(np.int64).reshape(-1, compiled_convs.LANES, 2).sum((0, 2))[:12]
    assert (weights * 255 <= np.iinfo(np.int32).max).all()
    assert (weights * 255 > 0.99 * np.iinfo(np.int32).max).all()  # and are as fine as that allows


@needs_llvm
def test_a_norm_that_float32_does_not_give_is_looked_up(narrow, astronaut, monkeypatch):
    network = engines.load(narrow, "llvm").network
    expected = residual_of(network, astronaut, None)
    computed = Norms.norm

    def by_table(*given):
        norm = computed(*given)
        assert norm.factors is not None
        return dataclasses.replace(norm, factors=None, offsets=None)

    monkeypatch.setattr(Norms, "norm", by_table)
    np.testing.assert_array_equal(residual_of(network, astronaut, None), expected)


def test_pairs_of_taps_fit_int16_whatever_their_weights():
    """The bytes of a tap may all be 255, and products of two taps are added by twos."""
    packed = np.random.default_rng(0).normal(0, 25, (2, 3, 5, 2, 16, 4)).clip(-64, 63).astype(np.int8)
    packed[:, 0, 0] = 63  # fits beside nothing
    pairs, weights = compiled_convs._paired(packed)
    taps = 255 * weights.astype(int).reshape(2, len(pairs), 2, 2, 16, 2, 2)
    assert np.maximum(taps, 0).sum((3, 6)).max() <= np.iinfo(np.int16).max
    assert np.minimum(taps, 0).sum((3, 6)).min() >= np.iinfo(np.int16).min
    found = np.zeros_like(packed)
    for pair, both in zip(pairs, np.moveaxis(weights, 1, 0), strict=True):
        for (row, byte), values in zip(pair, np.moveaxis(both, 2, 0), strict=True):
            found[:, row, byte // 4] += values  # each tap once; the filling is 0
    np.testing.assert_array_equal(found, packed)
    assert len(pairs) < 15


@needs_llvm
@pytest.mark.parametrize(
    ("processor", "kind", "writers"),
    [
        ("icelake-server", "avx512", convolutions),
        ("icelake-server", "avx512", float_convolutions),
        ("haswell", "avx2", avx2_convolutions),
        ("haswell", "avx2", float_convolutions),
    ],
)
def test_code_for_another_processor_can_be_assembled(processor, kind, writers):
    from llvmlite import binding

    kinds = [("stored", 1), ("leaky", 1), ("sum", 1), ("gate", 2), ("residual", 1)]
    shapes = [vectors.Shape(32, width, vectors.PIXELS[kind][width], after) for after, width in kinds]
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()
    machine = binding.Target.from_default_triple().create_target_machine(cpu=processor, features="-prefer-256-bit")
    assert len(machine_code._compiled(vectors.source(shapes, writers.Convolution, writers.Join), machine)) > 5_000


# --- the engine ---------------------------------------------------------------------------------------------------


@needs_llvm
@pytest.mark.parametrize("name", ["qatie-c16", "qatie-c32"])
def test_shipped_weights_agree_with_onnxruntime_and_float(name, coffee):
    weights = checkpoint.read(shipped.locate(name))
    ours, light, real = (enhance(coffee, engines.load(weights, e)) for e in ("llvm", "onnxruntime", "float"))
    assert metrics.finite_psnr(ours, light) > 60
    assert metrics.finite_psnr(ours, real) > 45


@needs_llvm
@pytest.mark.parametrize("size", [(8, 8), (8, 200), (264, 8), (72, 104)])
def test_photos_of_any_shape_agree_with_onnxruntime(size, narrow, astronaut):
    photo = np.ascontiguousarray(astronaut[: size[0], : size[1]])
    ours, light = (residual_of(engines.load(narrow, e).network, photo, None) for e in ("llvm", "onnxruntime"))
    assert np.ptp(light) > 0.01
    assert np.abs(ours - light).mean() < 0.05 * np.abs(light).mean()  # what is not trained multiplies differences


@needs_llvm
@pytest.mark.parametrize("number", [1, 3])
def test_neither_threads_nor_short_strips_change_a_bit(number, narrow, astronaut, monkeypatch):
    from qatie_cli.engines import compiled

    network = engines.load(narrow, "llvm").network
    expected = residual_of(network, astronaut, None)
    for name in ("_STRIPS_BYTES", "_MOST_BYTES", "_FEWEST_BYTES"):
        monkeypatch.setattr(compiled, name, 1)
    with threads.limited(number):
        np.testing.assert_array_equal(residual_of(network, astronaut, None), expected)


@needs_llvm
def test_tiles_are_the_whole_within_a_level(narrow, astronaut):
    engine = engines.load(with_local_tone(narrow), "llvm")
    whole_photo = enhance(astronaut, engine).astype(int)
    assert np.abs(enhance(astronaut, engine, tile_side=256).astype(int) - whole_photo).max() <= 1


@needs_llvm
def test_a_network_without_a_residual_gives_the_photo(astronaut):
    weights = random_weights([astronaut], 16, without="residual")
    ours, light = (residual_of(engines.load(weights, e).network, astronaut, None) for e in ("llvm", "onnxruntime"))
    assert np.abs(ours - light).mean() < 0.05 * np.abs(light).mean()


@needs_llvm
def test_memory_kept_from_photo_to_photo_changes_nothing_and_is_let_go(narrow, astronaut):
    network = engines.load(narrow, "llvm").network
    photos = astronaut, np.ascontiguousarray(astronaut[:256, ::-1]), np.ascontiguousarray(astronaut[::-1])
    expected = [residual_of(network, photo, None) for photo in photos]
    with network.reusing_memory():
        first = network.features(photos[0])
        for _ in range(2):
            for photo, wanted in zip(photos, expected, strict=True):
                np.testing.assert_array_equal(residual_of(network, photo, None), wanted)
        assert network._pool._free
        # What is still in use is not given to another photo.
        np.testing.assert_array_equal(network.residual(first, 0, 512), expected[0])
    assert not network._pool._free
    del first
    assert not network._pool._free


# --- float --------------------------------------------------------------------------------------------------------


@pytest.fixture
def float_network(narrow):
    made = engines.load(narrow, "float").network
    assert isinstance(made, CompiledNetwork)
    return made


@needs_llvm
@pytest.mark.parametrize("size", [(8, 8), (8, 200), (264, 8), (512, 512)])
def test_float_is_that_of_torch(size, narrow, float_network, astronaut):
    photo = np.ascontiguousarray(astronaut[: size[0], : size[1]])
    expected = residual_of(FloatNetwork(narrow.build().network, "cpu"), photo, None)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(residual_of(float_network, photo, None), expected, atol=2e-4, rtol=1e-4)


@needs_llvm
@pytest.mark.parametrize("number", [1, 3])
def test_threads_change_no_bit_of_float(number, float_network, astronaut):
    expected = residual_of(float_network, astronaut, None)
    with threads.limited(number):
        np.testing.assert_array_equal(residual_of(float_network, astronaut, None), expected)


@needs_llvm
def test_tiles_are_the_whole_in_float(narrow, astronaut):
    engine = engines.load(with_local_tone(narrow), "float")
    whole_photo = enhance(astronaut, engine).astype(int)
    assert np.abs(enhance(astronaut, engine, tile_side=256).astype(int) - whole_photo).max() <= 1


@needs_llvm
def test_tanh_is_that_of_numpy(narrow):
    """A gate of one tap whose weights pass the photo on."""
    conv = compiled_convs.floats(narrow)[0]["down1.pair"]
    weights = np.zeros_like(conv.weights)
    weights[:, 0, 0] = 1.0  # of the first row of taps its first value, for all channels
    given = np.linspace(-12, 12, 20, dtype=np.float32)
    x = np.zeros((3, 42, 4), np.float32)
    x[0, 0:40:2, 0] = given
    pair, product = np.empty((1, 20, 32), np.float32), np.empty((1, 20, 16), np.float32)
    dataclasses.replace(conv, weights=weights, bias=np.zeros(32, np.float32))(x, pair, product)
    expected = np.tanh(given.astype(float))[None, :, None]
    assert np.abs(pair - expected).max() < 3e-7
    assert np.abs(product - expected**2).max() < 6e-7


# --- memory -------------------------------------------------------------------------------------------------------


@needs_llvm
@pytest.mark.parametrize("name", ["llvm", "float"])
def test_features_take_the_memory_that_is_counted_for_them(name, narrow, coffee):
    """NumPy reports its arrays to tracemalloc. Tiles are chosen by this number; strips take more of a smaller photo."""
    photo = np.tile(coffee, (5, 4, 1))[:2000, :2000]
    network = engines.load(narrow, name).network
    network.features(np.ascontiguousarray(photo[:64, :64]))  # compiles its kernels
    with threads.limited(1):
        tracemalloc.start()
        try:
            network.features(photo)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert 0.6 < peak / photo[..., 0].size / network.bytes_per_pixel < 1.05


@needs_llvm
def test_memory_that_is_kept_is_counted(narrow, coffee):
    """Kept memory fits only tensors of its own size, so a small photo takes more than without."""
    photo, engine = (
        np.ascontiguousarray(np.tile(coffee, (2, 2, 1))[:640, :640]),
        engines.load(narrow, "llvm", threads=2),
    )
    network, strip = engine.network, 64
    network.features(np.ascontiguousarray(photo[:64, :64]))
    bare = network.bytes_per_pixel
    with threads.limited(2), engine.reusing_memory():
        tracemalloc.start()
        try:
            for _ in range(2):
                network.residual(network.features(photo), 0, strip)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        counted = network.bytes_per_pixel
    assert bare < peak / photo[..., 0].size < counted < 1.2 * bare
    assert network.bytes_per_pixel == bare


@needs_llvm
def test_memory_that_is_kept_is_not_given_again_while_a_part_of_it_is_in_use(narrow, coffee):
    network = engines.load(narrow, "llvm").network
    photo = np.ascontiguousarray(coffee[:64, :64])
    with network.reusing_memory():
        features = network.features(photo)
        part = network.residual(features, 0, 32)[:, 8:16]
        before = part.copy()
        network.residual(features, 32, 64)
        assert (part == before).all()
        first = network.residual(network.features(photo), 0, 64)
        other = network.residual(network.features(photo[::-1].copy()), 0, 64)
    assert (first == network.residual(network.features(photo), 0, 64)).all()
    assert (first != other).any()


# --- code that is kept --------------------------------------------------------------------------------------------


@needs_llvm
def test_code_is_compiled_once_and_a_damaged_file_is_made_anew(narrow, empty_home, monkeypatch):
    compiled_convs._functions.cache_clear()
    compiled_convs.integers(narrow)
    (kept,) = (empty_home / "machine-code").iterdir()
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    compiled_convs._functions.cache_clear()
    compiled_convs.integers(narrow)
    assert kept.read_bytes() == content
    monkeypatch.setattr(machine_code, "_compiled", lambda *given: pytest.fail("it is there"))
    compiled_convs._functions.cache_clear()
    compiled_convs.integers(narrow)


@needs_llvm
def test_code_of_another_generator_is_not_taken_for_this_one_s(tmp_path, monkeypatch):
    """As after an update of qatie: the shapes are the same."""
    keys = []
    monkeypatch.setattr(machine_code, "functions", lambda source, names, key: keys.append(key) or dict.fromkeys(names))
    for index in range(2):
        (tmp_path / f"{index}.py").write_text(f"# version {index}")
        writers = SimpleNamespace(__file__=str(tmp_path / f"{index}.py"))
        compiled_convs._functions.__wrapped__(frozenset([compiled_convs.Shape(16, 1, 8, "stored")]), (writers,))
    assert len(set(keys)) == 2


@needs_llvm
def test_a_home_that_cannot_be_written_to_is_no_obstacle(narrow, astronaut, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QATIE_HOME", str(tmp_path / "file" / "home"))
    compiled_convs._functions.cache_clear()
    assert np.isfinite(residual_of(engines.load(narrow, "llvm").network, astronaut, None)).all()


# --- which engine -------------------------------------------------------------------------------------------------


@needs_llvm
def test_auto_takes_it_for_all_but_small_photos(narrow):
    assert engines.load(narrow).name == "llvm"
    assert engines.load(narrow, pixels=kernels.WORTH_IMPORTING).name == "llvm"
    small = engines.load(narrow, pixels=kernels.WORTH_IMPORTING - 1)
    assert small.name == "onnxruntime"
    assert "small" in small.reason
    assert engines.load(narrow, begun_on="llvm", pixels=100).name == "llvm"
    assert engines.load(narrow, "llvm", pixels=100).name == "llvm"


@needs_llvm
@pytest.mark.parametrize("kind", [{"width": 8}, {"width": 16, "without": "encoder_refiner"}])
def test_networks_that_it_cannot_run_are_named(kind, astronaut):
    weights = random_weights([astronaut], **kind)
    with pytest.raises(EngineError, match=f"llvm cannot run a network of width {kind['width']}"):
        engines.load(weights, "llvm")
    assert engines.load(weights).name == "onnxruntime"
    with pytest.raises(PinnedEngineError, match="begun on llvm"):
        engines.load(weights, begun_on="llvm")


def test_on_another_processor_auto_takes_onnxruntime(narrow, monkeypatch):
    monkeypatch.setattr(machine_code, "instructions", lambda: None)
    assert engines.load(narrow).name == "onnxruntime"
    assert "llvm" not in engines.available()
    with pytest.raises(EngineError, match="no engine llvm"):
        engines.load(narrow, "llvm")


def test_it_is_left_alone_where_it_was_never_tried(monkeypatch):
    monkeypatch.setattr(machine_code.platform, "system", lambda: "Windows")
    assert not machine_code.instructions.__wrapped__()


@needs_llvm
def test_an_llvm_with_other_pointers_is_left_alone(monkeypatch):
    from llvmlite import binding

    assert machine_code.instructions.__wrapped__()
    monkeypatch.setattr(binding, "llvm_version_info", (15, 0, 7))
    assert not machine_code.instructions.__wrapped__()


@needs_llvm
def test_without_numba_auto_takes_onnxruntime(narrow, monkeypatch):
    monkeypatch.setenv("QATIE_NO_NUMBA", "1")
    assert engines.load(narrow).name == "onnxruntime"


@needs_llvm
def test_the_command_takes_the_light_engine_for_one_small_photo(coffee, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(coffee).save(folder / "a.jpg")
    one = qatie("enhance", folder, "-o", tmp_path / "one", "--verbose").stderr
    assert "int8 on onnxruntime (it starts fastest" in one
    Image.fromarray(coffee[::-1]).save(folder / "b.jpg")
    assert "int8 on llvm (the fastest here" in qatie("enhance", folder, "-o", tmp_path / "two", "--verbose").stderr
