"""Which distribution is installed, qatie or qatie-light, and the commands that install more of it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from qatie_cli import parsing
from qatie_cli.errors import UsageError

FULL, LIGHT = "qatie", "qatie-light"
_LIGHT_IN_CLONE = (".ci", "light")


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
    """Which of them this is: `LIGHT` where only that is installed."""
    return LIGHT if distributions() == (LIGHT,) else FULL


def extra(name_of_extra: str) -> str:
    """The command that installs an extra, from where this qatie was installed: a clone, a file, or an index."""
    return f"pip install {requirement(name(), name_of_extra)}"


def requirement(distribution: str, name_of_extra: str = "") -> str:
    """What `pip install` is given for a distribution and an extra of it, quoted for a shell."""
    extras = f"[{name_of_extra}]" if name_of_extra else ""
    origin = _origin()
    url = str(origin.get("url", ""))
    folder = _folder(url) if "dir_info" in origin else None
    if folder is not None:
        option = "-e " if origin["dir_info"].get("editable") else ""
        return option + _quoted(f"{_sources(folder, distribution)}{extras}")
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}"
    return _quoted(f"{distribution}{extras} @ {url}" if url and "dir_info" not in origin else f"{distribution}{extras}")


def _origin() -> dict[str, Any]:
    """Where this distribution was installed from (PEP 610); empty for an index."""
    from importlib import metadata

    try:
        text = metadata.distribution(name()).read_text("direct_url.json")
    except metadata.PackageNotFoundError:  # a source tree that is on Python's path
        tree = Path(__file__).parents[1]
        return {"url": tree.as_uri(), "dir_info": {}} if (tree / "pyproject.toml").is_file() else {}
    found = parsing.from_json(text) if text else {}
    return found if isinstance(found, dict) else {}


def _folder(url: str) -> Path | None:
    """The folder that a file: URL names, if it is still there."""
    folder = Path(url2pathname(urlsplit(url).path))
    return folder if (folder / "pyproject.toml").is_file() else None


def _sources(folder: Path, distribution: str) -> str:
    """Where in a clone a distribution is; `folder` is that of either."""
    clone = folder.parents[1] if folder.parts[-2:] == _LIGHT_IN_CLONE else folder
    found = clone.joinpath(*_LIGHT_IN_CLONE) if distribution == LIGHT else clone
    return "." if found == Path.cwd() else str(found)


def _quoted(text: str) -> str:
    return f"'{text}'" if set(text) & set("[] @") else text


def need_torch(what: str) -> None:
    """Raise UsageError unless PyTorch is installed; `what` is the subject of the message."""
    if has("torch"):
        return
    if name() == FULL:
        raise UsageError(f"{what} needs PyTorch.", "Run: pip install torch")
    raise UsageError(
        f"{what} needs PyTorch, which qatie-light leaves out.",
        f"Run: pip uninstall qatie-light && pip install {requirement(FULL)}",
    )


def clash() -> str:
    """The problem and its fix if both are installed; else empty."""
    if distributions() != (FULL, LIGHT):
        return ""
    return (
        "qatie and qatie-light are both installed and share files, so that removing either breaks the other. "
        f"Run: pip uninstall qatie-light && {reinstall()}"
    )


def reinstall() -> str:
    """The command that installs the same distribution once more."""
    return f"pip install --force-reinstall --no-deps {requirement(name())}"
