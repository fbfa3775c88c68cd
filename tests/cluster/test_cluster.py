"""S3 to S3 in one process and on a Ray cluster: the same outputs, byte for byte, whatever is lost on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from commands import qatie
from PIL import Image
from typer.testing import CliRunner

from qatie_cli import __version__, engines, installation
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Status, Writing
from qatie_cli.batch.settings import Settings
from qatie_cli.cli import app, large
from qatie_cli.cli.options import Device, EngineName
from qatie_cli.cloud.items import Batch, Done, Item, ItemOutcome
from qatie_cli.cloud.work import Job
from qatie_cli.cluster import actors, estimates, nodes, scoring
from qatie_cli.cluster.actors import Actors, Workers
from qatie_cli.cluster.nodes import Node
from qatie_cli.cluster.pool import Pool
from qatie_cli.data.layouts import PairFiles
from qatie_cli.errors import EngineError, PinnedEngineError, QatieError, UsageError
from qatie_cli.evaluation.measuring import Measurement
from qatie_cli.storage import stores

pytest.importorskip("s3fs")
pytest.importorskip("moto")
pytest.importorskip("flask_cors")

import s3
from s3 import BUCKET

DAMAGED = ("d1/05.jpg", "d2/10.jpg")
IN, OUT = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    made = s3.Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def photos(astronaut, coffee) -> dict[str, bytes]:
    """Twenty small photos by their names, two of them damaged."""
    found = {}
    for index in range(20):
        content = io.BytesIO()
        picture = Image.fromarray((astronaut, coffee)[index % 2]).resize((96 + 8 * index, 120))
        picture.save(content, "JPEG", quality=90)
        name = f"d{index % 4}/{index:02}.jpg"
        found[name] = b"no photo" if name in DAMAGED else content.getvalue()
    return found


@pytest.fixture
def bucket(server, photos, monkeypatch) -> s3.Server:
    """The server with the photos in it and no outputs, and this process its client."""
    server.fail = lambda method, path: None
    server.remove("out")
    for name, content in photos.items():
        server.put(f"in/{name}", content)
    server.requests.clear()
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # beside other tests niced workers would starve
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return server


def _outputs(server: s3.Server, folder: str = "out") -> dict[str, bytes]:
    keys = [key for key in server.keys(f"{folder}/") if "/." not in key and not key.endswith(".html")]
    return {key.removeprefix(f"{folder}/"): server.get(key) for key in keys}


def _report(path: Path, *places: tuple[str, str]) -> dict:
    """A report without times, the names of its places replaced."""
    text = path.read_text()
    for place, name in places:
        text = text.replace(place, name)
    content = json.loads(text)
    for name in ("started", "seconds", "network_seconds"):
        del content[name]
    for photo in content["photos"]:
        photo.pop("seconds", None)
    return content


@pytest.fixture(scope="module")
def made_here(photos, tmp_path_factory) -> tuple[dict[str, bytes], dict, dict[str, bytes]]:
    """What a folder of this machine becomes: outputs by name, the report, and the gallery's files by name."""
    root = tmp_path_factory.mktemp("here")
    for name, content in photos.items():
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    qatie("enhance", root / "in", "-o", root / "out", "--report", root / "r.json", "--gallery", "--threads", 1, code=3)
    outputs = {p.relative_to(root / "out").as_posix(): p.read_bytes() for p in (root / "out").glob("d*/*")}
    report = _report(root / "r.json", (str(root / "in"), IN), (str(root / "out"), OUT))
    return outputs, report, _gallery_of(root / "out")


def _gallery_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / ".gallery").iterdir()}


def _gallery(server: s3.Server) -> dict[str, bytes]:
    return {key.rpartition("/")[2]: server.get(key) for key in server.keys("out/.gallery/")}


def _check_gallery(found: dict[str, bytes], expected: dict[str, bytes], page: str) -> None:
    """The same previews and entries as `expected`, but for times; and a page with all photos, failed ones too."""

    def entries(content: bytes) -> list[dict]:
        rows = json.loads(content)["photos"]
        return [{k: v for k, v in row.items() if k not in ("time_ns", "seconds")} for row in rows]

    assert found.keys() == expected.keys()
    assert all(found[name] == content for name, content in expected.items() if name.endswith(".webp"))
    assert len(entries(found["entries.json"])) == 18
    assert entries(found["entries.json"]) == entries(expected["entries.json"])
    assert all(row["name"] in page for row in entries(expected["entries.json"]))
    assert all(name in page for name in DAMAGED)


