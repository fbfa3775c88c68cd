"""What outputs were made from: a second run redoes what was made otherwise and leaves what others changed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import QATIE, qatie, qatie_here
from PIL import Image
from samples import inverted, small_photos

import qatie_cli
from qatie_cli.batch import made, planning, session
from qatie_cli.batch.made import Ledger, State
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Result, Runner, Writing
from qatie_cli.batch.settings import Settings
from qatie_cli.photo import decoding

SETTINGS = Settings("qatie-c16", "0" * 64)


@pytest.fixture
def folder(tmp_path, coffee) -> Path:
    return small_photos(tmp_path / "in", coffee, 4)


def _run(source: Path, out: Path, settings: Settings = SETTINGS, overwrite: bool = False, enhance=inverted) -> dict:
    """What became of each photo, by name; `refused` are those that the plan refuses."""
    ledger = Ledger(out, settings)
    plan = planning.plan([source], out, Naming(overwrite=overwrite), ledger=ledger)
    results: list[Result] = []
    Runner(enhance, Writing(ledger=ledger, settings=settings, overwrite=overwrite)).run(plan.tasks, results.append)
    found = {r.task.source.name: r.status.value for r in results}
    found |= {task.source.name: "done" for task in plan.done}
    return found | {refused.task.source.name: refused.reason for refused in plan.refused}


ALL = [f"{index}.png" for index in range(4)]
ENHANCED, DONE = dict.fromkeys(ALL, "enhanced"), dict.fromkeys(ALL, "done")


def test_the_same_run_again_does_nothing(folder, tmp_path):
    assert _run(folder, tmp_path / "out") == ENHANCED
    assert _run(folder, tmp_path / "out") == DONE


@pytest.mark.parametrize(
    "change",
    [{"strip_gps": True}, {"strip_metadata": True}, {"no_hdr": True}, {"no_motion": True}, {"strength": 0.5},
     {"quality": 80}, {"fast": False}, {"arithmetic": "float"}, {"weights_sha256": "1" * 64}, {"quality": "source"},
     {"sidecars": True}],
)  # fmt: skip
def test_other_settings_redo_what_is_ours(folder, tmp_path, change):
    _run(folder, tmp_path / "out")
    changed = dataclasses.replace(SETTINGS, **change)
    assert _run(folder, tmp_path / "out", changed) == ENHANCED
    assert _run(folder, tmp_path / "out", changed) == DONE
    assert _run(folder, tmp_path / "out") == ENHANCED


def test_every_setting_counts_but_the_name_of_the_weights():
    assert dataclasses.replace(SETTINGS, weights="w.safetensors").digest == SETTINGS.digest
    assert {f.name for f in dataclasses.fields(Settings)} == {
        *("weights", "weights_sha256", "arithmetic", "strength", "fast", "quality", "strip_metadata", "strip_gps"),
        *("no_hdr", "no_motion", "sidecars"),
    }


def test_a_changed_photo_is_redone(folder, tmp_path):
    _run(folder, tmp_path / "out")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "1.png")
    assert _run(folder, tmp_path / "out") == DONE | {"1.png": "enhanced"}


def test_a_photo_that_changed_while_it_was_enhanced_is_redone(folder, tmp_path):
    """Its output is of what was read, not of what was there when it was written."""

    def edited(photo, _):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "0.png")
        return inverted(photo)

    (folder / "1.png").unlink()
    (folder / "2.png").unlink()
    (folder / "3.png").unlink()
    assert _run(folder, tmp_path / "out", enhance=edited) == {"0.png": "enhanced"}
    assert _run(folder, tmp_path / "out") == {"0.png": "enhanced"}
    assert _run(folder, tmp_path / "out") == {"0.png": "done"}


def test_what_somebody_changed_is_named_and_left(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    (out / "1.png").write_bytes(b"retouched by hand")
    other = dataclasses.replace(SETTINGS, strip_gps=True)
    for settings in (SETTINGS, other):
        assert "1.png was changed since qatie made it" in _run(folder, out, settings)["1.png"]
        assert (out / "1.png").read_bytes() == b"retouched by hand"
    assert _run(folder, out, other, overwrite=True) == ENHANCED
    assert _run(folder, out, other) == DONE


def test_an_edit_of_the_same_size_is_told_by_its_content(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    content = bytearray((out / "1.png").read_bytes())
    content[-20] ^= 1
    (out / "1.png").write_bytes(content)
    os.utime(out / "1.png", (1, 1))
    found = _run(folder, out, dataclasses.replace(SETTINGS, strength=0.5))
    assert "1.png was changed since qatie made it" in found["1.png"]
    assert (out / "1.png").read_bytes() == content


def test_what_qatie_did_not_make_is_named_and_left(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.png").write_bytes(b"another program's")
    found = _run(folder, tmp_path / "out")
    assert "no record" in found["2.png"]
    assert (tmp_path / "out" / "2.png").read_bytes() == b"another program's"


def test_a_copy_of_the_folder_is_known_by_its_content(folder, tmp_path):
    """A copy without times, as NAS boxes and archives make them."""
    _run(folder, tmp_path / "out")
    for name in ALL:
        os.utime(tmp_path / "out" / name, (1, 1))
    assert _run(folder, tmp_path / "out") == DONE
    assert _run(folder, tmp_path / "out", dataclasses.replace(SETTINGS, strip_gps=True)) == ENHANCED


def test_photos_that_moved_are_still_done_and_another_photo_s_output_is_left(folder, tmp_path, coffee):
    out = tmp_path / "out"
    _run(folder, out)
    folder.rename(tmp_path / "moved")
    assert _run(tmp_path / "moved", out) == DONE
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(coffee[90:130, :60]).save(other / "1.png")
    _run(tmp_path / "moved", out, dataclasses.replace(SETTINGS, strength=0.5))
    assert "made from another photo, ../moved/1.png" in _run(other, out)["1.png"]


def test_the_state_names_nothing_of_this_machine_above_the_photos(folder, tmp_path):
    _run(folder, tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out" / made.FOLDER / "made.jsonl").read_text()


def test_a_run_killed_between_record_and_replacement_changes_nothing(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    (tmp_path / "new.png").write_bytes(b"never replaced")
    other = dataclasses.replace(SETTINGS, strength=0.5)
    Ledger(out, other).record(out / "0.png", folder / "0.png", (1, 1), tmp_path / "new.png")
    with (out / made.FOLDER / "made.jsonl").open("ab") as file:
        file.write(b'{"output": "half')
    assert _run(folder, out) == DONE
    assert _run(folder, out, other) == ENHANCED
    assert _run(folder, out, other) == DONE


def test_half_a_line_of_another_run_is_read_when_it_is_whole(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    record = out / made.FOLDER / "made.jsonl"
    whole = record.read_bytes()
    ledger = Ledger(out, SETTINGS)
    for end in (len(whole) - 30, len(whole)):
        record.write_bytes(whole[:end])
        found = [ledger.find(out / name, folder / name).state for name in ALL]
    assert found == [State.DONE] * len(ALL)


def test_a_record_that_cannot_be_written_keeps_the_output_from_appearing(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "record", full)
    assert _run(folder, tmp_path / "out")["0.png"] == "failed"
    assert not [p for p in (tmp_path / "out").glob("*") if p.is_file()]


def test_the_record_is_on_disk_before_the_output_appears_and_the_output_before_its_name(folder, tmp_path, monkeypatch):
    order = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle):
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_sync(handle)

    def replace(self, target):
        order.append(f"{target.name} appears")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    _run(folder / "0.png", tmp_path / "out")
    assert order[0].startswith(".qatie-tmp-")
    assert order[-3:] == ["made.jsonl", "0.png appears", "out"]


def test_a_record_that_the_disk_takes_only_a_part_of_is_none(folder, tmp_path, monkeypatch):
    """A full disk may write less than it is given, without an error."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: real(handle, line[:-5]))
    found = _run(folder, tmp_path / "out")
    monkeypatch.undo()
    assert set(found.values()) <= {"failed", "not begun"}
    assert not [p for p in (tmp_path / "out").glob("*") if p.is_file()]
    assert _run(folder, tmp_path / "out") == ENHANCED
    assert _run(folder, tmp_path / "out") == DONE


