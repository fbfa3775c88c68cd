"""The refinement network of arXiv 2604.21743, any base width.

The forward pass is written once. Every tensor that an int8 engine rounds passes a named point of a `Rounding`: the
identity gives the float network, an observer gives calibration, a fake quantizer gives quantization-aware training
(see `qatie_cli.model.quantization`). Layouts are NCHW; photos are sRGB-encoded, range 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli.model.config import LEAKY_SLOPE, NORM_EPS, SIZE_MULTIPLE, NetworkConfig


class Rounding(Protocol):
    """Treatment of weights and activations at the points where int8 rounds them."""

    def weight(self, name: str, weight: Tensor) -> Tensor:
        """`weight` (out, in, h, w) as the convolution `name` shall use it."""

    def activation(self, name: str, x: Tensor) -> Tensor:
        """`x` (N, C, H, W) as it is stored at the point `name`."""


class NoRounding:
    """The float network."""

    def weight(self, name: str, weight: Tensor) -> Tensor:
        return weight

    def activation(self, name: str, x: Tensor) -> Tensor:
        return x


EXACT = NoRounding()


# --- upsampling folded into the convolution that follows it -------------------------------------------------------

# Taps of a 3x3 kernel over a nearest-neighbour x2 upsampled row land on two source rows: even output rows (phase 0)
# read source rows i-1, i with taps (0), (1+2); odd ones (phase 1) read i, i+1 with taps (0+1), (2).
_UPSAMPLE_TAPS = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float32)


def fold_upsample(weight: Tensor) -> Tensor:
    """Kernels of nearest x2 upsampling + 3x3 convolution, as 2x2 kernels on the source: 4/9 of the multiplications.

    `weight` is (out, in, 3, 3); the result is (4 * out, in, 2, 2) with the phase (row, column) as the slow index.
    """
    taps = _UPSAMPLE_TAPS.to(weight)
    folded = torch.einsum("oiyx,pay,qbx->pqoiab", weight, taps, taps)
    return folded.reshape(4 * weight.shape[0], weight.shape[1], 2, 2)


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias (out) of a convolution; every one of the network has one."""
    assert layer.bias is not None
    return layer.bias


