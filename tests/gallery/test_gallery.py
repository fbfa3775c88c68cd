"""The gallery of a batch: what it shows, what it survives, and what it never gives away."""

from __future__ import annotations

import errno
import html.parser
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image, ImageCms
from samples import interrupted_at, inverted

from qatie_cli.batch import planning
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Result, Runner, Status, Writing
from qatie_cli.errors import QatieError, UsageError
from qatie_cli.gallery import album, entries, links, overview, page, previews
from qatie_cli.gallery.album import Album
from qatie_cli.gallery.entries import Provenance
from qatie_cli.photo import colour, discovery
from qatie_cli.photo.content import Photo

PROVENANCE = Provenance("qatie-c16", "int8 on x86", 0.5)


@pytest.fixture
def folder(tmp_path, coffee) -> Path:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"  # a place
    Image.fromarray(coffee[:40, :60]).save(root / "a10.jpg", exif=exif)
    Image.fromarray(coffee[:40, :60]).save(root / "a9.png")
    Image.fromarray(coffee[:30, :30]).save(root / "sub" / "b.png")
    return root


def _run(source: Path, out: Path, enhance=inverted, naming: Naming | None = None) -> Album:
    """A batch with a gallery, as the command line runs it."""
    plan = planning.plan([source], out, naming or Naming())
    album.check(out, plan)
    made = Album(out, plan, PROVENANCE, 10**6)
    try:
        Runner(enhance, Writing(overwrite=bool(naming and naming.overwrite)), previews=made).run(plan.tasks, made.add)
        made.catch_up()
    finally:
        made.write()
    return made


