"""What is installed: qatie, or qatie-light, which leaves PyTorch out."""

from __future__ import annotations

from importlib.util import find_spec

from qatie_cli.errors import UsageError


def has(module: str) -> bool:
    """Whether a module of this name can be imported; it is not."""
    try:
        return find_spec(module) is not None
    except ValueError:  # hidden: sys.modules holds None in its place
        return False


def need_torch(what: str) -> None:
    """Raise UsageError unless PyTorch is installed; `what` begins the sentence that says so."""
    if not has("torch"):
        raise UsageError(f"{what} needs PyTorch, which qatie-light leaves out.", "Run: pip install qatie")
