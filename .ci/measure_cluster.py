"""Compare one process, one node and two: python .ci/measure_cluster.py [--photos 300] [--damaged 20] [--size HxW].

Photos go from S3 to S3, on moto's server on loopback. The nodes are Ray's, on this machine: two logical CPUs each, and
memory for one worker of one thread. Outputs must be equal byte for byte, and reports but for times. Throughput is in
photos a second, from the first photo that is read to the last output that is put; beside it stand the seconds of the
run (in the report) and of the whole command. Two nodes need two cores and a quiet machine. Takes about 5 minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
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
        program = [sys.executable, "-P", "-m", "qatie_cli", "enhance", IN, "-o", OUT, "--threads", "1"]
        began = time.monotonic()
        done = subprocess.run(
            [*program, "--report", str(report), *options],
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
    outputs = [key for key in server.keys("out/") if "/." not in key]
    return Made({key: hashlib.sha256(server.get(key)).hexdigest() for key in outputs}, content, seconds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=300)
    options.add_argument("--damaged", type=int, default=20)
    options.add_argument("--size", default="1200x1600")
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
    finally:
        cluster.shutdown()
        ray.shutdown()
    whole = asked.photos - asked.damaged
    print("| on | outputs | failed | photos/s | run, s | command, s |\n|---|---|---|---|---|---|")
    for place, one in made.items():
        at_work, own, command = one.seconds
        failed = one.report["counts"].get("failed", 0)
        figures = f"{asked.photos / at_work:.2f} | {own:.1f} | {command:.1f}"
        print(f"| {place} | {len(one.digests)} | {failed} | {figures} |")
    ratios = [a / b for a, b in zip(made["one node"].seconds, made["two nodes"].seconds, strict=True)]
    print("\nTwo nodes against one: {:.2f} by throughput, {:.2f} by the run, {:.2f} by the command.".format(*ratios))
    first, *others = made.values()
    equal = all(other.digests == first.digests and other.report == first.report for other in others)
    print("Outputs and reports are " + ("equal." if equal else "NOT equal."))
    sys.exit(0 if equal and len(first.digests) == whole else 1)


if __name__ == "__main__":
    main()
