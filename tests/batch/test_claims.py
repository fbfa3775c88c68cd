"""Photos that a process died with are decoded apart by the next one, so that a crash does not end every run."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from commands import FRAGILE_QATIE
from PIL import Image
from samples import inverted, small_photos

from qatie_cli import files
from qatie_cli.batch import planning, session
from qatie_cli.batch.claims import Claim, Claims
from qatie_cli.batch.journal import Journal
from qatie_cli.batch.made import FOLDER, Ledger
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Result, Runner, Writing
from qatie_cli.batch.settings import Settings
from qatie_cli.errors import PhotoError
from qatie_cli.photo import apart

SETTINGS = Settings("qatie-c16", "0" * 64)


def _taken(claims: Claims, name: str) -> Claim:
    claim = claims.take(name, False, lambda: True)
    assert claim is not None
    return claim


def _die(claim: Claim) -> None:
    """As if the process that holds it died."""
    claim.file.close()


# --- claims -------------------------------------------------------------------------------------------------------


def test_a_photo_is_suspect_from_the_death_of_its_process_until_it_is_made(tmp_path):
    claims = Claims(tmp_path / "claims")
    first = _taken(claims, "a.jpg")
    assert not first.suspect
    _die(first)
    assert not _taken(claims, "b.jpg").suspect
    for _ in range(2):  # it fails, and stays suspect
        again = _taken(claims, "a.jpg")
        assert again.suspect
        again.give_up(made=False)
    _taken(claims, "a.jpg").give_up(made=True)
    assert not _taken(claims, "a.jpg").suspect


def test_a_photo_that_failed_is_not_suspect(tmp_path):
    claims = Claims(tmp_path)
    _taken(claims, "a.jpg").give_up(made=False)
    assert not any(tmp_path.iterdir())
    assert not _taken(claims, "a.jpg").suspect


def test_a_claim_that_was_given_up_while_it_was_taken_is_taken_anew(tmp_path, monkeypatch):
    """Else the file that is locked has no name any more, and the next process claims the photo too."""
    claims, lock = Claims(tmp_path), files.try_lock
    owned = [_taken(claims, "a.jpg")]

    def once_given_up(file: IO[str]) -> bool:
        for claim in owned:
            claim.give_up()
        owned.clear()
        return lock(file)

    monkeypatch.setattr(files, "try_lock", once_given_up)
    claim = _taken(claims, "a.jpg")
    assert claims.take("a.jpg", False, lambda: True) is None
    claim.give_up()


def test_stale_claims_stay_while_their_photos_are_not_made(tmp_path):
    claims = Claims(tmp_path)
    for name in ("made.jpg", "left.jpg"):
        _die(_taken(claims, name))
    held = _taken(claims, "held.jpg")
    (tmp_path / "empty").touch()  # given up where an open file cannot be removed
    claims.remove_stale(["made.jpg", "held.jpg"])
    assert len(list(tmp_path.iterdir())) == 2
    held.give_up()
    assert _taken(claims, "left.jpg").suspect
    assert not _taken(claims, "made.jpg").suspect


# --- runs ---------------------------------------------------------------------------------------------------------


class _Asked(apart.Reader):
    """Notes which photos are suspect; one of them cannot be decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.suspects: list[str] = []

    def read(self, path, max_pixels, suspect=False):
        if suspect:
            self.suspects.append(path.name)
            if path.name == "1.png":
                raise PhotoError("It crashes.")
        return super().read(path, max_pixels)


def _suspects(tasks, writing: Writing) -> tuple[list[str], list[str]]:
    """The photos that a run decodes apart, and the outcome of all."""
    results: list[Result] = []
    reader = _Asked()
    Runner(inverted, writing, reader=reader).run(tasks, results.append)
    return reader.suspects, [result.status.value for result in results]


def test_a_run_suspects_what_killed_runs_had_in_hand_until_it_is_made(tmp_path, coffee):
    folder, out = small_photos(tmp_path / "in", coffee, 4), tmp_path / "out"
    ledger = Ledger(out, SETTINGS)
    writing = Writing(ledger=ledger, settings=SETTINGS)
    for name in ("1.png", "2.png"):
        _die(ledger.claim(out / name, False, lambda: True))
    tasks = planning.plan([folder], out, Naming(), ledger=ledger).tasks
    mixed = ["enhanced", "failed", "enhanced", "enhanced"]
    assert _suspects(tasks, writing) == (["1.png", "2.png"], mixed)
    tasks = planning.plan([folder], out, Naming(), ledger=ledger).tasks
    assert _suspects(tasks, writing) == (["1.png"], ["failed"])


