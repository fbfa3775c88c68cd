"""Shipped weights: their names, packaged files, and cached copies in the user's data folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from qatie_cli import files, installation, parsing
from qatie_cli.errors import WeightsError
from qatie_cli.home import user_folder

DEFAULT = "qatie-c16"


@dataclass(frozen=True)
class Shipped:
    """One entry of the manifest: the file in the package and what its content must be."""

    name: str
    file: str
    sha256: str
    description: str

    @property
    def packaged(self) -> Path:
        """The file inside the package."""
        return packaged_folder() / self.file

    @property
    def cached(self) -> Path:
        """The copy in the user's data folder; its name changes with its content, so versions never mix."""
        return cache_folder() / f"{self.name}-{self.sha256[:12]}.safetensors"


def _reinstall() -> str:
    return f"Reinstall qatie: {installation.reinstall()}"


def packaged_folder() -> Path:
    """Where the package keeps its weights: inside it when installed, beside it in a source checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_weights"
    return installed if installed.is_dir() else package.parent / "weights"


def cache_folder() -> Path:
    """`$QATIE_HOME/weights`, or `weights` in the platform's user data folder."""
    return user_folder() / "weights"


def manifest() -> dict[str, Shipped]:
    """Shipped weights by name.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    path = packaged_folder() / "manifest.json"
    try:
        entries = parsing.from_json(path.read_text(encoding="utf-8"))
        return {name: Shipped(name, e["file"], e["sha256"], e["description"]) for name, e in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"The list of shipped weights, {path}, cannot be read: {error}.", _reinstall()) from error


def locate(name_or_path: str) -> Path:
    """The file to read for a shipped name or a path.

    A shipped name yields the cached copy, which is made or repaired from the package when need be; where the data
    folder cannot be written, it yields the packaged file itself.

    Raises:
        WeightsError: no such name or file, or the packaged file is damaged.
    """
    path = Path(name_or_path)
    is_path = bool(path.suffix or path.parent != Path())
    if is_path and path.is_file():
        return path
    shipped = manifest()
    if name_or_path in shipped:
        return _current(shipped[name_or_path])
    wanted = "is no weights file" if is_path else "are no weights called"
    raise WeightsError(f"There {wanted} {name_or_path}.", f"Shipped are: {', '.join(shipped)}.")


def digest(name_or_path: str) -> str:
    """The SHA-256 of the file that `locate` finds, without making or repairing the cached copy.

    Raises:
        WeightsError: no such name or file, or it cannot be read.
    """
    path = Path(name_or_path)
    if not path.is_file() or not (path.suffix or path.parent != Path()):
        known = manifest()
        return known[name_or_path].sha256 if name_or_path in known else files.sha256(locate(name_or_path))
    try:
        return files.sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error


def _current(shipped: Shipped) -> Path:
    if is_intact(shipped.cached, shipped):
        return shipped.cached
    check_packaged(shipped)
    try:
        shipped.cached.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_path(shipped.cached) as temporary:
            shutil.copyfile(shipped.packaged, temporary)
    except OSError:  # a read-only or full home: use the packaged file
        return shipped.packaged
    return shipped.cached


def is_intact(path: Path, shipped: Shipped) -> bool:
    """Whether `path` can be read and holds exactly what was shipped."""
    try:
        return files.sha256(path) == shipped.sha256
    except OSError:
        return False


def check_packaged(shipped: Shipped) -> None:
    """Raise WeightsError unless the packaged file is what the manifest says."""
    try:
        found = files.sha256(shipped.packaged)
    except OSError as error:
        raise WeightsError(f"{shipped.packaged} cannot be read: {error.strerror}.", _reinstall()) from error
    if found != shipped.sha256:
        raise WeightsError(
            f"{shipped.packaged} is damaged: its sha256 is {found}, expected {shipped.sha256}.", _reinstall()
        )


def clear() -> list[Path]:
    """Remove every cached copy; returns what was removed. The package's files stay."""
    removed = []
    for path in sorted(cache_folder().glob("*.safetensors")):
        path.unlink()
        removed.append(path)
    return removed
