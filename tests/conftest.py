"""Photos and small weights that the tests share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# One thread, here and in the processes that tests start: threads that wait for each other take many times as long where
# something else wants the processor, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image
from samples import random_weights
from skimage import data

from qatie_cli.data import clean as clean_photos
from qatie_cli.data.clean import CleanPhotos
from qatie_cli.data.store import Store
from qatie_cli.model import checkpoint
from qatie_cli.model.checkpoint import Weights

SHARED = Path(__file__).resolve().parents[2] / "shared"
COMPILED = ("graphs", "kernels", "machine-code")  # folders of the user data folder that are caches of such code
# Begun first, so that no worker has one of them before it when the others are done.
LONGEST = ["test_docs.py", "test_cluster.py", "test_shipped.py", "test_cli_training.py", "test_training.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of the longest tests come first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Photos that are not part of the project; tests that need them are skipped without."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared photos")
    return SHARED


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A real photo, (512, 512, 3) uint8."""
    return data.astronaut()


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """Another one, (400, 600, 3) uint8."""
    return data.coffee()


@pytest.fixture(scope="session")
def weights(request: pytest.FixtureRequest, astronaut: np.ndarray, coffee: np.ndarray) -> Weights:
    """Small calibrated weights; under `EVERY_NETWORK` of each kind of network."""
    return random_weights([astronaut, coffee], without=getattr(request, "param", ""))


@pytest.fixture(scope="session")
def weights_file(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    checkpoint.write(path, weights)
    return path


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray, coffee: np.ndarray) -> CleanPhotos:
    """Five small good photos, one of them to validate on."""
    folder = tmp_path_factory.mktemp("clean")
    for index, photo in enumerate((coffee, astronaut, coffee[:, ::-1], astronaut[:, ::-1], coffee[:300])):
        Image.fromarray(np.ascontiguousarray(photo)).resize((160, 120)).save(folder / f"{index}.png")
    return clean_photos.load(folder, Store(10**9), validation_share=0.2, seed=0)


@pytest.fixture(scope="session", autouse=True)
def compiled_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all tests of a run, and the processes they start, keep what takes seconds to compile.

    Fixtures of more than one test have it for their user data folder.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled-code"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QATIE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, compiled_code: Path) -> Path:
    """No test reads or writes the real user data folder; each has one of its own, but for compiled code."""
    home = tmp_path_factory.mktemp("home")
    for name in COMPILED:
        (compiled_code / name).mkdir(exist_ok=True)
        with contextlib.suppress(OSError):  # Windows may not allow links: code is compiled again
            (home / name).symlink_to(compiled_code / name, target_is_directory=True)
    monkeypatch.setenv("QATIE_HOME", str(home))
    return home


@pytest.fixture
def empty_home(own_home: Path) -> Path:
    """A user data folder without compiled code, either."""
    for name in COMPILED:
        (own_home / name).unlink(missing_ok=True)
    return own_home
