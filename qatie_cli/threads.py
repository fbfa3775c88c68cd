"""How threads of the process wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# GNU's library counts iterations; LLVM's and Intel's count milliseconds. Unset, GNU's threads spin for as long as no
# more threads run than there are cores: eight 13-megapixel photos beside one busy process took 110 s instead of 22 s.
# A spin of 1,000 iterations took 17 s there, but 13.8 s instead of 10.8 s on a quiet machine.
_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_CHOSEN_BY_USER = ("OMP_WAIT_POLICY", *_SPIN)


def bound_spin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's waiting threads spin for a moment and then sleep, unless the user chose how they wait.

    OpenMP reads these variables when it is loaded: call this before the first import of torch.
    """
    if not any(name in environment for name in _CHOSEN_BY_USER):
        environment.update(_SPIN)
