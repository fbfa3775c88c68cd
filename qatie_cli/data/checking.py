"""Checks of every pair before a run: damaged files, unequal sizes, targets of another picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from qatie_cli.data import layouts
from qatie_cli.data.layouts import PairFiles, SkippedFile
from qatie_cli.data.sampling import subsample
from qatie_cli.data.store import Picture, Store
from qatie_cli.errors import PhotoError
from qatie_cli.photo import resize

SMALLEST_SIDE = 32  # pixels; smaller photos are useless for training
# Input and target of every pair in the evaluation sets (exposure, tone, noise, another camera) are alike at 0.85 or
# more; photos of different things at 0.26 or less.
ALIKE = 0.3
CERTAINLY_ALIKE = 0.6
_PLAIN = 0.03  # standard deviation of luma below which a picture cannot be compared
_LIKENESS_PX = 32
_MOST_SUSPECTS = 500  # unlike pairs for which a better partner is sought
_ALIGNMENT_SAMPLE = 64  # pairs on which misalignment is measured
_ALIGNMENT_PX = 512
_NO_DESCRIPTOR = np.zeros(_LIKENESS_PX**2, np.float32)


@dataclass(frozen=True)
class Alignment:
    """Shift between targets and inputs in pixels, over a sample of the pairs."""

    measured: int
    median: float
    p90: float
    worst: float
    worst_pair: str

    @property
    def matters(self) -> bool:
        """Whether it is large enough to make the network learn blur."""
        return self.p90 > 1.0


@dataclass(frozen=True)
class UsablePair:
    """A pair that was read: its size, and `group`, equal for pairs that share a target."""

    files: PairFiles
    size: tuple[int, int]  # width, height
    group: str


@dataclass(frozen=True)
class CheckResult:
    """Usable pairs, skipped files with their reasons, and the alignment (None where nothing was measured)."""

    usable: tuple[UsablePair, ...]
    skipped: tuple[SkippedFile, ...]
    alignment: Alignment | None


@dataclass(frozen=True)
class _Inspected:
    """One pair as it was read: either a reason to skip it, or its size, group and descriptors."""

    files: PairFiles
    reason: str | None = None
    size: tuple[int, int] = (0, 0)
    group: str = ""
    twin: str = ""  # digest of input and target, equal for duplicate pairs
    descriptors: tuple[np.ndarray, np.ndarray] = (_NO_DESCRIPTOR, _NO_DESCRIPTOR)
    likeness: float = 0.0
    plain: bool = False


def check(pairs: tuple[PairFiles, ...], store: Store, on_read: Callable[[], None] = lambda: None) -> CheckResult:
    """Read every pair; skip the damaged, those of unequal size or different pictures, and duplicates."""
    inspected: list[_Inspected] = []
    with ThreadPoolExecutor() as readers:
        for seen in readers.map(lambda pair: _inspect(pair, store), pairs):
            inspected.append(seen)
            on_read()
    skipped = [SkippedFile(seen.files.name, seen.reason) for seen in inspected if seen.reason is not None]
    good = [seen for seen in inspected if seen.reason is None]
    first: dict[str, str] = {}
    kept = []
    for seen, unlike in zip(good, _unlike(good), strict=True):
        reason = unlike
        if reason is None and (twin := first.setdefault(seen.twin, seen.files.name)) != seen.files.name:
            reason = f"is the same pair as {twin}"
        if reason is None:
            kept.append(UsablePair(seen.files, seen.size, seen.group))
        else:
            skipped.append(SkippedFile(seen.files.name, reason))
    return CheckResult(tuple(kept), tuple(skipped), _alignment(kept, store))


@dataclass(frozen=True)
class FolderReport:
    """The layout of a folder of pairs, and the results of checking it.

    `photos` is the number of different targets, `validation` that of usable pairs which the layout itself holds out
    (None where it holds out none).
    """

    layout: str
    usable: tuple[UsablePair, ...]
    skipped: tuple[SkippedFile, ...]
    alignment: Alignment | None
    photos: int
    validation: int | None


def check_folder(
    folder: Path,
    folders: str | None = None,
    *,
    on_start: Callable[[int], None] = lambda count: None,
    on_read: Callable[[], None] = lambda: None,
) -> FolderReport:
    """Recognise and check a folder of pairs; see `layouts.recognise` and `check`.

    Raises:
        DataError: no known layout.
    """
    layout = layouts.recognise(folder, folders)
    pairs = (*layout.pairs, *layout.validation)
    on_start(len(pairs))
    found = check(pairs, Store(0), on_read)
    held_out = {pair.input for pair in layout.validation}
    return FolderReport(
        layout.description,
        found.usable,
        (*layout.skipped, *found.skipped),
        found.alignment,
        len({p.group for p in found.usable}),
        sum(p.files.input in held_out for p in found.usable) if held_out else None,
    )


def _inspect(pair: PairFiles, store: Store) -> _Inspected:
    pictures: list[Picture] = []
    for path in (pair.input, pair.target):
        try:
            pictures.append(store.get(path))
        except PhotoError as error:
            return _Inspected(pair, _without_name(error, path))
    sizes = [p.image.size for p in pictures]
    if sizes[0] != sizes[1]:
        shown = " and ".join(f"{width}x{height}" for width, height in sizes)
        return _Inspected(pair, f"input and target differ in size: {shown}")
    if min(sizes[0]) < SMALLEST_SIDE:
        return _Inspected(pair, f"is smaller than {SMALLEST_SIDE} pixels: {sizes[0][0]}x{sizes[0][1]}")
    digests = [hashlib.blake2b(np.asarray(p.image).data, digest_size=16).hexdigest() for p in pictures]
    spread = [float(np.asarray(p.overview.convert("L")).std()) / 255 for p in pictures]
    described = (descriptor(pictures[0].overview), descriptor(pictures[1].overview))
    return _Inspected(
        pair,
        size=sizes[0],
        group=digests[1],
        twin="".join(digests),
        descriptors=described,
        likeness=float(described[0] @ described[1]),
        plain=min(spread) < _PLAIN,
    )


def _without_name(error: PhotoError, path: Path) -> str:
    """The reason, with only the last two names of the path."""
    return str(error).replace(str(path), f"{path.parent.name}/{path.name}").rstrip(".")


def descriptor(overview: Image.Image) -> np.ndarray:
    """A tone-independent descriptor of a photo: ranks of luma at 32x32 minus their local mean, of length 1."""
    small = np.asarray(resize.to_square(overview.convert("L"), _LIKENESS_PX), np.float32)
    ranks = small.ravel().argsort(kind="stable").argsort(kind="stable").reshape(small.shape).astype(np.float32)
    local = ranks - ndimage.uniform_filter(ranks, 7, mode="nearest")
    local -= local.mean()
    return (local / max(1e-6, float(np.sqrt((local**2).sum())))).ravel().astype(np.float32)


def _unlike(inspected: list[_Inspected]) -> Iterator[str | None]:
    """For each pair, the reason why its photos do not belong together; None if they do."""
    suspects = [i for i, seen in enumerate(inspected) if seen.likeness < ALIKE][:_MOST_SUSPECTS]
    fitting: dict[int, str] = {}
    if suspects:
        targets = np.array([seen.descriptors[1] for seen in inspected], np.float32)
        likeness = np.array([inspected[i].descriptors[0] for i in suspects], np.float32) @ targets.T
        for index, row in zip(suspects, likeness, strict=True):
            best = int(row.argmax())
            if best != index and row[best] >= CERTAINLY_ALIKE:
                fitting[index] = inspected[best].files.name
    for index, seen in enumerate(inspected):
        if index in fitting:
            yield f"shows another picture than its target; that of {fitting[index]} fits: swapped?"
        elif seen.likeness < ALIKE and not seen.plain:
            yield "shows another picture than its target"
        else:
            yield None


def _alignment(pairs: Iterable[UsablePair], store: Store) -> Alignment | None:
    """Misalignment, measured on a subsample of the pairs."""
    sample = subsample(list(pairs), _ALIGNMENT_SAMPLE)
    shifts = [(misalignment(store.get(p.files.input).image, store.get(p.files.target).image), p) for p in sample]
    measured = [(shift, p.files.name) for shift, p in shifts if shift is not None]
    if not measured:
        return None
    values = [shift for shift, _ in measured]
    worst = max(measured)
    return Alignment(len(measured), float(np.median(values)), float(np.quantile(values, 0.9)), *worst)


def misalignment(a: Image.Image, b: Image.Image) -> float | None:
    """Shift in pixels between the centres of `a` and `b`; None where there is no structure to compare.

    Phase correlation of gradient magnitudes, which do not depend on tone (Guizar-Sicairos et al. 2008, to 0.1 pixel).
    """
    edges = []
    for image in (a, b):
        width, height = image.size
        w, h = min(_ALIGNMENT_PX, width), min(_ALIGNMENT_PX, height)
        left, top = (width - w) // 2, (height - h) // 2
        luma = np.asarray(image.crop((left, top, left + w, top + h)).convert("L"), np.float32)
        gradient = np.hypot(ndimage.sobel(luma, 0), ndimage.sobel(luma, 1))
        window = np.outer(np.hanning(h), np.hanning(w))
        edges.append((gradient - gradient.mean()) * window)
    if min(float(np.abs(e).max()) for e in edges) < 1e-3:
        return None
    shift, _, _ = phase_cross_correlation(*edges, upsample_factor=10, normalization=None)
    return float(np.hypot(*shift))
