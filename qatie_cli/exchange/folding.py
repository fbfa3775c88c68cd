"""Convolutions over an upsampled tensor, folded, in the form that other runtimes take."""

from __future__ import annotations

from torch import Tensor


def is_folded(name: str) -> bool:
    """Whether the convolution `name` has its upsampling folded in (`network.fold_upsample`)."""
    return name.endswith(".up")


def centred(folded: Tensor) -> Tensor:
    """Kernels (4 * out, in, 2, 2) of `fold_upsample` as (4 * out, in, 3, 3), filled up with zeros.

    With a padding of 1 the phases then lie in place, where `network.interleave` has to cut them to size. The
    network takes 3% longer so in onnxruntime; but OpenVINO 2026.4 cannot compile the integers with the cuts.
    """
    phases = folded.unflatten(0, (2, 2, -1))
    kernels = folded.new_zeros(*phases.shape[:4], 3, 3)
    for p in (0, 1):
        for q in (0, 1):
            kernels[p, q, :, :, p : p + 2, q : q + 2] = phases[p, q]
    return kernels.flatten(0, 2)
