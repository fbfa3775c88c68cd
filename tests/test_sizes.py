"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import examples

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


UNITS = {
    "": 1,
    "k": 10**3,
    "MB": 10**6,
    "G": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "mib": 2**20,
    "GI": 2**30,
    "TiB": 2**40,
}


@examples(60)
@given(st.integers(1, 10**9), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " ", "\t"]))
def test_a_written_size_is_read(number, unit, space):
    assert sizes.parse_bytes(f"{space}{number}{space}{unit}{space}") == number * UNITS[unit]


@examples(40)
@given(st.integers(0, 999), st.integers(0, 999), st.integers(1, 3), st.sampled_from(sorted(UNITS)))
def test_larger_numbers_are_larger_sizes(whole, parts, digits, unit):
    """Down to a byte: what is less than one is no size."""
    text = f"{whole}.{parts:0{digits}d}"
    exact = float(text) * UNITS[unit]
    if exact < 1:
        with pytest.raises(UsageError):
            sizes.parse_bytes(text + unit)
    else:
        assert abs(sizes.parse_bytes(text + unit) - exact) < 1


anything = st.text(max_size=12) | st.from_regex(r"[0-9. ]{0,6}[kKMGTi]{0,3}[bBxX]?[0-9p]{0,5}", fullmatch=True)


@examples(200)
@given(anything)
def test_whatever_is_written_is_a_size_or_refused_in_one_line(text):
    for parse in (sizes.parse_bytes, sizes.parse_photo_size, lambda t: sizes.parse_model_size(t, 8)):
        try:
            size = parse(text)
        except UsageError as refused:
            assert "Invalid size" in str(refused)
        else:
            assert all(side > 0 for side in (size if isinstance(size, tuple) else (size,)))


@examples(30)
@given(st.integers(8, 50_000), st.integers(8, 50_000))
def test_written_sides_are_read(width, height):
    assert sizes.parse_photo_size(f"{width}x{height}") == (width, height)
    assert sizes.parse_model_size(f"{height // 8 * 8}X{width // 8 * 8}", 8) == (height // 8 * 8, width // 8 * 8)
