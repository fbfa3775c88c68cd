"""The tone stage: a small view of the whole photo decides its tone, as a whole and from place to place.

It decides one curve per channel and one colour matrix for the whole photo and, where it is configured so, a coarse grid
of gains over position and luma. It runs in front of the refinement network and always in float: its cost does not
depend on the photo's size, but for applying what is decided (`tone_map`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qatie_cli.model import tone_fine
from qatie_cli.model import view as views
from qatie_cli.model.config import (
    FINE_VIEW_PX,
    HIGHLIGHT,
    HIGHLIGHT_SHARE,
    LARGEST_GAIN_EV,
    LOCAL_VIEW_PX,
    MOST_HELD,
    THUMBNAIL_PX,
    ToneConfig,
)
from qatie_cli.model.tone_apply import Decision, apply, apply_global, apply_grid, enlarged, held_back, with_pinned_ends
from qatie_cli.model.tone_features import confidence, quantiles, statistics, texture_confidence
from qatie_cli.model.tone_map import ToneMap


class ToneStage(nn.Module):
    """View (N, 3, view_px, view_px) in 0..1 to a `Decision`; untrained, it decides to change nothing.

    It sees pooled convolutional features, the photo's statistics (`tone_features`), or both. Statistics cannot identify
    a photo, so a few hundred photos are enough to train on; convolutions overfit to so few.
    """

    def __init__(self, config: ToneConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        widths, width = config.widths, config.hidden
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in itertools.pairwise(widths))
        self.hidden = nn.Linear(config.seen, width)
        self.second = nn.Linear(width, width) if config.statistics else None
        self.decide = nn.Linear(width, 3 * config.knots + 9)
        nn.init.zeros_(self.decide.weight)
        nn.init.zeros_(self.decide.bias)
        if config.grid:
            self.coarse = nn.ModuleList(nn.Conv2d(i, 4 * c, 3, stride=2, padding=1) for i in (widths[-1], 4 * c))
            self.context = nn.Linear(width, 4 * c)
            self.local = nn.ModuleList(nn.Conv2d(i, 4 * c, 3, padding=1) for i in (widths[-1], 4 * c))
            self.gains = nn.Conv2d(4 * c, config.depth, 1)
            for parameter in self.gains.parameters():
                nn.init.zeros_(parameter)

    @property
    def features(self) -> int:
        """Number of hidden features, to which dropout applies."""
        return self.hidden.out_features

    def forward(self, view: Tensor, kept: Tensor | None = None) -> Decision:
        """Curves are monotone (a start near 0, then non-negative steps from knot to knot), their ends pinned.

        Photos of almost no contrast (a wall, fog, a blank page) are left as they are: see `tone_features.confidence`.
        `kept` (N, features) is a factor of each hidden feature: dropout in training. A stage with a `fine` part that is
        given the view of one without decides as that does; so it is trained.
        """
        whole = view
        fine = self.config.fine and view.shape[-1] == FINE_VIEW_PX
        if fine:
            view = F.avg_pool2d(view, FINE_VIEW_PX // LOCAL_VIEW_PX)
        thumbnail = statistics_view(view)
        x = view - 0.5
        for layer in self.convs:
            x = F.leaky_relu(layer(x), 0.2)
        hidden = F.leaky_relu(self.hidden(self._seen(x, thumbnail)), 0.2)
        if kept is not None:
            hidden = hidden * kept
        if self.second is not None:
            hidden = F.leaky_relu(self.second(hidden), 0.2)
        trust = confidence(thumbnail)
        if self.config.grid:
            trust = trust * texture_confidence(view)
        raw = self.decide(hidden) * trust
        curve, matrix = raw[:, : 3 * self.config.knots].unflatten(1, (3, -1)), raw[:, 3 * self.config.knots :]
        start = 0.1 * curve[..., :1]
        # softplus(x + ln(e - 1)) is 1 at x = 0: untrained, every step is that of the identity.
        steps = F.softplus(curve[..., 1:] + 0.541325) / (self.config.knots - 1)
        curves = torch.cat([start, start + steps.cumsum(-1)], dim=-1)
        identity = torch.eye(3, dtype=raw.dtype, device=raw.device)
        matrices = identity + 0.3 * matrix.unflatten(1, (3, 3))
        grids = self._grids(x, hidden) * trust[:, :, None, None] if self.config.grid else None
        decision = Decision(with_pinned_ends(curves, matrices), matrices, grids, self.config.guide)
        return self._refined(decision, whole, thumbnail, trust) if fine else decision

    def _refined(self, decision: Decision, view: Tensor, thumbnail: Tensor, trust: Tensor) -> Decision:
        """The decision with its `fine` part, which `view` (N, 3, FINE_VIEW_PX, FINE_VIEW_PX) decides (`tone_fine`)."""
        meant = tone_fine.meant_to_be_bright(thumbnail)
        if self.config.darkening < 1:
            toned = apply(thumbnail, decision)
            share = 1 - (1 - self.config.darkening) * tone_fine.darkened(thumbnail, toned) * meant
            decision = _share_of(decision, share)
        decision = _with_highlights_held(decision, self.config.hold, meant)
        assert decision.grids is not None
        toned = apply_global(view, decision.curves, decision.matrices).clamp(0, 1)
        seen, base = (F.avg_pool2d(picture, FINE_VIEW_PX // LOCAL_VIEW_PX) for picture in (view, toned))
        hold = tone_fine.held(seen, base, apply_grid(base, decision.grids, None, decision.guide))
        hold = enlarged(self.config.hold * hold, view.shape[-2:])
        toned = held_back(view, apply_grid(toned, decision.grids, None, decision.guide), hold)
        lines = tone_fine.contrast_lines(toned, self.config.clarity) * trust[:, :, None, None]
        return decision._replace(fine=torch.cat([hold, lines], 1))

    @torch.no_grad()
    def keep_colours(self, share: float) -> None:
        """Keep this share (0..1) of what is decided about colours; brightness and contrast stay as decided.

        Whether a photo is too warm or meant to be is a guess, and a wrong one shows. The decision is linear in the last
        layer, so that curves move towards their mean over the channels, and the matrix towards the gain that it gives
        gray on average.
        """
        for curves, matrix in self._decided():
            curves.copy_(torch.lerp(curves.mean(0, keepdim=True), curves, share))
            gray = torch.eye(3).to(matrix).reshape(3, 3, *[1] * (matrix.dim() - 2)) * matrix.sum(1).mean(0)
            matrix.copy_(torch.lerp(gray, matrix, share))

    @torch.no_grad()
    def keep_casts(self, share: float) -> None:
        """Keep this share (0..1) of how grays are tinted; saturation, brightness and contrast stay as decided.

        A cast is corrected by a guess, and where that is wrong pale skies turn lilac. Curves move towards their mean
        over the channels, and so do the sums of the matrix's rows, which are what gray becomes.
        """
        for curves, matrix in self._decided():
            curves.copy_(torch.lerp(curves.mean(0, keepdim=True), curves, share))
            gray = matrix.sum(1)
            for channel, excess in enumerate((1 - share) * (gray - gray.mean(0))):
                matrix[channel, channel] -= excess

    @torch.no_grad()
    def keep_gains(self, shares: Sequence[float]) -> None:
        """Keep these shares (0..1) of the gains of each layer of the grid, the darkest first.

        Shadows opened as far as targets ask for look hazy, and show their noise. Gains are 1.5 tanh(g) EV, and it is g
        of which a share is kept.
        """
        factors = torch.as_tensor(shares).to(self.gains.weight)
        for parameter in self.gains.parameters():
            parameter.mul_(factors.view(-1, *[1] * (parameter.dim() - 1)))

    def _decided(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Views of the last layer's weights and biases: of the curves (3, knots, ...) and of the matrix (3, 3, ...)."""
        end = 3 * self.config.knots
        for decided in (self.decide.weight, self.decide.bias):
            yield decided[:end].unflatten(0, (3, -1)), decided[end:].unflatten(0, (3, 3))

    def _seen(self, x: Tensor, thumbnail: Tensor) -> Tensor:
        """Input features (N, values) of the decision: of the last convolution's output, and statistics."""
        parts = []
        if self.config.grid:
            for layer in self.coarse:
                x = F.leaky_relu(layer(x), 0.2)
        if self.config.channels:
            parts += [x.mean((2, 3)), x.amax((2, 3))]
        if self.config.bins:
            parts.append(statistics(thumbnail, self.config.bins))
        if self.config.quantiles:
            parts.append(quantiles(thumbnail))
        return torch.cat(parts, dim=1)

    def _grids(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Gains (N, depth, grid, grid) in EV, from features of the cells and what is known of the whole photo."""
        first, second = self.local
        x = F.leaky_relu(first(x) + self.context(hidden)[:, :, None, None], 0.2)
        x = F.leaky_relu(second(x), 0.2)
        return LARGEST_GAIN_EV * torch.tanh(self.gains(x))


def _share_of(decision: Decision, share: Tensor) -> Decision:
    """This share (N, 1, 1) of the change that was decided."""
    assert decision.grids is not None
    curves, matrices = decision.curves, decision.matrices
    straight = torch.linspace(0, 1, curves.shape[-1]).to(curves)
    identity = torch.eye(3).to(matrices)
    return decision._replace(
        curves=straight + share * (curves - straight),
        matrices=identity + share * (matrices - identity),
        grids=share[..., None] * decision.grids,
    )


def _with_highlights_held(decision: Decision, hold: float, meant: Tensor) -> Decision:
    """The decision that changes highlights less, so that a face or a cloud in the light is not burnt out.

    Nor do they become gray, where `meant` (N, 1, 1), how far a photo is meant to be bright, says so. Curves are judged
    by what they and the matrix make of gray.
    """
    assert decision.grids is not None
    curves, grids = decision.curves, decision.grids
    places, layers = (torch.linspace(0, 1, steps).to(curves) for steps in (curves.shape[-1], grids.shape[1]))
    at_places, at_layers = (hold * HIGHLIGHT_SHARE * tone_fine.ramp(x, *HIGHLIGHT) for x in (places, layers))
    change = (curves * decision.matrices.sum(-1, keepdim=True) - places).clamp(-MOST_HELD, MOST_HELD)
    return decision._replace(
        curves=curves - at_places * (change.clamp(min=0) + meant * change.clamp(max=0)),
        grids=grids - at_layers.view(-1, 1, 1) * (grids.clamp(min=0) + meant[..., None] * grids.clamp(max=0)),
    )


def statistics_view(view: Tensor) -> Tensor:
    """The thumbnail (N, 3, 64, 64) that statistics are taken from: every so many pixels of a view."""
    step = view.shape[-1] // THUMBNAIL_PX
    return view[..., step // 2 :: step, step // 2 :: step]


def view(pixels_hwc: np.ndarray, side: int = THUMBNAIL_PX) -> Tensor:
    """`view.view_nchw` as a tensor."""
    return torch.from_numpy(views.view_nchw(pixels_hwc, side))


@torch.no_grad()
def decide(stage: ToneStage, pixels_hwc: np.ndarray) -> ToneMap:
    """The tone map of a whole photo (H, W, 3), uint8 or uint16."""
    decision = stage(view(pixels_hwc, stage.config.view_px))
    grid = None if decision.grids is None else np.ascontiguousarray(decision.grids[0].permute(1, 2, 0).numpy())
    fine = None if decision.fine is None else np.ascontiguousarray(decision.fine[0].permute(1, 0, 2).numpy())
    return ToneMap(decision.curves[0].numpy(), decision.matrices[0].numpy(), grid, decision.guide, fine)