def test_in_place_a_run_suspects_what_killed_runs_had_in_hand(tmp_path, coffee):
    folder = small_photos(tmp_path / "in", coffee, 4).resolve()
    journal = Journal(tmp_path / "in-place.jsonl")
    _die(journal.claim(folder / "1.png", False, lambda: True))
    tasks = planning.plan_in_place([folder], Naming(), journal).tasks
    mixed = ["enhanced", "failed", "enhanced", "enhanced"]
    assert _suspects(tasks, Writing(journal=journal)) == (["1.png"], mixed)
    assert len(list((tmp_path / "in-place.claims").iterdir())) == 1


def test_preparing_a_run_leaves_the_claims_of_photos_to_make(tmp_path, coffee):
    folder, out = small_photos(tmp_path / "in", coffee, 2), tmp_path / "out"
    ledger = Ledger(out, SETTINGS)
    tasks = planning.plan([folder / "0.png"], out, Naming(), ledger=ledger).tasks
    _suspects(tasks, Writing(ledger=ledger, settings=SETTINGS))
    for name in ("0.png", "1.png"):
        _die(ledger.claim(out / name, False, lambda: True))
    with session.opened(session.Request((folder,), out, settings=SETTINGS)) as run:
        run.prepare()
    assert len(list((out / FOLDER / "claims").iterdir())) == 1
    assert ledger.claim(out / "1.png", False, lambda: True).suspect


# --- whole commands -----------------------------------------------------------------------------------------------


def _fragile(*arguments: object) -> tuple[int, dict[str, dict]]:
    """The exit code of a command whose decoders do as the photo's name says; what its report says of each photo."""
    report = Path(arguments[0]).parent / "report.json"
    report.unlink(missing_ok=True)
    command = [*FRAGILE_QATIE, "enhance", *map(str, arguments), "--report", str(report)]
    done = subprocess.run(command, capture_output=True, check=False)
    rows = json.loads(report.read_bytes())["photos"] if report.exists() else []
    return done.returncode, {Path(row["input"]).stem: row for row in rows}


@pytest.fixture
def photos(tmp_path, coffee):
    """Makes a folder with photos of these names."""

    def make(*names: str) -> Path:
        (tmp_path / "in").mkdir()
        for index, name in enumerate(names):
            Image.fromarray(np.ascontiguousarray(coffee[index : index + 40, :60])).save(tmp_path / "in" / name)
        return tmp_path / "in"

    return make


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("jpg", ("-o", "out")),
        ("png", ("-o", "out", "--max-memory", "2GB")),
        ("bmp", ("-o", "out", "--format", "png", "--overwrite")),
        ("jpg", ("--in-place", "--yes")),
    ],
)
def test_a_decoder_that_aborts_ends_one_run_and_costs_the_next_one_photo(
    tmp_path, photos, monkeypatch, suffix, options
):
    monkeypatch.chdir(tmp_path)
    folder = photos(*(f"{name}.{suffix}" for name in ("a", "aborts", "b")))
    code, _ = _fragile(folder, *options)
    assert code == -signal.SIGABRT
    for _ in range(2):
        code, found = _fragile(folder, *options)
        assert code == 3
        assert found["aborts"]["status"] == "failed"
        assert f"aborts.{suffix} makes its decoder crash (SIGABRT)" in found["aborts"]["reason"]
        assert all(found[name]["status"] in ("enhanced", "skipped") for name in "ab")


def test_photos_of_a_killed_run_come_out_the_same(tmp_path, photos):
    folder = photos("a.jpg", "killed-once.jpg", "z.jpg")
    assert _fragile(folder, "-o", tmp_path / "out")[0] == -signal.SIGKILL
    code, found = _fragile(folder, "-o", tmp_path / "out")
    assert (code, len(found)) == (0, 3)
    assert not any((tmp_path / "out" / FOLDER / "claims").iterdir())
    assert _fragile(folder, "-o", tmp_path / "again")[0] == 0
    for path in (tmp_path / "again").glob("*.jpg"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
