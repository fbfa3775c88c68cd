"""Which distribution is installed: qatie, or qatie-light without PyTorch."""

from __future__ import annotations

from importlib.util import find_spec

from qatie_cli.errors import UsageError

FULL, LIGHT = "qatie", "qatie-light"


def has(module: str) -> bool:
    """Whether a module is installed, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds None: blocked
        return False


def distributions() -> tuple[str, ...]:
    """Which of `FULL` and `LIGHT` are installed; none in a source tree."""
    from importlib import metadata  # takes a while

    found = []
    for name in (FULL, LIGHT):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


def name() -> str:
    """The distribution's name for install commands."""
    return LIGHT if distributions() == (LIGHT,) else FULL


def extra(name_of_extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{name()}[{name_of_extra}]'"


def need_torch(what: str) -> None:
    """Raise UsageError unless PyTorch is installed; `what` is the subject of the message."""
    if has("torch"):
        return
    if name() == FULL:
        raise UsageError(f"{what} needs PyTorch.", "Run: pip install torch")
    raise UsageError(
        f"{what} needs PyTorch, which qatie-light leaves out.",
        "Run: pip uninstall qatie-light && pip install qatie",
    )


def clash() -> str:
    """The problem and its fix if both are installed; else empty."""
    if distributions() != (FULL, LIGHT):
        return ""
    return (
        "qatie and qatie-light are both installed and hold the same files, which removing either takes away. "
        "Run: pip uninstall qatie-light && pip install --force-reinstall --no-deps qatie"
    )
