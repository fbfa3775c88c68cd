"""Planning and running a batch: trees, collisions, resuming, bad photos."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import inverted

from qatie_cli.batch import planning
from qatie_cli.batch.planning import Naming, Plan
from qatie_cli.batch.running import Result, Runner, Status, Writing
from qatie_cli.errors import UsageError


def _save(path: Path, coffee: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coffee[:40, :60]).save(path)
    return path


@pytest.fixture
def tree(tmp_path, coffee) -> Path:
    """A folder as a phone's owner has it."""
    root = tmp_path / "in"
    for name in ("a.jpg", "B.JPG", "sub/c.png", "sub/deep/d.webp", ".hidden.jpg", ".cache/e.jpg"):
        _save(root / name, coffee)
    (root / "Thumbs.db").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    return root


def _run(plan: Plan, writing: Writing | None = None, enhance=inverted) -> list[Result]:
    results = []
    Runner(enhance, writing or Writing()).run(plan.tasks, results.append)
    return results


def _outputs(plan: Plan, out: Path) -> list[str]:
    return [t.output.relative_to(out).as_posix() for t in plan.tasks]


def test_the_tree_is_kept_and_what_is_no_photo_left_out(tree, tmp_path):
    out = tmp_path / "out"
    plan = planning.plan([tree], out, Naming())
    assert _outputs(plan, out) == ["B.JPG", "a.jpg", "sub/c.png", "sub/deep/d.webp"]
    flat = planning.plan([tree], out, Naming(recursive=False))
    assert _outputs(flat, out) == ["B.JPG", "a.jpg"]
    converted = planning.plan([tree], out, Naming(fmt="png"))
    assert _outputs(converted, out) == ["B.png", "a.png", "sub/c.png", "sub/deep/d.png"]


def test_results_inside_the_input_are_never_inputs(tree, coffee):
    _save(tree / "out" / "old.jpg", coffee)
    plan = planning.plan([tree], tree / "out", Naming())
    assert "old.jpg" not in [t.source.name for t in plan.tasks]


def test_links_in_a_circle_end(tree, tmp_path):
    (tree / "sub" / "loop").symlink_to(tree, target_is_directory=True)
    plan = planning.plan([tree], tmp_path / "out", Naming())
    assert sorted(t.source.name for t in plan.tasks) == ["B.JPG", "a.jpg", "c.png", "d.webp"]


def test_photos_that_would_replace_each_other_fail_and_the_rest_is_planned(tmp_path, coffee):
    names = ("in/a.jpg", "other/A.JPG", "other/b.jpg", "third/c/a.jpg")
    inputs = [_save(tmp_path / name, coffee) for name in names]
    plan = planning.plan(inputs, tmp_path / "out", Naming())
    assert _outputs(plan, tmp_path / "out") == ["b.jpg"]
    assert [refused.task.source for refused in plan.refused] == [inputs[0], inputs[1], inputs[3]]
    for refused in plan.refused:
        assert "would both become" in refused.reason
        _, command = refused.reason.split("on its own: ")
        _, _, source, _, out = shlex.split(command)
        planned = planning.plan([Path(source)], Path(out), Naming())
        assert [task.source for task in planned.tasks] == [refused.task.source]
        assert planned.tasks[0].output.parent.parent == tmp_path / "out"
    with pytest.raises(UsageError, match="both become"):
        planning.plan(inputs[:2], tmp_path / "out", Naming())


