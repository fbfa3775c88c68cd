"""Rendering a page: one HTML file with style, script and data inside, which needs no network."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qatie_cli import __version__, files
from qatie_cli.errors import QatieError, UsageError

GALLERY, COMPARISON = "gallery", "comparison"  # kinds of pages
_ASSETS = Path(__file__).with_name("assets")
_HEAD_BYTES = 4096  # of a page, which contain its generator tag


@dataclass(frozen=True)
class Figure:
    """A figure that every photo has; the unit "time" means seconds since 1970, shown as a date."""

    name: str
    digits: int = 0
    unit: str = ""


@dataclass(frozen=True)
class Order:
    """A sort order: by the figure of index `figure`, or by name if that is None."""

    label: str
    figure: int | None = None
    descending: bool = False


@dataclass(frozen=True)
class PhotoRow:
    """A photo on the page.

    `key` names its previews; `size` is (width, height); `left` and `right` are addresses of the full-size files;
    `figures` are in the page's order, None if unknown; `provenance` is an index into the page's `provenances`.
    """

    key: str
    name: str
    size: tuple[int, int]
    left: str
    right: str
    figures: tuple[float | None, ...]
    provenance: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OmittedPhoto:
    """A photo that the page does not show, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Page:
    """The content of a page.

    `summary` are the lines below the title; `labels` name the two sides for the reader, `sides` in the previews' file
    names; `amplified` is the factor of the difference pictures, None if there are none; `means` are rows of a table:
    figure, mean, worst.
    """

    kind: str
    title: str
    summary: tuple[str, ...]
    labels: tuple[str, str]
    sides: tuple[str, str]
    folder: str
    figures: tuple[Figure, ...]
    orders: tuple[Order, ...]
    photos: tuple[PhotoRow, ...]
    provenances: tuple[str, ...] = ()
    left_out_title: str = ""
    left_out: tuple[OmittedPhoto, ...] = ()
    amplified: int | None = None
    means: tuple[tuple[str, str, str], ...] = ()


def render(page: Page) -> str:
    """The page as HTML. Names are escaped; a content security policy allows no requests except for the previews."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    style, script = (_ASSETS.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("page.html").render(
        page=page, data=_data(page), style=Markup(style), script=Markup(script), policy=policy, version=__version__
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(page: Page) -> dict[str, Any]:
    """The script's data; to keep it small, an address that is base plus name is stored as 0."""
    left_base, right_base = (_base([(getattr(p, side), p.name) for p in page.photos]) for side in ("left", "right"))
    photos = [
        [
            photo.key,
            photo.name,
            *photo.size,
            _tail(photo.left, left_base, photo.name),
            _tail(photo.right, right_base, photo.name),
            photo.figures,
            photo.provenance,
            *photo.notes,
        ]
        for photo in page.photos
    ]
    return {
        "labels": page.labels,
        "sides": page.sides,
        "folder": quote(page.folder),
        "bases": [left_base, right_base],
        "figures": [[f.name, f.digits, f.unit] for f in page.figures],
        "orders": [[o.label, o.figure, o.descending] for o in page.orders],
        "provenances": page.provenances,
        "amplified": page.amplified,
        "photos": photos,
    }


def _base(addresses: list[tuple[str, str]]) -> str:
    """The most frequent prefix of the addresses before the photos' names."""
    counted: dict[str, int] = {}
    for address, name in addresses:
        if address.endswith(quote(name)):
            base = address[: len(address) - len(quote(name))]
            counted[base] = counted.get(base, 0) + 1
    return max(counted, key=lambda base: counted[base], default="")


def _tail(address: str, base: str, name: str) -> str | int:
    return 0 if address == base + quote(name) else address


def write(path: Path, page: Page) -> None:
    """Write the page atomically.

    Raises:
        OSError: it cannot be written.
    """
    files.write_atomic(path, render(page))


def check_replaceable(path: Path, kind: str, option: str) -> None:
    """Raise QatieError if `path` exists and is not a page of this kind; `option` is what the user can change."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Choose another with {option}.")
    if path.exists() and not is_ours(path, kind):
        raise QatieError(
            f"{path} is not a {kind} written by qatie; it is left unchanged.", f"Move it, or choose another {option}."
        )


def is_ours(path: Path, kind: str) -> bool:
    """Whether the file is a page of this kind written by qatie."""
    try:
        with path.open("rb") as file:
            return f'<meta name="generator" content="qatie {kind}">'.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False
