"""Graphs of weights, cached in the user's data folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from qatie_cli import files, graphs, model
from qatie_cli.home import user_folder
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights

_DIGEST_BYTES = hashlib.sha256().digest_size


def of(weights: Weights) -> dict[str, bytes]:
    """The graphs of calibrated weights by name, as `graphs.parts.build` writes them.

    Damaged files are rebuilt; if none can be written, graphs are built each time (a third of a second).
    """
    path = user_folder() / "graphs" / f"{_digest(weights)}.bin"
    with contextlib.suppress(OSError, ValueError, safetensors.SafetensorError):
        return _unpacked(path.read_bytes())
    from qatie_cli.graphs import parts  # imports onnx, which a cached file does not need

    built = parts.build(weights)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, _packed(built))
    return built


def _digest(weights: Weights) -> str:
    """A digest of the weights and of the sources that build their graphs."""
    found = hashlib.sha256()
    for package in (graphs, model):
        for path in sorted(Path(next(iter(package.__path__))).rglob("*.py")):
            found.update(path.read_bytes())
    header = checkpoint.to_header(weights)
    found.update(json.dumps([header["config"], header["activations"]], sort_keys=True).encode())
    for name, values in sorted(weights.state.items()):
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:32]


def _packed(built: dict[str, bytes]) -> bytes:
    content = safetensors.numpy.save({name: np.frombuffer(graph, np.uint8) for name, graph in built.items()})
    return hashlib.sha256(content).digest() + content


def _unpacked(packed: bytes) -> dict[str, bytes]:
    """Raises ValueError where the content is not what was written."""
    digest, content = packed[:_DIGEST_BYTES], packed[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("damaged")
    return {name: graph.tobytes() for name, graph in safetensors.numpy.load(content).items()}
