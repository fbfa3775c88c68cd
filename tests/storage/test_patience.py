"""Retries: how long they wait."""

from __future__ import annotations

from qatie_cli.storage import patience


def test_waits_double_up_to_ten_seconds_with_some_chance_in_each():
    slept: list[float] = []

    def answers_at_last() -> str:
        if len(slept) < 9:
            raise ConnectionResetError
        return "here"

    patience.repeated.taken()
    assert patience.patiently("s3://b/k", answers_at_last, seconds=1e9, sleep=slept.append) == "here"
    assert patience.repeated.taken() == 9
    for wait, longest in zip(slept, (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10), strict=True):
        assert longest / 2 <= wait <= longest
    assert len({round(wait / longest, 6) for wait, longest in zip(slept[-3:], (10, 10, 10), strict=True)}) == 3
