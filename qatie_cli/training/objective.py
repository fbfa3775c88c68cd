"""What a stage minimizes, as a module: the form in which PyTorch averages gradients over processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qatie_cli.data.sampling import Batch
from qatie_cli.model.network import Rounding
from qatie_cli.model.tone import apply_tone
from qatie_cli.model.whole import Model
from qatie_cli.training import losses
from qatie_cli.training.recipe import Recipe

Terms = dict[str, Tensor]


class ToneObjective(nn.Module):
    """The tone stage on whole photos: the logarithm of each photo's error."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.stage = model.tone

    def forward(self, batch: Batch, kept: Tensor | None) -> tuple[Tensor, Terms]:
        """`kept` is the dropout's mask (N, features), None for none."""
        toned = apply_tone(batch.input, *self.stage(batch.thumbnail, kept))
        loss = losses.log_mse(toned, batch.target)
        # The same minimum as that of log10; a tenth of the natural logarithm suits the clip of 1 and the rates.
        return 0.230259 * loss, {"log_mse": loss}


class NetworkObjective(nn.Module):
    """The network behind the finished tone stage; in the QAT stage also the distance of rounded from float output."""

    def __init__(self, model: Model, recipe: Recipe, stage: str) -> None:
        super().__init__()
        self.network = model.network
        self._toned = model.toned  # not a part of this module: the tone stage is not trained here
        self._matches = model.tone is not None
        self.recipe, self.quantized = recipe, stage == "qat"

    def forward(self, batch: Batch, rounding: Rounding) -> tuple[Tensor, Terms]:
        base = self._toned(batch.input, batch.thumbnail)
        target = losses.matched_tone(batch.target, base) if self._matches else batch.target
        mixed = torch.autocast(base.device.type, torch.bfloat16, enabled=self.recipe.mixed_precision)
        with mixed:
            residual = self.network(base, rounding).float()
        terms = losses.terms(self.recipe.loss, base + residual, target)
        loss = losses.total(self.recipe.loss, terms)
        if self.quantized and self.recipe.agreement:
            with mixed:
                exact = self.network(base).float()
            terms["agreement"] = losses.l1(residual, exact)
            loss = loss + self.recipe.agreement * terms["agreement"]
        return loss, terms
