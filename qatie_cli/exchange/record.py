"""The metadata that an exported model carries so that it can be imported again.

Most tensors of a weights file are constants of the graph, unchanged or in int8. Those that cannot be recovered from it
(convolutions with folded upsampling; in int8 also the biases) are stored in the metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import safetensors.numpy

from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights

HEADER = "qatie"  # the model's metadata: a JSON object
TENSORS = "qatie.tensors"  # likewise: a safetensors file


@dataclass(frozen=True)
class Record:
    """Collects the tensors of `weights` that a graph holds under their own names."""

    weights: Weights
    int8: bool
    held: set[str] = field(default_factory=set)

    def hold(self, key: str) -> None:
        """The graph holds the tensor `key` of the state, as it is or, a convolution's weight, in integers."""
        self.held.add(key)

    def header(self) -> dict:
        """Plain values: the weights file's own header, and what kind of export this is."""
        return checkpoint.to_header(self.weights) | {
            "arithmetic": "int8" if self.int8 else "float",
            "held": sorted(self.held),
        }

    def tensors(self) -> bytes:
        """The tensors that the graph does not hold."""
        left = {name: values for name, values in self.weights.state.items() if name not in self.held}
        return safetensors.numpy.save({name: np.ascontiguousarray(values, np.float32) for name, values in left.items()})
