"""TFLite models: computing what our engines compute, with the integers of the weights file, as phones expect them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
from samples import EVERY_NETWORK, FINE, LOCAL, LOCAL_BY_LUMA, flattened, random_weights, smoothed, with_local_tone

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import DataError
from qatie_cli.exchange import runtimes
from qatie_cli.model import checkpoint, config, tone, tone_features
from qatie_cli.model import shipped as shipped_weights
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import ToneConfig
from qatie_cli.model.quantization.integers import integer_convs
from qatie_cli.model.quantization.scheme import PHOTO, TANH

pytest.importorskip("ai_edge_litert")

from ai_edge_litert.interpreter import Interpreter

from qatie_cli.exchange.tflite import build
from qatie_cli.exchange.tflite.reading import Graph, schema

SIZES = [(256, 384), (200, 320)]
TONES = {
    "convolutions": ToneConfig(),
    "statistics": ToneConfig(channels=0, bins=16),
    "both": ToneConfig(channels=4, bins=8),
    "quantiles": ToneConfig(channels=0, quantiles=True),
    "gains": LOCAL,
    "gains by luma": LOCAL_BY_LUMA,
    "rules": FINE,
    "none": None,
}


@pytest.fixture(scope="module")
def shipped() -> Weights:
    return checkpoint.read(shipped_weights.locate(shipped_weights.DEFAULT))


@pytest.fixture(scope="module", params=TONES)
def toned(request, astronaut, coffee) -> Weights:
    """Small weights with each kind of tone stage, whose decision depends on the photo."""
    made = random_weights([astronaut, coffee], 4, TONES[request.param])
    if made.config.tone is not None:
        rng = np.random.default_rng(3)
        made.state["tone.decide.weight"][:] = rng.normal(0, 0.05, made.state["tone.decide.weight"].shape)
    return made


def _crop(photo: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.ascontiguousarray(photo[: size[0], : size[1]])


def _graph(content: bytes) -> Graph:
    return Graph(schema.ModelT.InitFromPackedBuf(content, 0))


@pytest.mark.parametrize("reference", [False, True], ids=["xnnpack", "reference"])
@pytest.mark.parametrize("size", SIZES)
def test_int8_of_the_shipped_weights_is_the_int8_engine(size, reference, shipped, coffee):
    photo = _crop(coffee, size)
    ours, exact = (enhance(photo, engines.load(shipped, name)) for name in ("auto", "float"))
    for fixed in (size, None):
        computed = runtimes.litert(build(shipped, int8=True, size=fixed), photo, reference=reference)
        assert metrics.psnr(computed, ours) > 45
        assert metrics.psnr(computed, exact) > min(40, metrics.psnr(ours, exact) - 0.5)


@pytest.mark.parametrize("reference", [False, True], ids=["xnnpack", "reference"])
def test_float_is_the_float_engine_with_every_kind_of_tone_stage(reference, toned, astronaut):
    written = build(toned, int8=False)
    for size in SIZES:
        photo = _crop(astronaut, size)
        expected = enhance(photo, engines.load(toned, "float"))
        assert metrics.psnr(expected, photo) < 45
        assert metrics.psnr(runtimes.litert(written, photo, reference=reference), expected) > 60


@EVERY_NETWORK
@pytest.mark.parametrize("reference", [False, True], ids=["xnnpack", "reference"])
def test_every_network_is_that_of_our_engines(reference, weights, coffee):
    photo = _crop(coffee, SIZES[1])
    for int8, least in ((False, 60), (True, 40)):
        ours = enhance(photo, engines.load(weights, "auto" if int8 else "float"))
        assert metrics.psnr(runtimes.litert(build(weights, int8=int8), photo, reference=reference), ours) > least


@pytest.mark.parametrize("contrast", [0.24, 0.1])
def test_tone_of_a_flat_photo_is_carried_out_as_far_as_ours(contrast, toned, astronaut):
    photo = flattened(_crop(astronaut, SIZES[0]), contrast)
    expected = enhance(photo, engines.load(toned, "float"))
    assert metrics.psnr(runtimes.litert(build(toned, int8=False), photo), expected) > 60


def test_int8_is_the_int8_engine_with_every_kind_of_tone_stage(toned, astronaut):
    photo = _crop(astronaut, SIZES[0])
    computed = runtimes.litert(build(toned, int8=True), photo)
    # A rounding that falls the other way is amplified by random weights more than by trained ones.
    assert metrics.psnr(computed, enhance(photo, engines.load(toned))) > 40


@pytest.mark.parametrize("reference", [False, True], ids=["xnnpack", "reference"])
@pytest.mark.parametrize("size", SIZES)
def test_int8_behind_gains_from_place_to_place_is_the_int8_engine(size, reference, shipped, astronaut):
    weights, photo = with_local_tone(shipped), _crop(astronaut, size)
    assert np.ptp(tone.decide(weights.build().tone, photo).grid) > 0.5
    ours = enhance(photo, engines.load(weights))
    for fixed in (size, None):
        computed = runtimes.litert(build(weights, int8=True, size=fixed), photo, reference=reference)
        assert metrics.psnr(computed, ours) > 45


@pytest.mark.parametrize("reference", [False, True], ids=["xnnpack", "reference"])
@pytest.mark.parametrize("smooth", [0.7, 0.9])
def test_a_smooth_photo_s_tone_is_changed_as_far_as_by_our_engines(smooth, reference, shipped, astronaut):
    weights, photo = with_local_tone(shipped), smoothed(_crop(astronaut, SIZES[0]), smooth)
    view = tone.view(photo, config.LOCAL_VIEW_PX)
    share = float(tone_features.texture_confidence(view))
    assert 0.1 < share < 0.9 if smooth < 0.9 else share == 0
    assert tone_features.confidence(tone.statistics_view(view)) == 1
    for int8, least in ((False, 60), (True, 45)):
        ours = enhance(photo, engines.load(weights, "auto" if int8 else "float"))
        computed = runtimes.litert(build(weights, int8=int8), photo, reference=reference)
        assert metrics.psnr(computed, ours) > least


def test_the_grid_is_never_held_at_the_photo_s_size(astronaut):
    height, width = SIZES[0]
    graph = _graph(build(random_weights([astronaut], 4, LOCAL), int8=False, size=SIZES[0]))
    shapes = [tuple(tensor.shape) for tensor in graph.model.subgraphs[0].tensors]
    channels = [np.prod(shape) // (height * width) for shape in shapes if height in shape and width in shape]
    assert max(channels) == 3  # the grid has eight


@pytest.mark.parametrize("int8", [False, True])
def test_inputs_and_output_are_what_the_readme_says(int8, weights):
    run = Interpreter(model_content=build(weights, int8=int8, size=(64, 96)))
    kind = np.uint8 if int8 else np.float32
    entries = {
        d["name"]: (tuple(d["shape"]), d["dtype"]) for d in (*run.get_input_details(), *run.get_output_details())
    }
    photo = ((1, 64, 96, 3), kind)
    assert entries == {"photo": photo, "thumbnail": ((1, 64, 64, 3), kind), "enhanced": photo}
    assert run.get_signature_list() == {"serving_default": {"inputs": ["photo", "thumbnail"], "outputs": ["enhanced"]}}
    if int8:
        for entry in (*run.get_input_details(), *run.get_output_details()):
            assert entry["quantization"] == (pytest.approx(1 / 255), 0)


def test_weights_without_a_tone_stage_need_no_thumbnail(astronaut):
    plain = random_weights([astronaut], 4, None)
    run = Interpreter(model_content=build(plain, int8=True))
    assert [d["name"] for d in run.get_input_details()] == ["photo"]


@EVERY_NETWORK
def test_integers_are_those_of_the_weights_file(weights):
    graph = _graph(build(weights, int8=True))
    tensors = graph.model.subgraphs[0].tensors
    known = {(np.float32(a.scale), a.zero_point - 128) for a in (PHOTO, TANH, *weights.activations.values())}
    outputs = [o for _, _, outputs in graph.operators() for o in outputs]
    stored = {
        (tensors[o].quantization.scale[0], tensors[o].quantization.zeroPoint[0])
        for o in outputs
        if tensors[o].type == schema.TensorType.INT8
    }
    assert stored == known
    kernels = [graph.stored(i) for i in graph.constants().values()]
    kernels = [k for k in kernels if k.dtype == np.int8 and k.ndim == 4]
    sums = sorted(int(conv.weight.sum()) for conv in integer_convs(weights.state).values())
    assert sorted(int(kernel.sum(dtype=np.int64)) for kernel in kernels) == sums


@EVERY_NETWORK
def test_concatenations_keep_the_resolution_of_the_gates(weights):
    graph = _graph(build(weights, int8=True))
    tensors = graph.model.subgraphs[0].tensors
    joined = [[tensors[i].quantization.scale[0] for i in (*ins, *outs)] for n, ins, outs in graph.operators()
              if n == "CONCATENATION" and tensors[outs[0]].type == schema.TensorType.INT8]  # fmt: skip
    assert all(len(set(scales)) == 1 for scales in joined)
    assert sum(scales[0] == TANH.scale for scales in joined) == 2


def test_constants_lie_where_processors_read_them_best(weights):
    content = build(weights, int8=True)
    model = schema.Model.GetRootAs(content, 0)
    data = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    offsets = {int(d.__array_interface__["data"][0] - start) % 16 for d in data}
    assert offsets == {0}


def test_a_model_says_what_it_is(weights):
    told = json.loads(_graph(build(weights, int8=True)).metadata("qatie"))
    assert told["arithmetic"] == "int8"
    assert told["config"] == weights.config.to_table()


@EVERY_NETWORK
@pytest.mark.parametrize("int8", [False, True])
def test_tensors_of_the_graph_are_not_stored_a_second_time(int8, weights):
    graph = _graph(build(weights, int8=int8))
    told, beside = json.loads(graph.metadata("qatie")), safetensors.numpy.load(graph.metadata("qatie.tensors"))
    assert {"network.bottleneck.inner.weight", "tone.decide.weight"} <= set(told["held"])
    assert set(beside) == set(weights.state) - set(told["held"])


def test_a_photo_of_another_size_is_refused_in_one_line(weights, coffee):
    with pytest.raises(DataError, match=r"takes \(1, 64, 96, 3\)"):
        runtimes.litert(build(weights, int8=False, size=(64, 96)), coffee)