def test_lines_that_make_no_sense_are_passed_over(folder, tmp_path):
    _run(folder, tmp_path / "out")
    path = tmp_path / "out" / made.FOLDER / "made.jsonl"
    rows = [{"output": [], "made": [1, 1, ""], "from": ["a", 1, 1], "settings": ""},
            {"output": "0.png", "made": [1, 1, ""], "from": [7, 1, 1], "settings": ""},
            {"settings": [], "are": {}}, [], 7, {"output": "0.png"}]  # fmt: skip
    damage = b"\xff\0\n" + "\n".join(map(json.dumps, rows)).encode() + b"\n"
    path.write_bytes(damage + path.read_bytes() + damage)
    (tmp_path / "out" / "0.png").write_bytes(b"x")
    os.utime(tmp_path / "out" / "0.png", ns=(1, 1))
    found = _run(folder, tmp_path / "out")
    assert "was changed since qatie made it" in found.pop("0.png")
    assert set(found.values()) == {"done"}


def test_several_runs_append_whole_lines(tmp_path):
    (tmp_path / "content").write_bytes(b"x")
    ledgers = [Ledger(tmp_path, SETTINGS), Ledger(tmp_path, dataclasses.replace(SETTINGS, strength=0.5))]
    for index in range(50):
        for ledger in ledgers:
            ledger.record(tmp_path / f"{index}.png", tmp_path / "a\udcff.png", (1, 1), tmp_path / "content")
    rows = [json.loads(line) for line in (tmp_path / made.FOLDER / "made.jsonl").read_text().splitlines() if line]
    assert sum("are" in row for row in rows) == 2
    assert sum("output" in row for row in rows) == 100


