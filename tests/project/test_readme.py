"""README and docs name what there is: files, commands, options, gates."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main

from qatie_cli.cli import app
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.model import shipped as shipped_weights

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTATION = README + "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/*.md")))
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("weights/**/*.md"),
    *ROOT.glob("weights/**/*.toml"),
]


def _commands(group, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every command below a group, by the words that call it."""
    if not hasattr(group, "commands"):
        return {prefix: group}
    found = {}
    for name, command in group.commands.items():
        found |= _commands(command, (*prefix, name))
    return found


COMMANDS = _commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name):
    written = f"qatie {' '.join(name)}"
    short = f"qatie {name[0]} " + "|".join(n[1] for n in COMMANDS if n[0] == name[0] and len(n) > 1)
    assert written in DOCUMENTATION or short in DOCUMENTATION


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text(name):
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", "") or parameter.name == "help", f"{name}: {parameter.name}"


def test_every_option_in_the_documentation_exists():
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    others = {"--help", "--version", "--index-url", "--port", "--address", "--head"}
    others |= {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"}  # torchrun's
    assert set(re.findall(r"`?(--[a-z][a-z0-9-]*)", DOCUMENTATION)) <= known | others


def test_the_setup_commands_come_first():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "python -m venv v && v/bin/pip install '.[demo]' && v/bin/qatie demo -o out/"
    assert second == "pip install '.[test]' && pytest"


def test_ci_runs_the_documented_gates_and_then_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^run_documented (.*)", script, re.MULTILINE) == [
        "CONTRIBUTING.md gates",
        'README.md "test command"',
    ]
    assert "pip install" not in script  # it has no other command of its own
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    gates = re.search(r"<!-- gates -->\n```sh\n(.*?)\n```", contributing, re.DOTALL)[1].splitlines()
    assert gates == [
        "pip install '.[docs,lint]'",
        "ruff check",
        "ruff format --check",
        "mypy",
        "codespell",
        "mkdocs build --strict -f .ci/mkdocs.yml",
    ]


def test_files_that_documents_name_exist():
    missing = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        linked = [document.parent / link for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
        ours = r"(?<![\w./-])(?:\.ci|docs|qatie_cli|tests|weights)/[\w./-]*\w"
        named = [ROOT / path for path in re.findall(ours, text)]
        missing += [f"{document.name}: {path.relative_to(ROOT)}" for path in (*linked, *named) if not path.exists()]
    assert not missing, missing


def test_every_shipped_model_has_its_card_and_recipe():
    for name in shipped_weights.manifest():
        assert (ROOT / "weights" / f"{name}.md").is_file()
        assert (ROOT / "weights" / "recipes" / f"{name}.toml").is_file()


def test_photos_are_degraded_by_default_as_the_recipes_of_the_shipped_weights_say():
    for name in shipped_weights.manifest():
        recipe = tomllib.loads((ROOT / "weights" / "recipes" / f"{name}.toml").read_text(encoding="utf-8"))
        assert DegradationConfig.from_table(recipe["degradation"]) == DegradationConfig()
