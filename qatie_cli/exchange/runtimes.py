"""Runs a model file on a photo in the runtimes that phones use.

Photos in and out are (H, W, 3) uint8; conversion to the file's own types and layout happens here.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np

from qatie_cli.errors import DataError
from qatie_cli.model import view

THUMBNAIL = "thumbnail"  # name of that input; the other is the photo


def litert(model: bytes | Path, photo: np.ndarray, threads: int = 1, reference: bool = False) -> np.ndarray:
    """The photo enhanced by a TFLite model in LiteRT.

    Args:
        reference: use LiteRT's own kernels only; else XNNPACK's, the default on phones.

    Raises:
        DataError: the runtime refuses the model, or the photo's size.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with _refusals("LiteRT"):
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if reference else OpResolverType.AUTO
        given = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
        run = Interpreter(**given, num_threads=threads, experimental_op_resolver_type=kernels)
        for entry in run.get_input_details():
            if THUMBNAIL not in entry["name"] and -1 in entry["shape_signature"]:
                run.resize_tensor_input(entry["index"], [1, *photo.shape])
        run.allocate_tensors()
        for entry in run.get_input_details():
            picture = view.view_u8(photo, int(entry["shape"][1])) if THUMBNAIL in entry["name"] else photo
            run.set_tensor(entry["index"], _given(picture[None], entry))
        run.invoke()
        (out,) = run.get_output_details()
        return _taken(run.get_tensor(out["index"]), out, photo)


def litert_sides(model: Path) -> tuple[int, int] | None:
    """Height and width of the photo that a TFLite model takes; None for any.

    Raises:
        DataError: LiteRT refuses it.
    """
    from ai_edge_litert.interpreter import Interpreter

    with _refusals("LiteRT"):
        entries = Interpreter(model_path=str(model)).get_input_details()
        photo = next(entry for entry in entries if THUMBNAIL not in entry["name"])
        height, width = (int(side) for side in photo["shape_signature"][1:3])
        return None if -1 in (height, width) else (height, width)


def onnxruntime(model: bytes | Path, photo: np.ndarray, threads: int = 1) -> np.ndarray:
    """The photo enhanced by an ONNX model in ONNX Runtime.

    Raises:
        DataError: the runtime refuses the model, or the photo's size.
    """
    from qatie_cli.without_telemetry import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised as exceptions
    with _refusals("ONNX Runtime"):
        session = runtime.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
        )
        fed = {}
        for entry in session.get_inputs():
            picture = view.view_u8(photo, entry.shape[-1]) if entry.name == THUMBNAIL else photo
            fed[entry.name] = _nchw(picture)
        return _levels(session.run(None, fed)[0][0].transpose(1, 2, 0))


def executorch(model: bytes | Path, photo: np.ndarray) -> np.ndarray:
    """The photo enhanced by an ExecuTorch program.

    Raises:
        DataError: the runtime refuses the program, or the photo's size.
    """
    import torch
    from executorch.runtime import Runtime

    # It prints the CPU's features on Python's standard error.
    with _refusals("ExecuTorch"), contextlib.redirect_stderr(io.StringIO()):
        method = Runtime.get().load_program(model).load_method("forward")
        sides = [
            method.metadata.input_tensor_meta(index).sizes()[-1] for index in range(1, method.metadata.num_inputs())
        ]
        pictures = [photo, *(view.view_u8(photo, side) for side in sides)]
        (out,) = method.execute([torch.from_numpy(_nchw(picture)) for picture in pictures])
        return _levels(out[0].permute(1, 2, 0).numpy())


class _refusals:  # noqa: N801 (used as a function)
    """Turns a runtime's exceptions into a one-line DataError that names the runtime."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        # Each runtime has error types of its own.
        if isinstance(error, Exception) and not isinstance(error, ImportError | DataError):
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{self.runtime} cannot run it: {reason}.") from error


def _nchw(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((picture.astype(np.float32) / 255).transpose(2, 0, 1)[None])


def _levels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _given(picture: np.ndarray, entry: dict) -> np.ndarray:
    """A picture (1, H, W, 3) uint8 in the type of an input; its layout must be NHWC."""
    if tuple(entry["shape"]) != picture.shape:
        taken = tuple(int(side) for side in entry["shape"])
        raise DataError(f"The model takes {taken}, not a photo of {picture.shape}.")
    values = picture.astype(np.float32) / 255
    if entry["dtype"] == np.float32:
        return values
    scale, zero_point = entry["quantization"]
    limits = np.iinfo(entry["dtype"])
    return np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(entry["dtype"])


def _taken(values: np.ndarray, entry: dict, photo: np.ndarray) -> np.ndarray:
    """An output (1, H, W, 3), or (1, 3, H, W), of any type as uint8 (H, W, 3)."""
    if entry["dtype"] != np.float32:
        scale, zero_point = entry["quantization"]
        values = (values.astype(np.float32) - zero_point) * np.float32(scale)
    picture = values[0]
    return _levels(picture if picture.shape == photo.shape else picture.transpose(1, 2, 0))
