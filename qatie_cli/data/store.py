"""Decoded photos, kept in memory within a budget and reread beyond it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from qatie_cli import threads
from qatie_cli.photo import decoding, resize

OVERVIEW_PX = 640  # long side of the small copies that views of the whole photo are cut from
SHARE_OF_FREE = 0.5  # of the memory that is free when a run begins


@dataclass(frozen=True)
class Picture:
    """A photo in RGB, upright, and a copy of at most 640 px for views of the whole."""

    image: Image.Image
    overview: Image.Image


def picture(path: Path, longest: int | None = None) -> Picture:
    """Read a photo, reduced to a long side of at most `longest` pixels.

    Raises:
        PhotoError: it cannot be read.
    """
    image = Image.fromarray(decoding.read(path).rgb_u8())
    if longest is not None:
        image = resize.fit(image, longest, reducing_gap=resize.REDUCING_GAP)
    return Picture(image, resize.fit(image, OVERVIEW_PX, resize.AREA, reducing_gap=resize.REDUCING_GAP))


def size_in_memory(image: Image.Image) -> int:
    """Bytes of a picture's pixels; Pillow pads RGB to four."""
    return image.width * image.height * 4


class Store:
    """Pictures by path, kept until `budget` bytes are used; beyond that, overviews alone up to a quarter more.

    The first photos are kept: training reads all equally often, so no policy is better.
    """

    def __init__(self, budget: int, longest: int | None = None) -> None:
        self.longest = longest
        self._room = budget
        self._overview_room = budget // 4
        self._pictures: dict[Path, Picture] = {}
        self._overviews: dict[Path, Image.Image] = {}
        self._read: set[Path] = set()
        self._lock = threading.Lock()

    def get(self, path: Path) -> Picture:
        """The picture of a file.

        Raises:
            PhotoError: it cannot be read (any more).
        """
        if (kept := self._pictures.get(path)) is not None:
            return kept
        read = picture(path, self.longest)
        with self._lock:
            self._read.add(path)
            size = size_in_memory(read.image) + size_in_memory(read.overview) * (read.overview is not read.image)
            small = size_in_memory(read.overview)
            if self._room >= size:
                self._room -= size
                self._pictures[path] = read
            elif path not in self._overviews and self._overview_room >= small:
                self._overview_room -= small
                self._overviews[path] = read.overview
        return read

    def read(self, paths: Iterable[Path]) -> Iterator[Future[Picture]]:
        """The pictures of files in their order, several of them read at once; a result raises as `get` does."""
        cores = threads.usable_cores()
        coming: deque[Future[Picture]] = deque()
        with ThreadPoolExecutor(cores) as pool:
            for path in paths:
                coming.append(pool.submit(self.get, path))
                if len(coming) > 2 * cores:
                    yield coming.popleft()
            while coming:
                yield coming.popleft()

    def overview(self, path: Path) -> Image.Image:
        """The small copy of a file's picture; it is read where it is not kept."""
        if (kept := self._overviews.get(path)) is not None:
            return kept
        return self.get(path).overview

    @property
    def kept_share(self) -> float:
        """Share of the pictures read so far that stay in memory."""
        return len(self._pictures) / max(1, len(self._read))
