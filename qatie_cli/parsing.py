"""JSON and TOML from untrusted files: anything invalid is a ValueError, including deep nesting."""

from __future__ import annotations

import json
import tomllib
from typing import Any

MOST_LEVELS = 64  # levels of nesting; qatie's own files have five


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested deeper than `MOST_LEVELS`.
    """
    return _flat_enough(json.loads, text)


def from_toml(text: str) -> dict[str, Any]:
    """The table of a TOML text.

    Raises:
        ValueError: it is not TOML, or nested deeper than `MOST_LEVELS`.
    """
    return _flat_enough(tomllib.loads, text)


def _flat_enough(parse: Any, text: str | bytes) -> Any:
    try:
        value = parse(text)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [part for part in level if isinstance(part, dict | list)]
        if not inner:
            return value
        level = [part for table in inner for part in (table.values() if isinstance(table, dict) else table)]
    if any(isinstance(part, dict | list) for part in level):
        raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")
    return value