_LIST = """
import sys
from botocore import utils
from qatie_cli.evaluation.measuring import Measurement
from qatie_cli.storage import stores
utils.dateutil.parser.parse = None
for page in stores.of(sys.argv[1]).pages(sys.argv[1]):
    print(*(entry.url for entry in page))
"""


# --- one process ----------------------------------------------------------------------------------------------------


def test_from_s3_to_s3_is_as_from_folder_to_folder(bucket, made_here, tmp_path):
    outputs, report, gallery = made_here
    assert len(outputs) == 18
    done = qatie("enhance", IN, "-o", OUT, "--report", tmp_path / "r.json", "--gallery", "--threads", 1, code=3)
    assert _outputs(bucket) == outputs
    assert _report(tmp_path / "r.json") == report
    names = [*outputs, "index.html"]
    kinds = {k: bucket.client.head_object(Bucket=BUCKET, Key=f"out/{k}")["ContentType"] for k in names}
    assert kinds == dict.fromkeys(outputs, "image/jpeg") | {"index.html": "text/html"}
    page = bucket.get("out/index.html").decode()
    _check_gallery(_gallery(bucket), gallery, page)
    assert "../in/" in page
    secret = s3.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]
    assert not any(secret in text for text in (done.stderr, (tmp_path / "r.json").read_text(), page))
    assert "18 already done" in qatie("enhance", IN, "-o", OUT, "--dry-run").stderr


def test_dry_run_reads_no_more_than_it_needs_and_writes_nothing(bucket):
    done = qatie("enhance", IN, "-o", OUT, "--dry-run")
    assert f"{IN}/d0/00.jpg -> {OUT}/d0/00.jpg" in done.stdout
    assert "20 photos to enhance, 0.4 MP" in done.stderr
    assert "2 of them cannot be read" in done.stderr
    assert all(method in ("GET", "HEAD") for method, _ in bucket.requests)


def test_a_server_that_fails_for_a_while_costs_nothing(bucket, made_here, tmp_path):
    answers = iter([500, 503, 0] * 5)
    bucket.fail = lambda method, path: next(answers, None) if "/d" in path else None
    qatie("enhance", IN, "-o", OUT, "--report", tmp_path / "r.json", "--threads", 1, code=3)
    assert next(answers, None) is None
    assert _outputs(bucket) == made_here[0]
    assert _report(tmp_path / "r.json") == made_here[1]


def test_a_bucket_that_is_not_there_or_denied_is_one_line(bucket):
    done = qatie("enhance", "s3://nobody/in", "-o", OUT, code=2)
    assert "There is no file or folder s3://nobody/in" in done.stderr
    bucket.fail = lambda method, path: 403 if method == "PUT" else None
    done = qatie("enhance", IN, "-o", OUT, code=1)
    assert "access is denied" in done.stderr
    assert s3.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in done.stderr


def test_times_of_listed_keys_are_parsed_fast_and_as_botocore_would(bucket, photos):
    """Its parser takes four fifths of the processor time of a listing."""
    from botocore import utils

    for said in ("2026-11-28T02:30:45.000Z", "Sat, 28 Nov 2026 02:30:45 GMT", 1764297045.0):
        assert stores._time(said) == utils.parse_timestamp(said)
    program = [sys.executable, "-P", "-c", _LIST, IN]
    done = subprocess.run(program, timeout=60, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"{IN}/{name}" for name in sorted(photos)]


def test_a_large_output_is_put_at_once_and_so_has_an_md5(bucket):
    stores.of(OUT).put(f"{OUT}/large.tif", bytes(101 << 20), "image/tiff")
    found = stores.of(OUT).entry(f"{OUT}/large.tif")
    bucket.remove("out/large.tif")
    assert found.md5 == hashlib.md5(bytes(101 << 20)).hexdigest()
    assert sum(method == "PUT" for method, path in bucket.requests) == 1


