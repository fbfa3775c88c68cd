"""The shipped weights on real pairs: int8 equals float on every engine, and pictures are better than their inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qatie_cli import engines, metrics
from qatie_cli.data import layouts, paired
from qatie_cli.enhance.photos import Effect, Enhancer
from qatie_cli.enhance.pixels import enhance
from qatie_cli.evaluation import measuring
from qatie_cli.model import checkpoint, tone, tone_apply
from qatie_cli.model import shipped as shipped_weights
from qatie_cli.model.tone_apply import Decision

HERE = [name for name in engines.INT8 if name in torch.backends.quantized.supported_engines]

# Mean PSNR in dB that int8 must reach. Inputs have 20.8, 13.7, 17.6 and 19.5. Targets of the tone stage are rendered
# and exposed alike, and local contrast is added: good photos change on purpose, but not into strange ones.
BARS = {"synthetic": 22.2, "exposure": 17.1, "phone-to-camera": 19.5, "retouch": 21.8, "clean": 25.8}
CLEANER = 1.3  # dB by which real noise must fall, behind the same tone


@pytest.fixture(scope="module", params=sorted(shipped_weights.manifest()))
def shipped(request) -> checkpoint.Weights:
    return checkpoint.read(shipped_weights.manifest()[request.param].packaged)


def _pairs(shared, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    layout = layouts.pairs_or_photos(shared / "pairs" / "dev" / name)
    return [paired.load_pair(pair, 1024) for pair in layout.pairs]


@pytest.fixture(scope="module")
def synthetic(shared, shipped) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Input, target and float output of every second pair."""
    engine = engines.load(shipped, "float")
    return [(seen, target, enhance(seen, engine)) for seen, target in _pairs(shared, "synthetic")[::2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_int8_equals_float_on_every_engine(name, synthetic, shipped):
    engine = engines.load(shipped, name)
    outputs = [enhance(seen, engine) for seen, _, _ in synthetic]
    agreement = [metrics.psnr(output, exact) for output, (_, _, exact) in zip(outputs, synthetic, strict=True)]
    lost = [
        metrics.psnr(exact, target) - metrics.psnr(output, target)
        for output, (_, target, exact) in zip(outputs, synthetic, strict=True)
    ]
    assert np.mean(agreement) >= 42
    assert min(agreement) >= 36
    assert np.mean(lost) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", BARS)
def test_photos_come_out_better(name, shared, shipped):
    whole = Enhancer(engines.load(shipped), Effect(reduction=1))
    layout, scores = layouts.pairs_or_photos(shared / "pairs" / "dev" / name), []
    for pair, (seen, target) in zip(layout.pairs, _pairs(shared, name), strict=True):
        scores.append(metrics.psnr(whole(measuring.as_read(pair.input, seen)).pixels, target))
    assert np.mean(scores) >= BARS[name]


@pytest.mark.slow
def test_real_noise_falls(shared, shipped):
    """Compared with the noiseless photo behind the tone decision that the noisy one got."""
    engine, stage = engines.load(shipped), shipped.build().tone

    def toned(photo: np.ndarray, decision: Decision) -> np.ndarray:
        with torch.no_grad():
            out = tone_apply.apply(torch.from_numpy(photo.astype(np.float32) / 255).permute(2, 0, 1)[None], decision)
            out = tone_apply.with_local_contrast(out, decision)
        return (out[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)

    gains = []
    for noisy, clean in _pairs(shared, "noise")[::2]:
        with torch.no_grad():
            decision = stage(tone.view(noisy, stage.config.view_px))
        reference = toned(clean, decision)
        before = metrics.psnr(toned(noisy, decision), reference)
        gains.append(metrics.psnr(enhance(noisy, engine), reference) - before)
    assert np.mean(gains) >= CLEANER
    assert np.median(gains) >= 0.7 * CLEANER  # not by a few photos alone


def _page(paper: int, ink: int, lines: int) -> np.ndarray:
    """A screenshot (640, 480, 3) uint8: words as bars."""
    rng = np.random.default_rng(lines)
    page = np.full((640, 480, 3), paper, np.uint8)
    for top in range(24, 24 + 14 * lines, 14):
        left = 24
        while left < 400:
            width = int(rng.integers(10, 60))
            page[top : top + 6, left : left + width] = ink
            left += width + 8
    return page


@pytest.mark.parametrize(
    ("paper", "ink", "lines", "levels"),
    [(255, 20, 40, 3), (255, 0, 8, 3), (245, 90, 25, 8), (22, 220, 40, 12), (128, 128, 0, 1), (60, 60, 0, 1)],
)
def test_the_paper_of_a_screenshot_stays_near_what_it_was(paper, ink, lines, levels, shipped):
    output = enhance(_page(paper, ink, lines), engines.load(shipped)).astype(int)
    assert np.abs(np.median(output, (0, 1)) - paper).max() <= levels
