"""The exported graph is written once: backends know operators, and nothing of the network or the tone stage."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from qatie_cli import exchange
from qatie_cli.errors import WeightsError
from qatie_cli.graphs.operators import Operators

BACKENDS = ("onnx", "tflite")


def _operators(kind: type) -> dict[str, list[str]]:
    """Names of the parameters of each public method."""
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {name: list(inspect.signature(method).parameters) for name, method in methods if not name.startswith("_")}


def test_both_backends_have_every_operator():
    pytest.importorskip("onnx")
    pytest.importorskip("ai_edge_litert")
    from qatie_cli.exchange.tflite.operators import TfliteOperators
    from qatie_cli.graphs.onnx import OnnxOperators

    wanted = _operators(Operators)
    for backend in (OnnxOperators, TfliteOperators):
        found = _operators(backend)
        assert {name: found.get(name, [])[: len(parameters)] for name, parameters in wanted.items()} == wanted


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_know_nothing_of_the_model_but_constants(backend):
    known = set()
    for path in (Path(exchange.__file__).parent / backend).glob("*.py"):
        if path.name == "reading.py":  # reads state dictionaries, which is another matter
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("qatie_cli.model"):
                known |= {alias.name for alias in node.names}
    assert known <= {"LEAKY_SLOPE", "THUMBNAIL_PX", "PHOTO", "Activation", "Weights"}


def _build(backend: str) -> Callable[..., object]:
    pytest.importorskip("onnx")
    pytest.importorskip("ai_edge_litert")
    return importlib.import_module(f"qatie_cli.exchange.{backend}").build


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(100, 96), (96, 0), (-8, 8)])
def test_sides_that_do_not_fit_are_refused(size, backend, weights):
    with pytest.raises(ValueError, match="multiples of 8"):
        _build(backend)(weights, int8=False, size=size)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_of_weights_without_ranges_is_refused(backend, weights):
    with pytest.raises(WeightsError, match="no int8 ranges"):
        _build(backend)(dataclasses.replace(weights, activations=None), int8=True)
