"""Reads checkpoints of the authors' training code: a `.ckpt` of PyTorch Lightning, or a plain state dictionary.

Only tensors and plain values are read; nothing is executed. Keys end in the names of the authors' modules, after any
wrapper prefixes; QAT observers are ignored.
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
_ENCODER, _FUSION = ("unet_s2", "unet_s4"), ("fuse4_refine", "fuse2_refine")
_BLOCKS = {*_ENCODER, "bottleneck", *_FUSION}
_PARTS = ("conv_1", "conv_1_1_1", "conv_2", "conv_3", "conv_1_1")
_NORM = "norm1"
_PLAIN = "conv"  # the only part of what stands for a refinement block in an ablation
_FIRST = "down1.a.weight"
_OBSERVERS = ("weight_fake_quant", "activation_post_process")
# The authors' names of the network and its ablations, and whether it adds a residual; which blocks are plain, the
# tensors tell.
_VARIANTS = {
    "hybrid_base": True,
    "hybrid_ablate_fuse_refine": True,
    "hybrid_ablate_resolution_refine": True,
    "hybrid_ablate_residual": False,
    "hybrid_ablate_all": False,
}


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
        residual, state = _state(content)
        refined = (any(f"{name}.{_PLAIN}.weight" not in state for name in part) for part in (_FUSION, _ENCODER))
        kind = NetworkConfig(1, residual, *refined)
        plain = (() if kind.encoder_refiner else _ENCODER) + (() if kind.fusion_refiner else _FUSION)
        convolutions, norms = [], []
        for name in _ORDER:
            if name in plain:
                convolutions.append(_layer(state, f"{name}.{_PLAIN}"))
            elif name in _BLOCKS:
                convolutions += [_layer(state, f"{name}.{part}") for part in _PARTS]
                norms.append(Affine(*_pair(state, f"{name}.{_NORM}")))
            else:
                convolutions.append(_layer(state, name))
        return in_order(convolutions, norms, kind)
    except UnfitError as error:
        raise WeightsError(
            f"{path} is a checkpoint of another network: {error}.", "Only that of arXiv 2604.21743 can be imported."
        ) from error


def _unreadable(path: Path) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read as a checkpoint: it is damaged, incomplete or of another kind.", "Copy it again."
    )


def _state(content: object) -> tuple[bool, dict[str, Tensor]]:
    """Whether the network adds a residual, and tensors by the authors' names, without prefixes and observers."""
    if not isinstance(content, Mapping):
        raise UnfitError("it has no state_dict")
    told = content.get("hyper_parameters")
    variant = told.get("ablation_model", "hybrid_base") if isinstance(told, Mapping) else "hybrid_base"
    if variant not in _VARIANTS:
        raise UnfitError(f"its settings call it {variant}")
    held = content.get("state_dict", content)
    tensors = {k: t for k, t in held.items() if isinstance(t, Tensor)} if isinstance(held, Mapping) else {}
    prefix = next((key.removesuffix(_FIRST) for key in tensors if f".{key}".endswith(f".{_FIRST}")), None)
    if prefix is None:
        raise UnfitError(f"it has no {_FIRST}")
    return _VARIANTS[variant], {
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