# --- a cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(server) -> Iterator[object]:
    """Two nodes of two logical CPUs each on this machine, clients of the server."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        for name, value in (s3.ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        size = {"num_cpus": 2, "object_store_memory": 100 << 20, "memory": 8 << 30}
        made = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
        made.add_node(**size)
        made.size = size
        yield made
        made.shutdown()


def test_two_nodes_make_what_one_process_makes(bucket, cluster, made_here, tmp_path):
    options = ("--cluster", cluster.address, "--workers", "2", "--report", tmp_path / "r.json", "--gallery")
    done = qatie("enhance", IN, "-o", OUT, *options, code=3)
    assert _outputs(bucket) == made_here[0]
    assert _report(tmp_path / "r.json") == made_here[1]
    _check_gallery(_gallery(bucket), made_here[2], bucket.get("out/index.html").decode())
    assert f"Browse them: {OUT}/index.html" in done.stderr
    assert "18 photos enhanced" in done.stderr
    assert "18 already done" in qatie("enhance", IN, "-o", OUT, "--dry-run").stderr


def test_folders_that_all_nodes_see_need_no_store(cluster, photos, made_here, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for name, content in photos.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    options = ("--cluster", cluster.address, "--workers", "8", "--report", tmp_path / "r.json", "--gallery")
    done = qatie("enhance", tmp_path / "in", "-o", tmp_path / "out", *options, code=3)
    assert "Warning" not in done.stderr  # of Ray, for more workers than batches
    outputs = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").glob("d*/*")}
    assert outputs == made_here[0]
    places = (str(tmp_path / "in"), IN), (str(tmp_path / "out"), OUT)
    assert _report(tmp_path / "r.json", *places) == made_here[1]
    _check_gallery(_gallery_of(tmp_path / "out"), made_here[2], (tmp_path / "out" / "index.html").read_text())
    again = qatie("enhance", tmp_path / "in", "-o", tmp_path / "out", "--dry-run")  # without Ray: the same record
    assert "18 already done" in again.stderr


class _Gate:
    """Lets the first PUTs of outputs pass, and holds the others until it is opened."""

    def __init__(self, server: s3.Server, passing: int) -> None:
        self._server, self._left, self._lock = server, passing, threading.Lock()
        self.reached, self._opened = threading.Event(), threading.Event()
        self._answer: int | None = None
        server.fail = self._hold

    def _hold(self, method: str, path: str) -> int | None:
        if method != "PUT" or not path.startswith(f"/{BUCKET}/out/d"):
            return None
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return None
        self.reached.set()
        self._opened.wait(600)
        return self._answer

    def open(self, answer: int | None = None) -> None:
        """Answer those that are held: with `answer`, or as if there had been no gate."""
        self._answer = answer
        self._server.fail = lambda method, path: None
        self._opened.set()


# Small batches, so that each worker has some in hand.
_IN_PAIRS = "from qatie_cli.cloud import table; table.MOST_ITEMS = 2; from qatie_cli.cli import main; main()"

# Tests that a shell started in the background ignore SIGINT, and so would what they start.
_INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from qatie_cli.cli import main; main()"
)


def _workers_below(pid: int) -> list[psutil.Process]:
    """The actors among the descendants of a process."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += [process] if "MapWorker" in " ".join(process.cmdline()) else []
    return found


def _raylet(node: object) -> int:
    return node.all_processes["raylet"][0].process.pid


def _is_at_work(node: object, server: s3.Server) -> bool:
    """Whether a worker of the node is connected to the server."""
    port = int(server.url.rpartition(":")[2])
    for worker in _workers_below(_raylet(node)):
        with contextlib.suppress(psutil.Error):
            if any(c.raddr and c.raddr.port == port for c in worker.net_connections("tcp")):
                return True
    return False


