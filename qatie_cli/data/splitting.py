"""The validation split: a pure function of the photos' names and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

FEWEST = 4  # photos that training needs: one to validate on, three to learn from


def source_of(name: str) -> str:
    """The source of a photo named SOURCE__rest; of any other the name itself.

    Photos of one source are alike, so whole sources are held out where names identify them.
    """
    source, mark, _ = name.rsplit("/", 1)[-1].partition("__")
    return source if mark else name


def held_out(names: Sequence[str], share: float, seed: int) -> set[str]:
    """The names to validate on, independent of order: `share` of them, at least one, never all."""
    ranked = sorted(
        set(names), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
    )
    return set(ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)])
