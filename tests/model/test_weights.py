"""Shipped weights: found, cached, repaired, refused."""

from __future__ import annotations

import json
import shutil

import pytest

from qatie_cli import files
from qatie_cli.errors import WeightsError
from qatie_cli.model import checkpoint, shipped


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's weights that a test may damage."""
    copy = tmp_path / "package"
    shutil.copytree(shipped.packaged_folder(), copy)
    monkeypatch.setattr(shipped, "packaged_folder", lambda: copy)
    return copy


def test_shipped_files_are_what_the_manifest_says():
    assert shipped.DEFAULT in shipped.manifest()
    for entry in shipped.manifest().values():
        shipped.check_packaged(entry)


def _recipes(entry: checkpoint.Weights) -> list[dict]:
    """Recipes of the runs that weights came from, the last one first."""
    found, before = [entry.recipe], entry.data.get("before")
    while before:
        found.append(before["recipe"])
        before = before.get("before")
    return found


def test_shipped_weights_record_how_they_came_to_be():
    for entry in shipped.manifest().values():
        read = checkpoint.read(entry.packaged)
        assert read.activations
        assert read.recipe["degradation"]
        assert read.data["training_photos"] > 100
        assert read.metrics["stage"] == "qat"
        assert sum(recipe["qat_steps"] for recipe in _recipes(read)) >= 1000
        # A run from none is long; a shorter one says what it went on from, by name and digest, and no path.
        begun = read.data["run"]
        assert read.recipe["steps"] >= 2500 or len(begun["init_sha256"]) == 64
        assert not any("/" in value for value in begun.values())


def test_first_use_caches_in_the_home_asked_for(own_home):
    path = shipped.locate(shipped.DEFAULT)
    assert own_home in path.parents
    assert shipped.is_intact(path, shipped.manifest()[shipped.DEFAULT])


def test_a_damaged_cache_repairs_itself():
    path = shipped.locate(shipped.DEFAULT)
    path.write_bytes(b"damaged")
    assert shipped.locate(shipped.DEFAULT) == path
    assert shipped.is_intact(path, shipped.manifest()[shipped.DEFAULT])


def test_a_home_that_cannot_be_written_falls_back_to_the_package(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("QATIE_HOME", str(tmp_path / "file"))
    entry = shipped.manifest()[shipped.DEFAULT]
    assert shipped.locate(shipped.DEFAULT) == entry.packaged


def test_a_damaged_package_is_refused_and_says_what_to_do(package):
    entry = shipped.manifest()[shipped.DEFAULT]
    entry.packaged.write_bytes(entry.packaged.read_bytes()[:-1] + b"!")
    with pytest.raises(WeightsError) as refused:
        shipped.locate(shipped.DEFAULT)
    assert entry.sha256 in str(refused.value)
    assert files.sha256(entry.packaged) in str(refused.value)
    assert "pip install" in refused.value.hint


def test_an_intact_cache_serves_while_the_package_is_damaged(package):
    cached = shipped.locate(shipped.DEFAULT)
    shipped.manifest()[shipped.DEFAULT].packaged.write_bytes(b"")
    assert shipped.locate(shipped.DEFAULT) == cached


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"a": {}})])
def test_a_damaged_manifest_is_refused(package, content):
    (package / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        shipped.manifest()["a"]  # an empty list has no entries to miss


def test_unknown_names_and_paths_are_refused_with_the_names_there_are(tmp_path):
    for wanted in ("nothing", str(tmp_path / "none.safetensors")):
        with pytest.raises(WeightsError) as refused:
            shipped.locate(wanted)
        assert shipped.DEFAULT in refused.value.hint


def test_a_path_is_used_as_it_is(weights_file):
    assert shipped.locate(str(weights_file)) == weights_file


def test_clear_removes_copies_only():
    cached = shipped.locate(shipped.DEFAULT)
    assert shipped.clear() == [cached]
    assert not cached.exists()
    assert shipped.locate(shipped.DEFAULT) == cached
