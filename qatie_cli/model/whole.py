"""A whole model: the optional tone stage, then the refinement network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from qatie_cli.model import network, tone_apply
from qatie_cli.model.config import ModelConfig
from qatie_cli.model.network import EXACT, Network, Rounding
from qatie_cli.model.tone import ToneStage


class Model(nn.Module):
    """Phone photo in, enhanced photo out, differentiable."""

    def __init__(self, network: Network, tone: ToneStage | None) -> None:
        super().__init__()
        self.network = network
        self.tone = tone

    @property
    def config(self) -> ModelConfig:
        """Its structure, as a weights file records it."""
        return ModelConfig(self.network.config, self.tone.config if self.tone is not None else None)

    def toned(self, photo: Tensor, view: Tensor, boxes: Tensor | None = None) -> Tensor:
        """What the network sees: `photo` (N, 3, H, W) in 0..1 through the tone stage, if there is one, and clamped.

        `view` (N, 3, view_px, view_px) shows the whole photo, of which `photo` may be the part `boxes` (N, 4): left,
        top, right, bottom as shares of its sides.
        """
        if self.tone is None:
            return photo.clamp(0, 1)
        return tone_apply.apply(photo, self.tone(view), boxes)

    def forward(self, photo: Tensor, view: Tensor, rounding: Rounding = EXACT) -> Tensor:
        """The enhanced photo (N, 3, H, W), clamped if it gets local contrast; the sides must be multiples of 8."""
        if self.tone is None:
            base = photo.clamp(0, 1)
            return base + self.network(base, rounding)
        decision = self.tone(view)
        base = tone_apply.apply(photo, decision)
        enhanced = base + self.network(base, rounding)
        return enhanced if decision.fine is None else tone_apply.with_local_contrast(enhanced.clamp(0, 1), decision)


def create(config: ModelConfig, seed: int) -> Model:
    """A model to be trained; untrained it returns its input, and a middle gray where the network has no residual."""
    generator = torch.Generator().manual_seed(seed)
    refinement = network.create(config.network, generator)
    if config.tone is None:
        return Model(refinement, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return Model(refinement, ToneStage(config.tone))


def arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A state as a weights file holds it: float32 arrays."""
    return {name: t.detach().float().cpu().contiguous().numpy() for name, t in state.items()}


def from_state(config: ModelConfig, state: Mapping[str, Tensor | np.ndarray]) -> Model:
    """A model of `config` with exactly the tensors of `state`; those that can be written to share its memory.

    Raises:
        RuntimeError: a tensor is missing, left over, or of another shape.
    """
    with torch.device("meta"):
        model = Model(Network(config.network), None if config.tone is None else ToneStage(config.tone))
    tensors = {name: torch.as_tensor(_writable(values)) for name, values in state.items()}
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.requires_grad_(False)


def _writable(values: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """Training writes to a model's tensors, so arrays that lie in a file's bytes are copied."""
    return values if isinstance(values, Tensor) else np.require(values, requirements="W")
