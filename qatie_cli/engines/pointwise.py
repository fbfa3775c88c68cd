"""Pointwise layers on stored integers, (h, w, channels) uint8, by tables: compiled, on several threads.

Only where `kernels.usable`; this module imports numba with the first call.
"""

from __future__ import annotations

import numpy as np

from qatie_cli.kernels.threads import over_rows


def look_up(x: np.ndarray, table: np.ndarray) -> None:
    """Every value through a table of 256, in place."""
    from qatie_cli.kernels import features

    over_rows(x.shape[0], x.size, lambda first, last: features.mapped(x, table, first, last))


def join(x: np.ndarray, tables: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    """Each channel of `x` through its table (channels, 256), then the channels of `other`, into `out`."""
    from qatie_cli.kernels import features

    over_rows(x.shape[0], out.size, lambda first, last: features.joined(x, tables, other, first, last, out))


def combine(x: np.ndarray, other: np.ndarray, table: np.ndarray) -> None:
    """Pairs of values of `x` and `other` through a table (256, 256), into `x`."""
    from qatie_cli.kernels import features

    over_rows(x.shape[0], x.size, lambda first, last: features.combined(x, other, table, first, last))


def gate(pair: np.ndarray, table: np.ndarray, product: np.ndarray, out: np.ndarray) -> None:
    """Both halves of `pair` through a table of 256, in place; `out` are their products by a table (256, 256)."""
    from qatie_cli.kernels import features

    over_rows(out.shape[0], pair.size, lambda first, last: features.gated(pair, table, product, first, last, out))


def fuse(phases: np.ndarray, encoded: np.ndarray, table: np.ndarray, pair: np.ndarray, out: np.ndarray) -> None:
    """Phases interleaved, `encoded` through a table of 256, and `pair`: side by side in `out`."""
    from qatie_cli.kernels import features

    over_rows(
        out.shape[0],
        out.size,
        lambda first, last: features.fused(phases, encoded, table, pair, first, last, out),
    )
