"""Runs: training from the first step to the finished weights, resumable at any step."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from qatie_cli import files, parsing
from qatie_cli.data.source import Source
from qatie_cli.errors import DataError, QatieError, UsageError
from qatie_cli.training import reporting
from qatie_cli.training import state as states
from qatie_cli.training.loop import Finished, RunInterruptedError, TrainingLoop
from qatie_cli.training.recipe import Recipe
from qatie_cli.training.reporting import Progress
from qatie_cli.training.setting import RunInputs, Setting
from qatie_cli.training.state import STATE_FILE

__all__ = ["Finished", "Progress", "RunInterruptedError", "Setting", "check", "recorded", "train"]

CONFIG_FILE = "config.toml"
# In messages of RuntimeError: the allocators of the CPU (Linux, Windows), of CUDA's libraries and of MPS.
_OUT_OF_MEMORY = ("not enough memory", "DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")


def recorded(out: Path) -> tuple[Recipe, dict[str, str]]:
    """Recipe and notes of the run in `out`.

    Raises:
        DataError: there is no run, or its record is damaged or too old.
    """
    try:
        table = parsing.from_toml((out / CONFIG_FILE).read_text(encoding="utf-8"))
        notes = table.pop("run", {})
        return Recipe.from_table(table), notes
    except OSError:
        raise DataError(f"There is no run in {out} to resume.", "Start one without --resume.") from None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{out / CONFIG_FILE} cannot be used: {error}.", "Start a new run with another --out."
        ) from error


def check(recipe: Recipe, setting: Setting, resume: bool) -> None:
    """Check that a run can start or resume, before any photo is read.

    Raises:
        DataError: the folder cannot be written, holds a run already, or holds none to resume.
        UsageError: the batches cannot be shared by the processes, or the weights to start from do not fit the recipe.
    """
    for batch in (recipe.batch, recipe.tone_batch):
        setting.group.rows(batch)
    if recipe.micro_batch is not None and len(setting.group.rows(recipe.batch)) % recipe.micro_batch:
        raise UsageError(
            f"A process's part of the batch is not a multiple of micro_batch {recipe.micro_batch}.",
            "Choose another micro_batch.",
        )
    init = setting.init
    if init is not None and not states.fits(init.config, recipe):
        raise UsageError(
            "The initial weights do not fit the recipe. It needs their network, or one with a multiple of their width, "
            "and a tone stage of their kind.",
            "Leave out --width and the network's options, or name weights that fit.",
        )
    if resume:
        before, notes = recorded(setting.out)
        if before != recipe or notes != dict(setting.notes):
            raise DataError(
                f"The run in {setting.out} has another recipe or other data.", "Resume it with its original options."
            )
        return
    if setting.group.broadcast((setting.out / STATE_FILE).exists()):
        raise DataError(f"{setting.out} holds a run already.", "Continue it with --resume, or choose another --out.")
    try:
        files.check_writable(setting.out)
    except OSError as error:
        raise DataError(f"{setting.out} is not writable: {error.strerror}.", "Choose another --out.") from error
    if setting.tensorboard:
        reporting.check_tensorboard()


def train(
    source: Source,
    recipe: Recipe,
    setting: Setting,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Finished:
    """Train on `source` and write to `setting.out`. Called by all processes of a group.

    Raises:
        RunInterruptedError: `should_stop` returned true; `resume` continues at that step.
        DataError: nothing to resume, a resumed run has another recipe or other photos, the loss is NaN, or the folder
            cannot be written.
        QatieError: out of memory.
    """
    check(recipe, setting, resume)
    try:
        if not resume and setting.group.leads:
            files.write_atomic(setting.out / CONFIG_FILE, _config(recipe, setting.notes))
        return TrainingLoop(RunInputs(source, recipe, setting), resume).run(on_progress, should_stop)
    except (OSError, MemoryError, RuntimeError) as error:
        explained = _explained(error, setting)
        if explained is None:
            raise
        raise explained from error


def _explained(error: Exception, setting: Setting) -> QatieError | None:
    """The error for the user; None for a bug."""
    text = (str(error).splitlines() or [""])[0]
    if _is_out_of_memory(error):
        return QatieError(
            "Out of memory.", "Lower batch, micro_batch or crop, as in --set micro_batch=2, and start a new run."
        )
    if isinstance(error, OSError):
        return DataError(
            f"{setting.out} could not be written: {error.strerror or error}.", "Make room, then go on with --resume."
        )
    if setting.group.size > 1:  # what PyTorch raises where another process of the group is gone
        return DataError(f"Process {setting.group.rank} lost the others: {text}.", "Their messages say why.")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(text in str(error) for text in _OUT_OF_MEMORY)


def _config(recipe: Recipe, notes: Mapping[str, str]) -> str:
    """The TOML file that `recorded` reads."""
    lines = "\n".join(f"{name} = {_toml_text(value)}" for name, value in notes.items())
    return recipe.to_toml() + (f"\n[run]\n{lines}\n" if lines else "")


def _toml_text(value: str) -> str:
    """A TOML basic string."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return f'"{escaped}"'
