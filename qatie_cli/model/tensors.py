"""Names and shapes of the tensors of a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qatie_cli.model.config import ModelConfig, NetworkConfig, ToneConfig

Shape = tuple[int, ...]

GATES = ("down1", "down2")
REFINEMENTS = ("refine1", "refine2", "bottleneck", "decode2", "decode1")  # in the order in which they run
FUSES = ("fuse1", "fuse2")


def shapes(config: ModelConfig) -> dict[str, Shape]:
    """The shape of every tensor of a model's state, by its name."""
    found = {f"network.{name}": shape for name, shape in _network(config.network).items()}
    if config.tone is not None:
        found |= {f"tone.{name}": shape for name, shape in _tone(config.tone).items()}
    return found


def check(config: ModelConfig, state: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless `state` has exactly the tensors of a model of this structure."""
    wanted = shapes(config)
    if missing := sorted(wanted.keys() - state.keys()):
        raise ValueError(f"it lacks {', '.join(missing)}")
    if extra := sorted(state.keys() - wanted.keys()):
        raise ValueError(f"it has {', '.join(extra)} beside the model's tensors")
    for name, shape in wanted.items():
        if state[name].shape != shape:
            raise ValueError(f"{name} has the shape {state[name].shape}, not {shape}")


def _conv(name: str, inputs: int, outputs: int, side: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _network(config: NetworkConfig) -> dict[str, Shape]:
    c = config.width
    found = _conv("down1.pair", 3, 2 * c, 3) | _conv("down2.pair", c, 4 * c, 3)
    widths = {"refine1": (c, c), "refine2": (2 * c, 2 * c), "bottleneck": (2 * c, 4 * c)}
    widths |= {"decode2": (2 * c, 2 * c), "decode1": (c, c)}
    for name in REFINEMENTS:
        i, o = widths[name]
        found |= _conv(f"{name}.local", i, i, 3) | {f"{name}.norm.weight": (i,), f"{name}.norm.bias": (i,)}
        found |= _conv(f"{name}.side", i, i, 1) | _conv(f"{name}.inner", 2 * i, o, 3)
        found |= _conv(f"{name}.outer", o, o, 3) | _conv(f"{name}.shortcut", 2 * i, o, 1)
    for name, deep, channels in (("fuse2", 4 * c, 2 * c), ("fuse1", 2 * c, c)):
        found |= _conv(f"{name}.up", deep, channels, 3) | _conv(f"{name}.reduce", 4 * channels, channels, 1)
    return found | _conv("up", c, c, 3) | _conv("head", c, 3, 3)


def _tone(config: ToneConfig) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    widths, c = config.widths, config.channels
    for layer in range(len(widths) - 1):
        found |= _conv(f"convs.{layer}", widths[layer], widths[layer + 1], 3)
    found |= _linear("hidden", config.seen, config.hidden)
    if config.statistics:
        found |= _linear("second", config.hidden, config.hidden)
    found |= _linear("decide", config.hidden, 3 * config.knots + 9)
    if config.grid:
        for layer, inputs in enumerate((widths[-1], 4 * c)):
            found |= _conv(f"coarse.{layer}", inputs, 4 * c, 3) | _conv(f"local.{layer}", inputs, 4 * c, 3)
        found |= _linear("context", config.hidden, 4 * c) | _conv("gains", 4 * c, config.depth, 1)
    return found
