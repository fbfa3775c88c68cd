"""Compare one process, one node and two: python .ci/measure_cluster.py [--photos 300] [--size HxW] [--trouble].

Photos go from S3 to S3, on moto's server on loopback. The nodes are Ray's, on this machine: two logical CPUs each, and
memory for one worker of one thread. Outputs must be equal byte for byte, and reports but for times. Throughput is in
photos a second, from the first photo that is read to the last output that is put; beside it stand the seconds of the
run (in the report) and of the whole command. Two nodes need two cores and a quiet machine. Takes about 5 minutes.

With --trouble two nodes work once more: the server refuses some requests, one node is killed after a third of the
outputs, and the driver after two thirds; then the command is run again.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import itertools
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from qatie_cli import sizes
from qatie_cli.data import demo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import s3  # noqa: E402 (a module of the tests)

TROUBLE = (500, 503, 0)  # answers of the server; 0 resets the connection
IN, OUT = (f"s3://{s3.BUCKET}/{name}" for name in ("in", "out"))
WORKER = "1GB"
NODE = {"num_cpus": 2, "memory": 3 << 29, "object_store_memory": 100 << 20}
QUIET = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Made:
    """What a run made, and the seconds that it took: its transfers' and network's, its own, the command's."""

    digests: dict[str, str]
    report: dict
    seconds: tuple[float, float, float]


def photos(number: int, damaged: int, size: tuple[int, int]) -> dict[str, bytes]:
    """JPEGs by name, each a part of a photo of the demo; some end after 100 bytes."""
    pictures = [Image.fromarray(pixels) for pixels in demo.originals().values()]
    random_numbers = np.random.default_rng(0)
    broken = set(random_numbers.choice(number, damaged, replace=False).tolist())
    found = {}
    for index in range(number):
        picture = pictures[index % len(pictures)]
        left, top = (int(v) for v in random_numbers.integers(0, np.array(picture.size) // 4))
        part = picture.crop((left, top, left + picture.width * 3 // 4, top + picture.height * 3 // 4))
        content = io.BytesIO()
        part.resize(size[::-1], Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        whole = content.getvalue()
        found[f"{index % 10}/{index:04}.jpg"] = whole[:100] if index in broken else whole
    return found


def command(*options: str) -> list[str]:
    return [sys.executable, "-P", "-m", "qatie_cli", "enhance", IN, "-o", OUT, "--threads", "1", *options]


def digests(server: s3.Server) -> dict[str, str]:
    return {key: hashlib.sha256(server.get(key)).hexdigest() for key in server.keys("out/") if "/." not in key}


def run(server: s3.Server, *options: str) -> Made:
    """Enhance everything into an empty folder."""
    server.remove("out/")
    moments: list[float] = []

    def note(method: str, path: str) -> None:
        folder = {"GET": "in", "PUT": "out"}.get(method)
        if folder is not None and path.startswith(f"/{s3.BUCKET}/{folder}/") and path.endswith(".jpg"):
            moments.append(time.monotonic())

    server.fail = note
    with tempfile.TemporaryDirectory() as home:
        report = Path(home) / "report.json"
        began = time.monotonic()
        done = subprocess.run(
            command("--report", str(report), *options),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"QATIE_HOME": home},
        )
        whole = time.monotonic() - began
        server.fail = lambda method, path: None
        if done.returncode != 3:
            raise SystemExit(done.stderr)
        content = json.loads(report.read_text())
    seconds = moments[-1] - moments[0], content["seconds"], whole
    for key in ("started", "seconds", "network_seconds"):
        del content[key]
    for photo in content["photos"]:
        photo.pop("seconds", None)
    return Made(digests(server), content, seconds)


def run_in_trouble(server: s3.Server, cluster: Cluster, number: int, *options: str) -> tuple[dict[str, str], str]:
    """The digests of `number` outputs after a node and the driver were killed, and what happened."""
    server.remove("out/")
    refused, lock = itertools.count(), threading.Lock()
    puts: collections.Counter[str] = collections.Counter()

    def trouble(method: str, path: str) -> int | None:
        with lock:
            if random.random() < 0.2 and (count := next(refused)) < number:
                return TROUBLE[count % len(TROUBLE)]
            puts[path] += method == "PUT" and path.endswith(".jpg")
        return None

    def wait_for(outputs: int) -> None:
        while puts.total() < outputs:
            if process.poll() is not None:
                raise SystemExit("The run ended early.")
            time.sleep(0.05)

    server.fail = trouble
    with subprocess.Popen(command(*options), stderr=subprocess.DEVNULL) as process:
        wait_for(number // 3)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        wait_for(2 * number // 3)
        process.kill()
    left = puts.total()
    cluster.add_node(**NODE)
    again = subprocess.run(command(*options), stderr=subprocess.PIPE, text=True, check=False)
    server.fail = lambda method, path: None
    if again.returncode != 3:
        raise SystemExit(again.stderr)
    twice = sum(count > 1 for count in puts.values())
    told = f"{min(next(refused), number)} requests were refused; a node was killed at {number // 3} outputs"
    return digests(server), f"{told}, the driver at {left}; {twice} outputs were put twice."


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=300)
    options.add_argument("--damaged", type=int, default=20)
    options.add_argument("--size", default="960x1280")
    options.add_argument("--trouble", action="store_true")
    asked = options.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = s3.Server()
    os.environ.update(s3.ENVIRONMENT | QUIET | {"AWS_ENDPOINT_URL": server.url, "PYTHONPATH": str(ROOT)})
    os.environ.pop("RAY_ADDRESS", None)
    for key, content in photos(asked.photos, asked.damaged, sizes.parse_model_size(asked.size, 1)).items():
        server.put(f"in/{key}", content)
    made = {"one process": run(server)}
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    on_cluster = ("--cluster", cluster.address, "--max-memory", WORKER)
    try:
        made["one node"] = run(server, *on_cluster)
        cluster.add_node(**NODE)
        made["two nodes"] = run(server, *on_cluster)
        whole = asked.photos - asked.damaged
        after, happened = run_in_trouble(server, cluster, whole, *on_cluster) if asked.trouble else ({}, "")
    finally:
        cluster.shutdown()
        ray.shutdown()
    print("| on | outputs | failed | photos/s | run, s | command, s |\n|---|---|---|---|---|---|")
    for place, one in made.items():
        at_work, own, in_all = one.seconds
        failed = one.report["counts"].get("failed", 0)
        figures = f"{asked.photos / at_work:.2f} | {own:.1f} | {in_all:.1f}"
        print(f"| {place} | {len(one.digests)} | {failed} | {figures} |")
    ratios = [a / b for a, b in zip(made["one node"].seconds, made["two nodes"].seconds, strict=True)]
    print("\nTwo nodes against one: {:.2f} by throughput, {:.2f} by the run, {:.2f} by the command.".format(*ratios))
    first, *others = made.values()
    equal = all(other.digests == first.digests and other.report == first.report for other in others)
    print("Outputs and reports are " + ("equal." if equal else "NOT equal."))
    if asked.trouble:
        equal = equal and after == first.digests
        print(happened, "Outputs are " + ("equal." if after == first.digests else "NOT equal."))
    sys.exit(0 if equal and len(first.digests) == whole else 1)


if __name__ == "__main__":
    main()