def _eventually(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_leaves_whole_outputs_and_no_actor(bucket, cluster, made_here):
    gate = _Gate(bucket, 3)
    command = [sys.executable, "-P", "-c", _INTERRUPTIBLE, "enhance", IN, "-o", OUT]
    command += ["--cluster", cluster.address, "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert gate.reached.wait(300), process.kill()
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=300)[1]
    _eventually(lambda: not any(_workers_below(_raylet(node)) for node in cluster.list_all_nodes()))
    gate.open(503)  # what was held is not put
    assert process.returncode == 130, error
    assert "Interrupted after" in error
    assert len(_outputs(bucket)) == 3
    assert _outputs(bucket).items() <= made_here[0].items()


@pytest.mark.skipif(not engines.has_compiled(), reason="needs a processor that runs llvm")
def test_unlike_nodes_run_the_engine_that_they_share(cluster, photos, tmp_path, monkeypatch):
    """One of them cannot run what this machine would choose."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photos["d0/00.jpg"])
    unlike = cluster.add_node(**cluster.size, env_vars={"QATIE_NO_NUMBA": "1"})
    try:
        command = ("enhance", tmp_path / "in", "-o", tmp_path / "out", "--cluster", cluster.address)
        refused = qatie(*command, "--engine", "llvm", code=2)
        assert ": There is no engine llvm on this machine." in refused.stderr
        qatie(*command, "--workers", "1", "--report", tmp_path / "r.json")
    finally:
        cluster.remove_node(unlike)
    assert json.loads((tmp_path / "r.json").read_text())["engine"] == "onnxruntime"
    made = [json.loads(line) for line in (tmp_path / "out" / ".qatie" / "made.jsonl").read_text().split("\n") if line]
    assert {row["engine"] for row in made if "engine" in row} == {"onnxruntime"}


def test_an_evaluation_has_the_figures_of_one_process(cluster, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")
    for name in ("d0/00.jpg", "d1/01.jpg", "d2/02.jpg", *DAMAGED):
        for side in ("input", "target"):
            path = tmp_path / side / Path(name).name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photos[name])
    (tmp_path / "target" / "01.jpg").write_bytes(photos["d0/04.jpg"])  # of another size
    monkeypatch.chdir(tmp_path.parent)
    command = ("evaluate", "--data", tmp_path.name, "--threads", 1, "--quiet", "--json")
    here = qatie(*command)
    there = qatie(*command, "--cluster", cluster.address, "--workers", 2)
    assert json.loads(there.stdout) == json.loads(here.stdout)
    assert list(json.loads(there.stdout)["photos"]) == ["00.jpg", "02.jpg"]
    assert json.loads(there.stdout)["left_out"] == 3
    assert "01.jpg differ in size" in there.stderr


def test_a_node_that_left_since_it_was_listed_is_not_asked_for(cluster, monkeypatch):
    listed = nodes.nodes
    added = cluster.add_node(**cluster.size)
    with nodes.connected(cluster.address):
        there = listed()
        assert added.node_id in {node.id for node in there}
        cluster.remove_node(added)
        monkeypatch.setattr(nodes, "nodes", lambda: there)
        checked = nodes.check([], "float")
        assert [node.id for node in checked] == [node.id for node in there if node.id != added.node_id]
        monkeypatch.setattr(nodes, "nodes", lambda: [node for node in there if node.id == added.node_id])
        with pytest.raises(QatieError, match="All nodes have left the Ray cluster"):
            nodes.check([], "float")


# Last on this cluster: Ray counts a node that was killed among its own for a while.
def test_a_node_lost_in_the_middle_costs_only_time(bucket, cluster, made_here, tmp_path):
    """It is killed with a worker's photos in hand, which are done again elsewhere."""
    added = cluster.add_node(**cluster.size)
    gate = _Gate(bucket, 3)
    options = ("--cluster", cluster.address, "--workers", "3", "--report", str(tmp_path / "r.json"))
    command = [sys.executable, "-P", "-c", _IN_PAIRS, "enhance", IN, "-o", OUT, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert gate.reached.wait(300), process.kill()
        _eventually(lambda: _is_at_work(added, bucket))
        cluster.remove_node(added, allow_graceful=False)
        gate.open()
        told, error = process.communicate(timeout=600)
    assert process.returncode == 3, error
    assert (told, "raylet" in error) == ("", False)  # Ray tells the driver about lost nodes
    assert _outputs(bucket) == made_here[0]
    assert _report(tmp_path / "r.json") == made_here[1]


def test_no_cluster_is_one_line():
    pytest.importorskip("ray")
    done = qatie("enhance", ".", "-o", "out", "--cluster", "127.0.0.1:1", code=1)
    assert "No Ray cluster found at 127.0.0.1:1" in done.stderr


# --- one engine -----------------------------------------------------------------------------------------------------


def _node(name: str, *known: str) -> Node:
    return Node(name, name, 4, 8e9, known)


def test_auto_is_an_engine_that_every_node_has(weights, monkeypatch):
    monkeypatch.setattr(engines, "available_without_torch", lambda: ("llvm", "onnxruntime"))
    alike, unlike = (_node("a", "llvm", "onnxruntime"), _node("b", "onnxruntime"))
    assert nodes.common_engines([alike]) == ("llvm", "onnxruntime")
    common = nodes.common_engines([alike, unlike])
    assert common == ("onnxruntime",)
    assert engines.load(weights, "auto", among=common).name == "onnxruntime"
    with pytest.raises(EngineError, match="no engine in common"):
        engines.load(weights, "auto", among=nodes.common_engines([alike, _node("c", "onednn")]))


def test_nodes_that_would_mix_engines_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(engines, "has_compiled", lambda: True)

    def answer(lacks: str = "", compiled: bool = True) -> tuple:
        return __version__, "", lacks, ("onnxruntime",), compiled, None

    assert nodes._checked(_node("a"), answer(), "auto") == _node("a", "onnxruntime")
    with pytest.raises(EngineError, match="Node a: There is no engine llvm"):
        nodes._checked(_node("a"), answer("There is no engine llvm on this machine."), "llvm")
    with pytest.raises(PinnedEngineError, match=r"Node a: the batch was begun on llvm.*There is no engine llvm"):
        nodes._checked(_node("a"), answer("There is no engine llvm on this machine."), "llvm", begun_on="llvm")
    with pytest.raises(EngineError, match="float uses compiled convolutions here but not on node a"):
        nodes._checked(_node("a"), answer(compiled=False), "float")
    assert nodes._checked(_node("a"), answer(compiled=False), "onnxruntime")
    with pytest.raises(UsageError, match=r"Node a cannot access the photos: there is no /photos\."):
        nodes._checked(_node("a"), (__version__, "there is no /photos.", "", (), True, None), "auto")
    with pytest.raises(QatieError, match="Node a has qatie"):
        nodes._checked(_node("a"), ("0.1", "", ""), "auto")


def test_a_batch_is_finished_on_its_engine():
    """Whatever `auto` would choose now, on a cluster with other nodes."""
    settings = Settings("qatie-c16", "0" * 64)
    asked = large.Asked((), None, (), Naming(), Writing(), settings, EngineName.auto, 0, Device.cpu, None)
    assert large._wanted(asked, "") == "auto"
    assert large._wanted(asked, "onednn") == "onednn"
    assert large._wanted(dataclasses.replace(asked, engine=EngineName.llvm), "onednn") == "llvm"
    assert large._wanted(dataclasses.replace(asked, device=Device.cuda), "") == "float"


# --- numbers --------------------------------------------------------------------------------------------------------


def test_workers_are_a_number_or_a_range():
    assert Workers.parse("4") == Workers(4, 4)
    assert Workers.parse("2:8") == Workers(2, 8)
    for wrong in ("0", "8:2", "a", "1:", ":1", "1:2:3", "-1", "٣"):
        with pytest.raises(UsageError, match="Invalid number of workers"):
            Workers.parse(wrong)


def test_a_cluster_is_filled_and_one_without_room_is_refused():
    nodes = [Node("a", "a", 4, 8e9), Node("b", "b", 2, 1e9)]
    assert Workers.filling(nodes, 1, 10**9) == Workers(5, 5)
    assert Workers.filling(nodes, 4, 10**9) == Workers(1, 1)
    with pytest.raises(UsageError, match="A worker needs 8 CPU"):
        actors.check_room(nodes, 8, 10**9)


def test_a_photo_that_ends_its_worker_fails_alone(monkeypatch):
    items = [Item(n, f"s3://b/{n}.jpg", f"s3://o/{n}.jpg") for n in range(6)]
    batches = [Batch(n, tuple(items[2 * n : 2 * n + 2])) for n in range(3)]
    tries = []

    def results(self, window):
        """A worker that one photo ends, with all that are beside it."""
        tries.append([[item.number for item in batch.items] for batch in window])
        for batch in window:
            if 3 not in (numbers := [item.number for item in batch.items]):
                yield Done(
                    batch.number, tuple(ItemOutcome(n, f"s3://o/{n}.jpg", status=Status.ENHANCED) for n in numbers)
                )

    monkeypatch.setattr(Actors, "results", results)
    seen = {}
    Pool(Job(OUT, "", None, None, None, ""), Workers(1, 1), 1).run(
        iter(batches), lambda d: seen.update({o.number: o for o in d.outcomes}) or True
    )
    assert tries == [[[0, 1], [2, 3], [4, 5]], [[2, 3]], [[2], [3]], [[3]]]
    assert [seen[n].status for n in range(6)] == [Status.ENHANCED] * 3 + [Status.FAILED] + [Status.ENHANCED] * 2
    assert seen[3].reason == "s3://b/3.jpg: Every worker that tried it died."


def test_a_pair_that_ends_its_worker_is_left_out(weights, monkeypatch):
    def results(self, rows):
        """The last is ready first, and the second never."""
        yield from ((n, {"identity": n}) for n, _ in reversed(rows) if n != 1)

    monkeypatch.setattr(Actors, "results", results)
    files = [PairFiles(f"{n}.png", Path(f"{n}.png"), Path(f"{n}.png")) for n in range(3)]
    job = scoring.Job(weights, "float", 1, Measurement(64, 1, ("identity",)))
    seen = []
    found = scoring.outcomes(job, files, [_node("a")], Workers(1, 1), seen.append)
    assert (found[0], found[2]) == ({"identity": 0}, {"identity": 2})
    assert str(found[1]) == "1.png: Every worker that tried it died."
    assert seen == ["2.png", "0.png"]


def test_nodes_that_cannot_evaluate_are_refused_in_one_line(monkeypatch):
    needs = nodes.Need(("scipy", "no_such_module"), "train", float_too=True)
    answer = nodes._probe([], "float", needs)
    with pytest.raises(UsageError, match="Node a has no no_such_module") as refused:
        nodes._checked(_node("a"), answer, "float", needs)
    assert installation.extra("train") in refused.value.hint
    monkeypatch.setattr(engines, "has_compiled", lambda: not answer[4])
    alike = (*answer[:-1], None)
    with pytest.raises(EngineError, match="results would differ"):
        nodes._checked(_node("a"), alike, "onnxruntime", needs)
    assert nodes._checked(_node("a"), alike, "onnxruntime")


def test_a_cluster_that_is_lost_is_one_line_and_the_report_is_written(photos, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    name = "d0/00.jpg"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(photos[name])
    node = _node("a", *(engines.available_without_torch() or engines.available()))
    monkeypatch.setattr(nodes, "connected", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(nodes, "check", lambda places, engine, begun_on: [node])
    monkeypatch.setattr(actors, "_be_quiet", lambda: None)

    class Lost:
        def iter_rows(self):
            raise ray.exceptions.RaySystemError("gone")

    monkeypatch.setattr(ray.data, "from_items", lambda rows, override_num_blocks: None)
    monkeypatch.setattr(Actors, "_mapped", lambda self, dataset, rows: Lost())
    options = ["--cluster", "local", "--report", str(tmp_path / "r.json")]
    done = CliRunner().invoke(app, ["enhance", str(tmp_path / "in"), "-o", str(tmp_path / "out"), *options])
    assert done.exit_code == 1, done.exception
    assert "The connection to the cluster was lost" in done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["counts"] == {"not begun": 1}


def test_a_worker_s_memory_grows_with_its_photos(weights):
    from qatie_cli.enhance.photos import Effect, Enhancer
    from qatie_cli.photo.decoding import Header

    enhancer = Enhancer(engines.load(weights, "float"), Effect())
    sizes = [Header(side, side, 10 * side * side) for side in (1000, 4000)]
    small, large = (estimates.worker_bytes([header], enhancer) for header in sizes)
    assert estimates.PROCESS_BYTES < small < large < 4e9
    assert estimates.worker_bytes([None], enhancer) > small
