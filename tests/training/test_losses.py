"""The training losses: their definitions, and that processes can share a batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from qatie_cli import metrics
from qatie_cli.data.source import TrainingBatch
from qatie_cli.model.config import ModelConfig, NetworkConfig, ToneConfig
from qatie_cli.model.network import EXACT
from qatie_cli.model.whole import create
from qatie_cli.training import losses
from qatie_cli.training.objective import NetworkObjective


def test_matching_tone_removes_a_curve_and_keeps_detail(astronaut):
    target = torch.from_numpy(astronaut[:128, :128].astype(np.float32) / 255).permute(2, 0, 1)[None]
    darker = 0.8 * target**1.1
    assert losses.l1(target, darker) > 0.05
    assert losses.l1(losses.matched_tone(target, darker), darker) < 0.004


@pytest.mark.parametrize(
    "term",
    [
        losses.l1,
        lambda output, target: losses.tone_error(output, target, torch.zeros(len(target), dtype=torch.bool)),
        losses.gradient,
        losses.dissimilarity,
        losses.ms_dissimilarity,
        losses.colour,
        losses.psnr,
        losses.psnr_y,
        losses.cosine,
        losses.outlier,
    ],
)
def test_losses_are_zero_for_equal_photos_and_grow_with_the_error(term):
    torch.manual_seed(0)
    photo, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    values = [float(term(photo + s * noise, photo)) for s in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[0] < values[1] < values[2]


def test_small_changes_count_more_where_tone_must_be_exact():
    torch.manual_seed(0)
    photo = torch.rand(1, 3, 32, 32)
    changed = photo + 2 / 255
    exact, other = (losses.tone_error(changed, photo, torch.tensor([mark])) for mark in (True, False))
    assert exact > 4 * other


def test_even_gains_cost_nothing():
    grids = torch.full((2, 8, 16, 16), 0.7)
    assert losses.unevenness(grids) == 0
    grids[0, 0, 3, 3] = 0
    assert losses.unevenness(grids) > 0


def test_a_restored_input_costs_nothing_behind_any_tone_stage(astronaut):
    """Gains from place to place apply to input and target alike; nothing is left for the network to undo."""
    config = ModelConfig(NetworkConfig(8), ToneConfig(channels=4, bins=8, grid=8))
    model = create(config, 0)  # an untrained network adds nothing
    with torch.no_grad():
        for parameter in (model.tone.gains.weight, model.tone.gains.bias, model.tone.decide.weight):
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    view = torch.from_numpy(astronaut[:512:4, :512:4].astype(np.float32) / 255).permute(2, 0, 1)[None]
    photo = view[..., :64, 32:96]
    box = torch.tensor([[0.25, 0.0, 0.75, 0.5]])
    assert losses.l1(model.toned(photo, view, box), photo) > 0.02
    batch = TrainingBatch.of_crops(photo, (1.2 * photo).clamp(0, 1), view, box, restored=photo)
    loss, _ = NetworkObjective(model, losses.LossWeights())(batch, EXACT)
    assert loss < 1e-3
    noisy = (photo + 0.05 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    loss, _ = NetworkObjective(model, losses.LossWeights())(dataclasses.replace(batch, input=noisy), EXACT)
    assert loss > 0.02


def test_the_gradient_does_not_see_tone():
    torch.manual_seed(0)
    photo = torch.rand(1, 3, 32, 32)
    assert losses.l1(photo + 0.1, photo) > 0.09
    assert losses.gradient(photo + 0.1, photo) < 1e-6


def test_the_gradient_sees_edges_across_and_down():
    """A step of 0.5 is one of the 31 differences of each row, or of each column."""
    photo = torch.zeros(1, 3, 32, 32)
    edge = torch.cat([photo[..., :10], photo[..., 10:] + 0.5], dim=-1)
    for output in (edge, edge.transpose(2, 3)):
        assert losses.gradient(output, photo) == pytest.approx(0.5 / 31)


def test_ssim_of_the_loss_is_that_of_scikit_image(astronaut):
    a = astronaut[:256, :256]
    b = np.clip(a + np.random.default_rng(0).normal(0, 12, a.shape), 0, 255).astype(np.uint8)
    as_tensor = [torch.from_numpy(x.astype(np.float32) / 255).permute(2, 0, 1)[None] for x in (a, b)]
    theirs = structural_similarity(a, b, channel_axis=2, data_range=255, win_size=7, use_sample_covariance=False)
    assert 1 - float(losses.dissimilarity(*as_tensor)) == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(losses.LossWeights)])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(name):
    """What lets processes share a batch."""
    only = losses.LossWeights(**{f.name: float(f.name == name) for f in dataclasses.fields(losses.LossWeights)})
    torch.manual_seed(0)
    photo, other = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)

    def loss(rows: slice) -> float:
        return float(losses.total(only, losses.terms(only, photo[rows], other[rows])))

    assert loss(slice(0, 4)) == pytest.approx((loss(slice(0, 2)) + loss(slice(2, 4))) / 2, rel=1e-5)
    assert loss(slice(0, 4)) > 0


def test_the_psnr_of_a_loss_is_that_of_the_metric_until_it_saturates(astronaut):
    target = torch.from_numpy(astronaut[:64, :64].astype(np.float32) / 255).permute(2, 0, 1)[None]
    grainy = target + 0.03 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    expected = metrics.psnr(*((x[0].permute(1, 2, 0) * 255).numpy() for x in (grainy, target)))
    assert 53.01 - 100 * float(losses.psnr(grainy, target)) == pytest.approx(expected, abs=0.05)
    assert float(losses.psnr(target + 0.0005, target)) < 0.003


def test_psnr_y_is_the_psnr_of_luma(astronaut):
    a = astronaut[:64, :64]
    b = np.clip(a.astype(int) + 9, 0, 255).astype(np.uint8)
    as_tensor = [torch.from_numpy(x.astype(np.float32) / 255).permute(2, 0, 1)[None] for x in (a, b)]
    luma = [(x.astype(np.float64) / 255) @ [0.257, 0.504, 0.098] for x in (a, b)]
    expected = -10 * np.log10(np.mean((luma[0] - luma[1]) ** 2))
    assert 80 - 100 * float(losses.psnr_y(*as_tensor)) == pytest.approx(expected, abs=0.01)


def test_ms_ssim_agrees_with_the_published_definition(astronaut):
    """As torchmetrics computes it, where all five scales fit."""
    metric = pytest.importorskip("torchmetrics.functional.image")
    a = astronaut[:256, :256]
    b = np.clip(a + np.random.default_rng(0).normal(0, 20, a.shape), 0, 255).astype(np.uint8)
    as_tensor = [torch.from_numpy(x.astype(np.float32) / 255).permute(2, 0, 1)[None] for x in (b, a)]
    theirs = metric.multiscale_structural_similarity_index_measure(*as_tensor, data_range=1.0)
    assert 1 - float(losses.ms_dissimilarity(*as_tensor)) == pytest.approx(float(theirs), abs=0.005)


def test_errors_that_stray_count_more():
    flat, spike = torch.full((1, 3, 16, 16), 0.1), torch.zeros(1, 3, 16, 16)
    spike[..., 0, 0] = 0.1 * 256
    target = torch.zeros(1, 3, 16, 16)
    assert losses.l1(flat, target) == pytest.approx(float(losses.l1(spike, target)))
    assert losses.outlier(flat, target) < 0.1 * losses.outlier(spike, target)


def test_the_weight_of_an_outlier_is_that_of_the_paper():
    error = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    mean, deviation = error.mean((2, 3), keepdim=True), error.std((2, 3), keepdim=True)
    expected = (error.abs() * torch.tanh((error - mean).abs() / (deviation / 2**0.5))).mean()
    assert losses.outlier(error, torch.zeros_like(error)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("terms", [{"l1": -1.0}, {f.name: 0.0 for f in dataclasses.fields(losses.LossWeights)}])
def test_losses_that_ask_for_nothing_are_refused(terms):
    with pytest.raises(ValueError, match="loss weights"):
        losses.LossWeights(**terms)
