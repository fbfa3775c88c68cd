"""How closely models reproduce a reference: exports against qatie's engines, imported weights against their file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qatie_cli import engines, metrics
from qatie_cli.enhance.pixels import enhance
from qatie_cli.errors import DataError
from qatie_cli.exchange import runtimes
from qatie_cli.model.checkpoint import Weights

LEAST_DB = 40.0


@dataclass(frozen=True)
class ExportAgreement:
    """PSNR in dB of an exported model's output to our engines' on one photo.

    `int8_to_float` is that of our own int8 engine to our float one. Without int8 ranges both int8 figures are None.
    """

    to_float: float
    to_int8: float | None
    int8_to_float: float | None

    def check(self, int8: bool, least: float = LEAST_DB) -> None:
        """Raise if a float model is below `least` dB to qatie's float, or an int8 model to its int8 or float.

        Raises:
            DataError: the message says which, and whether our own int8 is no closer.
        """
        if int8 and self.to_int8 is not None and self.to_int8 < least:
            raise DataError(
                f"The model reaches {self.to_int8:.1f} dB to qatie's int8, below {least:g}: not written.",
                "Try another version of the runtime.",
            )
        if self.to_float >= least:
            return
        message = f"The model reaches {self.to_float:.1f} dB to qatie's float, below {least:g}: not written."
        if int8 and self.int8_to_float is not None and self.int8_to_float < least:
            raise DataError(
                f"{message} qatie's own int8 reaches {self.int8_to_float:.1f} dB with these weights.",
                "Train them with --qat, check on another --photo, or lower --least.",
            )
        raise DataError(message, "Try another version of the runtime.")


def of_export(kind: str, content: bytes, weights: Weights, photo: np.ndarray, threads: int = 1) -> ExportAgreement:
    """Run a model of one of `formats.FORMATS` in its runtime, on a photo (H, W, 3) uint8 of a size that it takes.

    Raises:
        DataError: the runtime refuses it.
    """
    if kind == "onnx":
        output = runtimes.onnxruntime(content, photo, threads)
    elif kind == "tflite":
        output = runtimes.litert(content, photo, threads)
    else:
        output = runtimes.executorch(content, photo)
    exact = enhance(photo, engines.load(weights, engines.FLOAT))
    if weights.activations is None:
        return ExportAgreement(metrics.finite_psnr(output, exact), None, None)
    ours = enhance(photo, engines.load(weights))
    return ExportAgreement(
        metrics.finite_psnr(output, exact), metrics.finite_psnr(output, ours), metrics.finite_psnr(ours, exact)
    )


@dataclass(frozen=True)
class EngineAgreement:
    """Mean and worst PSNR in dB of one engine's outputs, or a model file's, to the float reference's over photos."""

    name: str
    mean: float
    worst: float


def of_engines(
    weights: Weights,
    reference: Weights,
    photos: Sequence[np.ndarray],
    published: Path | None = None,
    threads: int = 1,
    on_photo: Callable[[], None] = lambda: None,
) -> list[EngineAgreement]:
    """Compare `weights` on every engine, and the TFLite file `published`, with the float engine on `reference`.

    Photos are (H, W, 3) uint8; where `published` is given, of the size that it takes.

    Raises:
        DataError: LiteRT refuses the file.
    """
    exact = engines.load(reference, engines.FLOAT)
    loaded = [engines.load(weights, name) for name in engines.available_for(weights)]
    found: dict[str, list[float]] = {}
    for photo in photos:
        expected = enhance(photo, exact)
        outputs = {engine.name: enhance(photo, engine) for engine in loaded}
        if published is not None:
            outputs[published.name] = runtimes.litert(published, photo, threads)
        for name, output in outputs.items():
            found.setdefault(name, []).append(metrics.finite_psnr(output, expected))
        on_photo()
    return [EngineAgreement(name, float(np.mean(values)), min(values)) for name, values in found.items()]
