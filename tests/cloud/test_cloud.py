"""Photos from stores to stores: what a folder of this machine gets, a bucket gets, too."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from qatie_cli import installation
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Status, Writing
from qatie_cli.batch.settings import Settings
from qatie_cli.cli import app
from qatie_cli.cloud import record, scratch, session
from qatie_cli.cloud.here import Here
from qatie_cli.cloud.items import Done, ItemOutcome
from qatie_cli.cloud.planning import Places
from qatie_cli.cloud.session import Request
from qatie_cli.cloud.table import TODO
from qatie_cli.cloud.work import Job, Worker
from qatie_cli.enhance.refinement import Refinement
from qatie_cli.errors import Exit, QatieError, UsageError
from qatie_cli.photo.content import Photo
from qatie_cli.storage import patience, stores, urls

fsspec = pytest.importorskip("fsspec")

SETTINGS = Settings("qatie-c16", "0" * 64)
OUT = "memory://shop/out"


@pytest.fixture(autouse=True)
def memory_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty memory:// store, and no waiting."""
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "SECONDS", 1.0)
    system = fsspec.filesystem("memory")  # before a test hides fsspec
    yield
    system.store.clear()


def _png(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def _put(url: str, content: bytes) -> None:
    stores.of(url).put(url, content)


def _fill(names: list[str]) -> None:
    for index, name in enumerate(names):
        _put(f"memory://shop/in/{name}", _png(index))


def _urls(folder: str) -> list[str]:
    """The names below a folder, qatie's own aside."""
    return sorted(
        name
        for page in stores.of(folder).pages(folder)
        for entry in page
        if not (name := urls.below(entry.url, folder) or "").startswith(".")
    )


def _request(naming: Naming = Naming(), settings: Settings = SETTINGS, source: str = "memory://shop/in") -> Request:  # noqa: B008
    return Request(Places.of([source], OUT), naming, Writing(overwrite=naming.overwrite), settings)


class _Inverter:
    """Stands for an engine with its effect."""

    engine = SimpleNamespace(network=SimpleNamespace(bytes_per_pixel=1.0))
    effect = SimpleNamespace(refinement_of=lambda pixels: Refinement())

    def __call__(self, photo: Photo, how: Refinement) -> Photo:
        return photo.with_pixels(255 - photo.rgb())


def _job(run: session.Session) -> Job:
    return Job(run.out, run.name, run.request.settings, run.request.writing, None, "none")


def _run(request: Request | None = None, enhancer: object = None) -> tuple[dict[str, str], session.Session]:
    """What became of each photo by name, with reasons of refusals; and the session."""
    with session.opened(request or _request()) as run:
        found: dict[str, str] = {}

        def on_outcome(outcome: ItemOutcome) -> None:
            found[urls.name(run.table.source(outcome.number))] = outcome.status.value

        run.prepare()
        if run.todo:
            run.run(Here(Worker(_job(run), enhancer or _Inverter())), on_outcome)
        for state in ("done", "refused"):
            for page in run.table.pages(state):
                found |= {urls.name(row.source): row.reason or state for row in page}
        report = json.loads(b"".join(run.report("none", "cpu", "w", 1.0)))
        run.report_of_test = report
        return found, run


# --- what a run makes -----------------------------------------------------------------------------------------------


def test_the_tree_is_kept_and_every_output_is_the_photo_s():
    _fill(["0.png", "a/1.png", "a/b/2.png"])
    found, _ = _run()
    assert found == dict.fromkeys(("0.png", "1.png", "2.png"), "enhanced")
    assert _urls(OUT) == ["0.png", "a/1.png", "a/b/2.png"]
    own = [entry.url for page in stores.of(OUT).pages(f"{OUT}/.qatie") for entry in page]
    assert [url.startswith(f"{OUT}/.qatie/made/") for url in own] == [True]
    made = np.asarray(Image.open(io.BytesIO(stores.of(OUT).read(f"{OUT}/a/1.png"))))
    assert (made == 255 - np.asarray(Image.open(io.BytesIO(_png(1))))).all()


def test_one_damaged_photo_costs_only_itself_and_is_named_by_its_url():
    _fill(["0.png", "2.png"])
    _put("memory://shop/in/1.png", b"no photo")
    found, run = _run()
    assert found == {"0.png": "enhanced", "1.png": "failed", "2.png": "enhanced"}
    assert run.exit_code() is Exit.SOME_FAILED
    (row,) = [photo for photo in run.report_of_test["photos"] if photo["status"] == "failed"]
    assert row["reason"].startswith("memory://shop/in/1.png is not a photo")
    assert "scratch" not in json.dumps(run.report_of_test)


def test_what_is_hidden_or_no_photo_is_left_out():
    _fill(["0.png", ".hidden/1.png", "@eaDir/2.png", ".3.png"])
    _put("memory://shop/in/notes.txt", b"x")
    found, run = _run()
    assert found == {"0.png": "enhanced"}
    assert run.report_of_test["counts"] == {"enhanced": 1, "not a photo": 1, "not searched": 1}


def test_an_output_folder_inside_the_input_is_not_searched():
    _fill(["0.png"])
    request = Request(Places.of(["memory://shop"], OUT), Naming(), Writing(), SETTINGS)
    assert _run(request)[0] == {"0.png": "enhanced"}
    assert _run(request)[0] == {"0.png": "done"}


def test_photos_that_would_share_an_output_are_told_apart_or_refused():
    _fill(["a.bmp", "a.png", "b.png", "B.png"])
    found, _ = _run()
    assert _urls(OUT) == ["a.bmp.png", "a.png"]
    assert found["a.bmp"] == found["a.png"] == "enhanced"
    assert "would both become" in found["b.png"]
    assert "would both become" in found["B.png"]


def test_originals_are_never_replaced():
    _fill(["0.png", "1.png"])
    with pytest.raises(UsageError, match="is one of the originals"):
        _run(Request(Places.of(["memory://shop/in"], "memory://shop/in"), Naming(), Writing(), SETTINGS))
    assert stores.of(OUT).read("memory://shop/in/0.png") == _png(0)


def test_with_a_suffix_earlier_outputs_are_no_inputs():
    _fill(["0.png"])
    request = Request(Places.of(["memory://shop/in"], "memory://shop/in"), Naming(suffix="-q"), Writing(), SETTINGS)
    assert _run(request)[0] == {"0.png": "enhanced"}
    assert _run(request)[0] == {"0.png": "done"}
    assert _urls("memory://shop/in") == ["0-q.png", "0.png"]


def test_a_plan_is_estimated_from_photos_of_all_its_parts():
    small, large = _png(0, (10, 10)), _png(0, (50, 40))
    damaged = set(random.Random(0).sample(range(200), 40))
    for index in range(200):
        content = b"no photo" if index in damaged else large if index >= 100 else small
        _put(f"memory://shop/in/{index:03}.png", content)
    with session.opened(_request()) as run:
        estimate = run.estimate(share=3)
        readable = [sum(index not in damaged for index in part) for part in (range(100), range(100, 200))]
        assert estimate.megapixels == pytest.approx((readable[0] * 100 + readable[1] * 2000) / 1e6, rel=0.2)
        assert estimate.unreadable == pytest.approx(40, abs=20)
        assert estimate.speed == pytest.approx(3 * run.estimate().speed)


def test_a_folder_that_is_not_there_is_one_line():
    with pytest.raises(UsageError, match="There is no file or folder memory://shop/in"):
        _run()


# --- the second run -------------------------------------------------------------------------------------------------


def test_a_second_run_redoes_what_was_made_otherwise_and_leaves_what_others_changed():
    names = [f"{index}.png" for index in range(5)]
    _fill(names)
    _put(f"{OUT}/4.png", b"somebody else's")
    assert "qatie has no record of making it" in _run()[0]["4.png"]
    assert _run()[0] | {"4.png": ""} == dict.fromkeys(names, "done") | {"4.png": ""}
    _put("memory://shop/in/0.png", _png(10))
    _put(f"{OUT}/1.png", b"edited")
    stores.of(OUT).remove([f"{OUT}/2.png"])
    found, run = _run()
    assert found["0.png"] == found["2.png"] == "enhanced"
    assert "was changed since qatie made it" in found["1.png"]
    assert found["3.png"] == "done"
    assert run.exit_code() is Exit.SOME_FAILED
    assert stores.of(OUT).read(f"{OUT}/1.png") == b"edited"
    others = dataclasses.replace(SETTINGS, strength=0.5)
    with session.opened(_request(settings=others)) as planned:
        assert planned.table.reasons(TODO) == {"other settings (--strength)": 3}
    _put("memory://shop/in/3.png", _png(11))
    with session.opened(_request()) as planned:
        reasons = {row.output: row.reason for page in planned.table.pages(TODO) for row in page}
    assert reasons[f"{OUT}/3.png"] == "changed photos"
    assert _run(_request(settings=others))[0]["3.png"] == "enhanced"
    assert set(_run(_request(Naming(overwrite=True)))[0].values()) == {"enhanced"}


def test_a_run_is_bound_to_the_engine_of_the_outputs_unless_it_redoes_them():
    _fill(["0.png", "1.png"])
    _, first = _run()
    assert first.begun_on == ""
    for naming, engine in ((Naming(), "none"), (Naming(overwrite=True), "")):
        with session.opened(_request(naming)) as again:
            assert again.begun_on == engine


def test_where_a_store_gives_digests_changes_of_equal_size_are_seen(monkeypatch):
    plain = stores.Store._entry

    def with_digest(self, url, info):
        digest = record.md5(self.read(url))
        return dataclasses.replace(plain(self, url, info), version=digest, md5=digest)

    def raw(level: int) -> bytes:
        content = io.BytesIO()
        Image.new("RGB", (40, 30), (level, 0, 0)).save(content, "PNG", compress_level=0)
        return content.getvalue()

    def changed(url: str) -> None:
        _put(url, bytes(len(stores.of(url).read(url))))

    monkeypatch.setattr(stores.Store, "_entry", with_digest)
    for index in range(3):
        _put(f"memory://shop/in/{index}.png", raw(index))
    with session.opened(_request()) as run:
        changed("memory://shop/in/0.png")
        (batch,) = run.table.batches()
        done = Worker(_job(run), _Inverter()).run(batch)
    assert "0.png was changed since it was listed" in done.outcomes[0].reason
    changed(f"{OUT}/1.png")
    _put("memory://shop/in/2.png", raw(9))
    found, _ = _run()
    assert "was changed since qatie made it" in found["1.png"]
    assert found["2.png"] == "enhanced"


def test_an_output_of_another_photo_is_left():
    _fill(["0.png"])
    _run()
    _put("memory://shop/other/0.png", _png(7))
    assert "was made from another photo" in _run(_request(source="memory://shop/other"))[0]["0.png"]


def test_a_worker_lost_after_it_put_some_outputs_is_followed_by_one_that_puts_the_rest(monkeypatch):
    names = [f"{index}.png" for index in range(6)]
    _fill(names)
    with session.opened(_request()) as run:
        (batch,) = run.table.batches()
        put = Worker._put

        def put_three(self, item, outcome, path):
            if item.number > 3:
                raise KeyboardInterrupt  # as a worker ends
            return put(self, item, outcome, path)

        monkeypatch.setattr(Worker, "_put", put_three)
        with pytest.raises(KeyboardInterrupt):
            Worker(_job(run), _Inverter()).run(batch)
        monkeypatch.setattr(Worker, "_put", put)
        assert _urls(OUT) == names[:3]
        seen = []
        counting = _Inverter()
        inverted = type(counting).__call__
        monkeypatch.setattr(_Inverter, "__call__", lambda self, *a: seen.append(1) or inverted(self, *a))
        done = Worker(_job(run), counting).run(batch)
        assert len(seen) == 3
        assert {o.status for o in done.outcomes} == {Status.ENHANCED}
        assert [(o.width, o.height) for o in done.outcomes] == [(40, 30)] * 6
    assert _urls(OUT) == names
    assert set(_run()[0].values()) == {"done"}


def test_outputs_of_an_earlier_run_are_not_taken_for_those_of_a_lost_worker(monkeypatch):
    names = ["0.png", "1.png"]
    _fill(names)
    _run()

    class Black(_Inverter):
        def __call__(self, photo, how):
            return photo.with_pixels(np.zeros_like(photo.rgb()))

    def lost(self, item, outcome, path):
        raise KeyboardInterrupt

    with session.opened(_request(settings=dataclasses.replace(SETTINGS, strength=0.5))) as run:
        (batch,) = run.table.batches()
        with monkeypatch.context() as patch:
            patch.setattr(Worker, "_put", lost)
            with pytest.raises(KeyboardInterrupt):
                Worker(_job(run), Black()).run(batch)
        Worker(_job(run), Black()).run(batch)
    for name in names:
        assert not np.asarray(Image.open(io.BytesIO(stores.of(OUT).read(f"{OUT}/{name}")))).any()


def test_an_interruption_leaves_whole_outputs_and_the_same_command_goes_on():
    names = [f"{index:02}.png" for index in range(80)]
    _fill(names)

    class Interrupted:
        workers = 1

        def __init__(self, inner: Here) -> None:
            self.inner = inner

        def run(self, batches, on_done):
            interruptions = iter([KeyboardInterrupt])

            def interrupted_once(done):
                on_done(done)
                for interruption in interruptions:
                    raise interruption
                return True

            self.inner.run(batches, interrupted_once)

    with session.opened(_request()) as run:
        with pytest.raises(KeyboardInterrupt):
            run.run(Interrupted(Here(Worker(_job(run), _Inverter()))), lambda outcome: None)
        assert run.interrupted
        assert 0 < run.reached < 80
        counts = json.loads(b"".join(run.report("", "", "", 1.0)))["counts"]
        assert counts == {"enhanced": run.reached, "not begun": 80 - run.reached}
    there = _urls(OUT)
    assert len(there) == run.reached
    assert all(Image.open(io.BytesIO(stores.of(OUT).read(f"{OUT}/{name}"))).size == (40, 30) for name in there)
    found, _ = _run()
    assert {name for name, what in found.items() if what == "done"} == set(there)
    assert _urls(OUT) == names


def test_files_of_batches_are_merged_and_say_the_same(monkeypatch):
    monkeypatch.setattr(record, "MERGED", 2)
    names = [f"{index:02}.png" for index in range(70)]
    _fill(names)
    _run()
    left = [entry.url for page in stores.of(OUT).pages(f"{OUT}/.qatie/made") for entry in page]
    merged = [url for url in left if url.endswith(".gz")]
    assert (len(merged), len(left)) == (2, 3)  # five batches, two by two
    contents = [stores.of(OUT).read(url) for url in left]
    whole = [gzip.decompress(c) if u in merged else c for u, c in zip(left, contents, strict=True)]
    lines = b"".join(whole).splitlines()
    assert sorted(json.loads(line)["output"] for line in lines if b'"output"' in line) == names
    assert set(_run()[0].values()) == {"done"}


def test_damaged_records_are_as_good_as_none(monkeypatch):
    monkeypatch.setattr(record, "MERGED", 2)
    names = [f"{index:02}.png" for index in range(34)]
    _fill(names)
    _run()
    folder = f"{OUT}/.qatie/made"
    (merged,) = [e.url for page in stores.of(OUT).pages(folder) for e in page if e.url.endswith(".gz")]
    whole = stores.of(OUT).read(merged)
    (plain,) = [e.url for page in stores.of(OUT).pages(folder) for e in page if e.url.endswith(".jsonl")]
    line = json.loads(stores.of(OUT).read(plain).splitlines()[-1])
    for wrong in ({"from": [5, 1, "x"]}, {"output": None}, {"made": "ab"}, {"settings": 1}):
        _put(f"{folder}/0-wrong.jsonl", json.dumps(line | wrong).encode() + b'\n5\n"x"\n[]\n{')
        assert set(_run()[0].values()) == {"done"}
    for damaged in (whole[: len(whole) // 2], whole[:10] + bytes(20), whole[:-8] + bytes(8)):
        _put(merged, damaged)
        found = _run()[0]
        assert sum("qatie has no record" in why for why in found.values()) == 32
        assert list(found.values()).count("done") == 2


def test_records_stay_where_they_cannot_be_merged(monkeypatch):
    monkeypatch.setattr(record, "MERGED", 2)
    _fill([f"{index:02}.png" for index in range(40)])
    put = stores.Store.put

    def put_no_merged(self, url, *given):
        if "merged-" in url:
            raise patience.StoreError("There is no room.")
        put(self, url, *given)

    monkeypatch.setattr(stores.Store, "put", put_no_merged)
    assert set(_run()[0].values()) == {"enhanced"}
    monkeypatch.setattr(stores.Store, "put", put)
    assert set(_run()[0].values()) == {"done"}


# --- stores that fail -----------------------------------------------------------------------------------------------


def test_a_store_that_is_down_for_a_while_is_asked_again(monkeypatch):
    _fill(["0.png", "1.png"])
    system = type(fsspec.filesystem("memory"))
    whole = {name: getattr(system, name) for name in ("pipe_file", "get_file", "ls")}
    failed = []

    def flaky(name):
        def call(self, *arguments, **options):
            if failed.count(name) < 3:
                failed.append(name)
                raise (OSError(121, "internal error"), ConnectionResetError(), TimeoutError())[len(failed) % 3]
            return whole[name](self, *arguments, **options)

        return call

    for name in whole:
        monkeypatch.setattr(system, name, flaky(name))
    found, run = _run()
    assert found == {"0.png": "enhanced", "1.png": "enhanced"}
    assert len(failed) == 9
    assert run.repeated >= 6


def test_a_store_that_stays_down_ends_the_run_and_the_rest_is_not_begun(monkeypatch):
    _fill([f"{index:03}.png" for index in range(200)])
    monkeypatch.setattr(patience, "SECONDS", 0.0)

    def down(self, *arguments, **options):
        raise OSError(16, "slow down")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", down)
    found, run = _run()
    assert set(found.values()) == {"failed"}
    assert run.not_begun > 100
    assert run.exit_code() is Exit.NOTHING_DONE


def test_a_store_that_fails_every_other_batch_does_not_end_the_run():
    _fill([f"{index:03}.png" for index in range(160)])

    class Unsteady:
        workers = 1

        def run(self, batches, on_done):
            for batch in batches:
                silent = batch.number % 2 == 0
                status = Status.FAILED if silent else Status.ENHANCED
                made = (ItemOutcome(i.number, i.output, status=status, unreachable=silent) for i in batch.items)
                if not on_done(Done(batch.number, tuple(made))):
                    return

    with session.opened(_request()) as run:
        run.run(Unsteady(), lambda outcome: None)
        assert run.counts == {Status.FAILED: 80, Status.ENHANCED: 80}
        assert run.exit_code() is Exit.SOME_FAILED


def test_a_photo_that_changes_after_it_was_listed_fails_alone():
    _fill(["0.png", "1.png"])
    with session.opened(_request()) as run:
        _put("memory://shop/in/0.png", _png(5, (50, 60)))
        (batch,) = run.table.batches()
        done = Worker(_job(run), _Inverter()).run(batch)
    assert [o.status for o in done.outcomes] == [Status.FAILED, Status.ENHANCED]
    assert "was changed since it was listed" in done.outcomes[0].reason


def test_no_credential_is_told(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sig=abcdef123456")
    said = "GET https://user:pass@host/key?sig=abcdef123456&se=2030 failed; key abcdef; sig=abcdef123456"
    with pytest.raises(patience.StoreError) as raised:
        patience.patiently("az://b/k", lambda: (_ for _ in ()).throw(ValueError(said)))
    assert "123456" not in raised.value.one_line()
    assert "pass@" not in raised.value.one_line()
    for url in (
        "s3://key:secret@bucket/in",
        "https://host/a.jpg?sv=2030&sig=secret",
        "https://host/a.jpg?X-Amz-Signature=secret",
        "https://host/a.jpg?X-Goog-Credential=secret",
        "gs://bucket/a.jpg?access_token=secret",
    ):
        with pytest.raises(UsageError, match="contains a password or a signature") as refused:
            Places.of([url], OUT)
        assert "secret" not in refused.value.one_line()


def test_a_store_that_does_not_answer_at_first_is_one_line_soon(monkeypatch):
    monkeypatch.setattr(patience, "SECONDS", 1e9)
    monkeypatch.setattr(patience, "SECONDS_AT_FIRST", 0.0)

    def unreachable(self, path, **options):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", unreachable)
    with pytest.raises(patience.StoreError, match="memory://shop/in cannot be reached: Connection refused"):
        _request()


def test_a_refusal_is_no_reason_to_wait():
    slept = []

    def denied():
        raise PermissionError("Access Denied")

    with pytest.raises(patience.StoreError, match=r"s3://b/k: access is denied\."):
        patience.patiently("s3://b/k", denied, sleep=slept.append)
    assert not slept


# --- what is not there, and what is left ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "url", "named"),
    [
        ("fsspec", "s3://bucket/in", installation.extra("cloud")),
        ("s3fs", "s3://bucket/in", installation.extra("cloud")),
        ("gcsfs", "gs://bucket/in", "pip install gcsfs"),
        ("adlfs", "az://bucket/in", "pip install adlfs"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(module, url, named, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    stores._opened.cache_clear()
    done = CliRunner().invoke(app, ["enhance", url, "-o", str(tmp_path / "out")])
    stores._opened.cache_clear()
    assert isinstance(done.exception, UsageError)
    assert named in done.exception.one_line()


def test_a_cluster_without_ray_is_one_line_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    for command in (["enhance", str(tmp_path), "-o", str(tmp_path / "out")], ["evaluate", "--data", str(tmp_path)]):
        done = CliRunner().invoke(app, [*command, "--cluster", "local"])
        assert isinstance(done.exception, UsageError)
        assert done.exception.one_line() == f"--cluster needs ray. Run: {installation.extra('cluster')}"
    done = CliRunner().invoke(app, ["enhance", str(tmp_path), "-o", str(tmp_path / "out"), "--workers", "2"])
    assert "--workers needs --cluster" in str(done.exception)


def test_a_protocol_that_nobody_knows_or_that_writes_halves_is_refused():
    with pytest.raises(UsageError, match="fsspec does not know shop://"):
        Places.of(["shop://a/b"], OUT)
    with pytest.raises(UsageError, match="Writes to http:// are not atomic"):
        Places.of(["memory://shop/in"], "http://host/out")


@pytest.mark.parametrize("option", ["--in-place", "--sidecars", "--preserve-times"])
def test_options_of_folders_are_refused_for_urls(option):
    arguments = ["enhance", "memory://shop/in", option, *(() if option == "--in-place" else ("-o", OUT))]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, QatieError)
    assert done.exception.exit_code is Exit.USAGE


def test_scratch_of_killed_runs_is_removed_and_that_of_others_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "qatie-scratch-killed"
    left.mkdir()
    (left / ".lock").touch()
    (left / "0.png").write_bytes(b"x")
    with scratch.folder() as used:
        scratch.remove_stale()
        assert used.is_dir()
        assert not left.exists()
    assert not used.exists()


def test_a_listing_is_asked_for_as_it_is_used():
    _fill([f"{folder}/{index}.png" for folder in "abc" for index in range(3)])
    asked = []
    system = fsspec.filesystem("memory")
    whole = system.ls
    system.ls = lambda path, **options: asked.append(path) or whole(path, **options)
    store = stores.Store("memory", system)
    pages = store.pages("memory://shop/in")
    names = [entry.url for entry in next(pages)] + [entry.url for entry in next(pages)]
    del system.ls
    assert names == [f"memory://shop/in/a/{index}.png" for index in range(3)]
    assert len(asked) == 2


@pytest.mark.parametrize(
    "told",
    [
        {"ETag": '"0cc175b9c0f1b6a831c399e269772661"'},
        {"etag": "CJ+Q", "md5Hash": "DMF1ucDxtqgxw5niaXcmYQ=="},
        {"etag": "0x8D", "content_settings": {"content_md5": bytearray.fromhex("0cc175b9c0f1b6a831c399e269772661")}},
    ],
)
def test_every_store_s_way_to_tell_an_md5_is_known(told):
    entry = stores.Store("memory", None)._entry("memory://b/a", {"size": 1, **told})
    assert entry.md5 == record.md5(b"a")
    assert stores.Store("memory", None)._entry("memory://b/a", {"size": 1, "ETag": "abc-2"}).md5 == ""


def test_urls_lead_from_one_place_to_another_and_back():
    for source, out in (
        ("s3://b/in/a.jpg", "s3://b/out"),
        ("s3://b/a.jpg", "s3://c/out"),
        ("file:///x/a", "file:///y"),
    ):
        assert urls.absolute(urls.relative(source, out), out) == source
    assert urls.relative("s3://b/in/a.jpg", "s3://b/out") == "../in/a.jpg"
    assert urls.to_path(urls.of_path(Path("/x/ñ é.jpg"))) == Path("/x/ñ é.jpg")
