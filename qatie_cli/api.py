"""qatie from Python: photos enhanced without the command line.

    import qatie_cli

    model = qatie_cli.load()
    better = model(pixels)  # (H, W, 3) uint8 or uint16, sRGB
    photo = qatie_cli.read("a.heic")  # upright, with profile and metadata
    qatie_cli.write(model.enhance(photo, strength=0.8), "a.jpg")
    summary = qatie_cli.enhance_folder("photos", "out", model=model)

Errors that a caller can act on are `QatieError`: the message says what happened, `hint` what to do next. Arguments of
the wrong type or range raise TypeError or ValueError.

Threads. Everything here is safe to call from several threads. A model enhances one photo at a time, since one photo
keeps all cores busy; further callers wait. Two models run in parallel, except on PyTorch, which has one quantized
engine and one number of threads per process: there, int8 networks and models loaded with `threads` take turns. Decoding
and encoding run in parallel.

Host process. After a call, Pillow's MAX_IMAGE_PIXELS, warnings filters, logging levels, PyTorch's quantized engine and
its number of threads are what they were before. While a call runs, other threads see some of them changed: Pillow's
limit and, the first time an engine is loaded, the warnings filters; PyTorch's settings while the network computes (a
thread that first uses PyTorch at that moment keeps the number of threads it finds). Standard error is never redirected.
Reading or writing HEIC registers pillow-heif with Pillow for good. `enhance_folder` decodes HEIC, AVIF, WebP and TIFF
in a process of its own, which ends with the call.

Before torch is imported. OpenMP's waiting threads spin by default, which is several times slower when another process
wants the cores. Call `qatie_cli.threads.bound_spin()` before anything imports torch, or set OMP_WAIT_POLICY=PASSIVE:
OpenMP reads its settings once, when it is loaded. This module does not touch the environment. A model uses no more
threads than a container's CPU quota allows; `qatie_cli.threads.bound_number()` bounds other libraries', too.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from qatie_cli import sizes
from qatie_cli.batch import session, single
from qatie_cli.batch.outcomes import Result, Status
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Writing
from qatie_cli.batch.settings import FLOAT, INT8, Settings
from qatie_cli.errors import PhotoError, QatieError, UsageError
from qatie_cli.model import shipped
from qatie_cli.photo import MAX_PIXELS, decoding, fineness, formats
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import identity
from qatie_cli.photo.fineness import Quality

if TYPE_CHECKING:  # imports torch, which reading and writing photos do without
    from qatie_cli.engines import Engine
    from qatie_cli.enhance.photos import Enhancer

__all__ = [
    "Model",
    "Photo",
    "PhotoResult",
    "QatieError",
    "Status",
    "Summary",
    "available_engines",
    "enhance_file",
    "enhance_folder",
    "load",
    "read",
    "write",
]

Depth = TypeVar("Depth", np.uint8, np.uint16)
PathLike = str | os.PathLike[str]
Format = Literal["keep", "same", "jpeg", "png", "webp", "tiff", "heic", "avif"]


class Model:
    """Weights on an engine, ready to enhance photos; made by `load`. Safe to call from several threads.

    Attributes:
        weights: the name or path that it was loaded by.
        engine: "float", or the int8 engine that runs it, as `available_engines` names them.
        device: "cpu", "cuda" or "mps".
        threads: CPU threads while it computes; 0 is PyTorch's own number.
    """

    def __init__(self, engine: Engine, weights: str, sha256: str) -> None:
        self._engine, self._sha256 = engine, sha256
        self.weights = weights
        self.engine = engine.name
        self.device = engine.device
        self.threads = engine.threads

    def __repr__(self) -> str:
        return f"Model(weights={self.weights!r}, engine={self.engine!r}, device={self.device!r})"

    def __call__(self, array: npt.NDArray[Depth], strength: float = 1.0) -> npt.NDArray[Depth]:
        """Enhance pixels, as `enhance` does with its defaults.

        Args:
            array: (H, W, 3) uint8 in 0..255 or uint16 in 0..65535, sRGB-encoded, upright; any height and width.
            strength: 0..1; 0 returns a copy, 1 is the full effect.

        Returns:
            A new array of the same shape and type; `array` is not changed.

        Raises:
            TypeError: `array` is not a NumPy array.
            ValueError: its shape or type, or `strength`, is invalid.
            QatieError: memory is insufficient.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(f"pixels are a NumPy array, not {type(array).__name__}")
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype not in (np.uint8, np.uint16) or not array.size:
            raise ValueError(f"pixels are (H, W, 3) uint8 or uint16, not {array.shape} {array.dtype}")
        better: npt.NDArray[Depth] = self.enhance(Photo(array, "png"), strength=strength).pixels
        return better

    def enhance(
        self, photo: Photo, *, strength: float = 1.0, fast: bool | None = None, max_memory: int | str | None = None
    ) -> Photo:
        """Enhance a photo in its own colour space and bit depth; gray stays gray, transparency passes through.

        Args:
            photo: as `read` returns it.
            strength: 0..1; 0 leaves the pixels as they are, 1 is the full effect.
            fast: run the network on photos above 4 megapixels at reduced size, and bring its residual to full size
                guided by the photo; tone and edges stay at full size. False takes about twice as long. None does so for
                photos that are noisy at full size, and takes the fast way for all others.
            max_memory: memory limit of the whole process, in bytes or as "1.5GB"; larger photos are processed in tiles,
                with the same result. None allows 60% of the free memory.

        Returns:
            A new photo with other pixels and the same metadata.

        Raises:
            ValueError: the strength is not in 0..1.
            QatieError: `max_memory` is too small for the smallest tiles, or not a valid size.
        """
        return self._enhancer(strength, fast).within(photo, _bytes(max_memory))

    def _enhancer(self, strength: float, fast: bool | None) -> Enhancer:
        from qatie_cli.enhance.photos import Effect, Enhancer

        return Enhancer(self._engine, Effect(strength, fast))


