"""Reads any importable file; its kind is recognised by content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from qatie_cli import files, installation
from qatie_cli.errors import UsageError, WeightsError
from qatie_cli.exchange.record import HEADER, TENSORS
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.config import NetworkConfig

_LARGEST = 1 << 30  # bytes; the paper's largest network has 15 MB
_NEEDED = {"tflite": ("ai_edge_litert",), "onnx": ("onnx",), "checkpoint": ()}
_WANTED = "Give a .tflite or .ckpt file of the paper's network, or a .tflite or .onnx file that qatie exported."


@dataclass(frozen=True)
class Found:
    """What a file holds: complete `weights`, or `state`, the paper's network, whose int8 ranges are not usable."""

    path: Path
    kind: str
    weights: Weights | None
    config: NetworkConfig
    state: dict[str, Tensor]


def read(path: Path) -> Found:
    """What `path` holds.

    Raises:
        WeightsError: it cannot be imported; the message says why.
        UsageError: the package that reads its kind is not installed.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise WeightsError(f"{path} is too large for weights of this network.", _WANTED)
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"There is no file {path}.", _WANTED) from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.", _WANTED) from error
    kind = _kind(path, content)
    try:
        return {"tflite": _tflite, "onnx": _onnx, "checkpoint": _checkpoint}[kind](path, content)
    except ImportError as error:
        raise UsageError(
            f"Reading {path.name} needs {', '.join(_NEEDED[kind]) or error.name}.",
            f"Run: {installation.extra('import')}",
        ) from error


def finished(
    found: Found, photos: Mapping[str, np.ndarray], on_step: Callable[[str], None] = lambda _: None
) -> Weights:
    """Weights with int8 ranges and a record of their origin.

    Args:
        photos: (H, W, 3) uint8 by name, to calibrate on where that is needed.
    """
    from qatie_cli.exchange import calibrating

    origin = {"file": found.path.name, "sha256": files.sha256(found.path), "kind": found.kind}
    if found.weights is not None:
        return replace(found.weights, recipe=found.weights.recipe | {"imported": origin})
    made = calibrating.calibrated(found.config, found.state, list(photos.values()), on_step)
    return replace(
        made,
        recipe={"imported": origin | calibrating.RECIPE},
        data={"calibration_photos": list(photos)},
        versions=checkpoint.this_machine_versions(),
    )


def as_written(found: Found) -> Weights:
    """The file's float network, unchanged, to compare with."""
    from qatie_cli.model import whole
    from qatie_cli.model.config import ModelConfig

    if found.weights is not None:
        return found.weights
    state = whole.arrays({f"network.{name}": t for name, t in found.state.items()})
    return Weights(ModelConfig(found.config, None), state)


def _kind(path: Path, content: bytes) -> str:
    """`tflite`, `onnx` or `checkpoint`, by content where it tells."""
    suffix = path.suffix.lower()
    if content[4:8] == b"TFL3" or suffix == ".tflite":
        return "tflite"
    if content[4:6] == b"ET":
        raise WeightsError(f"{path} is an ExecuTorch program, and weights cannot be read from one.", _WANTED)
    if content[8:9] == b"{" and suffix == ".safetensors":
        raise WeightsError(f"{path} is a safetensors file.", "qatie's own files need no import: use --weights.")
    if content[:2] in (b"PK", b"\x80\x02") or suffix in (".ckpt", ".pt", ".pth"):
        return "checkpoint"
    if suffix == ".onnx":
        return "onnx"
    raise WeightsError(f"{path} cannot be imported: unknown kind of file.", _WANTED)


def _tflite(path: Path, content: bytes) -> Found:
    from qatie_cli.exchange import exported
    from qatie_cli.exchange.tflite import reading as tflite

    graph = tflite.read_graph(path, content)
    try:
        header, tensors = graph.metadata(HEADER), graph.metadata(TENSORS)
        places = {} if header is None else graph.constants()
    except tflite.UNREADABLE as error:
        raise tflite.damaged(path) from error
    if header is None:
        config, state = tflite.network(path, graph)
        return Found(path, "TFLite file of the paper's network", None, config, state)
    ready = exported.weights(path, header, tensors or b"", lambda name: graph.constant_in_state(places[name]))
    return Found(path, "TFLite file exported by qatie", ready, ready.config.network, {})


def _onnx(path: Path, content: bytes) -> Found:
    from qatie_cli.exchange.onnx import reading as onnx

    ready = onnx.read(path, content)
    return Found(path, "ONNX model exported by qatie", ready, ready.config.network, {})


def _checkpoint(path: Path, _: bytes) -> Found:
    from qatie_cli.exchange import lightning

    config, state = lightning.network(path)
    return Found(path, "training checkpoint of the paper's network", None, config, state)
