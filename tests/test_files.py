"""Atomic writes, and what a killed process leaves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

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


@pytest.mark.skipif(files.fcntl is None, reason="needs locks of files")
def test_a_file_that_was_taken_for_a_killed_process_s_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, removed = files.fcntl.flock, []

    def after_another_process(handle: int, how: int) -> None:
        if not removed:
            removed.extend(tmp_path.glob(f"{files.TEMPORARY_PREFIX}*"))
            removed[0].unlink()
        lock(handle, how)

    monkeypatch.setattr(files.fcntl, "flock", after_another_process)
    with files.atomic_path(tmp_path / "a.jpg") as temporary:
        assert temporary not in removed
        temporary.write_text("whole")
        assert files.remove_stale(tmp_path) == 0
    assert (tmp_path / "a.jpg").read_text() == "whole"


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


# --- targets ------------------------------------------------------------------------------------------------------


def test_a_device_is_written_to_and_stays_one():
    files.write_atomic(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()
    assert files.is_special(Path(os.devnull))
    with pytest.raises(OSError, match="not a regular file"), files.atomic_path(Path(os.devnull)):
        pass


def test_a_fifo_and_a_socket_are_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    os.mkfifo("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path("pipe").read_bytes()))
    reader.start()
    files.write_atomic(Path("pipe"), "through")
    reader.join()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        files.write_atomic(Path("socket"), b"through")
        got.append(server.accept()[0].recv(99))
    assert got == [b"through", b"through"]
    assert Path("pipe").is_fifo()
    assert Path("socket").is_socket()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_is_appended_to_whatever_it_is(tmp_path, name):
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = "from pathlib import Path\nfrom qatie_cli import files\n"
    script += f"print('a')\nfiles.write_atomic(Path({name!r}), 'b')\nprint('c')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "a\nbc\n"


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("there.txt", "new.txt"):
        (tmp_path / name).symlink_to(Path("far") / name)
    (tmp_path / "far" / "there.txt").write_text("old")
    for name in ("there.txt", "new.txt"):
        files.write_atomic(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "far" / name).read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        files.write_atomic(tmp_path / "loop", "x")
    assert not list(tmp_path.rglob(f"{files.TEMPORARY_PREFIX}*"))


# --- permissions --------------------------------------------------------------------------------------------------


def test_the_umask_of_the_process_is_never_touched(tmp_path, monkeypatch):
    """Setting it to read it is a race: another thread may make it permanent."""
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask was changed"))
        files.write_atomic(tmp_path / "a", "x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    source = "".join(path.read_text() for path in Path(files.__file__).parent.rglob("*.py"))
    assert "os.umask" not in source


def test_a_private_file_is_private_while_it_is_written(tmp_path):
    with files.atomic_path(tmp_path / "a", mode=0o600) as temporary:
        assert temporary.stat().st_mode & 0o777 == 0o600
