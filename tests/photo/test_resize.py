"""Resizing: one module for everybody, and what its functions promise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import qatie_cli
from qatie_cli.photo import resize

PACKAGE = Path(qatie_cli.__file__).parent


def test_nobody_else_resizes():
    """`F.interpolate` and `avg_pool2d` of tensors aside, which are parts of networks; a draft may keep YCbCr."""
    forbidden = re.compile(r'\.resize\(|(?<!functools)\.reduce\(\w|\.thumbnail\(\(|\.draft\((?!"YCbCr")|Resampling')
    found = [p for p in PACKAGE.rglob("*.py") if forbidden.search(p.read_text(encoding="utf-8"))]
    assert [p.relative_to(PACKAGE).as_posix() for p in found if p.name != "resize.py"] == []


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_images_are_resized_alike(coffee, channels):
    pixels = np.dstack([coffee, coffee[..., :1]])[..., :channels]
    found = resize.to_size(pixels, (70, 50))
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    assert found.shape == (50, 70, channels)
    assert np.array_equal(found.squeeze(), np.asarray(resize.to_size(image, (70, 50))))
    found[0] = 0  # writable


def test_a_picture_that_fits_is_returned_itself(coffee):
    image = Image.fromarray(coffee)
    assert resize.fit(coffee, 600) is coffee
    assert resize.fit(image, 600) is image
    assert resize.fit(coffee, 300).shape == (200, 300, 3)
    assert resize.size_within(9000, 2, 300) == (300, 1)


@pytest.mark.parametrize("strip", [1, 1 << 14, 1 << 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strips_make_no_difference(coffee, monkeypatch, strip, dtype):
    monkeypatch.setattr(resize, "_STRIP_PIXELS", strip)
    pixels = coffee[:397, :599].astype(dtype) * (257 if dtype == np.uint16 else 1)
    found = resize.reduce_by(pixels, 4)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.asarray(Image.fromarray(coffee[:397, :599]).reduce(4)))
    assert np.array_equal(resize.reduce_by(pixels, 1), coffee[:397, :599])


def test_a_square_of_a_part_is_that_part(coffee):
    part = resize.to_square(coffee, 50, box=(100, 50, 300, 250))
    assert np.array_equal(part, resize.to_square(coffee[50:250, 100:300], 50))
