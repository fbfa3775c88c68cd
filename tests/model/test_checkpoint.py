"""The weights file: what is written comes back, and what is not ours is refused in one line."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from samples import EVERY_NETWORK

from qatie_cli.errors import WeightsError
from qatie_cli.model import checkpoint, whole
from qatie_cli.model.config import ModelConfig, NetworkConfig
from qatie_cli.model.network import Network


@EVERY_NETWORK
def test_everything_written_comes_back(weights, tmp_path):
    told = dataclasses.replace(
        weights, recipe={"steps": 3}, data={"folder": "photos"}, metrics={"psnr": 1.5}, versions={"qatie": "0"}
    )
    checkpoint.write(tmp_path / "a.safetensors", told)
    read = checkpoint.read(tmp_path / "a.safetensors")
    assert read.config == told.config
    assert read.activations == told.activations
    assert (read.recipe, read.data, read.metrics, read.versions) == (
        told.recipe,
        told.data,
        told.metrics,
        told.versions,
    )
    assert all(np.array_equal(read.state[name], t) for name, t in told.state.items())


def test_a_network_with_all_options_is_recorded_as_before_there_were_any(weights):
    """Headers stay the same byte by byte, and older versions read them."""
    assert checkpoint.to_header(weights)["config"]["network"] == {"width": 8}


def test_the_network_alone_is_a_valid_model(tmp_path):
    config = ModelConfig(NetworkConfig(5))
    state = whole.arrays({f"network.{k}": v for k, v in Network(config.network).state_dict().items()})
    checkpoint.write(tmp_path / "a.safetensors", checkpoint.Weights(config, state))
    built = checkpoint.read(tmp_path / "a.safetensors").build()
    assert built.tone is None
    assert built.network.config.width == 5


def _rewritten(source, target, change):
    """A weights file with its tensors and header as `change(tensors, header)` left them."""
    with safetensors.safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()[checkpoint.HEADER_KEY])
    change(tensors, header)
    safetensors.torch.save_file(tensors, target, {checkpoint.HEADER_KEY: json.dumps(header)})
    return target


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, h: t.pop("network.head.bias"), "head.bias"),
        (lambda t, h: t.update(extra=torch.zeros(1)), "extra"),
        (
            lambda t, h: t.update({"network.head.bias": torch.zeros(4)}),
            "the shape (4,), not (3,)",
        ),
        (lambda t, h: t["network.head.bias"].fill_(float("nan")), "NaN or infinite"),
        (lambda t, h: h["activations"].pop("refine1.y"), "refine1.y"),
        (lambda t, h: h["activations"].update({"refine1.y": [0.0, 3]}), "refine1.y"),
        (lambda t, h: h.update(format=99), "format 99"),
        (lambda t, h: h.pop("config"), "config"),
        (lambda t, h: h["config"].update(other={}), "other"),
        (lambda t, h: h["config"]["network"].update(width=0), "width"),
        (lambda t, h: h["config"]["network"].update(residual="no"), "residual"),
        (lambda t, h: h["config"]["network"].update(fusion_refiner=False), "decode2"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(weights_file, tmp_path, change, reason):
    changed = _rewritten(weights_file, tmp_path / "b.safetensors", change)
    with pytest.raises(WeightsError) as refused:
        checkpoint.read(changed)
    assert reason in str(refused.value)
    assert "b.safetensors" in str(refused.value)
    assert "\n" not in refused.value.one_line()
    assert refused.value.hint


def test_foreign_and_damaged_files_are_refused(weights_file, tmp_path):
    text, cut, other = (tmp_path / f"{name}.safetensors" for name in ("text", "cut", "other"))
    text.write_text("not weights")
    cut.write_bytes(weights_file.read_bytes()[:-100])
    safetensors.torch.save_file({"a": torch.zeros(1)}, other)
    for path in (text, cut, other, tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(WeightsError, match=path.name):
            checkpoint.read(path)


def test_an_interrupted_write_leaves_the_old_file(weights, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr("pathlib.Path.replace", _raise_os_error)
    with pytest.raises(OSError, match="full"):
        checkpoint.write(path, weights)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _raise_os_error(*_):
    raise OSError("full")
