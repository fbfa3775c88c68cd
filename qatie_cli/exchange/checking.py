"""An exported model, run at once in the runtime that it is for, against our own engines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import DataError
from qatie_cli.exchange import runtimes
from qatie_cli.model.checkpoint import Weights

LEAST_DB = 40.0


@dataclass(frozen=True)
class Agreement:
    """PSNR in dB of a model's output against our engines' on one photo; `to_int8` is None for weights without ranges.

    `our_db` is that of our own int8 against our float.
    """

    to_float: float
    to_int8: float | None
    our_db: float | None

    def check(self, int8: bool, least: float = LEAST_DB) -> None:
        """Raise DataError where an int8 model is below `least` dB to our int8 or float, or a float one to our float."""
        if int8 and self.to_int8 is not None and self.to_int8 < least:
            raise DataError(
                f"The model agrees with qatie's int8 at {self.to_int8:.1f} dB only, below {least:g}: not written.",
                "Try another version of the runtime.",
            )
        if self.to_float >= least:
            return
        message = f"The model agrees with qatie's float at {self.to_float:.1f} dB only, below {least:g}: not written."
        if int8 and self.our_db is not None and self.our_db < least:
            raise DataError(
                f"{message} So does qatie's own int8 of these weights, at {self.our_db:.1f} dB.",
                "Train them with --qat, check on another --photo, or accept it with --least.",
            )
        raise DataError(message, "Try another version of the runtime.")


def agreement(kind: str, content: bytes, weights: Weights, photo: np.ndarray, threads: int = 1) -> Agreement:
    """Run a model of the kind onnx, tflite or executorch on a photo (H, W, 3) uint8 whose sides it takes.

    Raises:
        DataError: its runtime refuses it.
    """
    if kind == "onnx":
        output = runtimes.onnxruntime(content, photo, threads)
    elif kind == "tflite":
        output = runtimes.litert(content, photo, threads)
    else:
        output = runtimes.executorch(content, photo)
    exact = enhance(photo, engines.load(weights, engines.FLOAT))
    if weights.activations is None:
        return Agreement(_db(output, exact), None, None)
    ours = enhance(photo, engines.load(weights))
    return Agreement(_db(output, exact), _db(output, ours), _db(ours, exact))


def _db(a: np.ndarray, b: np.ndarray) -> float:
    return metrics.finite_psnr(a, b)
