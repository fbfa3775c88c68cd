"""Data flows one way, and what the project promised not to import stays out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qatie_cli

PACKAGE = Path(qatie_cli.__file__).parent
# Each floor may import from the floors below it, and from nothing on its own.
FLOORS = [
    ["cli"],
    ["api", "bench", "training"],
    ["exchange", "gallery"],
    ["batch", "evaluation"],
    ["data", "enhance"],
    ["engines"],
    ["model"],
    ["photo", "home", "metrics"],
    ["files"],
    ["sizes"],
    ["chatter", "errors", "threads"],
]


def _modules() -> dict[str, Path]:
    return {p.relative_to(PACKAGE).as_posix(): p for p in sorted(PACKAGE.rglob("*.py"))}


def _room(path: str) -> str:
    return path.split("/", maxsplit=1)[0].removesuffix(".py")


def _imports(path: Path) -> list[str]:
    """Dotted names of everything a file imports, wherever the import stands."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _rooms_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in _imports(path) if name.startswith("qatie_cli.")]
    return {p[1] for p in parts} - {"__version__"}


def test_every_room_has_its_floor():
    rooms = {_room(path) for path in _modules()} - {"__init__", "__main__"}
    assert rooms == {room for floor in FLOORS for room in floor}


@pytest.mark.parametrize("path", sorted(set(_modules()) - {"__init__.py", "__main__.py"}))
def test_imports_point_downwards(path):
    room = _room(path)
    depth = {r: i for i, floor in enumerate(FLOORS) for r in floor}
    for imported in _rooms_imported(_modules()[path]) - {room}:
        assert depth[imported] > depth[room], f"{room} imports {imported}"


@pytest.mark.parametrize("path", sorted(_modules()))
def test_nothing_imports_the_deprecated_quantization_package(path):
    assert not [n for n in _imports(_modules()[path]) if n.startswith(("torch.ao", "torch.quantization"))]


@pytest.mark.parametrize("path", sorted(p for p in _modules() if _room(p) != "cli"))
def test_only_the_command_line_knows_typer_and_rich(path):
    assert not [n for n in _imports(_modules()[path]) if n.split(".")[0] in ("typer", "rich") and path != "__main__.py"]


@pytest.mark.parametrize("path", sorted(_modules()))
def test_quantized_types_stay_behind_one_door(path):
    if path == "engines/int8.py":
        return
    text = _modules()[path].read_text(encoding="utf-8")
    for name in ("torch.ops.quantized", "quint8", "quantize_per_tensor(", "int_repr", "_make_per_"):
        assert name not in text.replace("fake_quantize_per_tensor", "")
