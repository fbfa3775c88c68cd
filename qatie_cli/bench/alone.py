"""A process that runs one contender twice and nothing else, for its memory.

python -m qatie_cli.bench.alone NAME ARITHMETIC WEIGHTS PICTURE.npy THREADS
"""

from __future__ import annotations

import sys
from pathlib import Path

from qatie_cli.threads import bound_spin


def main(name: str, arithmetic: str, weights: str, picture: str, threads: str) -> None:
    """Run `name` as `contenders.load` takes it; WEIGHTS is a model file where that has the name."""
    bound_spin()

    import numpy as np
    import torch

    from qatie_cli.bench import contenders
    from qatie_cli.model import checkpoint, shipped

    torch.set_num_threads(int(threads))
    if Path(weights).name == name:
        contender = contenders.load_file(Path(weights), int(threads))
    else:
        read = checkpoint.read(shipped.locate(weights))
        contender = contenders.load(name, arithmetic, read, np.load(picture), int(threads))
    for _ in range(2):
        contender.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
