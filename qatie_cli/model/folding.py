"""Upsampling folded into adjacent convolutions, without PyTorch.

`network.fold_upsample` and `network.fold_tail` do the same differentiably, and explain it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def fold_upsample(weight: np.ndarray) -> np.ndarray:
    """Kernels (out, in, 3, 3) after nearest x2 upsampling as (4 * out, in, 2, 2), the phase as the slow index."""
    by_rows = _phases(weight)  # (2, out, in, 2, 3)
    folded = np.stack([_phases(rows.swapaxes(2, 3)).swapaxes(3, 4) for rows in by_rows])  # (2, 2, out, in, 2, 2)
    return np.ascontiguousarray(folded.reshape(-1, *folded.shape[3:]))


def _phases(weight: np.ndarray) -> np.ndarray:
    """Taps (out, in, 3, n) of even and of odd rows on the rows that were upsampled: (2, out, in, 2, n)."""
    first, middle, last = (weight[:, :, tap] for tap in range(3))
    return np.stack([np.stack([first, middle + last], 2), np.stack([first + middle, last], 2)])


def centred(folded: np.ndarray) -> np.ndarray:
    """Kernels (4 * out, in, 2, 2) of `fold_upsample` as (4 * out, in, 3, 3), filled up with zeros.

    With a padding of 1 the phases then lie in place, where `network.interleave` has to cut them to size. The
    network takes 3% longer so in onnxruntime; but OpenVINO 2026.4 cannot compile the integers with the cuts.
    """
    phases = folded.reshape(2, 2, -1, *folded.shape[1:])
    kernels = np.zeros((*phases.shape[:4], 3, 3), folded.dtype)
    for p in (0, 1):
        for q in (0, 1):
            kernels[p, q, :, :, p : p + 2, q : q + 2] = phases[p, q]
    return kernels.reshape(-1, *kernels.shape[3:])


# TAPS[p, a, d, e] is 1 where tap d of the head and tap e of the upsampling convolution, at phase p of a full-size row,
# read source row i + a - 1.
_TAPS = np.zeros((2, 3, 3, 3), np.float32)
for _p, _d, _e in np.ndindex(2, 3, 3):
    _TAPS[_p, (_p + _d - 1 + _e - 1) // 2 + 1, _d, _e] = 1


def fold_tail(state: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weight (12, c, 3, 3) and bias (12) that turn features into the residual's four phases.

    Args:
        state: tensors of a weights file.
    """
    up, head = state["network.up.weight"], state["network.head.weight"]
    rows = np.einsum("okyx,kiYX,payY->opaixXk", head, up, _TAPS, optimize=True)
    weight = np.einsum("opaixXk,qbxX->opqiab", rows, _TAPS, optimize=True)
    bias = state["network.head.bias"] + np.einsum("okyx,k->o", head, state["network.up.bias"])
    return np.ascontiguousarray(weight.reshape(12, -1, 3, 3), np.float32), bias.repeat(4).astype(np.float32)
