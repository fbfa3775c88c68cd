"""Ranges, integers and equalization."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from samples import EVERY_NETWORK, as_tensor

from qatie_cli.model.config import NetworkConfig
from qatie_cli.model.network import Network
from qatie_cli.model.quantization import calibration, equalization, integers, rounding, scheme
from qatie_cli.model.quantization.fake import FakeQuantizer
from qatie_cli.model.quantization.scheme import Activation


class _Recorder:
    """Remembers the names of all points, and the tensors there."""

    def __init__(self) -> None:
        self.activations: dict[str, torch.Tensor] = {}
        self.weights: set[str] = set()

    def weight(self, name, weight):
        self.weights.add(name)
        return weight

    def activation(self, name, x):
        self.activations[name] = x
        return x


@pytest.fixture
def net(weights) -> Network:
    return copy.deepcopy(weights.build().network)  # the weights are shared by all tests


@EVERY_NETWORK
def test_every_point_of_the_network_is_calibrated_or_fixed(net):
    seen = _Recorder()
    net.features(torch.rand(1, 3, 16, 16), seen)
    fixed = {n for n in seen.activations if scheme.is_tanh_scaled(n)} | {"photo"}
    assert set(seen.activations) == set(scheme.calibrated_points(net.config)) | fixed


@EVERY_NETWORK
def test_every_weight_of_the_network_has_its_integers(net, weights):
    seen = _Recorder()
    net.features(torch.rand(1, 3, 16, 16), seen)
    assert seen.weights == set(integers.integer_convs(weights.state))


def test_integers_cannot_saturate_sixteen_bit_pairs(weights):
    """Two u8 * s8 products added in int16, as CPUs without VNNI do."""
    for conv in integers.integer_convs(weights.state).values():
        assert conv.weight.min() >= -64
        assert conv.weight.max() <= 63
        assert 2 * 255 * int(np.abs(conv.weight.astype(int)).max()) <= 32767


def test_integers_reproduce_the_weight_within_half_a_step():
    weight = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
    values, scales = scheme.integer_weight(weight)
    error = np.abs(values * scales.reshape(-1, 1, 1, 1) - weight).max((1, 2, 3))
    assert (error <= scales / 2 + 1e-7).all()
    assert np.abs(values.astype(int)).max() >= 63


def test_training_rounds_weights_to_the_very_integers(weights):
    for name, values in weights.state.items():
        if values.ndim == 4:
            integers, scales = scheme.integer_weight(values)
            rounded = FakeQuantizer({}).weight(name, torch.from_numpy(values)).numpy()
            np.testing.assert_array_equal(rounded, integers * scales.reshape(-1, 1, 1, 1))


def test_a_channel_of_zeros_has_a_usable_scale():
    values, scales = scheme.integer_weight(np.zeros((2, 3, 1, 1), np.float32))
    assert (scales > 0).all()
    assert (values == 0).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)])
def test_ranges_hold_zero_exactly(low, high):
    a = Activation.covering(low, high)
    assert 0 <= a.zero_point <= 255
    assert a.scale * (255 - a.zero_point) >= high - a.scale
    assert -a.scale * a.zero_point <= low + a.scale


def test_fake_quantization_leaves_only_256_levels():
    fake = FakeQuantizer({"x": Activation.covering(-1, 2)})
    rounded = fake.activation("x", torch.linspace(-3, 4, 10_000).view(1, 1, 1, -1))
    assert len(rounded.unique()) == 256
    assert rounded.min() >= -1.01
    assert rounded.max() <= 2.01


def test_gradients_pass_fake_quantization_inside_the_range_only():
    fake = FakeQuantizer({"x": Activation.covering(-1, 1)})
    x = torch.tensor([[[[0.5, 5.0]]]], requires_grad=True)
    fake.activation("x", x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0]


@EVERY_NETWORK
def test_equalizing_leaves_the_float_network_as_it_was(net, astronaut, coffee):
    torch.manual_seed(0)
    for name, p in net.named_parameters():
        if name.endswith(("inner.weight", "side.weight", "up.weight")):  # channels of very unequal size
            p.mul_(torch.rand(p.shape[0], 1, 1, 1) * 3 + 0.02)
    photo = as_tensor(astronaut)
    equalized = copy.deepcopy(net)
    equalization.equalize(equalized, [photo, as_tensor(coffee)])
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), equalized.parameters(), strict=True))
    before = net(photo)
    assert (equalized(photo) - before).abs().max() < 2e-3 * before.abs().max()


@EVERY_NETWORK
def test_what_joins_the_gates_fits_their_range_after_equalizing(net, astronaut):
    photo = as_tensor(astronaut)
    equalization.equalize(net, [photo])
    seen = _Recorder()
    net.features(photo, seen)
    for name in ("fuse1.up", "fuse1.encoded", "fuse2.up", "fuse2.encoded"):
        values = seen.activations[name].abs()
        beyond = values > 1.01  # outliers, which are clipped
        assert beyond.float().mean() < 1 / calibration.CLIP_RMS**2
        assert values.amax() > 0.5


def test_equalizing_unequal_channels_brings_int8_closer_to_float(net, astronaut):
    photo = as_tensor(astronaut)
    torch.manual_seed(0)
    for block in (net.refine1, net.decode1):
        factor = 10 ** (torch.rand(block.inner.out_channels) * 3 - 1.5)
        block.inner.weight.mul_(factor.view(-1, 1, 1, 1))
        block.inner.bias.mul_(factor)
        block.outer.weight.div_(factor.view(1, -1, 1, 1))

    def error(candidate: Network) -> float:
        ranges = calibration.calibrate(candidate, [photo])
        return float((candidate(photo, FakeQuantizer(ranges)) - candidate(photo)).square().mean())

    equalized = copy.deepcopy(net)
    equalization.equalize(equalized, [photo])
    assert error(equalized) < 0.5 * error(net)


def test_calibration_prefers_a_clipped_range_over_a_coarse_one():
    observed = calibration.Extremes()
    x = torch.cat([torch.randn(1, 1, 1, 1_000_000), torch.full((1, 1, 1, 1), 10.0)], dim=-1)
    observed.activation("x", x)
    histogram = calibration.Histograms(observed)
    histogram.activation("x", x)
    assert histogram.range_of("x").scale < 0.8 * Activation.covering(float(x.min()), 10.0).scale


def test_rare_values_far_out_do_not_coarsen_a_range(net, monkeypatch):
    values = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0, 0] = 300.0

    def features(photo, rounding):
        for name in scheme.calibrated_points(net.config):
            rounding.activation(name, photo)

    monkeypatch.setattr(net, "features", features)
    ranges = calibration.calibrate(net, [values], power=4)
    reach = calibration.CLIP_RMS * float(values.square().mean().sqrt())
    assert ranges["refine1.y"].scale * scheme.ACTIVATION_MAX < 2.01 * reach
    gate = Activation.covering(-scheme.TANH_REACH, scheme.TANH_REACH)
    assert ranges["down1.pre"].scale <= gate.scale
    whole = calibration.calibrate(net, [values], power=4, clip_rms=None)
    assert whole["refine1.y"].scale > 5 * ranges["refine1.y"].scale
    assert whole["down1.pre"].scale <= gate.scale


def test_missing_ranges_are_named(weights):
    ranges = dict(weights.activations)
    del ranges["refine1.y"]
    assert scheme.missing_points(NetworkConfig(), ranges) == ["refine1.y"]


def test_photo_is_stored_as_it_is():
    levels = np.arange(256, dtype=np.uint8)
    stored = FakeQuantizer({}).activation("photo", torch.from_numpy(levels.astype(np.float32) / 255).view(1, 1, 1, -1))
    assert np.array_equal(np.rint(stored.numpy().ravel() * 255), levels)


@pytest.mark.parametrize("width", [1, 5, 24])
def test_any_width_can_be_quantized(width):
    net = Network(NetworkConfig(width)).requires_grad_(False)
    photo = torch.rand(1, 3, 24, 32)
    equalization.equalize(net, [photo])
    assert not scheme.missing_points(net.config, calibration.calibrate(net, [photo]))


def test_rounding_keeps_each_channel_s_mean_where_it_was():
    """By weights that were nearly halfway between two integers, moved by less than a step."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 16, 3, 3, generator=generator) * 0.1
    mean = torch.rand(16, generator=generator)
    moved = weight.clone()
    rounding._keep_means(moved, mean)

    def shift(of: torch.Tensor) -> torch.Tensor:
        """What rounding adds to the mean of each channel's output, against the weights as they were."""
        rounded = FakeQuantizer({}).weight("any", of)
        return ((rounded - weight) * mean.view(1, -1, 1, 1)).sum((1, 2, 3)).abs()

    assert (shift(moved) <= shift(weight)).all()
    assert shift(moved).sum() < 0.35 * shift(weight).sum()
    steps = scheme.integer_weight(weight.numpy())[1].reshape(-1, 1, 1, 1)
    assert (np.abs((moved - weight).numpy()) < 0.51 * steps).all()
    assert 0 < ((moved - weight).abs() > 1e-6).float().mean() < 0.05
    np.testing.assert_allclose(scheme.integer_weight(moved.numpy())[1], steps.ravel(), rtol=1e-6)
