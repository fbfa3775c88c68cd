"""Files by URL: what is listed, what is replaced, what is removed."""

from __future__ import annotations

import pytest

from qatie_cli.storage import stores, urls

pytest.importorskip("fsspec")


def _listed(folder: str) -> list[str | None]:
    return [urls.below(entry.url, folder) for page in stores.of(folder).pages(folder) for entry in page]


def test_a_reader_of_a_replaced_file_sees_the_whole_old_content(tmp_path):
    url = urls.of_path(tmp_path / "new" / "a.bin")
    stores.of(url).put(url, b"old" * 1000)
    with urls.to_path(url).open("rb") as reader:
        stores.of(url).put(url, b"new")
        assert reader.read() == b"old" * 1000
    assert stores.of(url).read(url) == b"new"


def test_links_are_followed_and_a_folder_that_is_reached_twice_is_searched_once(tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.png").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"x")
    for name, target in (("loop", "in"), ("out", "elsewhere"), ("again", "elsewhere")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target, target_is_directory=True)
    (tmp_path / "in" / "3.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    assert _listed(urls.of_path(tmp_path / "in")) == ["3.png", "a/1.png", "again/2.png"]


def test_removing_goes_on_behind_a_missing_file(tmp_path):
    names = [urls.of_path(tmp_path / f"{index}.bin") for index in range(3)]
    for url in (names[0], names[2]):
        stores.of(url).put(url, b"x")
    stores.of(names[0]).remove(names)
    assert not any(tmp_path.iterdir())
