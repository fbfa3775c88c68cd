"""XMP sidecars: files that other programs keep beside photos, copied beside the outputs."""

from __future__ import annotations

from pathlib import Path

from qatie_cli import files
from qatie_cli.photo import extended_xmp, regions, xmp
from qatie_cli.photo.content import Photo
from qatie_cli.photo.discovery import names_with_suffix

_SUFFIX = ".xmp"


def of(photo: Path, output: Path) -> list[tuple[Path, Path]]:
    """The sidecars of a photo (Adobe's a.xmp, darktable's a.jpg.xmp), each with the path of its copy."""
    wanted = {photo.stem.casefold(): output.stem, photo.name.casefold(): output.name}
    found = []
    for name in names_with_suffix(photo.parent, _SUFFIX):
        stem, suffix = name[: -len(_SUFFIX)], name[-len(_SUFFIX) :]
        if stem.casefold() in wanted:
            found.append((photo.with_name(name), output.with_name(wanted[stem.casefold()] + suffix)))
    return found


def copy(source: Path, output: Path, photo: Photo, strip_gps: bool, overwrite: bool) -> tuple[str, ...]:
    """Copy the sidecars of `source` beside `output`; returns notes on those that are not copied.

    Regions in them are rotated with the pixels, and their orientation becomes 1.

    Args:
        photo: as it was decoded; it records how it was rotated.
        strip_gps: drop the location.
        overwrite: replace existing sidecars that differ.

    Raises:
        OSError: one cannot be read or written.
    """
    notes = []
    for sidecar, target in of(source, output):
        content = sidecar.read_bytes()
        if len(content) > xmp.LARGEST:
            notes.append(f"the sidecar {sidecar.name} is left out, it is longer than {xmp.LARGEST >> 20} MB")
            continue
        packet = xmp.upright(content)
        if photo.turn is not None:
            packet = regions.turned(packet, photo.turn)
        if strip_gps:
            packet = extended_xmp.without_mention(xmp.without_places(packet))
            if not packet:
                notes.append(f"the sidecar {sidecar.name} is left out, its location cannot be removed safely")
                continue
        if target.exists() and not overwrite:
            if target.read_bytes() != packet:
                notes.append(f"{target} exists and differs from the photo's sidecar; it stays as it is")
            continue
        files.write_atomic(target, packet)
    return tuple(notes)