def load(weights: PathLike = shipped.DEFAULT, engine: str = "auto", threads: int = 0, device: str = "cpu") -> Model:
    """Load weights; engines other than "llvm" and "onnxruntime" import PyTorch, which takes a second or two.

    Args:
        weights: the name of shipped weights (`qatie weights list`), or a weights file.
        engine: one of `available_engines`, or "auto" for the fastest int8 engine here (float on a GPU).
        threads: CPU threads of the network; 0 takes all usable cores, or leaves PyTorch its own number, unless a
            container's CPU quota is less.
        device: "cpu", or "cuda" or "mps", which run the float network.

    Raises:
        QatieError: there are no such weights, or no such engine or device on this machine.
        ValueError: `threads` is negative.
    """
    if threads < 0:
        raise ValueError(f"threads must be 0 or more, not {threads}")
    return _load(os.fspath(weights), engine, threads, device)


def _load(name: str, engine: str, threads: int, device: str, begun_on: str = "") -> Model:
    with warnings.catch_warnings():  # importing NumPy adds warning filters, which belong to the host
        from qatie_cli import engines
        from qatie_cli.model import checkpoint

    found = checkpoint.read(shipped.locate(name))
    return Model(engines.load(found, engine, device, threads, begun_on), name, shipped.digest(name))


def available_engines() -> tuple[str, ...]:
    """Engines of this machine, "float" first where PyTorch is installed, which this imports."""
    with warnings.catch_warnings():
        from qatie_cli import engines

    return engines.available()


