"""Lists of inputs: encodings, separators, and entries that are no photos."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import qatie_here
from PIL import Image

from qatie_cli.batch import listing, planning
from qatie_cli.batch.planning import Naming
from qatie_cli.errors import UsageError

LINES = "plain.jpg\r\nsub/ñ 写真.png\r\n"
PATHS = (Path("plain.jpg"), Path("sub/ñ 写真.png"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(encoding):
    assert listing.read(LINES.encode(encoding)) == PATHS
    assert listing.read(LINES.replace("\r\n", "\0").encode(encoding)) == PATHS


def test_big_endian_is_read_too():
    assert listing.read(b"\xfe\xff" + LINES.encode("utf-16-be")) == PATHS


def test_names_of_any_bytes_are_kept():
    assert listing.read(b"a\xff.jpg\n") == (Path("a\udcff.jpg"),)
    assert listing.read(b"new\nline.jpg\0b.jpg\0") == (Path("new\nline.jpg"), Path("b.jpg"))
    assert listing.read(b"") == ()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", [LINES, "/data/photos/a.jpg\n", "./a.jpg\n"])
def test_half_characters_are_never_taken_for_names(encoding, text):
    with pytest.raises(UsageError, match="UTF-16 without a byte order mark"):
        listing.read(text.encode(encoding))


def test_text_that_is_not_what_its_mark_says_is_refused():
    with pytest.raises(UsageError, match=r"begins as UTF-16.* not valid"):
        listing.read(b"\xff\xfea")
    with pytest.raises(UsageError, match=r"begins as UTF-8.* not valid"):
        listing.read(b"\xef\xbb\xbf\xff.jpg")


def test_short_names_that_exist_may_be_ended_by_nul(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert listing.read(b"a\0b\0") == (Path("a"), Path("b"))


@pytest.fixture
def folder(tmp_path, coffee, monkeypatch) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("plain.jpg", "sub/b.jpg"):
        Image.fromarray(coffee[:40, :60]).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_entries_that_do_not_exist_are_named_one_by_one(folder):
    listed = listing.read(b'"plain.jpg"\nplain.jpg \nmissing.dng\nplain.jpg\n')
    plan = planning.plan([], folder / "out", Naming(), listed)
    assert [str(task.source) for task in plan.tasks] == ["plain.jpg"]
    reasons = [refused.reason for refused in plan.refused]
    assert [reason.split(". ")[0] for reason in reasons] == [
        'There is no file "plain.jpg"',
        "There is no file plain.jpg ",
        "There is no file missing.dng",
    ]
    assert "quotes" in reasons[0]
    assert "space" in reasons[1]
    assert plan.not_photos == ()


@pytest.mark.parametrize("entry", [".", "./", "..", "../..", "/", "//", "sub/..", "sub/../."])
def test_a_list_never_stands_for_everything_there_is(folder, entry):
    plan = planning.plan([], folder / "out", Naming(), listing.read(f"{entry}\n".encode()))
    assert plan.tasks == ()
    assert "is not searched" in plan.refused[0].reason
    assert [t.source.name for t in planning.plan([], folder / "out", Naming(), [Path("sub")]).tasks] == ["b.jpg"]


def test_a_list_with_missing_entries_is_exit_code_3(folder):
    (folder / "list").write_text("missing.dng\n")
    done = qatie_here("enhance", "--files-from", "list", "-o", "out", code=3)
    assert done.stderr.startswith("Failed: There is no file missing.dng.")
    planned = qatie_here("enhance", "--files-from", "list", "-o", "out", "--dry-run", code=3)
    assert "There is no file missing.dng." in planned.stderr
    (folder / "list").write_text("missing.dng\nplain.jpg\n")
    done = qatie_here("enhance", "--files-from", "list", "-o", "out", code=3)
    assert "There is no file missing.dng." in done.stderr
    assert (folder / "out" / "plain.jpg").is_file()
    (folder / "list").write_bytes("plain.jpg\n".encode("utf-16-le"))
    assert "UTF-16" in qatie_here("enhance", "--files-from", "list", "-o", "out", code=2).stderr
