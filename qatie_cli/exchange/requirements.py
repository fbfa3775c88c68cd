"""What can be exported at all, whatever the runtime."""

from __future__ import annotations

from qatie_cli.errors import WeightsError
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.network import SIZE_MULTIPLE


def check(weights: Weights, int8: bool, size: tuple[int, int] | None) -> None:
    """Raise where `size` (height, width; None for any) or the weights do not allow an export.

    Raises:
        ValueError: a side of `size` is not a positive multiple of 8.
        WeightsError: int8 was asked for and the weights were never calibrated.
    """
    if size is not None and any(side < 1 or side % SIZE_MULTIPLE for side in size):
        raise ValueError(f"height and width must be positive multiples of {SIZE_MULTIPLE}, not {size}")
    if int8 and weights.activations is None:
        raise WeightsError("These weights carry no int8 ranges.", "Export them as float, or finish their training.")
