"""What weights do to scenes that must keep their tone, and what a grid of gains may get wrong; print a table.

    python .ci/measure_scenes.py [WEIGHTS]

Drawn walls, fog, pages, screens, nights and a silhouette (of other seeds than in training), a skyline of 12 megapixels
(halos), gradients of 8 and 16 bit (banding), and a photo with and without its left 8 columns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage
from skimage import data

from qatie_cli import engines
from qatie_cli.data import drawn, screens
from qatie_cli.engines import Engine
from qatie_cli.enhance.pixels import enhance
from qatie_cli.model import checkpoint
from qatie_cli.model.shipped import locate
from qatie_cli.photo.colour import LUMA

FIRST_SEED = 100_000
SIDE, ENLARGED = 128, 4  # of drawn scenes, which are those of training: views; and by how much they are enlarged
NEAR_PX, FAR_PX = 100, 400  # from the edge of the skyline

Drawing = Callable[[np.random.Generator, int], np.ndarray]


def _u8(picture: np.ndarray) -> np.ndarray:
    return (picture * 255 + 0.5).astype(np.uint8)


def _drawn(draw: Drawing, number: int) -> Iterator[np.ndarray]:
    for seed in range(number):
        view = _u8(draw(np.random.default_rng(FIRST_SEED + seed), SIDE))
        yield view.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def _means(photo: np.ndarray) -> np.ndarray:
    """Means of 16 x 16 pixels, so that removed noise is no change of tone."""
    return ndimage.uniform_filter(photo.astype(np.float64), (16, 16, 1))[8::16, 8::16]


def _silhouette() -> np.ndarray:
    """A sunset behind a black ridge with grass on it."""
    rng = np.random.default_rng(FIRST_SEED)
    rows, columns = np.mgrid[0:512, 0:768] / 512
    glow = np.exp(-3 * ((rows - 0.6) ** 2 + (columns - 0.75) ** 2))[..., None]
    sky = glow * (1.0, 0.62, 0.25) + (1 - glow) * (0.25, 0.2, 0.35)
    ridge = 0.62 + 0.05 * np.sin(9 * columns) + 0.02 * np.sin(41 * columns) - 0.01 * rng.random(columns.shape)
    return _u8(np.where((rows > ridge)[..., None], 0.02 + 0.02 * rng.random((*rows.shape, 1)), sky))


def skyline(softness: float) -> tuple[np.ndarray, np.ndarray]:
    """Dark, textured roofs before a bright sky, (3000, 4000, 3) uint8, and where the sky is."""
    rng = np.random.default_rng(7)
    height, width = 3000, 4000
    tops = np.repeat(rng.integers(1300, 2100, 16), width // 16)
    sky = np.arange(height)[:, None] < tops[None]
    share = ndimage.gaussian_filter(sky.astype(np.float32), softness) if softness else sky.astype(np.float32)
    bright = np.linspace(0.72, 0.9, height, dtype=np.float32)[:, None, None] * np.float32([0.92, 0.97, 1.0])
    tiles = ndimage.zoom(rng.random((height // 50, width // 50)).astype(np.float32), 50, order=0)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, (height, width)).astype(np.float32), 3)
    dark = (0.06 + 0.16 * tiles * (1 + 2.5 * grain))[..., None] * np.float32([1.0, 0.9, 0.8])
    return _u8(np.clip(share[..., None] * bright + (1 - share[..., None]) * dark, 0, 1)), sky


def halo(engine: Engine, softness: float) -> list[tuple[float, float]]:
    """Of sky and of roofs: their gain far from the edge, and how much it differs within 100 pixels, in percent."""
    photo, sky = skyline(softness)
    before, after = (picture @ np.float64(LUMA) for picture in (photo, enhance(photo, engine)))
    found = []
    for part in (sky, ~sky):
        apart = ndimage.distance_transform_edt(part)
        skipped = 2 + 3 * softness  # a soft edge is neither sky nor roof
        near, far = (apart > skipped) & (apart <= NEAR_PX), apart > FAR_PX
        gains = [after[where].mean() / before[where].mean() for where in (near, far)]
        found.append((gains[1], 100 * abs(gains[0] / gains[1] - 1)))
    return found


def largest_step(engine: Engine, dtype: type) -> tuple[float, bool]:
    """Of a gradient from black to white: its largest step in units of the mean one, and whether it never falls."""
    most = np.iinfo(dtype).max
    line = np.rint(np.linspace(0, most, 4096)).astype(dtype)
    out = enhance(np.repeat(np.repeat(line[None, :, None], 512, 0), 3, 2), engine).astype(np.float64).mean((0, 2))
    steps = np.diff(out[::16])
    return float(steps.max() / (most / (len(out) / 16))), bool((steps > -0.5 * most / 255).all())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="?", default="qatie-c16", help="a name or a file")
    engine = engines.load(checkpoint.read(locate(parser.parse_args().weights)))

    def changes(photos: Iterator[np.ndarray]) -> np.ndarray:
        return np.array([np.abs(_means(enhance(photo, engine)) - _means(photo)).mean() for photo in photos])

    print("mean change in levels (median, mean, worst)")
    kinds: dict[str, tuple[Drawing, int]] = {
        "walls, fog, blank": (drawn.flat, 24),
        "pages": (drawn.page, 24),
        "screens": (screens.screen, 24),
        "nights": (drawn.night, 24),
    }
    for name, (draw, number) in kinds.items():
        found = changes(_drawn(draw, number))
        print(f"  {name:18} {np.median(found):6.2f} {found.mean():6.2f} {found.max():6.2f}")
    rocket, silhouette = data.rocket(), _silhouette()
    for name, photo, part in (("rocket's sky", rocket, np.s_[:200]), ("a silhouette's ridge", silhouette, np.s_[-90:])):
        out = enhance(photo, engine)
        print(f"  {name:18} median {np.median(photo[part]):.0f} -> {np.median(out[part]):.0f}")
    for softness in (0.0, 3.0):
        (bright, sky), (dark, roofs) = halo(engine, softness)
        print(f"skyline, edge of {softness:.0f} px: sky x {bright:.2f}, {sky:.1f} %; roofs x {dark:.2f}, {roofs:.1f} %")
    for dtype in (np.uint8, np.uint16):
        step, monotone = largest_step(engine, dtype)
        print(
            f"gradient of {np.dtype(dtype).itemsize * 8} bit: largest step {step:.2f} of the mean, monotone {monotone}"
        )
    photo = data.astronaut()
    apart = np.abs(enhance(photo, engine)[:, 16:].astype(int) - enhance(photo[:, 8:].copy(), engine)[:, 8:])
    print(f"without the left 8 columns: {apart.mean():.2f} levels")


if __name__ == "__main__":
    main()
