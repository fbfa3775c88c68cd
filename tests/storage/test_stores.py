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


def test_a_listing_of_s3_goes_on_to_its_last_page_and_leaves_folder_markers_out():
    pages = [[("in/", 0), ("in/a.jpg", 3)], [("in/b/", 0), ("in/b/c.jpg", 4)]]

    class System:
        @staticmethod
        def _strip_protocol(url: str) -> str:
            return url.removeprefix("s3://")

        def call_s3(self, method: str, **asked: object) -> dict[str, object]:
            assert (method, asked["Bucket"], asked["Prefix"]) == ("list_objects_v2", "bucket", "in/")
            number = int(str(asked.get("ContinuationToken", 0)))
            contents = [{"Key": key, "Size": size, "ETag": f'"{key}"'} for key, size in pages[number]]
            return {"Contents": contents, "IsTruncated": not number, "NextContinuationToken": number + 1}

    listed = [entry for page in stores.Store("s3", System()).pages("s3://bucket/in") for entry in page]
    assert [(entry.url, entry.size) for entry in listed] == [("s3://bucket/in/a.jpg", 3), ("s3://bucket/in/b/c.jpg", 4)]
