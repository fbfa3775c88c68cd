"""The demo says where it makes a photo worse, and by what figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qatie_cli.data import demo


def _figures(original, phone, ours):
    return demo.compared("rocket", Path("rocket.png"), original, phone, ours)


def test_a_photo_that_got_worse_is_told_with_its_reason(coffee):
    lighter = (coffee * 0.8 + 40).astype(np.uint8)
    lighter_still = (coffee * 0.75 + 60).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 25, coffee.shape)
    noisy = np.clip(coffee + noise, 0, 255).astype(np.uint8)
    assert _figures(coffee, lighter_still, lighter).remark == ""
    remark = _figures(coffee, lighter, lighter_still).remark
    levels = [f"{picture.mean() / 255:.0%}" for picture in (coffee, lighter, lighter_still)]
    assert "rocket got worse" in remark
    assert "mean level is {} in the original, {} on the phone, {} in qatie's".format(*levels) in remark
    assert "so it is mostly tone" in remark
    assert "not tone alone" in _figures(coffee, coffee, noisy).remark
