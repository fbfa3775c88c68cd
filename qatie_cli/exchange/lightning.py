"""Reads checkpoints of the authors' training code: a `.ckpt` of PyTorch Lightning, or a plain state dictionary.

Only tensors and plain values are read; nothing is executed. Keys end in the names of the authors' modules, behind any
prefixes of their wrappers; observers of quantization-aware training are ignored.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from qatie_cli.errors import WeightsError
from qatie_cli.exchange.authors import Affine, Layer, UnfitError, in_order
from qatie_cli.model.config import NetworkConfig

# The authors' names in the order in which the network runs; a refinement block's parts likewise.
_ORDER = (
    *("down1.a", "down1.b", "unet_s2", "down2.a", "down2.b", "unet_s4", "bottleneck"),
    *("up_to_s4.conv", "fuse4_reduce", "fuse4_refine", "up_to_s2.conv", "fuse2_reduce", "fuse2_refine"),
    *("up_to_s1.conv", "head"),
)
_BLOCKS = {"unet_s2", "unet_s4", "bottleneck", "fuse4_refine", "fuse2_refine"}
_PARTS = ("conv_1", "conv_1_1_1", "conv_2", "conv_3", "conv_1_1")
_NORM = "norm1"
_FIRST = "down1.a.weight"
_OBSERVERS = ("weight_fake_quant", "activation_post_process")
_VARIANT = "hybrid_base"  # of the authors' ablations, the one that the paper proposes


def network(path: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and state of our network from a checkpoint.

    Raises:
        WeightsError: it cannot be read without executing its content, or it is of another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) and "Unsupported" in str(error):
            raise WeightsError(
                f"{path} holds Python objects beside tensors, which qatie never executes.",
                "Save its state_dict alone: torch.save({'state_dict': checkpoint['state_dict']}, FILE).",
            ) from error
        raise _unreadable(path) from error
    except Exception as error:  # torch raises many kinds for damaged archives
        raise _unreadable(path) from error
    try:
        state = _state(content)
        convolutions, norms = [], []
        for name in _ORDER:
            if name in _BLOCKS:
                convolutions += [_layer(state, f"{name}.{part}") for part in _PARTS]
                norms.append(Affine(*_pair(state, f"{name}.{_NORM}")))
            else:
                convolutions.append(_layer(state, name))
        return in_order(convolutions, norms)
    except UnfitError as error:
        raise WeightsError(
            f"{path} is a checkpoint of another network: {error}.", "Only that of arXiv 2604.21743 can be imported."
        ) from error


def _unreadable(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read as a checkpoint: it is damaged, incomplete or of another kind.", "Copy it again."
    )


def _state(content: object) -> dict[str, Tensor]:
    """Tensors by the authors' names, without prefixes and observers."""
    if not isinstance(content, Mapping):
        raise UnfitError("it has no state_dict")
    told = content.get("hyper_parameters")
    variant = told.get("ablation_model", _VARIANT) if isinstance(told, Mapping) else _VARIANT
    if variant != _VARIANT:
        raise UnfitError(f"its settings call it {variant}")
    held = content.get("state_dict", content)
    tensors = {k: t for k, t in held.items() if isinstance(t, Tensor)} if isinstance(held, Mapping) else {}
    prefix = next((key.removesuffix(_FIRST) for key in tensors if f".{key}".endswith(f".{_FIRST}")), None)
    if prefix is None:
        raise UnfitError(f"it has no {_FIRST}")
    return {
        key.removeprefix(prefix): t
        for key, t in tensors.items()
        if key.startswith(prefix) and not any(observer in key for observer in _OBSERVERS)
    }


def _pair(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    try:
        return state[f"{name}.weight"].float(), state[f"{name}.bias"].float()
    except KeyError as missing:
        raise UnfitError(f"it has no {missing.args[0]}") from None


def _layer(state: dict[str, Tensor], name: str) -> Layer:
    layer = Layer(*_pair(state, name))
    if layer.weight.dim() != 4 or layer.bias.shape != layer.weight.shape[:1]:
        raise UnfitError(f"{name} has a weight of shape {tuple(layer.weight.shape)}")
    return layer
