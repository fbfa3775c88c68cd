"""Data flows one way, and what the project promised not to import stays out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import qatie_cli

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(qatie_cli.__file__).parent
# Each floor may import from the floors below it, and from nothing on its own.
FLOORS = [
    ["cli"],
    ["api", "bench", "cluster", "training"],
    ["cloud", "exchange", "gallery"],
    ["batch", "evaluation"],
    ["data", "enhance"],
    ["engines"],
    ["graphs"],
    ["model"],
    ["kernels"],
    ["photo", "home", "metrics"],
    ["storage"],
    ["files"],
    ["sizes"],
    ["installation"],
    ["chatter", "errors", "parsing", "threads", "without_telemetry"],
]
DEPTH = {room: depth for depth, floor in enumerate(FLOORS) for room in floor}
ENTRANCES = ("__init__.py", "__main__.py")  # on no floor: they only open the doors
LONGEST = 450  # lines of a file
LONGEST_COMMAND = 250  # lines of a file of cli/, which holds no library logic

FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def _room(path: str) -> str:
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


def _imports(path: str) -> set[str]:
    """Dotted names of everything that a file imports, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(FILES[path])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")  # a relative import is on no floor, so it is named
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


IMPORTS = {path: _imports(path) for path in sorted(FILES)}


def _check(offences: dict[str, set[str]]) -> None:
    """Fail with a line for every file that has offences."""
    lines = [f"{path}: {', '.join(sorted(found))}" for path, found in sorted(offences.items()) if found]
    assert not lines, "\n" + "\n".join(lines)


def test_every_room_has_its_floor():
    assert {_room(path) for path in FILES if path not in ENTRANCES} == set(DEPTH)


def test_the_table_of_floors_is_that_of_the_imports():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", contributing, re.MULTILINE)
    assert {(int(floor), room) for floor, room in rows} == {(n, r) for n, rooms in enumerate(FLOORS, 1) for r in rooms}


def test_imports_point_downwards():
    offences = {}
    for path in set(FILES) - set(ENTRANCES):
        own = _room(path)
        names = {n for n in IMPORTS[path] if n.startswith((".", "qatie_cli.")) and n != "qatie_cli.__version__"}
        rooms = {name: name.split(".")[1] for name in names}
        offences[path] = {n for n, room in rooms.items() if room != own and DEPTH.get(room, -1) <= DEPTH[own]}
    _check(offences)


def test_nothing_imports_the_deprecated_quantization_package():
    deprecated = ("torch.ao", "torch.quantization")
    _check({path: {n for n in names if n.startswith(deprecated)} for path, names in IMPORTS.items()})


def test_only_the_command_line_knows_typer_and_rich():
    library = {path: names for path, names in IMPORTS.items() if _room(path) != "cli" and path != "__main__.py"}
    _check({path: {n for n in names if n.split(".")[0] in ("typer", "rich")} for path, names in library.items()})


def test_quantized_types_stay_behind_one_door():
    private = ("torch.ops.quantized", "quint8", "quantize_per_tensor(", "int_repr", "_make_per_")
    texts = {path: text.replace("fake_quantize_per_tensor", "") for path, text in FILES.items()}
    _check({path: {n for n in private if n in text} for path, text in texts.items() if path != "engines/int8.py"})


def test_what_sends_usage_data_is_imported_without():
    _check(
        {
            path: {n for n in names if n.split(".")[0] == "onnxruntime"}
            for path, names in IMPORTS.items()
            if path != "without_telemetry.py"
        }
    )


def test_files_are_short():
    offences = {}
    for path, text in FILES.items():
        lines, most = text.count("\n"), LONGEST_COMMAND if _room(path) == "cli" else LONGEST
        offences[path] = {f"{lines} lines, {most} at most"} if lines > most else set()
    _check(offences)
