"""The settings that determine an output, which later runs compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

FLOAT, INT8 = "float", "int8"
CHANGED = "changed photos"  # why an output is made again
_OPTIONS = {"weights_sha256": "--weights", "arithmetic": "--engine"}  # the others are named like their options
_ADDED = ("no_hdr", "no_motion", "sidecars")


@dataclass(frozen=True)
class Settings:
    """Everything but the photo that determines an output.

    The int8 engine, threads, device and memory are not included: they change values by a rounding step at most, and a
    folder may be enhanced on several machines. `quality` None is the default of the format.
    """

    weights: str  # for display; the digest decides
    weights_sha256: str
    arithmetic: str = INT8  # or FLOAT
    strength: float = 1.0
    fast: bool | None = None
    quality: int | str | None = None
    strip_metadata: bool = False
    strip_gps: bool = False
    no_hdr: bool = False
    no_motion: bool = False
    sidecars: bool = False

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for settings that give equal outputs."""
        shaping = dataclasses.asdict(self)
        del shaping["weights"]
        for added in _ADDED:
            if not shaping[added]:  # as before the option existed, so that older outputs count as done
                del shaping[added]
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]

    def unlike(self, before: Mapping[str, object] | None) -> str:
        """How outputs with the settings `before` (None where they are not recorded) were made, against these."""
        if before is None:
            return "other settings"
        ours = dataclasses.asdict(self)
        theirs = {name: before.get(name, False if name in _ADDED else None) for name in ours}
        options = [
            _OPTIONS.get(name, "--" + name.replace("_", "-"))
            for name in ours
            if name != "weights" and theirs[name] != ours[name]
        ]
        return f"other settings ({', '.join(options)})" if options else self.unlike(None)
