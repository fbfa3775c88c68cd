"""Equalization: channels rescaled across layers, so that per-tensor ranges fit all of them (Nagel et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from qatie_cli.model.network import Network, Plain, Refine, bias_of
from qatie_cli.model.quantization.calibration import CLIP_RMS, Extremes, observe


@dataclass(frozen=True)
class _Group:
    """Channels that may be rescaled without changing the float network.

    `magnitude` (C) is their largest absolute value. `rows` are (tensor, first row): output rows of the convolutions or
    norms that make them; `columns` are (weight, first column): the input columns that consume them. `top` is the
    magnitude that the largest channel shall have afterwards, None to leave it.
    """

    magnitude: Tensor
    rows: Sequence[tuple[Tensor, int]]
    columns: Sequence[tuple[Tensor, int]]
    top: float | None = None


GATE = 1.0  # the gates' largest magnitude


@dataclass(frozen=True)
class Joined:
    """Equalization of what is concatenated with the gates: its `balance`, and its `top`, above 1 to clip outliers."""

    balance: float
    top: float


@torch.no_grad()
def equalize(
    network: Network,
    photos: Iterable[Tensor],
    balance: float = 0.5,
    joined: Joined | None = None,
    both_signs: bool = False,
    clip_rms: float | None = CLIP_RMS,
) -> None:
    """Rescale channels in place so that one scale per tensor serves them all; the float network stays the same.

    Between two convolutions a channel may be multiplied by a factor that the consumer's weights divide by, since
    LeakyReLU is positively homogeneous and the norm's gain and offset scale its output (Nagel et al., arXiv 1906.04721,
    section 4.1). With `balance` between 0 and 1 the factor is shared between activation and weight precision (Xiao et
    al., arXiv 2211.10438, equation 4); 1 makes all activations equally large. What is concatenated with the gates is
    brought into their range of -1..1, so that the concatenation keeps their resolution. In front of a norm, which
    undoes any factor, channels are made equally large outright.

    Args:
        joined: how to treat what is concatenated with the gates; None: like all others, and within -1..1.
        both_signs: also measure channels in front of a LeakyReLU: qatie's training keeps their negative part small,
            other weights may not.
        clip_rms: limits a channel's magnitude to this multiple of its RMS; None: no limit.
    """
    extremes = observe(network, list(photos), Extremes())
    magnitude = {name: extremes.magnitude(name, clip_rms) for name in extremes.low}
    blocks = {b.name: b for b in network.refinements()}
    if both_signs:
        for name in blocks:
            magnitude[f"{name}.inner_leaky"] = torch.maximum(
                magnitude[f"{name}.inner_leaky"], magnitude[f"{name}.inner"]
            )
        for name in network.config.plain:
            magnitude[f"{name}.out"] = torch.maximum(magnitude[f"{name}.out"], magnitude[f"{name}.local"])
    for name, block in blocks.items():
        _rescale_before_norm(block, magnitude[f"{name}.local"])
    for group in _groups(network, blocks, magnitude):
        if group.top == GATE and joined is not None:
            _rescale(replace(group, top=joined.top), joined.balance)
        else:
            _rescale(group, balance)


def _rescale_before_norm(block: Refine, magnitude: Tensor) -> None:
    factor = magnitude.max() / magnitude.clamp(min=1e-3 * float(magnitude.max()))
    for tensor, _ in _rows(block.local):
        tensor.mul_(factor.view(-1, *[1] * (tensor.dim() - 1)))


def _groups(network: Network, blocks: dict[str, Refine], magnitude: dict[str, Tensor]) -> Iterator[_Group]:
    c = network.config.width
    for name, b in blocks.items():
        half = b.local.out_channels
        y = magnitude[f"{name}.y"]
        consumers = [b.inner.weight, b.shortcut.weight]
        norm_rows = [(b.norm.weight, 0), (b.norm.bias, 0)]
        yield _Group(y[:half], norm_rows, [(w, 0) for w in consumers], top=float(y.max()))
        yield _Group(y[half:], _rows(b.side), [(w, half) for w in consumers], top=float(y.max()))
        yield _Group(magnitude[f"{name}.inner_leaky"], _rows(b.inner), [(b.outer.weight, 0)])
    consumers_of = {
        "refine1": [(network.down2.pair.weight, 0), (network.fuse1.reduce.weight, c)],
        "refine2": [
            (network.bottleneck.local.weight, 0),
            (network.bottleneck.side.weight, 0),
            (network.fuse2.reduce.weight, 2 * c),
        ],
        "bottleneck": [(network.fuse2.up.weight, 0)],
        "decode2": [(network.fuse1.up.weight, 0)],
        "decode1": [(network.up.weight, 0)],
    }
    for block in network.blocks():
        top = GATE if block.name in ("refine1", "refine2") else None
        rows = _rows(block.local) if isinstance(block, Plain) else _rows(block.outer) + _rows(block.shortcut)
        yield _Group(magnitude[f"{block.name}.out"], rows, consumers_of[block.name], top)
    for fuse, after in ((network.fuse2, network.decode2), (network.fuse1, network.decode1)):
        up = magnitude[f"{fuse.name}.up"]
        yield _Group(up, _rows(fuse.up), [(fuse.reduce.weight, 0)], top=GATE)
        reduced = magnitude[f"{fuse.name}.reduced"]
        entries = (after.local,) if isinstance(after, Plain) else (after.local, after.side)
        yield _Group(reduced, _rows(fuse.reduce), [(layer.weight, 0) for layer in entries])


def _rows(layer: nn.Conv2d) -> list[tuple[Tensor, int]]:
    return [(layer.weight, 0), (bias_of(layer), 0)]


def _rescale(group: _Group, balance: float) -> None:
    channels = len(group.magnitude)
    largest = float(group.magnitude.max())
    magnitude = group.magnitude.clamp(min=1e-4 * largest)
    used = [w[:, start : start + channels].abs().amax((0, 2, 3)) for w, start in group.columns]
    weight = torch.stack(used).amax(0)
    weight = weight.clamp(min=1e-4 * float(weight.max()))
    factor = weight ** (1 - balance) / magnitude**balance
    factor = factor * ((group.top or largest) / float((factor * magnitude).max()))
    for tensor, start in group.rows:
        rows = tensor[start : start + channels]
        rows.mul_(factor.view(-1, *[1] * (tensor.dim() - 1)))
    for weight, start in group.columns:
        weight[:, start : start + channels].div_(factor.view(1, -1, 1, 1))
