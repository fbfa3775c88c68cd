"""Laws of planning, over generated folders whose names are as alike as names can be."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from laws import examples

from qatie_cli.batch import planning
from qatie_cli.batch.made import Ledger
from qatie_cli.batch.planning import Naming, Plan, Task
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import UsageError

SETTINGS = Settings("small", "0" * 64)
# Equal but for case, for the form of an accent, for an ending that a change of format adds.
STEMS = ("a", "A", "a.jpg", "a.heic", "a-x", "\u00e9", "e\u0301", "stra\u00dfe", "STRASSE")
SUFFIXES = (".jpg", ".JPG", ".jpeg", ".png", ".heic", ".bmp", ".tif")

names = st.builds(
    lambda folder, stem, suffix: f"{folder}{stem}{suffix}",
    st.sampled_from(("", "", "x/", "X/", "x/y/")),
    st.sampled_from(STEMS),
    st.sampled_from(SUFFIXES),
)
namings = st.builds(
    Naming, st.sampled_from(("keep", "keep", "same", "jpeg", "png", "heic")), st.sampled_from(("", "", "-x", ".jpg"))
)


def _same(path: Path) -> str:
    """Equal for names that Windows, macOS or Linux takes for one."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", str(path)).casefold())


def _planned(root: Path, out: Path, naming: Naming, ledger: Ledger | None = None) -> Plan | None:
    """The plan; None where no photo at all can be enhanced, which is an error of the whole call."""
    try:
        return planning.plan([root], out, naming, ledger=ledger)
    except UsageError:
        return None


def _made(files: list[str], root: Path) -> set[Path]:
    for index, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo %d" % index)
    return {root / name for name in files}


def _make(task: Task, ledger: Ledger, content: bytes) -> None:
    """What a run does for a task, with any content."""
    task.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = task.output.with_name(".qatie-tmp-test")
    temporary.write_bytes(content)
    status = task.source.stat()
    ledger.record(task.output, task.source, (status.st_size, status.st_mtime_ns), temporary)
    temporary.replace(task.output)


@examples(120)
@given(st.lists(names, unique=True, min_size=1, max_size=8), namings, st.sampled_from(("out", "in", "in/x")))
def test_every_photo_has_one_place_and_no_two_share_one(files, naming, out):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "in"
        photos = _made(files, root)
        plan = _planned(root, Path(folder) / out, naming)
        if plan is None:
            return
        refused = [refusal.task.source for refusal in plan.refused]
        planned = [task.source for task in (*plan.tasks, *plan.done)]
        assert len({*planned, *refused}) == len(planned) + len(refused)
        places = [_same(path) for t in plan.tasks for path in (t.output, t.with_alpha) if path is not None]
        assert len(set(places)) == len(places)
        assert not {os.path.realpath(t.output) for t in plan.tasks} & {os.path.realpath(path) for path in photos}
        if out == "out":
            assert {*planned, *refused} == photos
            assert all((Path(folder) / "out") in task.output.parents for task in plan.tasks)
            assert all(task.output.parent.relative_to(Path(folder) / out) == task.source.parent.relative_to(root)
                       for task in plan.tasks)  # fmt: skip


@examples(60)
@given(st.lists(names, unique=True, min_size=1, max_size=6), namings, st.data())
def test_a_run_goes_on_where_the_last_one_ended(files, naming, data):
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "in", Path(folder) / "out"
        _made(files, root)
        first = _planned(root, out, naming, Ledger(out, SETTINGS))
        if first is None:
            return
        written = data.draw(st.integers(0, len(first.tasks)))
        for index, task in enumerate(first.tasks[:written]):
            _make(task, Ledger(out, SETTINGS), b"better %d" % index)
        again = _planned(root, out, naming, Ledger(out, SETTINGS))
        assert again.done == first.tasks[:written]
        assert again.tasks == first.tasks[written:]
        assert again.refused == first.refused
        if not written:
            return
        touched, edited = (first.tasks[data.draw(st.integers(0, written - 1))] for _ in range(2))
        touched.source.write_bytes(b"another photo, longer than before")
        if edited is not touched:
            edited.output.write_bytes(b"an edit of somebody's own")
        last = _planned(root, out, naming, Ledger(out, SETTINGS))
        gone = {touched, edited}
        assert set(last.done) == set(first.tasks[:written]) - gone
        assert set(last.tasks) == {*first.tasks[written:], touched}
        assert {refusal.task for refusal in last.refused} == {r.task for r in first.refused} | (gone - {touched})
