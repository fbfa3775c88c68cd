"""Rows of a photo through its tone map: compiled where that is worth it, in NumPy elsewhere, with the same bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qatie_cli import kernels
from qatie_cli.enhance.guided import GuidedResidual
from qatie_cli.enhance.tiling import Place, Region, strips
from qatie_cli.kernels.fine import HOLD, OFFSET, SLOPE
from qatie_cli.kernels.threads import in_turn, over_rows
from qatie_cli.model import tone_map
from qatie_cli.model.config import Guide
from qatie_cli.model.tone_map import ToneMap, cells_of

_GUIDED_ROWS = 128  # whose lines are fitted at a time: 3 MB of a 12-megapixel photo, and an eighth of the rows twice
_NO_GRID = _NO_FINE = np.empty((0, 0, 0), np.float32)

# Where rows and columns lie among cells: of each row the cell above and the share of the one below; columns starts[i]
# to starts[i + 1] lie between cells[i] and cells[i] + 1; of each column the share of the right one.
Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ToneRows:
    """The tone map of one photo, ready for its pixels.

    Rows are given as a `region` of `source` (H, W, 3) uint8 or uint16, C-contiguous; `place` is the row and column of
    the whole photo where that region begins.
    """

    table: np.ndarray
    grid: np.ndarray | None
    size: tuple[int, int]  # height and width of the whole photo
    guide: Guide = "luma"
    fine: np.ndarray | None = None

    @staticmethod
    def of(decided: ToneMap | None, levels: int, size: tuple[int, int]) -> ToneRows:
        """Those of `decided`; None leaves the values as they are."""
        if decided is not None:
            return ToneRows(decided.table(levels), decided.grid, size, decided.guide, decided.fine)
        values = np.arange(levels, dtype=np.float32) / np.float32(levels - 1)
        table = np.zeros((3, levels, 3), np.float32)
        table[range(3), :, range(3)] = values
        return ToneRows(table, None, size)

    def floats(self, source: np.ndarray, region: Region, place: Place) -> np.ndarray:
        """The rows toned, (h, w, 3) float32 in 0..1."""
        if not kernels.usable(region.pixels):
            before = region.of(source)
            toned = tone_map.apply_table(before, self.table)
            if self.grid is None:
                return toned
            toned = tone_map.apply_gains(toned, self.grid, *place, self.size, self.guide)
            if self.fine is None:
                return toned
            level = np.float32(1) / np.float32(self.table.shape[1] - 1)
            return tone_map.hold_back(before * level, toned, self._plane(HOLD, region, place))
        from qatie_cli.kernels import tone

        out = np.empty((region.height, region.width, 3), np.float32)
        given = self._given(source, region, place)
        over_rows(region.height, out.size, lambda first, last: tone.to_float(*given, first, last, out))
        return out

    def rounded(self, source: np.ndarray, region: Region, place: Place, out: np.ndarray) -> None:
        """The rows toned and rounded into the first columns of `out` (h, columns, 3) uint8."""
        if not kernels.usable(region.pixels):

            def round_rows(first: int, last: int) -> None:
                toned = self.floats(source, region.rows(first, last), (place[0] + first, place[1]))
                toned *= np.float32(255)
                out[first:last, : region.width] = np.rint(toned, out=toned)

            in_turn(round_rows, strips(0, region.height, region.width))
            return
        from qatie_cli.kernels import tone

        given = self._given(source, region, place)
        over_rows(region.height, out.size, lambda first, last: tone.to_bytes(*given, first, last, out))

    def means(self, source: np.ndarray, region: Region, place: Place, factor: int, out: np.ndarray) -> None:
        """Means of factor x factor toned pixels into the first rows of `out` (h, w, 3) uint8; edges repeat."""
        if not kernels.usable(region.pixels):

            def average_rows(first: int, last: int) -> None:
                toned = self.floats(source, region.rows(first, last), (place[0] + first, place[1]))
                margin = [(0, (first - last) % factor), (0, factor * out.shape[1] - region.width), (0, 0)]
                padded = np.pad(toned, margin, mode="edge")
                places = [(y, x) for y in range(factor) for x in range(factor)]
                sums = sum((padded[y::factor, x::factor] for y, x in places[1:]), padded[::factor, ::factor])
                means = np.rint(sums / np.float32(factor * factor) * np.float32(255))
                out[first // factor : first // factor + len(means)] = means

            in_turn(average_rows, strips(0, region.height, region.width, multiple=factor))
            return
        from qatie_cli.kernels import tone

        given = self._given(source, region, place)
        rows = -(-region.height // factor)
        over_rows(rows, region.pixels * 3, lambda first, last: tone.to_means(*given, first, last, factor, out))

    def contrasted(self, rows: np.ndarray, region: Region) -> np.ndarray:
        """Enhanced rows of a region of the photo, (h, w, 3) float32 in 0..1, with local contrast as decided."""
        if self.fine is None:
            return rows
        slope, offset = (self._plane(plane, region, region.place) for plane in (SLOPE, OFFSET))
        return tone_map.apply_contrast(rows, slope, offset)

    def finished(
        self, source: np.ndarray, region: Region, residual: np.ndarray, strength: float, out: np.ndarray
    ) -> None:
        """The rows toned, plus `residual` (h, w, 3) float32, blended with what they were, into their region of `out`.

        `source` is the whole photo, and `out` shaped and typed as it.
        """
        if not kernels.usable(region.pixels):
            result = np.clip(self.floats(source, region, region.place) + residual, 0, 1)
            region.of(out)[:] = _levels(self.contrasted(result, region), region.of(source), strength)
            return
        from qatie_cli.kernels import tone

        given = *self._given(source, region, region.place), np.float32(strength), np.float32(np.iinfo(out.dtype).max)
        residual = np.ascontiguousarray(residual)
        over_rows(region.height, residual.size, lambda first, last: tone.to_result(*given, residual, first, last, out))

    def finished_by(self, source: np.ndarray, guided: GuidedResidual, strength: float, out: np.ndarray) -> None:
        """All rows toned, plus the residual that they guide, blended with what they were, into `out`."""
        height, width = self.size
        if not kernels.usable(height * width):

            def finish_rows(first: int, last: int) -> None:
                region = Region(first, last, 0, width)
                rows = self.floats(source, region, region.place)
                result = np.clip(rows + guided.rows(first, rows), 0, 1)
                region.of(out)[:] = _levels(self.contrasted(result, region), region.of(source), strength)

            in_turn(finish_rows, strips(0, height, width))
            return
        from qatie_cli.kernels import tone

        whole = Region(0, height, 0, width)
        given = *self._given(source, whole, (0, 0)), np.float32(strength), np.float32(np.iinfo(out.dtype).max)
        above, down = guided.neighbours(0, height, guided.reduced.shape[0])
        columns = guided.neighbours(0, width, guided.reduced.shape[1])

        def work(first: int, last: int) -> None:
            for top in range(first, last, _GUIDED_ROWS):
                bottom = min(top + _GUIDED_ROWS, last)
                upper = int(above[top])
                lines = guided.lines(upper, int(above[bottom - 1]) + 2)
                tone.to_guided_result(*given, lines, upper, above, down, *columns, top, bottom, out)

        over_rows(height, out.size, work)

    def _plane(self, plane: int, region: Region, place: Place) -> np.ndarray:
        """A plane of the fine part at the pixels (h, w) of a region, which begins at `place` of the photo."""
        assert self.fine is not None
        return tone_map.enlarged(self.fine[:, plane], *place, region.height, region.width, self.size)

    def _given(self, source: np.ndarray, region: Region, place: Place) -> tuple:
        """The arguments that all kernels share."""
        grid = _NO_GRID if self.grid is None else self.grid
        fine = _NO_FINE if self.fine is None else self.fine
        coarse = self._cells(region, place, grid.shape[:2])
        finer = self._cells(region, place, (fine.shape[0], fine.shape[2]))
        return _frozen(source), region.top, region.left, self.table, grid, self.guide == "luma", coarse, fine, finer

    def _cells(self, region: Region, place: Place, shape: tuple[int, int]) -> Cells:
        """Where the pixels of a region lie among `shape` cells, rows and columns; of none, where they would be one."""
        if not all(shape):
            empty = np.empty(0, np.int64)
            nowhere = np.zeros(region.height, np.int64), np.zeros(region.height, np.float32)
            return *nowhere, empty, empty, np.empty(region.width, np.float32)
        above, down = cells_of(place[0], region.height, self.size[0], shape[0])
        left, across = cells_of(place[1], region.width, self.size[1], shape[1])
        starts = np.flatnonzero(np.diff(left, prepend=-1, append=-1))
        return above, down, starts, left[starts[:-1]], across


def _levels(result: np.ndarray, before: np.ndarray, strength: float) -> np.ndarray:
    """Results (h, w, 3) float32 in 0..1 in levels of `before`, uint8 or uint16, rounded and blended with it."""
    result *= np.float32(np.iinfo(before.dtype).max)
    return np.rint(blended(result, before, strength))


def blended(result: np.ndarray, before: np.ndarray, strength: float) -> np.ndarray:
    """Between `before` and `result` (float32, both in levels) at a strength of 0..1."""
    return result if strength == 1 else before + np.float32(strength) * (result - before)


def _frozen(pixels: np.ndarray) -> np.ndarray:
    """A read-only view: numba compiles a second time for arrays that may be written to."""
    view = pixels.view()
    view.flags.writeable = False
    return view
