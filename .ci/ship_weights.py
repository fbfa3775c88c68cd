"""Put a run's weights into weights/ and its manifest."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from qatie_cli import files
from qatie_cli.model import checkpoint

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def ship(source: Path, name: str, description: str) -> None:
    """Copy the file and record its checksum.

    Raises:
        WeightsError: the file is damaged.
    """
    checkpoint.read(source)
    target = WEIGHTS / f"{name}.safetensors"
    shutil.copyfile(source, target)
    path = WEIGHTS / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    manifest[name] = {"file": target.name, "sha256": files.sha256(target), "description": description}
    files.write_atomic(path, json.dumps(manifest, indent=2) + "\n")


def main() -> None:
    """One file, one name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="weights file, such as RUN/last.safetensors")
    parser.add_argument("name", help="what --weights will call it, such as qatie-c16")
    parser.add_argument("description", help="one line for `qatie weights list`")
    given = parser.parse_args()
    ship(given.source, given.name, given.description)


if __name__ == "__main__":
    main()