def test_a_photo_whose_output_is_an_original_fails_alone(tree, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    os.link(tree / "a.jpg", linked / "a.jpg")
    plan = planning.plan([tree], linked, Naming(overwrite=True))
    assert [refused.task.source for refused in plan.refused] == [tree / "a.jpg"]
    assert len(plan.tasks) == 3


@pytest.mark.parametrize("inputs", [["a.jpg", "B.JPG"], ["sub"]])
def test_a_photo_s_name_is_no_output_of_several(tree, tmp_path, inputs):
    with pytest.raises(UsageError, match="names one photo"):
        planning.plan([tree / name for name in inputs], tmp_path / "out.jpg", Naming())


def test_a_pattern_that_the_shell_left_as_it_is_is_explained(tree, tmp_path):
    with pytest.raises(UsageError) as refused:
        planning.plan([tree / "*.png"], tmp_path / "out", Naming())
    assert "Give the folder" in refused.value.hint


def test_a_change_of_format_lets_no_photo_replace_another(tmp_path, coffee):
    out = tmp_path / "out"
    for name in ("a.jpg", "a.png", "b.bmp", "b.png", "c.png"):
        _save(tmp_path / "in" / name, coffee)
    kept = planning.plan([tmp_path / "in"], out, Naming())
    assert _outputs(kept, out) == ["a.jpg", "a.png", "b.bmp.png", "b.png", "c.png"]
    changed = planning.plan([tmp_path / "in"], out, Naming(fmt="webp"))
    assert _outputs(changed, out) == ["a.jpg.webp", "a.png.webp", "b.bmp.webp", "b.png.webp", "c.webp"]


def test_an_original_is_never_an_output(tree, tmp_path):
    with pytest.raises(UsageError, match="originals"):
        planning.plan([tree], tree, Naming(overwrite=True))
    with pytest.raises(UsageError, match="originals"):
        planning.plan([tree / "a.jpg"], tree / "a.jpg", Naming(overwrite=True))
    linked = tmp_path / "linked"
    linked.mkdir()
    os.link(tree / "a.jpg", linked / "a.jpg")
    with pytest.raises(UsageError, match="originals"):
        planning.plan([tree / "a.jpg"], linked, Naming(overwrite=True))


def test_one_file_may_name_its_output(tree, tmp_path):
    plan = planning.plan([tree / "a.jpg"], tmp_path / "better.png", Naming())
    assert [t.output for t in plan.tasks] == [tmp_path / "better.png"]
    with pytest.raises(UsageError, match="contradict"):
        planning.plan([tree / "a.jpg"], tmp_path / "better.png", Naming(fmt="jpeg"))


def test_missing_inputs_and_outputs_that_are_files_are_refused(tree, tmp_path):
    with pytest.raises(UsageError, match="no file or folder"):
        planning.plan([tmp_path / "none"], tmp_path / "out", Naming())
    with pytest.raises(UsageError, match="is a file"):
        planning.plan([tree], tree / "notes.txt", Naming())


def test_a_second_run_does_only_what_is_missing(tree, tmp_path):
    out = tmp_path / "out"
    assert all(r.status is Status.ENHANCED for r in _run(planning.plan([tree], out, Naming())))
    (out / "a.jpg").unlink()
    (out / "B.JPG").write_bytes(b"")  # as a full disk of another program may leave it
    again = planning.plan([tree], out, Naming())
    assert sorted(t.source.name for t in again.tasks) == ["B.JPG", "a.jpg"]
    assert len(again.done) == 2
    assert len(planning.plan([tree], out, Naming(overwrite=True)).tasks) == 4


def test_one_bad_photo_does_not_end_the_batch(tree, tmp_path):
    (tree / "a.jpg").write_bytes(b"no photo")
    results = _run(planning.plan([tree], tmp_path / "out", Naming()))
    failed = [r for r in results if r.status is Status.FAILED]
    assert len(results) == 4
    assert [r.task.source.name for r in failed] == ["a.jpg"]
    assert "a.jpg" in failed[0].reason
    assert not (tmp_path / "out" / "a.jpg").exists()


def test_originals_keep_every_byte(tree, tmp_path):
    def state():
        return {p: hashlib.sha256(p.read_bytes()).digest() for p in tree.rglob("*") if p.is_file()}

    before = state()
    _run(planning.plan([tree], tmp_path / "out", Naming()))
    assert state() == before


def test_a_list_of_photos_is_planned_even_where_some_are_not_there(tree, tmp_path):
    listed = [tree / "a.jpg", tree / "none.jpg", tree / ("x" * 300 + ".jpg"), tree / "notes.txt"]
    plan = planning.plan([], tmp_path / "out", Naming(), listed)
    assert [t.source for t in plan.tasks] == listed[:1]
    assert [refused.task.source for refused in plan.refused] == listed[1:3]
    assert plan.not_photos == (tree / "notes.txt",)
    results = _run(plan)
    assert [r.status for r in results] == [Status.ENHANCED]


def test_a_folder_that_cannot_be_searched_is_named(tree, tmp_path, monkeypatch):
    real = os.scandir

    def forbidden(path):
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    plan = planning.plan([tree], tmp_path / "out", Naming())
    assert plan.unsearched == ((tree / "sub", "Permission denied"),)
    assert sorted(t.source.name for t in plan.tasks) == ["B.JPG", "a.jpg"]
