"""What the tone stage decides, applied to photos in PyTorch: differentiable. `tone_map` says what it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qatie_cli.kernels.fine import BRIGHTENED, MOST_CONTRAST, NEARLY_WHITE
from qatie_cli.model.config import Guide
from qatie_cli.model.tone_features import luma
from qatie_cli.model.tone_map import BLACK, end_weights


class Decision(NamedTuple):
    """The decisions for N photos: `curves` (N, 3, knots), `matrices` (N, 3, 3), `grids` (N, depth, rows, columns).

    `grids` are gains in EV, None where a stage decides for the whole photo only; `guide` says where a pixel reads them.
    `fine` (N, 3, rows, columns), where a stage has that, is what it decides for pixels of its view (`tone_fine`): the
    share of a brightening that is held back, slope and offset of the local contrast by luma.
    """

    curves: Tensor
    matrices: Tensor
    grids: Tensor | None = None
    guide: Guide = "luma"
    fine: Tensor | None = None


def apply(photo: Tensor, decision: Decision, boxes: Tensor | None = None) -> Tensor:
    """Photos (N, 3, H, W) in 0..1, toned as decided and clamped; differentiable.

    `boxes` (N, 4) say which part of its whole photo each shows: left, top, right, bottom as shares of its sides. None
    stands for all of it.
    """
    toned = apply_global(photo, decision.curves, decision.matrices).clamp(0, 1)
    if decision.grids is None:
        return toned
    toned = apply_grid(toned, decision.grids, boxes, decision.guide)
    if decision.fine is None:
        return toned
    return held_back(photo, toned, enlarged(decision.fine[:, :1], photo.shape[-2:], boxes))


def with_local_contrast(photo: Tensor, decision: Decision, boxes: Tensor | None = None) -> Tensor:
    """Enhanced photos (N, 3, H, W) in 0..1 with the local contrast that is decided; clamped.

    A line gives the change of luma from luma; soft, it stays below `MOST_CONTRAST`, and it leaves white alone. All
    channels change alike.
    """
    if decision.fine is None:
        return photo
    slope, offset = enlarged(decision.fine[:, 1:], photo.shape[-2:], boxes).split(1, dim=1)
    y = luma(photo)
    change = slope * y + offset
    change = change / (1 + change.abs() / MOST_CONTRAST) * ((1 - y) / (1 - NEARLY_WHITE)).clamp(max=1)
    return (photo + change).clamp(0, 1)


def apply_global(photo: Tensor, curves: Tensor, matrices: Tensor) -> Tensor:
    """Photos (N, 3, H, W) in 0..1 through curves (N, 3, knots) and matrices (N, 3, 3), unclamped; differentiable."""
    n, _, height, width = photo.shape
    position = photo.clamp(0, 1).flatten(2) * (curves.shape[-1] - 1)
    left = position.floor().clamp(max=curves.shape[-1] - 2)
    index = left.long().clamp(min=0)  # of NaN it is the least integer; the value stays NaN
    low, high = curves.gather(2, index), curves.gather(2, index + 1)
    curved = low + (high - low) * (position - left)
    return torch.bmm(matrices, curved).view(n, 3, height, width)


def apply_grid(
    toned: Tensor,
    grids: Tensor,
    boxes: Tensor | None = None,
    guide: Guide = "luma",
) -> Tensor:
    """Photos (N, 3, H, W) in 0..1 by the gains (N, depth, rows, columns) at their pixels' place and guide.

    Values between the cells are interpolated linearly along all three axes; the outermost cells reach to the edges.
    """
    depth = grids.shape[1]
    place = guide_of(toned, guide) * (depth - 1)
    spread = enlarged(grids, toned.shape[-2:], boxes)
    layers = torch.arange(depth, dtype=toned.dtype, device=toned.device).view(1, depth, 1, 1)
    ev = (spread * (1 - (place - layers).abs()).clamp(min=0)).sum(1, keepdim=True)
    return with_gain(toned, torch.exp2(ev))


def held_back(photo: Tensor, toned: Tensor, share: Tensor) -> Tensor:
    """Toned photos (N, 3, H, W), this share (N, 1, H, W) of the way back to `photo` where they became brighter."""
    share = share * ((luma(toned) - luma(photo)) / BRIGHTENED).clamp(0, 1)
    return toned + share * (photo - toned)


def guide_of(toned: Tensor, guide: Guide) -> Tensor:
    """What toned photos (N, 3, H, W) read their gains by: (N, 1, H, W) in 0..1."""
    return luma(toned) if guide == "luma" else toned.amax(1, keepdim=True)


def enlarged(grids: Tensor, size: torch.Size, boxes: Tensor | None = None) -> Tensor:
    """Every layer of the grids at the size (height, width) of photos that show the parts `boxes` of the whole."""
    rows, columns = grids.shape[-2:]
    if boxes is None:
        boxes = grids.new_tensor([[0.0, 0.0, 1.0, 1.0]])
    left, top, right, bottom = boxes.unbind(1)
    down, across = _hats(top, bottom, size[0], rows), _hats(left, right, size[1], columns)
    return down[:, None] @ grids @ across[:, None].transpose(2, 3)


def _hats(start: Tensor, end: Tensor, pixels: int, cells: int) -> Tensor:
    """Weights (N, pixels, cells) of linear interpolation at pixels that lie evenly between two shares of a side."""
    shares = (torch.arange(pixels, dtype=start.dtype, device=start.device) + 0.5) / pixels
    position = start[:, None] + (end - start)[:, None] * shares
    position = (position * cells - 0.5).clamp(0, cells - 1)
    centres = torch.arange(cells, dtype=start.dtype, device=start.device)
    return (1 - (position[..., None] - centres).abs()).clamp(min=0)


def with_gain(photo: Tensor, gain: Tensor) -> Tensor:
    """Photos (N, 3, H, W) in 0..1 by gains (N, 1, H, W), black and white kept.

    The largest channel m becomes gain * m / (1 + (gain - 1) * m) and the others stay in proportion, so hue and
    saturation are kept: the slope is `gain` at black and 1 / gain at white, nothing clips, and white stays white.
    """
    return photo * (gain / (1 + (gain - 1) * photo.amax(1, keepdim=True)))


def with_pinned_ends(curves: Tensor, matrices: Tensor) -> Tensor:
    """Curves (N, 3, knots) that keep white white and black black after the matrices (N, 3, 3).

    Clipped highlights cannot be recovered: darkened they turn paper gray, and lifted shadows look like a veil. What the
    ends lack is added with `end_weights`. First order only: what a matrix carries to other channels is ignored.
    """
    towards_white, towards_black = curves.new_tensor(end_weights(curves.shape[-1]))
    white, black = (torch.bmm(matrices, curves[..., end]) for end in (slice(-1, None), slice(0, 1)))
    return curves + towards_white * (1 - white).clamp(min=0) - towards_black * (black - BLACK).clamp(min=0)
