"""The objectives of the stages, as modules, so that PyTorch can average their gradients over processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qatie_cli.data.source import TrainingBatch
from qatie_cli.model import tone_apply
from qatie_cli.model.network import Network, Rounding
from qatie_cli.model.tone import ToneStage
from qatie_cli.model.whole import Model
from qatie_cli.training import losses
from qatie_cli.training.losses import LossWeights

Terms = dict[str, Tensor]


class ToneObjective(nn.Module):
    """The tone stage on whole photos: the logarithm of each photo's error, and how uneven its gains are."""

    def __init__(self, stage: ToneStage, smoothness: float = 0.0) -> None:
        """`smoothness` weighs the squared differences between neighbouring cells' gains."""
        super().__init__()
        self.stage, self.smoothness = stage, smoothness

    def forward(self, batch: TrainingBatch, kept: Tensor | None) -> tuple[Tensor, Terms]:
        """`kept` is the dropout mask (N, features), None for no dropout."""
        decision = self.stage(batch.view, kept)
        seen, target, boxes = (batch.input, batch.target, batch.boxes) if decision.grids is None else _thinned(batch)
        terms = {"log_mse": losses.tone_error(tone_apply.apply(seen, decision, boxes), target, batch.exact)}
        # A tenth of the natural logarithm: a scale that suits the clip of 1 and the rates.
        loss = 0.230259 * terms["log_mse"]
        if decision.grids is not None and self.smoothness:
            terms["unevenness"] = losses.unevenness(decision.grids)
            loss = loss + self.smoothness * terms["unevenness"]
        return loss, terms


def _thinned(batch: TrainingBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Every second pixel of every second row of inputs and targets, with boxes that put them where they were.

    Applying gains is most of a step's work, and using every pixel does not help.
    """
    height, width = batch.input.shape[-2:]
    boxes = batch.boxes.clone()
    boxes[:, [0, 2]] += 0.5 / width * (batch.boxes[:, 2:3] - batch.boxes[:, 0:1])
    boxes[:, [1, 3]] += 0.5 / height * (batch.boxes[:, 3:4] - batch.boxes[:, 1:2])
    return batch.input[..., 1::2, 1::2], batch.target[..., 1::2, 1::2], boxes


class NetworkObjective(nn.Module):
    """The network behind the finished tone stage; with `agreement`, also its distance from unrounded output.

    Agreement alone favours a network that changes little. With a `teacher`, the output is also kept close to that of a
    network trained without rounding.
    """

    def __init__(
        self,
        model: Model,
        weights: LossWeights,
        *,
        agreement: float = 0.0,
        teacher: Network | None = None,
        distillation: float = 0.0,
        mixed: bool = False,
    ) -> None:
        """Set the weights of the terms, and the network to learn from.

        Args:
            agreement: weight of the L1 between rounded and float output.
            teacher: a network that is given the same photos; it is not trained.
            distillation: weight of the L1 between the rounded output and the teacher's.
            mixed: whether convolutions are computed in bfloat16.
        """
        super().__init__()
        self.network = model.network
        # Not a submodule, since the tone stage is not trained here.
        self._decide = None if model.tone is None else model.tone.forward
        self._taught = None if teacher is None or not distillation else teacher.forward
        self.weights, self.agreement, self.distillation, self.mixed = weights, agreement, distillation, mixed

    def forward(self, batch: TrainingBatch, rounding: Rounding) -> tuple[Tensor, Terms]:
        """The loss of a batch with the network rounded by `rounding`, and its terms by name."""
        if self._decide is None:
            base, target = batch.input.clamp(0, 1), batch.target
        else:
            # The same decision for both, so that noise and detail are lifted equally.
            decision = self._decide(batch.view)
            base = tone_apply.apply(batch.input, decision, batch.boxes)
            restored = losses.matched_tone(batch.restored, batch.input)
            target = tone_apply.apply(restored, decision, batch.boxes)
        mixed = torch.autocast(base.device.type, torch.bfloat16, enabled=self.mixed)
        with mixed:
            residual = self.network(base, rounding).float()
        terms = losses.terms(self.weights, base + residual, target)
        loss = losses.total(self.weights, terms)
        if self.agreement:
            with mixed:
                exact = self.network(base).float()
            terms["agreement"] = losses.l1(residual, exact)
            loss = loss + self.agreement * terms["agreement"]
        if self._taught is not None:
            with torch.no_grad():
                taught = self._taught(base)
            terms["distillation"] = losses.l1(residual, taught)
            loss = loss + self.distillation * terms["distillation"]
        return loss, terms
