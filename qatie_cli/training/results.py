"""The weights files of a run, with their record of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qatie_cli.model import checkpoint, whole
from qatie_cli.model.checkpoint import Weights
from qatie_cli.model.quantization.scheme import Activation
from qatie_cli.training.setting import RunInputs
from qatie_cli.training.state import State

LAST_FILE = "last.safetensors"
BEST_FILE = "best.safetensors"  # where validation was best in the stage
FLOAT_FILE = "float.safetensors"  # before quantization-aware training, with post-training ranges


def weights(
    inputs: RunInputs,
    state: State,
    stage: str,
    activations: dict[str, Activation] | None,
    table: list[dict[str, object]] | None = None,
) -> Weights:
    """The averaged weights as a file holds them; `table` are the closing validation's figures."""
    return Weights(
        config=inputs.recipe.config,
        state=whole.arrays(state.ema.state_dict()),
        activations=activations,
        recipe=inputs.recipe.to_table(),
        data=inputs.source.summary | {"run": _without_folders(inputs.setting.notes)} | _origin(inputs.setting.init),
        metrics={"stage": stage, "step": state.step} | ({} if table is None else {"validation": table}),
        versions=checkpoint.this_machine_versions(),
    )


def _origin(init: Weights | None) -> dict[str, object]:
    """The record of the initial weights and their predecessors."""
    if init is None:
        return {}
    kept = {key: value for key, value in init.data.items() if key != "validation_photos"}
    return {"before": {"recipe": init.recipe, "versions": init.versions} | kept}


def _without_folders(notes: Mapping[str, str]) -> dict[str, str]:
    """Notes without this machine's folders, since weights are shared."""
    return {key: Path(value).name if Path(value).is_absolute() else value for key, value in notes.items()}
