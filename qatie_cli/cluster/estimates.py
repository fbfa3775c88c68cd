"""Memory that a worker reserves from Ray."""

from __future__ import annotations

from collections.abc import Sequence

from qatie_cli.enhance import memory
from qatie_cli.enhance.photos import Enhancer
from qatie_cli.enhance.pixels import fast_reduction
from qatie_cli.photo import apart
from qatie_cli.photo.decoding import Header

# NumPy, Pillow, Ray's client and an engine before the first photo; measured: 330 MB with onnxruntime.
PROCESS_BYTES = 400 << 20
_TYPICAL = Header(4032, 3024, 10 * 4032 * 3024)  # used if no header could be read: a phone's 12 megapixels
_BATCH_BYTES = 2 * 64 << 20  # files of both current batches, in the page cache
_FORMAT = "jpeg"


def worker_bytes(headers: Sequence[Header | None], enhancer: Enhancer) -> int:
    """Memory of a worker with the largest of these photos in the network and another one decoded.

    Larger photos are tiled.
    """
    sizes = [_photo_bytes(header, enhancer) for header in headers if header is not None]
    largest = max(sizes, default=_photo_bytes(_TYPICAL, enhancer))
    return PROCESS_BYTES + memory.LOADED_BYTES + apart.BYTES + _BATCH_BYTES + largest


def _photo_bytes(header: Header, enhancer: Enhancer) -> int:
    size = header.width, header.height
    held = max(
        header.decode_bytes,
        memory.held_bytes(*size, header.sample_bytes, header.gray),
        memory.encode_bytes(*size, _FORMAT, header.progressive, header.sample_bytes),
    )
    pixel_bytes = enhancer.engine.network.bytes_per_pixel
    reduction = 1 if enhancer.effect.fast is False else fast_reduction(*size)
    network = memory.network_bytes(*size, pixel_bytes, None, reduction)
    return 2 * (held + header.beside_bytes) + network
