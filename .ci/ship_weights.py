"""Put a run's weights into weights/: python .ci/ship_weights.py RUN/last.safetensors NAME "DESCRIPTION"."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from qatie_cli import files
from qatie_cli.model import checkpoint

source, name, description = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
folder = Path(__file__).resolve().parent.parent / "weights"
checkpoint.read(source)  # refuses what is not whole
target = folder / f"{name}.safetensors"
shutil.copyfile(source, target)
manifest_path = folder / "manifest.json"
manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
manifest[name] = {"file": target.name, "sha256": files.sha256(target), "description": description}
files.write_atomic(manifest_path, json.dumps(manifest, indent=2) + "\n")
