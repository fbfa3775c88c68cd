"""The README says what there is, and what it says can be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from qatie_cli import weights
from qatie_cli.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    assert written in README or short in README


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_has_a_help_text(name):
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", "") or parameter.name == "help", f"{name}: {parameter.name}"


def test_every_option_in_the_readme_exists():
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"`?(--[a-z][a-z-]*)", README)) <= known | {"--help", "--version", "--nproc-per-node"}


def test_the_setup_commands_come_first():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first == "python -m venv v && v/bin/pip install '.[demo]' && v/bin/qatie demo -o out/"
    assert second == "pip install '.[test]' && pytest"


def test_ci_runs_the_readme_s_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script
    assert "pip install" not in script  # it has no other command of its own


def test_files_that_the_readme_links_exist():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_shipped_model_has_its_card_and_recipe():
    for name in weights.manifest():
        assert (ROOT / "weights" / f"{name}.md").is_file()
        assert (ROOT / "weights" / "recipes" / f"{name}.toml").is_file()
