"""Atomic writes, and what a killed process leaves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qatie_cli import files


def test_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    files.write_atomic(path, "new")
    assert path.read_text() == "new"


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path):
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom qatie_cli import files\n"
        "with files.atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "killed.jpg"], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with files.atomic_path(tmp_path / "alive.jpg") as temporary:
        temporary.write_text("half")
        assert files.remove_stale(tmp_path) == 1
        assert list(tmp_path.iterdir()) == [temporary]
    assert [p.name for p in tmp_path.iterdir()] == ["alive.jpg"]


def test_other_hidden_files_are_left_alone(tmp_path):
    (tmp_path / ".qatie-notes").mkdir()
    (tmp_path / ".hidden").touch()
    assert files.remove_stale(tmp_path) == 0
    assert files.remove_stale(tmp_path / "none") == 0


def test_permissions_are_those_of_a_new_file_or_the_ones_asked_for(tmp_path):
    (tmp_path / "plain").touch()
    files.write_atomic(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with files.atomic_path(tmp_path / "b", mode=0o640) as temporary:
        temporary.write_text("x")
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_to_is_noticed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        files.check_writable(tmp_path / "file" / "sub")
    files.check_writable(tmp_path / "new" / "deep")
    assert not any((tmp_path / "new" / "deep").iterdir())


def test_a_table_is_written_in_one_step_with_names_of_any_bytes(tmp_path):
    path = tmp_path / "table.csv"
    files.write_csv(path, ("file", "value"), [["a\udcff,b.jpg", 1.5], ["c", None]])
    assert path.read_bytes() == b'file,value\r\n"a\xff,b.jpg",1.5\r\nc,\r\n'
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
