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


if not TYPE_CHECKING:  # hidden from type checkers, so that they report a name that does not exist

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import warnings

        with warnings.catch_warnings():  # importing NumPy adds filters, which are the host's business
            from qatie_cli import api

        globals()[name] = getattr(api, name)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