class _Read(html.parser.HTMLParser):
    """What a browser finds in a page: elements, and the texts of some."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.data = json.loads(self.texts["script"][0])
        self.names = [photo[1] for photo in self.data["photos"]]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open = tag

    def handle_data(self, data):
        if data.strip():
            self.texts.setdefault(self._open, []).append(data.strip())


def _pictures(out: Path, name: str) -> list[Image.Image]:
    paths = [previews.paths(out / ".gallery", links.key_of(name), side)[0] for side in ("before", "after")]
    return [Image.open(path) for path in paths]


def test_every_photo_is_shown_upright_and_gives_nothing_away(folder, tmp_path):
    made = _run(folder, tmp_path / "out")
    assert made.missing == {}
    seen = _Read(tmp_path / "out" / "index.html")
    assert seen.names == ["a9.png", "a10.jpg", "sub/b.png"]
    assert seen.data["provenances"] == ["qatie-c16, int8 on x86, strength 0.5"]
    assert seen.data["photos"][1][2:4] == [40, 60]
    for picture in _pictures(tmp_path / "out", "a10.jpg"):
        assert picture.size == (40, 60)  # upright
        assert picture.format == "WEBP"
        assert not picture.getexif()
        assert not {"exif", "xmp", "icc_profile"} & picture.info.keys()
    before, after = (np.asarray(p).astype(int) for p in _pictures(tmp_path / "out", "a9.png"))
    assert abs(before + after - 255).mean() < 8
    assert not list((tmp_path / "out").rglob(".qatie-tmp-*"))


def test_the_links_lead_to_the_files(folder, tmp_path):
    _run(folder, tmp_path / "out")
    data = _Read(tmp_path / "out" / "index.html").data
    assert data["bases"] == ["../in/", ""]
    assert [photo[4:6] for photo in data["photos"]] == [[0, 0]] * 3
    assert links.address(tmp_path / "in" / "ä #?.jpg", tmp_path / "out") == "../in/%C3%A4%20%23%3F.jpg"


def test_names_are_harmless(tmp_path, coffee):
    (tmp_path / "in").mkdir()
    nasty = ["<script>alert(1)<!--.png", "<img src=x onerror=alert(1)>.png", "{{ 7*7 }}\u2028'\".png"]
    for name in nasty:
        Image.fromarray(coffee[:20, :20]).save(tmp_path / "in" / name)
    (tmp_path / "in" / "<b>broken.png").write_bytes(b"x")
    _run(tmp_path / "in", tmp_path / "out")
    seen = _Read(tmp_path / "out" / "index.html")
    assert sorted(seen.names) == sorted(name.replace("\u2028", "\ufffd") for name in nasty)
    assert seen.tags.count("script") == 2
    assert "b" not in seen.tags
    assert not [tag for tag in seen.tags if tag == "img" and "onerror" in tag]
    assert "in/<b>broken.png" in seen.texts["strong"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_name_that_is_no_utf8_is_shown_and_linked(tmp_path, coffee):
    (tmp_path / "in").mkdir()
    Image.fromarray(coffee[:20, :20]).save(tmp_path / "a.png")
    Path(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png"))
    _run(tmp_path / "in", tmp_path / "out")
    _run(tmp_path / "in", tmp_path / "out")
    data = _Read(tmp_path / "out" / "index.html").data
    assert data["photos"][0][1] == "\ufffd.png"
    assert data["photos"][0][4:6] == ["../in/%FF.png", "%FF.png"]


def test_the_page_asks_for_nothing_and_says_so(folder, tmp_path):
    _run(folder, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "default-src &#39;none&#39;" in text
    assert "unsafe" not in text.split("</head>")[0].split("<style>")[0]
    assert "http://" not in text
    assert "https://" not in text


def test_a_later_run_adds_to_the_gallery(folder, tmp_path, coffee):
    out = tmp_path / "out"
    _run(folder, out)
    first = {p.name: p.stat().st_mtime_ns for p in (out / ".gallery").glob("*.webp")}
    Image.fromarray(coffee[:20, :20]).save(folder / "new.png")
    _run(folder, out)
    assert _Read(out / "index.html").names == ["a9.png", "a10.jpg", "new.png", "sub/b.png"]
    assert all((out / ".gallery" / name).stat().st_mtime_ns == at for name, at in first.items())  # not made again
    known = entries.read(out / ".gallery" / "entries.json").entries
    assert known["a9.png"].provenance == PROVENANCE  # what the first run knew is kept
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(coffee[:20, :20]).save(other / "else.png")
    _run(other, out)
    assert len(_Read(out / "index.html").names) == 5


def test_what_was_enhanced_without_a_gallery_is_shown_from_its_files(folder, tmp_path):
    out = tmp_path / "out"
    Runner(inverted, Writing()).run(planning.plan([folder], out, Naming()).tasks, lambda _: None)
    assert not album.exists(out)
    made = _run(folder, out)
    assert made.missing == {}
    assert _Read(out / "index.html").names == ["a9.png", "a10.jpg", "sub/b.png"]
    assert album.exists(out)
    before, after = (np.asarray(p).astype(int) for p in _pictures(out, "a9.png"))
    assert abs(before + after - 255).mean() < 8


def test_lost_previews_and_a_damaged_memory_are_made_good(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    next((out / ".gallery").glob("*-after.webp")).unlink()
    _run(folder, out)
    assert len(list((out / ".gallery").glob("*.webp"))) == 12
    for damage in ("{", '{"schema": 99}', '{"schema": 1, "photos": [{"name": 3}], "failed": [], "last": null}', "[]"):
        (out / ".gallery" / "entries.json").write_text(damage)
        _run(folder, out)
        assert len(_Read(out / "index.html").names) == 3


def test_an_output_that_has_gone_or_changed_is_no_longer_shown_as_it_was(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    (out / "a9.png").unlink()
    (out / "sub" / "b.png").unlink()
    (folder / "sub" / "b.png").unlink()
    _run(folder, out, enhance=lambda photo, _: photo)  # a9.png is made anew, b.png has no original any more
    seen = _Read(out / "index.html")
    assert seen.names == ["a9.png", "a10.jpg"]
    assert seen.data["photos"][0][6][0] == 0  # no change: its previews are new
    assert len(list((out / ".gallery").glob("*.webp"))) == 8


def test_previews_follow_an_output_that_somebody_edited(folder, tmp_path):
    out = tmp_path / "out"
    _run(folder, out)
    Image.new("RGB", (60, 40), (255, 0, 0)).save(out / "a9.png")
    _run(folder, out)
    _, after = _pictures(out, "a9.png")
    assert np.abs(np.asarray(after)[..., :3].astype(int) - [255, 0, 0]).max() < 40


def test_failures_stay_until_they_are_mended(folder, tmp_path, coffee):
    out = tmp_path / "out"
    (folder / "broken.png").write_bytes(b"no photo")
    _run(folder, out)
    assert _Read(out / "index.html").texts["strong"] == ["in/broken.png"]
    assert _Read(out / "index.html").texts["summary"] == ["1 failed"]
    _run(folder / "sub", out)  # another run does not forget it
    assert _Read(out / "index.html").texts["strong"] == ["in/broken.png"]
    Image.fromarray(coffee[:20, :20]).save(folder / "broken.png")
    _run(folder, out)
    assert "strong" not in _Read(out / "index.html").texts


def test_no_reason_names_folders_of_this_machine(folder, tmp_path):
    (folder / "broken.png").write_bytes(b"no photo")
    (folder / "empty.jpg").write_bytes(b"")
    (tmp_path / "out" / "a9.png").mkdir(parents=True)
    _run(folder, tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    assert "3 failed" in text
    assert str(tmp_path) not in text


def test_an_interrupted_run_leaves_a_page_of_what_is_done(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(folder, tmp_path / "out", interrupted_at(1))
    assert _Read(tmp_path / "out" / "index.html").names == ["a10.jpg"]
    assert "2 photos still to do" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("takes", [0.1, 10.0])
def test_pages_written_on_the_way_take_a_small_part_of_a_run(folder, tmp_path, monkeypatch, takes):
    """However long one takes: with 10,000 photos they took nearly all of it."""
    now, pages = [0.0], []

    def write(*_):
        pages.append(now[0])
        now[0] += takes

    monkeypatch.setattr(album.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(page, "write", write)
    plan = planning.plan([folder], tmp_path / "out", Naming())
    made = Album(tmp_path / "out", plan, PROVENANCE, 10**6)
    for _ in range(2000):
        now[0] += 1
        made.add(Result(plan.tasks[0], status=Status.FAILED, reason="It is damaged."))
    assert len(pages) > 5
    assert len(pages) * takes < 0.07 * now[0]
    if takes < 1:
        assert max(b - a for a, b in itertools.pairwise(pages)) < 25


def test_the_page_is_written_now_and_then_while_a_run_goes_on(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(album, "_SECONDS_BETWEEN_PAGES", -1)
    monkeypatch.setattr(album, "_TIMES_BETWEEN_PAGES", 0)
    written = []
    real = Album.write
    monkeypatch.setattr(Album, "write", lambda self: (real(self), written.append(_Read(self.path).names)))
    _run(folder, tmp_path / "out")
    assert [len(names) for names in written] == [1, 2, 3, 3]


def test_a_preview_is_never_worth_a_photo(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(previews, "write", full)
    made = _run(folder, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.joinpath("out").rglob("*.*") if p.is_file() and p.suffix != ".json") == [
        "a10.jpg",
        "a9.png",
        "b.png",
        "index.html",
    ]
    assert set(made.missing.values()) == {"No space left on device"}
    assert len(made.missing) == 3


def test_a_page_of_somebody_else_stays(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("<title>my own</title>")
    with pytest.raises(QatieError, match="not a gallery written by qatie"):
        _run(folder, out)
    assert (out / "index.html").read_text() == "<title>my own</title>"
    assert not (out / "a9.png").exists()


def test_its_own_files_are_neither_photos_nor_overwritten_by_photos(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    _run(folder, out)
    plan = planning.plan([out], tmp_path / "again", Naming())
    assert [t.source.name for t in plan.tasks] == ["a10.jpg", "a9.png", "b.png"]
    assert plan.not_photos == ()
    monkeypatch.chdir(out)
    listed = [Path(".gallery") / next(Path(".gallery").glob("*.webp")).name]
    plan = planning.plan([], tmp_path / "third", Naming(), listed)
    with pytest.raises(UsageError, match="gallery's own files"):
        album.check(tmp_path / "third", plan)


# --- previews ----------------------------------------------------------------------------------------------------


def test_large_photos_are_reduced_and_small_ones_keep_their_pixels(astronaut):
    assert np.array_equal(previews.reduced(Photo(astronaut, "png")), astronaut)
    large = np.tile(astronaut, (7, 8, 1))
    seen = previews.reduced(Photo(large, "png"))
    assert seen.shape == (1260, 1440, 3)
    assert abs(seen.mean() - large.mean()) < 0.5
    whole = np.asarray(Image.fromarray(large).resize((1440, 1260), Image.Resampling.LANCZOS)).astype(int)
    assert abs(seen - whole).mean() < 4
    thin = previews.reduced(Photo(np.zeros((3, 9000, 3), np.uint8), "png"))
    assert thin.shape == (1, 1440, 3)


def test_sixteen_bit_gray_and_transparent_photos_are_seen_as_they_look(coffee):
    deep = previews.reduced(Photo(coffee.astype(np.uint16) * 257, "png"))
    assert np.array_equal(deep, coffee)
    gray = previews.reduced(Photo(coffee[..., :1], "png"))
    assert np.array_equal(gray, np.repeat(coffee[..., :1], 3, axis=2))
    alpha = np.full(coffee.shape[:2], 255, np.uint8)
    assert previews.reduced(Photo(coffee, "png", alpha=alpha)).shape[2] == 3
    alpha[:9] = 0
    seen = previews.reduced(Photo(coffee, "png", alpha=alpha))
    assert np.array_equal(seen[..., 3], alpha)


def test_a_photo_in_another_colour_space_is_shown_in_srgb(coffee):
    import imagecodecs

    profile = imagecodecs.cms_profile("adobergb")
    colours = colour.of_profile(profile)
    seen = previews.reduced(Photo(colours.from_srgb(coffee), "jpeg", icc=profile))
    assert abs(seen.astype(int) - coffee).max() <= 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(previews.reduced(Photo(coffee, "jpeg", icc=srgb)), coffee)


def test_names_sort_as_people_sort_them():
    names = ["IMG_10.jpg", "img_9.jpg", "IMG_2.jpg", "a.jpg", "10.jpg", "9.jpg", "٣.jpg"]
    assert sorted(names, key=discovery.natural) == [
        "٣.jpg",
        "9.jpg",
        "10.jpg",
        "a.jpg",
        "IMG_2.jpg",
        "img_9.jpg",
        "IMG_10.jpg",
    ]


def test_a_page_of_two_thousand_entries_is_small():
    names = [f"A long journey/{i // 50} of the days/A photo with a name {i:05}.jpeg" for i in range(2000)]
    shown = tuple(
        page.PhotoRow(links.key_of(n), n, (4000, 3000), f"../p/{n}", n, (3.1, 12.0, 0.9, 1.8e9), 0) for n in names
    )
    content = page.Page(
        page.GALLERY,
        "t",
        (),
        ("a", "b"),
        ("before", "after"),
        ".gallery",
        overview.FIGURES,
        overview.ORDERS,
        shown,
        ("m",),
    )
    assert len(page.render(content).encode()) < 1_000_000


# --- the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_writes_refreshes_and_leaves_alone(folder, tmp_path, coffee):
    out = tmp_path / "out"
    (folder / "broken.jpg").write_bytes(b"no photo")
    done = qatie_here("enhance", folder, "-o", out, "--gallery", code=3)
    assert f"Browse them: {out / 'index.html'}" in done.stderr
    assert _Read(out / "index.html").names == ["a9.png", "a10.jpg", "sub/b.png"]
    assert _Read(out / "index.html").data["provenances"][0].startswith("qatie-c16, int8 on ")
    (folder / "broken.jpg").unlink()
    qatie_here("enhance", folder, "-o", out)  # nothing to do, and the failed photo is gone
    assert "strong" not in _Read(out / "index.html").texts
    before = (out / "index.html").read_bytes()
    Image.fromarray(coffee[:20, :20]).save(folder / "new.png")
    qatie_here("enhance", folder, "-o", out, "--no-gallery")
    assert (out / "index.html").read_bytes() == before


def test_where_no_gallery_can_be_is_said_before_the_work(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("mine")
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--gallery", code=1)
    assert "index.html is not a gallery written by qatie; it is left unchanged." in done.stderr
    assert not (tmp_path / "out" / "a9.png").exists()
    photo = folder / "a9.png"
    for arguments in (["--in-place", "--yes"], ["-o", tmp_path / "one.png"], ["-o", "-"]):
        assert "--gallery" in qatie_here("enhance", photo, *arguments, "--gallery", code=2).stderr


def test_the_state_of_an_earlier_version_is_read(tmp_path):
    """The file calls provenance "making"."""
    row = {"name": "a.png", "source": "../in/a.png", "width": 3, "height": 2, "size": 9, "time_ns": 1, "change": 0.5}
    row |= {"seconds": 0.1, "making": {"weights": "w", "arithmetic": "float", "strength": 1.0}, "notes": ["n"]}
    (tmp_path / "entries.json").write_text(json.dumps({"schema": 1, "photos": [row], "failed": [], "last": None}))
    found = entries.read(tmp_path / "entries.json")
    assert found.entries["a.png"].provenance == Provenance("w", "float", 1.0)
    entries.write(tmp_path / "again.json", found)
    assert json.loads((tmp_path / "again.json").read_text())["photos"] == [row]
