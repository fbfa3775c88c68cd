"""Which photos a folder holds: the same for every command."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qatie_cli
from qatie_cli.batch import planning
from qatie_cli.batch.planning import Naming
from qatie_cli.data import clean, generation, layouts
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError
from qatie_cli.evaluation import comparison
from qatie_cli.photo import discovery

PACKAGE = Path(qatie_cli.__file__).parent
PHOTOS = ["0.png", "1.png", "linked.png", "linked/3.PNG", "sub/2.png", "sub/deep/4.png"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """Photos, and everything that could make two searches differ: links, a loop, hidden and system files."""
    root, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    noise = np.random.default_rng(1).integers(40, 215, (6, 48, 48, 3), np.uint8)
    for index, name in enumerate(("0.png", "1.png", "sub/2.png", "sub/deep/4.png", ".hidden.png", ".cache/5.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[index]).save(root / name)
    elsewhere.mkdir()
    Image.fromarray(noise[0]).save(elsewhere / "3.PNG", "PNG")
    (root / "linked").symlink_to(elsewhere, target_is_directory=True)
    (root / "sub" / "loop").symlink_to(root, target_is_directory=True)
    (root / "linked.png").symlink_to(root / "0.png")
    (root / "nowhere.png").symlink_to(root / "gone.png")
    (root / "Thumbs.db").touch()
    (root / "notes.txt").touch()
    os.mkfifo(root / "pipe.png")
    return root


def _relative(paths, root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in paths)


def test_links_are_followed_once_and_hidden_files_left_out(tree):
    found = discovery.find(tree)
    assert _relative(found.photos, tree) == PHOTOS
    assert found.others == (tree / "notes.txt",)
    assert found.unsearched == ()
    assert _relative(discovery.find(tree, recursive=False).photos, tree) == ["0.png", "1.png", "linked.png"]
    assert "sub/2.png" not in _relative(discovery.find(tree, exclude=tree / "sub").photos, tree)
    assert _relative(discovery.find(tree, exclude=tree).photos, tree) == PHOTOS


def test_folders_of_systems_and_programs_are_left_out_and_counted(tree):
    names = ("@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "My.photoslibrary", ".AppleDouble", "sub/lost+found")
    for name in names:
        (tree / name / "deep").mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tree / name / "deep" / "x.png")
    found = discovery.find(tree)
    assert _relative(found.photos, tree) == PHOTOS
    assert _relative(found.system_folders, tree) == sorted(names)
    assert _relative(discovery.find(tree / "@eaDir").photos, tree) == ["@eaDir/deep/x.png"]  # named, it is meant


def test_every_command_sees_the_same_photos(tree, tmp_path):
    plan = planning.plan([tree], tmp_path / "out", Naming())
    assert _relative((task.source for task in plan.tasks), tree) == PHOTOS
    pairs, _ = comparison.find_pairs(tree, tree)
    assert sorted(pair.name for pair in pairs) == PHOTOS
    matched, left_out = layouts.match(tree, tree)
    assert left_out == ()
    assert _relative((pair.input for pair in matched), tree) == PHOTOS
    assert _relative((pair.input for pair in layouts.pairs_or_photos(tree).pairs), tree) == PHOTOS
    loaded = clean.load(tree, Store(1 << 24), 0.2, 0)
    photos = (*loaded.training, *loaded.validation, *loaded.extreme)
    assert sorted(photo.name for photo in photos) == PHOTOS
    assert generation.generate(tree, tmp_path / "made", DegradationConfig()).pairs == len(PHOTOS)
    assert _relative(discovery.photos_of([tree]), tree) == PHOTOS


def test_nobody_else_walks_folders():
    """What is no photo aside: temporary files, caches, previews, and the package's own files (`engines/built.py`)."""
    searches = re.compile(r"os\.walk|scandir|rglob|discover\(")
    found = [p for p in PACKAGE.rglob("*.py") if searches.search(p.read_text(encoding="utf-8"))]
    assert sorted(p.name for p in found) == ["built.py", "discovery.py"]


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
    with pytest.raises(DataError, match="is not a folder"):
        discovery.photos_below(tree / "0.png")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert discovery.find(tree).unsearched == ((tree / "sub" / "deep", "Permission denied"),)
    with pytest.raises(DataError, match="deep cannot be searched: Permission denied"):
        discovery.photos_below(tree)