# --- two runs at once ---------------------------------------------------------------------------------------------


def test_a_claim_ends_with_its_process_and_only_then(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom qatie_cli.batch.made import Ledger\n"
        "from qatie_cli.batch.settings import Settings\nout = Path(sys.argv[1])\n"
        "kept = Ledger(out, Settings('w', '0')).claim(out / 'a.png', False, lambda: False)\n"
        "print('claimed', flush=True)\ntime.sleep(60)\n"
    )
    ledger = Ledger(tmp_path, SETTINGS)
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"claimed\n"
        assert ledger.claim(tmp_path / "a.png", False, lambda: False) is None
        ledger.remove_stale_claims([tmp_path / "a.png"])
        assert ledger.claim(tmp_path / "a.png", False, lambda: False) is None
        free = ledger.claim(tmp_path / "b.png", False, lambda: False)
        assert free is not None
        free.give_up()
        other.send_signal(signal.SIGKILL)
    claim = ledger.claim(tmp_path / "a.png", True, lambda: False)
    assert claim is not None
    claim.give_up()
    assert not any((tmp_path / made.FOLDER / "claims").iterdir())


def test_a_photo_that_another_run_has_in_hand_comes_last(folder, tmp_path):
    out, other = tmp_path / "out", Ledger(tmp_path / "out", SETTINGS)
    claims = {name: other.claim(out / name, False, lambda: False) for name in ("0.png", "1.png")}
    order = []

    def enhance(photo, _):
        order.append(1)
        if len(order) == 2:  # the other run makes one of them and dies with the second
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "made.png")
            seen = (folder / "0.png").stat()
            other.record(out / "0.png", folder / "0.png", (seen.st_size, seen.st_mtime_ns), tmp_path / "made.png")
            (tmp_path / "made.png").rename(out / "0.png")
            for claim in claims.values():
                claim.give_up()
        return inverted(photo)

    found = _run(folder, out, enhance=enhance)
    assert found == {"2.png": "enhanced", "3.png": "enhanced", "0.png": "skipped", "1.png": "enhanced"}
    assert list(found)[:2] == ["2.png", "3.png"]
    assert len(order) == 3