def interleave(phases: Tensor) -> Tensor:
    """Undo the phase split: (N, 4 * C, H + 1, W + 1) from a padded 2x2 convolution to (N, C, 2 * H, 2 * W)."""
    _, channels, height, width = phases.shape
    height, width = height - 1, width - 1
    split = phases.unflatten(1, (2, 2, channels // 4))
    aligned = [split[:, p, q, :, p : p + height, q : q + width] for p in (0, 1) for q in (0, 1)]
    return F.pixel_shuffle(torch.stack(aligned, dim=2).flatten(1, 2), 2)


# TAIL_TAPS[p, a, d, e] is 1 where tap d of the head and tap e of the upsampling convolution, at phase p of a full-size
# row, read source row i + a - 1.
_TAIL_TAPS = torch.zeros(2, 3, 3, 3)
for _p in range(2):
    for _d in range(3):
        for _e in range(3):
            _TAIL_TAPS[_p, (_p + _d - 1 + _e - 1) // 2 + 1, _d, _e] = 1.0


def fold_tail(up: nn.Conv2d, head: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Upsample x2, 3x3 `up`, 3x3 `head` (no non-linearity lies between) as one 3x3 convolution at half size.

    Returns weight (12, c, 3, 3) and bias (12), output channels in `pixel_shuffle` order. It costs 27c multiply-adds per
    full-size pixel instead of 9c^2 + 27c and needs no full-size tensor of c channels. Equal to the three steps except
    in the outermost pixel of the photo's frame, where they see zeros instead of the upsampled photo's continuation.
    """
    taps = _TAIL_TAPS.to(up.weight)
    # The two products are kept apart so that no (d, e)-fourfold tensor of c * c entries appears.
    rows = torch.einsum("okyx,kiYX,payY->opaixXk", head.weight, up.weight, taps)
    weight = torch.einsum("opaixXk,qbxX->opqiab", rows, taps)
    bias = bias_of(head) + torch.einsum("okyx,k->o", head.weight, bias_of(up))
    return weight.reshape(-1, weight.shape[3], 3, 3), bias.repeat_interleave(4)


# --- blocks -------------------------------------------------------------------------------------------------------


def conv(name: str, layer: nn.Conv2d, x: Tensor, rounding: Rounding) -> Tensor:
    """The convolution `layer` with its weight as rounded at the point `name`."""
    return F.conv2d(x, rounding.weight(name, layer.weight), layer.bias, layer.stride, layer.padding)


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU with the paper's slope of 0.2."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def normalize(norm: nn.InstanceNorm2d, x: Tensor) -> Tensor:
    """Instance norm of x (N, C, H, W) by its own statistics."""
    # The function takes a single pixel, too, which the module refuses.
    return torch.instance_norm(x, norm.weight, norm.bias, None, None, True, 0.0, norm.eps, False)


class Gate(nn.Module):
    """Gated downsampling (paper, encoder): tanh(a), tanh(b) of two 3x3 stride-2 convolutions, kept as skip pair.

    Both convolutions are held as one with 2 * out channels, `a` first.
    """

    def __init__(self, name: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.name = name
        self.pair = nn.Conv2d(in_channels, 2 * out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """(N, in, H, W) to the product (N, out, H/2, W/2) and the pair (N, 2 * out, H/2, W/2), both in -1..1."""
        pair = rounding.activation(f"{self.name}.pre", conv(f"{self.name}.pair", self.pair, x, rounding))
        pair = rounding.activation(f"{self.name}.tanh", torch.tanh(pair))
        a, b = pair.chunk(2, dim=1)
        return rounding.activation(f"{self.name}.product", a * b), pair


class Refine(nn.Module):
    """Refinement block (paper, multi-scale refinement): a normalized and a plain branch, then a residual pair.

    y = concat(leaky(norm(conv3x3 x)), conv1x1 x);  out = leaky(conv3x3 leaky(conv3x3 y)) + conv1x1 y.
    """

    def __init__(self, name: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.name = name
        self.local = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.norm = nn.InstanceNorm2d(in_channels, eps=NORM_EPS, affine=True)
        self.side = nn.Conv2d(in_channels, in_channels, 1)
        self.inner = nn.Conv2d(2 * in_channels, out_channels, 3, padding=1)
        self.outer = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(2 * in_channels, out_channels, 1)

    def forward(self, x: Tensor, rounding: Rounding) -> Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        name, point = self.name, rounding.activation
        normed = point(f"{name}.local", conv(f"{name}.local", self.local, x, rounding))
        normed = point(f"{name}.norm", normalize(self.norm, normed))
        # Both halves of y are rounded with the one scale that their concatenation has.
        y = point(f"{name}.y", torch.cat([leaky(normed), conv(f"{name}.side", self.side, x, rounding)], dim=1))
        del x, normed
        out = point(f"{name}.inner", conv(f"{name}.inner", self.inner, y, rounding))
        out = point(f"{name}.inner_leaky", leaky(out))
        out = point(f"{name}.outer", conv(f"{name}.outer", self.outer, out, rounding))
        out = point(f"{name}.outer_leaky", leaky(out))
        shortcut = point(f"{name}.shortcut", conv(f"{name}.shortcut", self.shortcut, y, rounding))
        del y
        return point(f"{name}.out", out + shortcut)


class Plain(nn.Module):
    """Replacement for a refinement block in the paper's ablations: leaky(conv3x3 x)."""

    def __init__(self, name: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.name = name
        self.local = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, rounding: Rounding) -> Tensor:
        """(N, in, H, W) to (N, out, H, W)."""
        name, point = self.name, rounding.activation
        out = point(f"{name}.local", conv(f"{name}.local", self.local, x, rounding))
        return point(f"{name}.out", leaky(out))


class Fuse(nn.Module):
    """Decoder step: upsample x2 and convolve the deep features, join encoder features and skip pair, reduce."""

    def __init__(self, name: str, deep_channels: int, channels: int) -> None:
        super().__init__()
        self.name = name
        self.up = nn.Conv2d(deep_channels, channels, 3, padding=1)
        self.reduce = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, deep: Tensor, encoded: Tensor, pair: Tensor, rounding: Rounding) -> Tensor:
        """deep (N, deep, H/2, W/2), encoded (N, C, H, W), pair (N, 2C, H, W) to (N, C, H, W)."""
        name, point = self.name, rounding.activation
        weight = rounding.weight(f"{name}.up", fold_upsample(self.up.weight))
        up = interleave(F.conv2d(deep, weight, bias_of(self.up).repeat(4), padding=1))
        # The concatenation has the pair's scale, 2/256: see quantization.equalize for how the others come to fit it.
        joined = torch.cat([point(f"{name}.up", up), point(f"{name}.encoded", encoded), pair], dim=1)
        del up, deep, encoded, pair
        return point(f"{name}.reduced", conv(f"{name}.reduce", self.reduce, joined, rounding))


# --- the network --------------------------------------------------------------------------------------------------


class Network(nn.Module):
    """Photo in, residual out; the enhanced photo is clamp(photo + residual, 0, 1) (paper, decoder).

    Where the configuration has no residual, the tail gives the enhanced photo, and the residual is the tail's output
    less the photo. Callers need not know which kind it is.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = config.width

        def block(name: str, inputs: int, outputs: int) -> Refine | Plain:
            return (Plain if name in config.plain else Refine)(name, inputs, outputs)

        self.config = config
        self.down1 = Gate("down1", 3, c)
        self.refine1 = block("refine1", c, c)
        self.down2 = Gate("down2", c, 2 * c)
        self.refine2 = block("refine2", 2 * c, 2 * c)
        self.bottleneck = Refine("bottleneck", 2 * c, 4 * c)
        self.fuse2 = Fuse("fuse2", 4 * c, 2 * c)
        self.decode2 = block("decode2", 2 * c, 2 * c)
        self.fuse1 = Fuse("fuse1", 2 * c, c)
        self.decode1 = block("decode1", c, c)
        self.up = nn.Conv2d(c, c, 3, padding=1)
        self.head = nn.Conv2d(c, 3, 3, padding=1)

    def features(self, photo: Tensor, rounding: Rounding = EXACT) -> Tensor:
        """Everything but the tail: photo (N, 3, H, W) in 0..1 to features (N, c, H/2, W/2); H and W multiples of 8."""
        if photo.shape[-1] % SIZE_MULTIPLE or photo.shape[-2] % SIZE_MULTIPLE:
            raise ValueError(f"height and width must be multiples of {SIZE_MULTIPLE}, not {tuple(photo.shape[-2:])}")
        x, pair1 = self.down1(rounding.activation("photo", photo), rounding)
        encoded1 = self.refine1(x, rounding)
        x, pair2 = self.down2(encoded1, rounding)
        encoded2 = self.refine2(x, rounding)
        x = self.bottleneck(F.max_pool2d(encoded2, 2), rounding)
        x = self.decode2(self.fuse2(x, encoded2, pair2, rounding), rounding)
        del encoded2, pair2
        x = self.fuse1(x, encoded1, pair1, rounding)
        del encoded1, pair1
        return self.decode1(x, rounding)

    def blocks(self) -> list[Refine | Plain]:
        """The refinement blocks and what stands in their place, in the order in which they run."""
        return [self.refine1, self.refine2, self.bottleneck, self.decode2, self.decode1]

    def refinements(self) -> list[Refine]:
        """The refinement blocks, in the order in which they run."""
        return [block for block in self.blocks() if isinstance(block, Refine)]

    def tail(self) -> tuple[Tensor, Tensor]:
        """Weight (12, c, 3, 3) and bias (12) that turn features into the output's four phases (`fold_tail`)."""
        return fold_tail(self.up, self.head)

    def forward(self, photo: Tensor, rounding: Rounding = EXACT) -> Tensor:
        """Residual (N, 3, H, W), nominal range -1..1, for a photo (N, 3, H, W) in 0..1; H and W multiples of 8."""
        features = self.features(photo, rounding)
        weight, bias = self.tail()
        output = F.pixel_shuffle(F.conv2d(features, weight, bias, padding=1), 2)
        return output if self.config.residual else output - photo


def create(config: NetworkConfig, generator: torch.Generator) -> Network:
    """A new network with random weights, and a zero head so that it starts as the identity.

    Gates start three times as large as usual, since the product of two small tanh is tiny, and the last upsampling
    starts as the identity: both shorten training. Without the residual the network starts as a middle gray.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        network = Network(config)
    with torch.no_grad():
        for gate in (network.down1, network.down2):
            gate.pair.weight.mul_(3)
    nn.init.dirac_(network.up.weight)
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(bias_of(network.head), 0.0 if config.residual else 0.5)
    return network


@dataclass(frozen=True)
class Work:
    """Multiply-adds for each pixel of a photo: of the network as published, and of what runs after folding."""

    published: float
    integer: float  # run in integers by the int8 engines
    tail: float  # run in float by every engine


def work(config: NetworkConfig) -> Work:
    """The paper's figures are 17,704 / 39,348 / 69,520 for c = 16 / 24 / 32."""
    c = config.width

    def refine(name: str, i: int, o: int) -> int:
        if name in config.plain:
            return 9 * i * o
        return 9 * i * i + i * i + 9 * 2 * i * o + 9 * o * o + 2 * i * o

    encoder = 9 * 3 * 2 * c / 4 + refine("refine1", c, c) / 4
    encoder += 9 * c * 4 * c / 16 + refine("refine2", 2 * c, 2 * c) / 16
    middle = refine("bottleneck", 2 * c, 4 * c) / 64
    decoder = 8 * c * 2 * c / 16 + refine("decode2", 2 * c, 2 * c) / 16
    decoder += 4 * c * c / 4 + refine("decode1", c, c) / 4
    enlarging = 9 * 4 * c * 2 * c / 16 + 9 * 2 * c * c / 4  # at the size that is enlarged to
    last = 9 * c * c + 9 * c * 3
    once = encoder + middle + decoder
    return Work(once + enlarging + last, once + enlarging * 4 / 9, 27 * c)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values; the paper gives 230,083 / 515,811 / 915,331 / 3,651,331 for c = 16 / 24 / 32 / 64.

    Either refiner is 150c^2 + 18c of them: 191,395 / 428,979 / 761,155 / 3,035,779 are left without one. The residual
    has none.
    """
    return sum(p.numel() for p in network.parameters())