def read(path: PathLike | bytes, *, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photo: upright, with colour profile, transparency and metadata.

    Args:
        path: a JPEG, PNG, WebP, TIFF, HEIC, AVIF or BMP file, or the content of one as bytes.
        max_pixels: larger photos are refused before they are decoded.

    Returns:
        The photo; `Photo.pixels` is (H, W, 3), or (H, W, 1) where it is gray, uint8 or uint16.

    Raises:
        QatieError: no file, no permission, no photo, a damaged one, an animation, or too large.
    """
    return decoding.read(path if isinstance(path, bytes) else Path(path), max_pixels)


def write(photo: Photo, path: PathLike, *, quality: Quality = None) -> None:
    """Write a photo atomically: a file that exists is replaced, or left as it is where writing fails.

    Args:
        photo: as `read` or `Model.enhance` returns it.
        path: its suffix chooses the format: .jpg, .png, .webp, .tif, .heic, .avif. What the format cannot hold (16 bit,
            some metadata) is left out.
        quality: 1..100 of lossy formats, or "source" for about as fine as the file that the photo was read from. None
            is 95, and no coarser than its source for a photo that was a JPEG.

    Raises:
        ValueError: `quality` is not in 1..100.
        QatieError: the suffix is none of these, the format cannot hold the photo, or the file cannot be written.
    """
    target = Path(path)
    single.write(single.Enhanced(photo, _format_of(target), ()), target, fineness.check(quality))


def enhance_file(
    source: PathLike,
    target: PathLike,
    *,
    model: Model | None = None,
    strength: float = 1.0,
    fast: bool | None = None,
    quality: Quality = None,
    overwrite: bool = False,
    hdr: bool = True,
    motion: bool = True,
    max_memory: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Read, enhance and write one photo, atomically.

    Args:
        source: the photo; it is never changed.
        target: the file to write, in a folder that exists; its suffix chooses the format, as for `write`.
        model: None loads the default weights on the best engine, once for the process.
        strength: as for `Model.enhance`.
        fast: likewise.
        max_memory: likewise.
        quality: as for `write`.
        overwrite: replace a `target` that exists.
        hdr: False leaves out an HDR gain map; formats that have no place for it lose it, too.
        motion: likewise for a motion photo's video.
        max_pixels: as for `read`.

    Raises:
        ValueError: `strength` or `quality` is out of range.
        QatieError: the photo cannot be read, enhanced or written; `target` exists, or is `source`.
    """
    source, target = Path(source), Path(target)
    fmt = _format_of(target)
    writing = Writing(fineness.check(quality), max_pixels=max_pixels, no_hdr=not hdr, no_motion=not motion)
    allowed = _bytes(max_memory)
    if target.exists() and identity(target) == identity(source):
        raise UsageError(f"{target} is the original.", "Choose another target.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists.", "Choose another target, or pass overwrite=True.")
    better = (model or _default_model())._enhancer(strength, fast)
    single.write(
        single.enhance(source, fmt, writing, lambda photo: better.within(photo, allowed)), target, writing.quality
    )


@dataclass(frozen=True)
class PhotoResult:
    """The outcome of a photo of a folder.

    Attributes:
        source: the photo.
        output: the file that was or would have been written.
        status: `Status.ENHANCED`, `SKIPPED` (the output was there), `FAILED` or `NOT_BEGUN`; each equals its text.
        reason: why it failed or was skipped, with the next step; empty for an enhanced photo.
        notes: what was left out of the output.
        width, height: of the output in pixels; 0 if the photo was not read.
    """

    source: Path
    output: Path
    status: Status
    reason: str = ""
    notes: tuple[str, ...] = ()
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Summary:
    """The outcome of a folder.

    Attributes:
        results: one for each photo: first those whose output existed, then the others in the order of the run.
        not_photos: files not named like photos.
        unsearched: folders that could not be searched, with the reason.
    """

    results: tuple[PhotoResult, ...]
    not_photos: tuple[Path, ...] = ()
    unsearched: tuple[tuple[Path, str], ...] = ()

    def __str__(self) -> str:
        """How many photos have each status, and a line for each that failed and each folder that was not searched."""
        counts = {status: len(self.with_status(status)) for status in Status}
        told = ", ".join(f"{number:,} {status.value}" for status, number in counts.items() if number)
        photos = "1 photo" if len(self.results) == 1 else f"{len(self.results):,} photos"
        lines = [f"{photos}: {told}" if told else "no photos"]
        lines += [result.reason for result in self.with_status(Status.FAILED)]
        lines += [f"{folder}: {reason}" for folder, reason in self.unsearched]
        return "\n".join(lines)

    def with_status(self, status: Status | str) -> tuple[PhotoResult, ...]:
        """The results with a status, such as "enhanced" or "failed"."""
        return tuple(result for result in self.results if result.status == status)

    @property
    def complete(self) -> bool:
        """Whether every photo has its output."""
        return not self.unsearched and all(r.status in (Status.ENHANCED, Status.SKIPPED) for r in self.results)


def enhance_folder(
    source: PathLike,
    target: PathLike,
    *,
    model: Model | None = None,
    on_result: Callable[[PhotoResult], None] | None = None,
    strength: float = 1.0,
    fast: bool | None = None,
    format: Format = "keep",
    quality: Quality = None,
    suffix: str = "",
    recursive: bool = True,
    overwrite: bool = False,
    hdr: bool = True,
    motion: bool = True,
    max_memory: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Summary:
    """Enhance the photos of a folder into another one, which keeps their tree. Originals are never changed.

    Outputs are written atomically. Those that were made from the same photos with the same settings are skipped, so the
    same call resumes after an interruption; others are redone, unless somebody changed them: they fail for that reason
    (`target`/.qatie records what each was made from). A photo that fails is a result with its reason, and the others
    are enhanced. Decoding, network and encoding of neighbouring photos overlap. KeyboardInterrupt passes through once
    the photo being written is written or gone.

    Args:
        source: the folder of photos.
        target: the folder to write to; it is created.
        model: None loads the default weights on the best engine, once for the process.
        on_result: called after each photo, in the calling thread and in the order of the run; not for outputs that
            existed. An exception that it raises ends the run after the photos in progress.
        strength: as for `Model.enhance`.
        fast: likewise.
        format: "keep" writes HEIC as JPEG and BMP as PNG, and leaves other photos their format; "same" leaves HEIC its
            format, too.
        quality: as for `write`.
        suffix: appended to the stem of every output: a.jpg becomes aSUFFIX.jpg.
        recursive: search the folders below `source`, too.
        overwrite: redo outputs that exist, whatever they are.
        hdr: as for `enhance_file`; notes name what a format loses.
        motion: likewise.
        max_memory: of the whole process, which works on several photos at once; as for `Model.enhance`.
        max_pixels: as for `read`.

    Raises:
        ValueError: `strength`, `format` or `quality` is not as above.
        QatieError: `source` is not a folder, `target` cannot be written, or every output would replace an original.
    """
    folder, out = Path(source), Path(target)
    if format not in (formats.KEEP, formats.SAME, *formats.FORMATS):
        raise ValueError(f"format is 'keep', 'same' or one of {', '.join(formats.FORMATS)}, not {format!r}")
    if not 0 <= strength <= 1:  # once, rather than as the failure of every photo
        raise ValueError(f"strength lies in 0..1, not {strength}")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Give a folder of photos.")
    request = session.Request(
        (folder,),
        out,
        Naming(format, suffix, recursive, overwrite),
        Writing(fineness.check(quality), max_pixels=max_pixels, no_hdr=not hdr, no_motion=not motion),
        max_memory=_bytes(max_memory),
        settings=replace(_settings(model, strength, fast, quality), no_hdr=not hdr, no_motion=not motion),
    )
    with session.opened(request) as run:
        run.prepare()
        if run.plan.tasks:
            chosen = model or _default_model(run.begun_on)
            run.run(chosen._enhancer(strength, fast), lambda result: on_result(_public(result)) if on_result else None)
        return _summary(run)


def _summary(run: session.Session) -> Summary:
    skipped = [PhotoResult(t.source, t.output, Status.SKIPPED, "The output exists.") for t in run.plan.done]
    done = [_public(result) for result in (*run.refused, *run.results)]
    return Summary((*skipped, *done), run.plan.not_photos, run.plan.unsearched)


def _public(result: Result) -> PhotoResult:
    task = result.task
    return PhotoResult(
        task.source, task.output, result.status, result.reason, result.notes, result.width, result.height
    )


def _settings(model: Model | None, strength: float, fast: bool | None, quality: Quality) -> Settings:
    if model is None:
        return Settings(shipped.DEFAULT, shipped.digest(shipped.DEFAULT), INT8, strength, fast, quality)
    arithmetic = FLOAT if model.engine == FLOAT else INT8
    return Settings(model.weights, model._sha256, arithmetic, strength, fast, quality)


_default: Model | None = None
_LOADING = threading.Lock()


def _default_model(begun_on: str = "") -> Model:
    """The default weights, on the engine that a folder was begun on where that can be."""
    global _default  # noqa: PLW0603
    with _LOADING:
        if _default is None:
            _default = load()
        if begun_on in ("", _default.engine):
            return _default
    return _load(shipped.DEFAULT, "auto", 0, "cpu", begun_on)


def _format_of(path: Path) -> str:
    fmt = formats.format_of_name(path)
    if fmt is None:
        suffixes = ", ".join(suffix for suffix, _ in formats.FORMATS.values())
        raise PhotoError(f"{path.name} names no format that can be written.", f"Let it end in one of {suffixes}.")
    return fmt


def _bytes(size: int | str | None) -> int | None:
    return sizes.parse_bytes(size) if isinstance(size, str) else size
