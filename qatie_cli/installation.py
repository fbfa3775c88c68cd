"""What is installed: qatie, or qatie-light, which leaves PyTorch out."""

from __future__ import annotations

from importlib.util import find_spec

from qatie_cli.errors import UsageError

FULL, LIGHT = "qatie", "qatie-light"


def has(module: str) -> bool:
    """Whether a module of this name can be imported; it is not."""
    try:
        return find_spec(module) is not None
    except ValueError:  # hidden: sys.modules holds None in its place
        return False


def distributions() -> tuple[str, ...]:
    """Those of `FULL` and `LIGHT` that are installed; none in a source tree."""
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
    """What to name in an install command."""
    return LIGHT if distributions() == (LIGHT,) else FULL


def extra(name_of_extra: str) -> str:
    """The command that installs what an extra needs."""
    return f"pip install '{name()}[{name_of_extra}]'"


def need_torch(what: str) -> None:
    """Raise UsageError unless PyTorch is installed; `what` begins the sentence that says so."""
    if has("torch"):
        return
    if name() == FULL:
        raise UsageError(f"{what} needs PyTorch.", "Run: pip install torch")
    raise UsageError(
        f"{what} needs PyTorch, which qatie-light leaves out.",
        "Run: pip uninstall qatie-light && pip install qatie",
    )


def clash() -> str:
    """What is wrong where both are installed, and what to do; empty where they are not."""
    if distributions() != (FULL, LIGHT):
        return ""
    return (
        "qatie and qatie-light are both installed and hold the same files, which removing either takes away. "
        "Run: pip uninstall qatie-light && pip install --force-reinstall --no-deps qatie"
    )
