"""The plan of a large run: its batches."""

from __future__ import annotations

from qatie_cli.cloud import table
from qatie_cli.cloud.table import Table


def test_a_batch_has_sixteen_photos_or_32_mb_at_most_and_every_photo_is_in_one(tmp_path):
    sizes = [1] * 20 + [20_000_000, 10_000_000, 3_000_000, 50_000_000, 1, 1]
    plan = Table(tmp_path / "plan.sqlite")
    plan.add((f"s3://b/{n}", size, "", f"s3://o/{n}", "") for n, size in enumerate(sizes))
    batches = list(plan.batches())
    plan.close()
    assert [item.source for batch in batches for item in batch.items] == [f"s3://b/{n}" for n in range(len(sizes))]
    assert [len(batch.items) for batch in batches] == [table.MOST_ITEMS, 6, 1, 1, 2]
    for batch in batches:
        assert len(batch.items) == 1 or sum(item.size for item in batch.items) <= 32_000_000
