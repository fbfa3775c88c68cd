"""Sizes as people write them."""

from __future__ import annotations

import pytest

from qatie_cli import sizes
from qatie_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [("1.5GB", 1_500_000_000), ("800m", 800_000_000), ("2 GiB", 2 << 30), ("123456", 123456), (".5K", 500)],
)
def test_sizes_of_memory(text, size):
    assert sizes.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "1.5XB", "GB"])
def test_invalid_sizes_of_memory(text):
    with pytest.raises(UsageError, match=f"Invalid size '{text}'.") as refused:
        sizes.parse_bytes(text)
    assert "1.5GB" in refused.value.hint


@pytest.mark.parametrize(("text", "size"), [("12MP", 12e6), ("0.5 mp", 5e5), ("1920x1080", (1920, 1080))])
def test_sizes_of_photos(text, size):
    assert sizes.parse_photo_size(text) == size


@pytest.mark.parametrize("text", ["", "MP", "12", "x", "0x5", "1e9MP", "99999x8", "-2MP", "3x4x5"])
def test_invalid_sizes_of_photos(text):
    with pytest.raises(UsageError, match=f"Invalid size '{text}'."):
        sizes.parse_photo_size(text)


def test_sizes_of_models_are_height_by_width_in_multiples():
    assert sizes.parse_model_size("1080X1920", 8) == (1080, 1920)
    for text in ("100x100", "0x8", "8", "8x8x8", "dynamic"):
        with pytest.raises(UsageError, match="Invalid size"):
            sizes.parse_model_size(text, 8)
