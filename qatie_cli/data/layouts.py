"""Folder layouts of paired photos, and how their files are matched."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qatie_cli.errors import DataError, UsageError
from qatie_cli.photo.discovery import photos_below

# Names of an input folder and its target folder, compared without case.
FOLDER_NAMES = (("input", "target"), ("low", "high"), ("source", "target"))
_KNOWN = "input/ and target/ (or low/ and high/, source/ and target/), the DPED or FiveK layout"
# MIT-Adobe FiveK as it is usually unpacked: one folder of plain renderings, one for each of five experts.
_FIVEK_INPUT = re.compile(r"(tiff16_)?(input|original)s?(zeroed)?|input(as)?shotzeroed|raw", re.IGNORECASE)
_FIVEK_EXPERT = re.compile(r"(?:tiff16_|expert[-_ ]?)?([a-e])", re.IGNORECASE)
_FIVEK_CUSTOM = "c"  # the usual target in the literature
_DPED_CAMERA = "canon"


@dataclass(frozen=True)
class PairFiles:
    """An input photo and its target, which is the input itself where a photo should come back unchanged."""

    name: str
    input: Path
    target: Path


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not used, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Layout:
    """What a folder holds. `validation` are the pairs that the layout itself holds out, if any."""

    description: str
    pairs: tuple[PairFiles, ...]
    validation: tuple[PairFiles, ...] = ()
    skipped: tuple[SkippedFile, ...] = ()


def recognise(folder: Path, folders: str | None = None) -> Layout:
    """The pairs in `folder`, matched by name (suffixes may differ), sorted by it.

    Args:
        folders: `input/target` names of the two folders, where they are none of the usual ones.

    Raises:
        DataError: no such folder, or no layout that is known.
        UsageError: `folders` is not two names.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder.", f"Give a folder with {_KNOWN}.")
    try:
        if folders is not None:
            return _named(folder, folders)
        found = _two_folders(folder) or _dped(folder) or _fivek(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be searched: {error.strerror}.", "Check its permissions.") from error
    if found is None:
        raise DataError(
            f"{folder} has no recognised layout of pairs.",
            f"Give a folder with {_KNOWN}; --folders A/B names others, --clean takes photos without a partner.",
        )
    return found


def pairs_or_photos(folder: Path, folders: str | None = None) -> Layout:
    """Pairs for an evaluation.

    Those of a known layout (the held-out ones if there are any); in other folders each photo is its own target.

    Raises:
        DataError: no such folder, or nothing in it.
    """
    try:
        found = recognise(folder, folders)
    except DataError:
        photos = _photos(folder) if folder.is_dir() else {}
        if not photos or folders is not None:
            raise
        paths = sorted(path for same in photos.values() for path in same)
        pairs = tuple(PairFiles(path.relative_to(folder).as_posix(), path, path) for path in paths)
        return Layout("photos", pairs)
    if found.validation:
        found = dataclasses.replace(found, pairs=found.validation, validation=())
    if not found.pairs:
        raise DataError(f"There are no pairs in {folder}.", f"Give a folder with {_KNOWN}.")
    return found


def match(inputs: Path, targets: Path, prefix: str = "") -> tuple[tuple[PairFiles, ...], tuple[SkippedFile, ...]]:
    """Pairs of equal relative names, suffix aside, in two folders and all below them."""
    sides = (_photos(inputs), _photos(targets))
    pairs: list[PairFiles] = []
    skipped: list[SkippedFile] = []
    for side, other, folder, partner in (
        (sides[0], sides[1], inputs, "target"),
        (sides[1], sides[0], targets, "input"),
    ):
        for stem, paths in side.items():
            for path in paths if stem not in other else paths[1:]:
                shown = f"{prefix}{folder.name}/{path.relative_to(folder).as_posix()}"
                kept = f"a second file of that name; {paths[0].name} is taken"
                skipped.append(SkippedFile(shown, f"has no {partner}" if stem not in other else kept))
    for stem in sides[0].keys() & sides[1].keys():
        name = prefix + sides[0][stem][0].relative_to(inputs).as_posix()
        pairs.append(PairFiles(name, sides[0][stem][0], sides[1][stem][0]))
    return tuple(sorted(pairs, key=lambda p: p.name)), tuple(sorted(skipped, key=lambda f: f.file))


def first_reason(skipped: Sequence[SkippedFile]) -> str:
    """A hint for a folder with too few pairs: the number of skipped files, and the first reason."""
    if not skipped:
        return "Add pairs."
    return f"{len(skipped)} files were left out, the first is {skipped[0].file}: {skipped[0].reason}."


def _two_folders(folder: Path) -> Layout | None:
    children = _children(folder)
    for names in FOLDER_NAMES:
        if all(name in children for name in names):
            pairs, skipped = match(children[names[0]], children[names[1]])
            return Layout(f"{names[0]}/ and {names[1]}/", pairs, (), skipped)
    return None


def _named(folder: Path, folders: str) -> Layout:
    names = folders.split("/")
    if len(names) != 2 or not all(names):
        raise UsageError(f"--folders {folders} does not name two folders.", "Write it as input/target.")
    for name in names:
        if not (folder / name).is_dir():
            raise DataError(f"There is no folder {folder / name}.", "Give the two folders as input/target.")
    pairs, skipped = match(folder / names[0], folder / names[1])
    return Layout(f"{names[0]}/ and {names[1]}/", pairs, (), skipped)


def _dped(folder: Path) -> Layout | None:
    """DPED (Ignatov et al. 2017): PHONE/training_data/{PHONE,canon}, PHONE/test_data/patches/{PHONE,canon}."""
    if folder.name == "training_data":
        folder = folder.parent
    phones = [folder] if (folder / "training_data").is_dir() else [p for p in _children(folder).values() if _trains(p)]
    training: list[PairFiles] = []
    validation: list[PairFiles] = []
    skipped: list[SkippedFile] = []
    names: list[str] = []
    for phone in phones:
        prefix = "" if phone == folder else f"{phone.name}/"
        for part, kept in (("training_data", training), ("test_data/patches", validation)):
            children = _children(phone / part)
            taken = [name for name in children if name != _DPED_CAMERA]
            if _DPED_CAMERA not in children or len(taken) != 1:
                continue
            pairs, unmatched = match(children[taken[0]], children[_DPED_CAMERA], prefix)
            kept.extend(pairs)
            skipped += unmatched
            names.append(taken[0])
    if not names:
        return None
    who = ", ".join(dict.fromkeys(names))
    return Layout(f"DPED: {who} against {_DPED_CAMERA}", tuple(training), tuple(validation), tuple(skipped))


def _trains(folder: Path) -> bool:
    return (folder / "training_data").is_dir()


def _fivek(folder: Path) -> Layout | None:
    """MIT-Adobe FiveK (Bychkovsky et al. 2011): a folder of inputs beside those of one to five experts, a to e."""
    children = _children(folder)
    inputs = [path for name, path in children.items() if _FIVEK_INPUT.fullmatch(name)]
    experts = {m[1].lower(): path for name, path in children.items() if (m := _FIVEK_EXPERT.fullmatch(name))}
    if len(inputs) != 1 or not experts:
        return None
    chosen = experts.get(_FIVEK_CUSTOM) or experts[min(experts)]
    pairs, skipped = match(inputs[0], chosen)
    others = f", of {len(experts)} experts" if len(experts) > 1 else ""
    return Layout(f"FiveK: {inputs[0].name}/ against {chosen.name}/{others}", pairs, (), skipped)


def _children(folder: Path) -> dict[str, Path]:
    """Folders in `folder` by their names in lower case."""
    if not folder.is_dir():
        return {}
    return {p.name.lower(): p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def _photos(folder: Path) -> dict[str, list[Path]]:
    """Photos below `folder` by relative name without suffix, in lower case, since cameras mix cases."""
    found: dict[str, list[Path]] = {}
    for path in photos_below(folder):
        found.setdefault(path.relative_to(folder).with_suffix("").as_posix().lower(), []).append(path)
    return found
