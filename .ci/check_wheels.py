"""Build the wheels of qatie and qatie-light, compare them, and try the light one: python .ci/check_wheels.py.

The light one is installed into a fresh virtual environment, which must stay small, and enhances a photo there. That of
qatie is what the tests install.
"""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST_MB = 450  # of an environment with qatie-light
_TRY = """
import sys
import numpy as np
import qatie_cli

rng = np.random.default_rng(0)
photo = (np.linspace(40, 180, 96)[:, None, None] + rng.normal(0, 20, (96, 128, 3))).clip(0, 255).astype(np.uint8)
better = qatie_cli.load()(photo)
assert better.shape == photo.shape and (better != photo).any()
qatie_cli.write(qatie_cli.Photo(photo, "png"), sys.argv[1])
assert "torch" not in sys.modules
"""


def run(*command: object, **settings: object) -> None:
    """Run a command that must succeed."""
    subprocess.run([*map(str, command)], check=True, **settings)


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, project)
    (wheel,) = folder.glob("*.whl")
    return wheel


def content(wheel: Path) -> tuple[dict[str, int], set[str]]:
    """Checksums of the package's files, and the names of what it depends on, extras aside."""
    with zipfile.ZipFile(wheel) as file:
        package = {entry.filename: entry.CRC for entry in file.infolist() if entry.filename.startswith("qatie_cli/")}
        (metadata,) = (name for name in file.namelist() if name.endswith("dist-info/METADATA"))
        wanted = email.message_from_bytes(file.read(metadata)).get_all("Requires-Dist", [])
    return package, {re.match(r"[\w.-]+", line)[0] for line in wanted if "extra ==" not in line}


def main() -> None:
    """Exit with a message where something is wrong."""
    with tempfile.TemporaryDirectory(prefix="qatie-wheels.") as made:
        folder = Path(made)
        full, light = build(ROOT, folder / "full"), build(ROOT / ".ci" / "light", folder / "light")
        (package, needed), (light_package, light_needed) = content(full), content(light)
        if package != light_package:
            different = sorted(set(package.items()) ^ set(light_package.items()))
            sys.exit(f"The wheels differ in {', '.join(sorted({name for name, _ in different}))}.")
        if needed - light_needed != {"torch", "numba"} or light_needed - needed:
            sys.exit(f"qatie needs {sorted(needed - light_needed)} beside what qatie-light does.")
        environment = folder / "venv"
        venv.create(environment, with_pip=True)
        scripts = environment / ("Scripts" if os.name == "nt" else "bin")
        run(scripts / "python", "-m", "pip", "install", "--quiet", light)
        size = sum(path.lstat().st_size for path in environment.rglob("*")) / 1e6
        home = {**os.environ, "QATIE_HOME": str(folder / "home")}
        run(scripts / "python", "-c", _TRY, folder / "photo.png", cwd=folder, env=home)
        run(scripts / "qatie", "enhance", folder / "photo.png", "-o", folder / "out", cwd=folder, env=home)
        if not (folder / "out" / "photo.png").exists():
            sys.exit("The command of qatie-light wrote nothing.")
        print(f"Wheels: equal but for what they need; qatie-light works and takes {size:.0f} MB.")
        if size > LARGEST_MB:
            sys.exit(f"That is more than {LARGEST_MB} MB.")


if __name__ == "__main__":
    main()
