"""The network is the paper's, and its folded forms equal what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qatie_cli.model import network, whole
from qatie_cli.model.config import OPTIONS, NetworkConfig
from qatie_cli.model.moments import HALO
from qatie_cli.model.network import Network


@pytest.mark.parametrize(("width", "count"), [(16, 230_083), (24, 515_811), (32, 915_331), (64, 3_651_331)])
def test_parameter_counts_are_those_of_the_paper(width, count):
    assert network.parameter_count(Network(NetworkConfig(width))) == count


@pytest.mark.parametrize("option", ["fusion_refiner", "encoder_refiner"])
@pytest.mark.parametrize(("width", "count"), [(16, 191_395), (24, 428_979), (32, 761_155), (64, 3_035_779)])
def test_parameter_counts_without_a_refiner_are_those_of_the_authors_code(width, count, option):
    assert network.parameter_count(Network(NetworkConfig(width, **{option: False}))) == count


def test_the_residual_has_no_parameters():
    assert network.parameter_count(Network(NetworkConfig(16, residual=False))) == 230_083


def test_an_ablation_says_what_it_lacks():
    assert NetworkConfig(16).described == "width 16"
    assert (
        NetworkConfig(24, residual=False, encoder_refiner=False).described
        == "width 24, no residual, no encoder refiner"
    )
    with pytest.raises(ValueError, match="fusion_refiner"):
        NetworkConfig(16, fusion_refiner="no")


def test_folded_upsampling_equals_nearest_upsampling_and_convolution():
    x, layer = torch.rand(2, 5, 6, 7), torch.nn.Conv2d(5, 3, 3, padding=1)
    expected = layer(F.interpolate(x, scale_factor=2, mode="nearest"))
    phases = F.conv2d(x, network.fold_upsample(layer.weight), layer.bias.repeat(4), padding=1)
    torch.testing.assert_close(network.interleave(phases), expected)


def test_folded_tail_equals_its_three_steps_inside_the_frame():
    net, features = Network(NetworkConfig(8)), torch.rand(1, 8, 6, 9)
    expected = net.head(net.up(F.interpolate(features, scale_factor=2, mode="nearest")))
    weight, bias = net.tail()
    folded = F.pixel_shuffle(F.conv2d(features, weight, bias, padding=1), 2)
    torch.testing.assert_close(folded[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_untrained_network_is_the_identity():
    net = network.create(NetworkConfig(8), torch.Generator().manual_seed(0))
    assert net(torch.rand(1, 3, 16, 24)).abs().max() == 0


def test_untrained_network_without_a_residual_gives_gray():
    net = network.create(NetworkConfig(8, residual=False), torch.Generator().manual_seed(0))
    photo = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(photo + net(photo), torch.full_like(photo, 0.5))


def test_without_the_residual_the_tail_gives_the_enhanced_photo():
    net, photo = Network(NetworkConfig(8, residual=False)).requires_grad_(False), torch.rand(1, 3, 16, 24)
    weight, bias = net.tail()
    enhanced = F.pixel_shuffle(F.conv2d(net.features(photo), weight, bias, padding=1), 2)
    torch.testing.assert_close(photo + net(photo), enhanced)


def test_gates_start_three_times_as_large_and_everything_else_as_usual():
    """PyTorch draws weights evenly from within 1 / sqrt(inputs)."""
    net = network.create(NetworkConfig(16), torch.Generator().manual_seed(0))
    for layer, factor in [(net.down1.pair, 3), (net.down2.pair, 3), (net.refine2.local, 1), (net.fuse1.reduce, 1)]:
        bound = factor / layer.weight[0].numel() ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound * 1.0001
    x = torch.rand(1, 16, 5, 6)
    torch.testing.assert_close(net.up(x), x + net.up.bias[:, None, None])


def test_one_seed_gives_one_network():
    first, second = (network.create(NetworkConfig(8), torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_creating_a_network_leaves_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    network.create(NetworkConfig(8), torch.Generator().manual_seed(3))
    assert torch.equal(torch.rand(3), expected)


def test_sides_that_are_no_multiples_of_eight_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        Network(NetworkConfig(8)).features(torch.rand(1, 3, 16, 20))


def test_receptive_field_without_norm_is_within_the_halo(monkeypatch):
    """Tiling rests on this figure."""
    net = Network(NetworkConfig(8)).requires_grad_(False)
    monkeypatch.setattr(network, "normalize", lambda norm, x: x)
    photo = torch.rand(1, 3, 200, 200)
    changed = photo.clone()
    changed[..., 100, 100] = 1 - changed[..., 100, 100]
    touched = (net(photo) != net(changed)).any(1)[0].nonzero()
    assert len(touched)
    assert (touched - 100).abs().max() <= HALO


@pytest.mark.parametrize(("width", "published"), [(16, 17_704), (24, 39_348), (32, 69_520)])
def test_the_work_is_the_paper_s(width, published):
    found = network.work(NetworkConfig(width))
    assert found.published == published
    assert 0.7 < (found.integer + found.tail) / published < 0.85


@pytest.mark.parametrize("option", OPTIONS)
def test_the_work_of_an_ablation_is_that_of_its_convolutions(option):
    config = NetworkConfig(16, **{option: False})
    halvings = {"down1": 1, "refine1": 1, "fuse1": 1, "decode1": 1, "bottleneck": 3, "up": 0, "head": 0}  # others: 2
    work = 0.0
    for name, weight in Network(config).named_parameters():
        if weight.dim() == 4:
            work += weight.numel() / 4 ** halvings.get(name.split(".")[0], 2)
    assert network.work(config).published == work


def test_a_model_of_arrays_that_cannot_be_written_to_has_tensors_of_its_own(weights):
    state = {name: values.copy() for name, values in weights.state.items()}
    for values in state.values():
        values.flags.writeable = False
    model = whole.from_state(weights.config, state)
    before = state["network.head.bias"].copy()
    with torch.no_grad():
        model.network.head.bias.add_(1)
    np.testing.assert_array_equal(state["network.head.bias"], before)
