"""What commands say of themselves, and how tables and questions look where there is no terminal."""

from __future__ import annotations

import inspect
import io
import re
import sys
from pathlib import Path

import pytest
from commands import qatie_here
from rich.table import Table
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner

from qatie_cli.cli import app, console, pairs, train, usage
from qatie_cli.data.checking import Alignment
from qatie_cli.errors import Exit, UsageError
from qatie_cli.evaluation.pairs import EngineScores, Scores
from qatie_cli.model import shipped


def _commands(command, path=()):
    inner = getattr(command, "commands", {})
    yield path, command
    for name, sub in inner.items():
        yield from _commands(sub, (*path, name))


COMMANDS = dict(_commands(get_command(app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_shows_all_that_is_written_and_fits_a_pipe(path):
    shown = CliRunner().invoke(app, [*path, "-h"], env={"COLUMNS": "80"}, prog_name="qatie").stdout
    assert shown == CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}, prog_name="qatie").stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert "{" not in shown
    words = set(re.sub(r"[\x08`]", "", shown).split())
    callback = COMMANDS[path].callback
    if path and callback and inspect.getdoc(callback):
        assert set(re.sub(r"[\x08`]", "", inspect.getdoc(callback)).split()) <= words
    options = [option for parameter in COMMANDS[path].params for option in parameter.opts if option.startswith("--")]
    assert all(re.search(rf"{option}\b", shown) for option in options if path)


@pytest.mark.parametrize("columns", [60, 140])
def test_panels_on_a_terminal_show_all_that_is_written(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for path in ((), ("enhance",), ("train",), ("bench",)):
        command = COMMANDS[path]
        panels = re.sub(r"\x1b\[[0-9;]*m", "", usage._panels(command, Context(command, info_name="qatie")))
        assert max(map(len, panels.splitlines())) <= columns
        assert "…" not in panels
        words = re.sub(r"[^a-z]", "", panels.lower())
        for parameter in command.params if path else ():
            assert all(re.sub(r"[^a-z]", "", option) in words for option in parameter.opts), parameter.name
    assert "[degradation]" in usage._panels(COMMANDS["pairs", "make"], Context(COMMANDS["pairs", "make"]))


def test_every_option_has_a_group_and_stands_in_one():
    listed = [option for options in usage.GROUPS.values() for option in options]
    assert len(listed) == len(set(listed))
    known = set()
    for path, command in COMMANDS.items():
        options = [p for p in command.params if p.param_type_name == "option" and path and hasattr(command, "epilog")]
        known |= {option for parameter in options for option in parameter.opts}
        without = [p.opts for p in options if usage.group_of(p.opts) is None and "--help" not in p.opts]
        assert not without, f"{path}: name the group in qatie_cli/cli/usage.py"
    assert set(listed) <= known


@pytest.mark.parametrize("path", [path for path in COMMANDS if not hasattr(COMMANDS[path], "commands")], ids=" ".join)
def test_every_command_ends_with_an_example_that_parses(path):
    shown = CliRunner().invoke(app, [*path, "-h"], prog_name="qatie").stdout
    line = shown.strip().splitlines()[-1]
    example = line.strip().removeprefix("Example: qatie ")
    assert example.split()[: len(path)] == list(path)
    COMMANDS[path].make_context("qatie", example.split()[len(path) :])


def test_exit_codes_are_named_once_in_the_root_s_help():
    assert set(usage.EXIT_CODES) == set(Exit)
    shown = " ".join(CliRunner().invoke(app, ["-h"]).stdout.split())
    assert all(f"{code.value} {meaning}" in shown for code, meaning in usage.EXIT_CODES.items())
    assert not [path for path in COMMANDS if path and "xit code" in (COMMANDS[path].help or "")]


def test_tables_are_not_cut_where_there_is_no_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    table = Table(*(f"a heading of some width {index}" for index in range(6)))
    table.add_row(*("value" * 5 for _ in range(6)))
    console.console().print(table)
    assert "…" not in stream.getvalue()
    assert stream.getvalue().count("value" * 5) == 6


def test_a_message_beside_a_bar_has_a_line_of_its_own(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with console.progress() as bar:
        bar.add_task("", total=2)
        bar.refresh()
        console.console().print("a message")
    before = stream.getvalue().split("a message")[0]
    assert "0/2" in before
    assert before.endswith("\x1b[2K")  # the bar's line is erased


def test_without_a_terminal_a_question_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match="It exists") as refused:
        console.confirm("Replace it?", "It exists.")
    assert "--yes" in refused.value.hint


def test_weights_are_called_the_default_once():
    lines = qatie_here("weights", "list").stdout.splitlines()
    assert [line.count("default") for line in lines] == [1 if shipped.DEFAULT in line else 0 for line in lines]


def test_export_checks_its_target_before_any_work(tmp_path):
    there = tmp_path / "there.onnx"
    there.write_bytes(b"a model")
    done = qatie_here("export", "none", "-f", "onnx", "-o", there, code=2)
    assert "there.onnx exists" in done.stderr
    assert "--yes" in done.stderr
    assert there.read_bytes() == b"a model"
    assert "is a folder" in qatie_here("export", "none", "-f", "onnx", "-o", tmp_path, "--yes", code=2).stderr
    assert "cannot be written" in qatie_here("export", "none", "-f", "onnx", "-o", there / "a.onnx", code=2).stderr
    qatie_here("export", "none", "-f", "onnx", "-o", tmp_path / "new" / "a.onnx", code=1)
    assert (tmp_path / "new").is_dir()


def _rows(post_training: tuple[float, float], qat: tuple[float, float]) -> tuple[EngineScores, ...]:
    def row(name: str, psnr: float, agreement: float | None) -> EngineScores:
        return EngineScores(name, "x86", Scores(psnr, 0.9, 4.0, psnr, agreement), agreement)

    after = row("QAT", *qat)
    return row("float", 28, None), row("post-training", *post_training), row("float after QAT", 28, None), after


def test_training_says_when_its_last_stage_did_harm():
    last = Path("run/last.safetensors")
    assert train._recommended(_rows((27.9, 42.8), (28.4, 52.5)), last) == (last, "")
    assert train._recommended(_rows((27.9, 42.8), (28.4, 52.5))[:2], last) == (last, "")
    named, worse = train._recommended(_rows((28.0, 50.0), (27.5, 42.0)), last)
    assert named == Path("run/float.safetensors")
    assert "42.0 dB, post-training 50.0 dB" in worse
    assert "run/last.safetensors has QAT's" in worse
    named, nearer = train._recommended(_rows((27.0, 50.0), (28.0, 42.0)), last)
    assert named == last
    assert "still comes nearer" in nearer


def test_misalignment_is_told_in_digits_that_mean_something(capsys):
    """It is measured to a tenth of a pixel: "90% below 0.0 px" is nothing that can be."""
    pairs.show_alignment(Alignment(4, 0.0, 0.0, 0.02, "a.jpg"))
    pairs.show_alignment(Alignment(4, 0.03, 0.04, 0.3, "a.jpg"))
    pairs.show_alignment(Alignment(4, 0.2, 1.2, 1.4, "a.jpg"))
    none, few, some = capsys.readouterr().err.splitlines()
    assert none == "Misalignment over 4 pairs: below 0.1 px in all."
    assert "median below 0.1 px, 90% of them below 0.1 px, worst 0.3 px (a.jpg)" in few
    assert "median 0.2 px, 90% of them below 1.2 px, worst 1.4 px (a.jpg)" in some
