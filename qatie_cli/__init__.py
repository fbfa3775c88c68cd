"""qatie: phone photos enhanced by a small quantization-aware network that runs as int8 on any CPU.

The names below are `qatie_cli.api`'s; that module is imported when one of them is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from qatie_cli.api import (
        Model,
        Photo,
        PhotoResult,
        QatieError,
        Status,
        Summary,
        available_engines,
        enhance_file,
        enhance_folder,
        load,
        read,
        write,
    )

__all__ = [
    "Model",
    "Photo",
    "PhotoResult",
    "QatieError",
    "Status",
    "Summary",
    "__version__",
    "available_engines",
    "enhance_file",
    "enhance_folder",
    "load",
    "read",
    "write",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    with warnings.catch_warnings():  # importing NumPy adds filters, which are the host's business
        from qatie_cli import api

    value: object = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