def test_the_claim_of_a_photo_ends_when_it_is_written(folder, tmp_path):
    """Not with the run: another one need not wait for the rest of it."""
    out = tmp_path / "out"
    ledger, other = Ledger(out, SETTINGS), Ledger(out, SETTINGS)
    tasks = planning.plan([folder], out, Naming(), ledger=ledger).tasks
    free = []

    def written(result: Result) -> None:
        if claim := other.claim(result.task.output, False, lambda: False):
            free.append(result.task.output.name)
            claim.give_up()

    Runner(inverted, Writing(ledger=ledger, settings=SETTINGS)).run(tasks, written)
    assert free == ALL


def test_the_claim_of_a_photo_that_becomes_png_for_its_transparency_ends_then_too(tmp_path, coffee):
    decoding.open_heif()
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("0.heic", "1.heic"):
        Image.fromarray(np.dstack([coffee[:40, :60], np.full((40, 60), 99, np.uint8)])).save(folder / name)
    ledger = Ledger(out, SETTINGS)
    tasks = planning.plan([folder], out, Naming(), ledger=ledger).tasks
    claimed = []

    def written(result: Result) -> None:
        assert result.task.output.suffix == ".png"
        claimed.append(len(list((out / made.FOLDER / "claims").iterdir())))

    Runner(inverted, Writing(ledger=ledger, settings=SETTINGS)).run(tasks, written)
    assert claimed[-1] == 0


def test_an_interrupted_run_gives_its_claims_back(folder, tmp_path):
    def interrupt(photo, _):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(folder, tmp_path / "out", enhance=interrupt)
    assert not any((tmp_path / "out" / made.FOLDER / "claims").iterdir())
    assert _run(folder, tmp_path / "out") == ENHANCED


def test_two_runs_at_once_share_the_work(tmp_path, coffee):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(24):
        Image.fromarray(coffee[index : index + 300, :400]).save(folder / f"{index:02}.png")
    command = [*QATIE, "enhance", str(folder), "-o", str(out), "--threads", "1", "--report"]
    runs = [subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE) for name in ("a", "b")]
    assert [run.wait() for run in runs] == [0, 0]
    reports = [json.loads((tmp_path / name).read_text()) for name in ("a", "b")]
    enhanced = [[p["output"] for p in r["photos"] if p["status"] == "enhanced"] for r in reports]
    assert sorted(enhanced[0] + enhanced[1]) == sorted(str(out / f"{index:02}.png") for index in range(24))
    assert [len(list((out / made.FOLDER / "claims").iterdir())), *(len(r["photos"]) for r in reports)] == [0, 24, 24]


# --- the command line and the API ---------------------------------------------------------------------------------


def _photo_with_gps(path: Path, coffee) -> None:
    tags = Image.Exif()
    tags.get_ifd(0x8825)[1], tags.get_ifd(0x8825)[2] = "N", (50.0, 4.0, 30.25)
    Image.fromarray(coffee[:40, :60]).save(path, exif=tags)


def _has_gps(path: Path) -> bool:
    with Image.open(path) as image:
        return bool(image.getexif().get_ifd(0x8825))


def test_gps_goes_in_a_second_run(tmp_path, coffee):
    (tmp_path / "in").mkdir()
    _photo_with_gps(tmp_path / "in" / "a.jpg", coffee)
    for target in (tmp_path / "out", tmp_path / "one.jpg"):
        source = tmp_path / "in" if target.name == "out" else tmp_path / "in" / "a.jpg"
        written = target / "a.jpg" if target.name == "out" else target
        options = ["--report", tmp_path / "r.json"]
        qatie_here("enhance", source, "-o", target, *options)
        first = json.loads((tmp_path / "r.json").read_text())
        assert _has_gps(written)
        assert "1 photo already done" in qatie_here("enhance", source, "-o", target).stderr
        done = qatie_here("enhance", source, "-o", target, "--strip-gps", *options)
        assert "1 photo enhanced" in done.stderr
        assert "Made again: 1 output, because of other settings (--strip-gps)." in done.stderr
        assert "location left out" in done.stderr
        assert not _has_gps(written)
        back = qatie_here("enhance", source, "-o", target, "--dry-run", "--strength", 0.5).stderr
        assert "Made again: 1 output, because of other settings (--strength, --strip-gps)." in back
        assert "location left out" not in back
        second = json.loads((tmp_path / "r.json").read_text())
        for report, stripped in ((first, False), (second, True)):
            (photo,) = report["photos"]
            assert report["settings"][photo["settings"]]["strip_gps"] is stripped


