"""How property tests run: the same few examples every time, or a search for new ones with QATIE_EXAMPLES=20 pytest."""

from __future__ import annotations

import os

from hypothesis import Phase, settings

_TIMES = int(os.environ.get("QATIE_EXAMPLES", "1"))


def examples(number: int, shrink: bool = True) -> settings:
    """Settings of a property test that takes `number` examples; they are drawn anew only where more are asked for.

    `shrink` is False where an example takes so long that looking for a smaller one would take minutes.
    """
    phases = [phase for phase in Phase if shrink or phase not in (Phase.shrink, Phase.explain)]
    return settings(max_examples=number * _TIMES, deadline=None, derandomize=_TIMES == 1, database=None, phases=phases)
