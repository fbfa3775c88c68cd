"""A HEIC that is too long to be read again is refused before it replaces anything."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from qatie_cli.errors import PhotoError
from qatie_cli.photo import decoding, encoding, heic_size
from qatie_cli.photo.content import Photo


def _noise(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_heic_that_is_too_long_is_refused_in_one_line_and_the_old_file_stays(dtype, tmp_path, monkeypatch):
    photo, path = Photo(_noise(64, 64, dtype), "png"), tmp_path / "a.heic"
    size = len(encoding.encoded(photo, "heic"))
    path.write_bytes(b"old")
    monkeypatch.setattr(heic_size, "LARGEST", size - 1)
    with pytest.raises(PhotoError, match=r"a\.heic would have .* MB as HEIC") as refused:
        encoding.write(path, photo, "heic")
    assert "--quality" in refused.value.hint
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.heic", b"old")]
    encoding.write(path, photo, "heic", 50)
    assert path.stat().st_size < size
    encoding.write(tmp_path / "a.avif", photo, "avif")
    monkeypatch.setattr(heic_size, "LARGEST", size)
    encoding.write(path, photo, "heic")


@pytest.mark.slow
def test_the_longest_heic_can_be_read_and_one_above_it_cannot(tmp_path):
    """What the limit stands for: where this fails, the decoder has another one."""
    decoding.open_heif()
    readable = {}
    for height in (2300, 2700):  # 15.4 and 18 MB
        path = tmp_path / f"{height}.heic"
        options = {"quality": 100, "enc_params": {"preset": "ultrafast"}}
        Image.fromarray(_noise(height, 3600)).save(path, "HEIF", **options)
        try:
            readable[path.stat().st_size <= heic_size.LARGEST] = decoding.read(path).pixels.shape == (height, 3600, 3)
        except PhotoError:
            readable[path.stat().st_size <= heic_size.LARGEST] = False
    assert readable == {True: True, False: False}
