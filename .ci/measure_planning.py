"""Measure planning of many photos in a store: python .ci/measure_planning.py [--photos 200000] [--done 160000].

The photos are small JPEGs, each with bytes of its own, in moto's S3 server on loopback. qatie enhances the first
hundred; the outputs and records of the others that are done are made after theirs, without the network. A row is one
run of the command: seconds, the server's among them; processor seconds and peak memory of qatie's process alone. Needs
about 2 GB and 5 minutes.
"""

from __future__ import annotations

import argparse
import bisect
import gzip
import hashlib
import io
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import s3  # noqa: E402 (a module of the tests)

FIRST = 100  # that qatie enhances
A_FOLDER = 5000  # photos
MERGED = 8192  # records of a file, as after 512 batches of 16
PHOTOS = "photos"  # a bucket of their own
RECORD = "out/.qatie/made/"
IN, OUT = f"s3://{PHOTOS}", f"s3://{s3.BUCKET}/out"


def name(number: int) -> str:
    return f"{number // A_FOLDER:04}/IMG_{number:06}.jpg"


def photos(number: int) -> dict[str, bytes]:
    """Small JPEGs by name; each has its number as a comment."""
    random_numbers = np.random.default_rng(0)
    content = io.BytesIO()
    Image.fromarray(random_numbers.integers(0, 256, (16, 24, 3), np.uint8)).save(content, "JPEG")
    start, rest = content.getvalue()[:2], content.getvalue()[2:]
    return {name(n): start + b"\xff\xfe\x00\x0a%08d" % n + rest for n in range(number)}


def seed(objects: dict[str, bytes], bucket: str, folder: str = "") -> None:
    """Put objects into the server's memory, past HTTP."""
    from moto.backends import get_backend
    from moto.core import DEFAULT_ACCOUNT_ID

    store = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
    for key, content in objects.items():
        store.put_object(bucket, folder + key, content)


def list_quickly() -> None:
    """Give the server a sorted list of its keys: moto would sort all of them for every page."""
    from moto.s3.models import S3Backend

    usual = S3Backend.list_objects_v2
    ordered: dict[tuple[str, int], list[str]] = {}

    def listed(self, bucket, prefix, delimiter, continuation_token, start_after, max_keys):
        if delimiter or start_after:
            return usual(self, bucket, prefix, delimiter, continuation_token, start_after, max_keys)
        version = bucket.name, len(bucket.keys)
        if version not in ordered:
            ordered[version] = sorted(bucket.keys)
        names, begins = ordered[version], prefix or ""
        last = continuation_token and self._pagination_tokens[continuation_token]
        first = bisect.bisect_right(names, last) if last else bisect.bisect_left(names, begins)
        page = list(itertools.takewhile(lambda name: name.startswith(begins), names[first : first + max_keys + 1]))
        return self._truncate_result([bucket.keys[name] for name in page], max_keys)

    S3Backend.list_objects_v2 = listed


def described_by(content: bytes) -> list:
    """Size and MD5, as records have them."""
    return [len(content), hashlib.md5(content, usedforsecurity=False).hexdigest()]


def record(made: dict[str, bytes], sources: dict[str, bytes], like: dict) -> None:
    """Write the records of outputs as a run would, with the settings of the line `like`."""
    lines = []
    for key, output in made.items():
        place = like["from"][0].replace(like["output"], key)
        described = {"output": key, "made": described_by(output), "from": [place, *described_by(sources[key])]}
        lines.append(like | described)
    run = like["output"].replace("/", "-")  # a folder of its own
    for start in range(0, len(lines), MERGED):
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines[start : start + MERGED])
        seed({f"{run}-{len(made)}/merged-{start:08}.jsonl.gz": gzip.compress(text.encode())}, s3.BUCKET, RECORD)


def measured(title: str, *options: str, code: int = 0) -> str:
    """Run the command and print its row; what it said."""
    program = [sys.executable, "-P", "-m", "qatie_cli", "enhance", IN, "-o", OUT, "--threads", "1", *options]
    with tempfile.TemporaryFile("w+") as told:
        began = time.monotonic()
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=told, text=True)
        peak = 0
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            # getrusage would count the memory of this process, from which it was forked.
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak = max(peak, int(found[1]) * 1024 if found else 0)
            time.sleep(0.05)
        seconds = time.monotonic() - began
        told.seek(0)
        said = told.read()
    _, status, usage = ended
    if os.waitstatus_to_exitcode(status) != code:
        raise SystemExit(said)
    used = usage.ru_utime + usage.ru_stime
    print(f"| {title} | {seconds:.1f} | {used:.1f} | {peak / 1e6:.0f} |", flush=True)
    return said


def check(said: str, expected: str) -> None:
    if expected not in re.sub(r"\s+", " ", said):
        raise SystemExit(f"Expected: {expected}\n{said}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=int, default=200_000)
    options.add_argument("--done", type=int, default=160_000)
    asked = options.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    list_quickly()
    server = s3.Server()
    os.environ.update(s3.ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url, "PYTHONPATH": str(ROOT)})
    sources = photos(asked.photos)
    first = dict(list(sources.items())[:FIRST])
    print("| run | seconds | processor seconds | peak, MB |\n|---|---|---|---|", flush=True)
    server.client.create_bucket(Bucket=PHOTOS)
    seed(first, PHOTOS)
    measured(f"{FIRST:,} enhanced")
    seed(sources, PHOTOS)
    check(measured(f"{asked.photos:,} listed, {FIRST:,} done, --dry-run", "--dry-run"), f"{FIRST:,} done already")
    kept = next(key for key in server.keys(RECORD) if key.endswith((".jsonl", ".gz")))
    text = server.get(kept)
    lines = (gzip.decompress(text) if kept.endswith(".gz") else text).splitlines()
    like = next(line for line in map(json.loads, lines) if "output" in line)
    output = server.get(f"out/{like['output']}")
    for number in (asked.done, asked.photos):
        names = list(sources)[FIRST:number]
        made = {key: output + b"%08d" % index for index, key in enumerate(names)}
        seed(made, s3.BUCKET, "out/")
        record(made, sources, like)
        title = f"{asked.photos:,} listed, {number:,} done"
        if number < asked.photos:
            said = measured(f"{title}, --dry-run", "--dry-run")
            check(said, f"{asked.photos - number:,} photos to enhance")
        else:
            said = measured(title)
        check(said, f"{number:,} {'photos ' * (number == asked.photos)}done already")
    pages = sum(method == "GET" and path in (f"/{PHOTOS}", f"/{s3.BUCKET}") for method, path in server.requests)
    print(f"\n{pages:,} pages were listed over HTTP.")


if __name__ == "__main__":
    main()
