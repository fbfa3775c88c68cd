"""The graph's backends against each other and against our engine, over generated structures, sizes and photos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import examples
from samples import FINE, random_weights

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.exchange import runtimes
from qatie_cli.model.config import OPTIONS, ToneConfig

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

from qatie_cli.exchange import onnx, tflite

tones = st.tuples(*map(st.sampled_from, ((0, 4), (0, 8, 12), (False, True), (0, 16, FINE)))).map(
    lambda t: (
        t[3]
        if isinstance(t[3], ToneConfig)
        else ToneConfig(channels=4 if t[3] else t[0], bins=t[1] or (0 if t[2] else 8), quantiles=t[2], grid=t[3])
    )
)


@examples(8, shrink=False)
@given(
    st.none() | tones,
    st.sampled_from(("", *OPTIONS)),
    st.integers(2, 20).map(lambda n: 8 * n),
    st.integers(2, 20).map(lambda n: 8 * n),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_both_backends_compute_what_our_float_engine_computes(tone, without, height, width, seed, fixed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    photo = np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8)) // 2 + rng.integers(0, 99, 3, np.uint8))
    weights = random_weights([photo], 4, tone, without)
    ours = enhance(photo, engines.load(weights, "float"))
    size = (height, width) if fixed else None
    by_onnx = runtimes.onnxruntime(onnx.build(weights, int8=False, size=size).SerializeToString(), photo)
    by_tflite = runtimes.litert(tflite.build(weights, int8=False, size=size), photo)
    for computed in (by_onnx, by_tflite):
        # Single precision may round a value of 8 bit, which the network sees, to its neighbour.
        assert metrics.finite_psnr(computed, ours) > 55
    assert metrics.finite_psnr(by_onnx, by_tflite) > 55
