"""Two results compared: which photos belong together, exact figures, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image

from qatie_cli import metrics
from qatie_cli.errors import DataError, UsageError
from qatie_cli.evaluation import comparison
from qatie_cli.gallery import links, previews, spread
from qatie_cli.photo.content import Photo


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def sides(tmp_path, coffee) -> tuple[Path, Path]:
    """Two folders that share two photos, one of another format and one of another size."""
    a, b = tmp_path / "old", tmp_path / "new"
    _save(a / "same.png", coffee[:60, :80])
    _save(b / "same.png", coffee[:60, :80])
    _save(a / "sub" / "moved.jpg", coffee[:60, :80])
    _save(b / "sub" / "moved.png", np.clip(coffee[:60, :80].astype(int) + 9, 0, 255).astype(np.uint8))
    _save(a / "larger.png", coffee[:60, :80])
    _save(b / "larger.png", coffee[:60, :70])
    _save(a / "alone.png", coffee[:60, :80])
    return a, b


def test_photos_belong_together_by_name_and_the_rest_is_named(sides):
    _save(sides[0] / "twice.png", np.zeros((9, 9, 3), np.uint8))
    _save(sides[1] / "twice.jpg", np.zeros((9, 9, 3), np.uint8))
    _save(sides[1] / "twice.webp", np.zeros((9, 9, 3), np.uint8))
    pairs, left_out = comparison.find_pairs(*sides)
    assert [(p.name, p.second.name) for p in pairs] == [
        ("larger.png", "larger.png"),
        ("same.png", "same.png"),
        ("sub/moved.jpg", "moved.png"),
    ]
    assert [photo.name for photo in left_out] == ["alone.png", "twice.jpg", "twice.png", "twice.webp"]
    assert "no partner in" in left_out[0].reason
    assert "several photos" in left_out[1].reason


def test_files_are_compared_as_they_are_named_and_mixtures_refused(sides):
    pairs, _ = comparison.find_pairs(sides[0] / "same.png", sides[1] / "larger.png")
    assert (pairs[0].first.name, pairs[0].second.name) == ("same.png", "larger.png")
    with pytest.raises(UsageError, match="is a folder"):
        comparison.find_pairs(sides[0], sides[1] / "same.png")
    with pytest.raises(UsageError, match="no file or folder"):
        comparison.find_pairs(sides[0], sides[1] / "none")
    with pytest.raises(DataError, match="60 against 70x60"):
        comparison.load(pairs[0])


@pytest.mark.parametrize("strip", [1, 30 * 600, 10**9])
def test_figures_of_strips_are_those_of_the_whole_photo(astronaut, monkeypatch, strip):
    monkeypatch.setattr(comparison, "_STRIP_PIXELS", strip if strip > 1 else 7 * 200)
    a = astronaut[:120, :200]
    b = np.clip(a.astype(int) + np.random.default_rng(1).normal(0, 9, a.shape), 0, 255).astype(np.uint8)
    found = comparison.similarity(Photo(a, "png"), Photo(b, "png"))
    assert found.psnr_db == pytest.approx(metrics.psnr(a, b), abs=1e-4)
    assert found.ssim == pytest.approx(metrics.ssim(a, b), abs=1e-6)
    assert found.ciede2000 == pytest.approx(metrics.ciede2000(a, b), abs=1e-6)


def test_equal_and_tiny_photos_have_figures_too(coffee):
    whole = Photo(coffee, "png")
    same = comparison.similarity(whole, whole)
    assert (same.psnr_db, same.ciede2000) == (comparison.BEST_DB, 0)
    assert same.ssim == pytest.approx(1)
    tiny = Photo(coffee[:9, :9], "png")
    assert comparison.similarity(tiny, tiny).ssim is None
    mean = comparison.mean([same, comparison.similarity(tiny, tiny)])
    assert mean.ssim == pytest.approx(1)


def test_the_difference_is_amplified_and_clipped(coffee):
    moved = Photo(np.clip(coffee.astype(int) + 5, 0, 255).astype(np.uint8), "png")
    seen = comparison.amplified_difference(Photo(coffee, "png"), moved, 8)
    assert np.array_equal(seen.pixels, (moved.pixels.astype(int) - coffee) * 8)
    assert comparison.amplified_difference(Photo(coffee, "png"), moved, 255).pixels.max() == 255


def test_deep_photos_and_other_colour_spaces_are_compared_as_they_look(coffee):
    import imagecodecs

    from qatie_cli.photo import colour

    profile = imagecodecs.cms_profile("adobergb")
    other = Photo(colour.of_profile(profile).from_srgb(coffee.astype(np.uint16) * 257), "tiff", icc=profile)
    assert comparison.similarity(Photo(coffee, "png"), other).psnr_db > 45


def test_the_page_keeps_no_pictures_of_photos_it_does_not_show(sides, tmp_path):
    def write(names):
        made = spread.Spread(tmp_path / "page.html", *sides, 8)
        for pair in comparison.find_pairs(*sides)[0]:
            if pair.name in names:
                made.compare(pair, 10**6)
        made.write()

    write({"same.png", "sub/moved.jpg"})
    assert len(list((tmp_path / ".page").iterdir())) == 12
    (tmp_path / ".page" / "mine.webp").write_bytes(b"x")
    write({"same.png"})
    assert len(list((tmp_path / ".page").iterdir())) == 7


def test_sides_are_called_by_what_tells_them_apart():
    assert comparison.labels(Path("/x/old/out"), Path("/x/new/out")) == ("old/out", "new/out")
    assert comparison.labels(Path("a"), Path("b")) == ("a", "b")
    assert comparison.labels(Path("a"), Path("a")) == ("a", "a")


def test_the_command_line_compares_folders(sides, tmp_path):
    page = tmp_path / "pages" / "page.html"
    done = qatie_here("compare", *sides, "-o", page, "--json", code=3)
    assert "alone.png has no partner in new" in done.stderr
    assert "larger.png 80x60 against 70x60 pixels." in done.stderr
    found = json.loads(done.stdout)
    assert set(found["photos"]) == {"same.png", "sub/moved.jpg"}
    assert found["left_out"] == 2
    assert found["photos"]["same.png"]["psnr_db"] == comparison.BEST_DB
    text = page.read_text()
    assert "old against new" in text
    assert "2 left out" in text
    assert str(tmp_path) not in text
    key = links.key_of("same.png")
    assert previews.paths(page.parent / ".page", key, "difference")[0].is_file()


def test_the_command_line_says_what_is_wrong(sides, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    same = sides[0] / "same.png"
    assert "it is left unchanged" in qatie_here("compare", same, same, "-o", mine, code=1).stderr
    assert mine.read_text() == "mine"
    assert "is not an .html file" in qatie_here("compare", same, same, "-o", tmp_path / "a.png", code=2).stderr
    (tmp_path / "empty").mkdir()
    assert (
        "no photo in common"
        in qatie_here("compare", sides[0], tmp_path / "empty", "-o", tmp_path / "p.html", code=1).stderr
    )
    assert not (tmp_path / "p.html").exists()
    qatie_here("compare", same, sides[1] / "larger.png", "-o", tmp_path / "p.html", code=1)
    qatie_here("compare", same, same, "-o", tmp_path / "p.html", "--quiet")