def test_a_plan_says_why_outputs_are_made_again(folder, tmp_path):
    out = tmp_path / "out"
    assert _run(folder, out) == ENHANCED
    ledger = out / made.FOLDER / "made.jsonl"
    lines = ledger.read_text().splitlines()
    photo = folder / "1.png"
    os.utime(photo, ns=(1, 1))
    changed = planning.plan([folder], out, Naming(), ledger=Ledger(out, SETTINGS))
    assert {task.source.name: why for task, why in changed.again.items()} == {"1.png": "changed photos"}
    weaker = dataclasses.replace(SETTINGS, strength=0.5, weights_sha256="others")
    plan = planning.plan([folder], out, Naming(), ledger=Ledger(out, weaker))
    assert [*plan.again] == [*plan.tasks]
    assert set(plan.again.values()) == {"other settings (--weights, --strength)"}
    ledger.write_text("".join(f"{line}\n" for line in filter(None, lines) if "are" not in json.loads(line)))
    plan = planning.plan([folder], out, Naming(), ledger=Ledger(out, weaker))
    assert set(plan.again.values()) == {"other settings"}
    assert not planning.plan([folder], out, Naming(overwrite=True), ledger=Ledger(out, weaker)).again


def test_a_changed_output_is_exit_code_3(folder, tmp_path):
    qatie_here("enhance", folder, "-o", tmp_path / "out")
    (tmp_path / "out" / "1.png").write_bytes(b"retouched")
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", code=3)
    assert "1.png was changed since qatie made it" in done.stderr
    assert "3 photos already done" in done.stderr


def test_in_place_other_settings_are_said_to_come_too_late(tmp_path, coffee):
    _photo_with_gps(tmp_path / "a.jpg", coffee)
    qatie_here("enhance", tmp_path / "a.jpg", "--in-place", "--yes")
    assert "already done" in qatie_here("enhance", tmp_path / "a.jpg", "--in-place", "--yes").stderr
    done = qatie_here("enhance", tmp_path / "a.jpg", "--in-place", "--yes", "--strip-gps", code=3)
    assert "with other settings" in done.stderr
    qatie_here("enhance", tmp_path / "a.jpg", "--in-place", "--yes", "--strip-gps", "--overwrite")
    assert not _has_gps(tmp_path / "a.jpg")


def test_the_api_redoes_what_was_made_otherwise(folder, tmp_path, weights_file):
    model = qatie_cli.load(weights_file)
    out = tmp_path / "out"
    for strength, status in ((1.0, "enhanced"), (1.0, "skipped"), (0.5, "enhanced"), (0.5, "skipped")):
        summary = qatie_cli.enhance_folder(folder, out, model=model, strength=strength)
        assert {result.status.value for result in summary.results} == {status}
    (out / "0.png").write_bytes(b"retouched")
    summary = qatie_cli.enhance_folder(folder, out, model=model, strength=0.5)
    assert [r.output.name for r in summary.with_status("failed")] == ["0.png"]
    assert not summary.complete


def test_a_killed_run_is_resumed_without_a_trace(tmp_path, coffee):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for index in range(30):
        Image.fromarray(coffee[index : index + 200, :300]).save(folder / f"{index:02}.png")
    command = [*QATIE, "enhance", str(folder), "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as run:
        while len(list(out.glob("*.png"))) < 5 and run.poll() is None:
            time.sleep(0.02)
        run.kill()
    done = qatie(*command[len(QATIE) :])
    assert "already done" in done.stderr
    assert len(list(out.glob("*.png"))) == 30
    assert sorted(p.name for p in out.rglob("*") if p.is_file() and p.suffix != ".png") == ["made.jsonl"]
    assert session.Request((folder,), out).settings is None
    assert Ledger(out, SETTINGS).find(out / "00.png", folder / "00.png").state is State.STALE
