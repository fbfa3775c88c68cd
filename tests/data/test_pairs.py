"""Folders of pairs: recognised, matched, checked, split, cut."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from qatie_cli.data import checking, generation, layouts, paired, source, validation, views
from qatie_cli.data.degradation import DegradationConfig
from qatie_cli.data.layouts import PairFiles
from qatie_cli.data.paired import PairSource
from qatie_cli.data.store import Store
from qatie_cli.errors import DataError, UsageError

NAMES = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")


def _photo(name: str) -> np.ndarray:
    return np.asarray(Image.fromarray(getattr(data, name)()).resize((96, 64)))


def _darker(photo: np.ndarray) -> np.ndarray:
    return (photo * 0.6).astype(np.uint8)


def _write(path: Path, photo: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(path)


def _pairs(folder: Path, inputs: str, targets: str, names=NAMES[:4], suffixes=("png", "png")) -> None:
    for name in names:
        _write(folder / inputs / f"{name}.{suffixes[0]}", _darker(_photo(name)))
        _write(folder / targets / f"{name}.{suffixes[1]}", _photo(name))


def _reasons(skipped) -> dict[str, str]:
    return {left.file: left.reason for left in skipped}


def _check(folder: Path) -> checking.CheckResult:
    return checking.check(layouts.recognise(folder).pairs, Store(10**9))


@pytest.mark.parametrize(("inputs", "targets"), layouts.FOLDER_NAMES)
def test_two_folders_are_matched_by_name_whatever_their_suffix(tmp_path, inputs, targets):
    _pairs(tmp_path, inputs, targets, suffixes=("jpg", "png"))
    found = layouts.recognise(tmp_path)
    assert [p.name for p in found.pairs] == sorted(f"{n}.jpg" for n in NAMES[:4])
    assert all(p.input.stem == p.target.stem and p.target.parent.name == targets for p in found.pairs)
    assert not found.skipped


def test_other_names_are_named(tmp_path):
    _pairs(tmp_path, "A", "B")
    with pytest.raises(DataError, match="no recognised layout of pairs") as refused:
        layouts.recognise(tmp_path)
    assert "--folders A/B" in refused.value.hint
    assert len(layouts.recognise(tmp_path, "A/B").pairs) == 4
    assert layouts.recognise(tmp_path, "B/A").pairs[0].input.parent.name == "B"
    with pytest.raises(UsageError, match="two folders"):
        layouts.recognise(tmp_path, "A")
    with pytest.raises(DataError, match="no folder"):
        layouts.recognise(tmp_path, "A/C")


@pytest.mark.parametrize("start", [".", "iphone", "iphone/training_data"])
def test_dped_is_recognised_with_its_own_validation(tmp_path, start):
    _pairs(tmp_path / "iphone" / "training_data", "iphone", "canon", NAMES[:3], ("jpg", "jpg"))
    _pairs(tmp_path / "iphone" / "test_data" / "patches", "iphone", "canon", NAMES[3:], ("jpg", "jpg"))
    found = layouts.recognise(tmp_path / start)
    assert found.description == "DPED: iphone against canon"
    assert len(found.pairs) == 3
    assert len(found.validation) == 2
    assert all(p.input.parent.name == "iphone" and p.target.parent.name == "canon" for p in found.pairs)


def test_dped_of_several_phones_keeps_their_photos_apart(tmp_path):
    for phone in ("iphone", "sony"):
        _pairs(tmp_path / phone / "training_data", phone, "canon", NAMES[:2])
    names = [p.name for p in layouts.recognise(tmp_path).pairs]
    assert names == ["iphone/astronaut.png", "iphone/chelsea.png", "sony/astronaut.png", "sony/chelsea.png"]


@pytest.mark.parametrize(
    ("inputs", "experts", "chosen"),
    [
        ("input", ["expertA", "expertC"], "expertC"),
        ("original", list("abcde"), "c"),
        ("tiff16_input", ["tiff16_a"], "tiff16_a"),
        ("InputAsShotZeroed", ["ExpertB", "ExpertD"], "ExpertB"),
    ],
)
def test_fivek_is_recognised_and_expert_c_preferred(tmp_path, inputs, experts, chosen):
    for expert in experts:
        _pairs(tmp_path, inputs, expert)
    found = layouts.recognise(tmp_path)
    assert found.description.startswith(f"FiveK: {inputs}/ against {chosen}/")
    assert {p.target.parent.name for p in found.pairs} == {chosen}


def test_links_to_folders_are_followed_and_hidden_files_are_not_pairs(tmp_path):
    _pairs(tmp_path / "elsewhere", "a", "b")
    for side, folder in (("input", "a"), ("target", "b")):
        (tmp_path / "data" / side).mkdir(parents=True)
        (tmp_path / "data" / side / "sub").symlink_to(tmp_path / "elsewhere" / folder)
        _write(tmp_path / "data" / side / ".hidden.png", _photo("coffee"))
    assert [p.name for p in layouts.recognise(tmp_path / "data").pairs] == [f"sub/{n}.png" for n in sorted(NAMES[:4])]


def test_files_without_partner_and_second_files_of_a_name_are_listed(tmp_path):
    _pairs(tmp_path, "input", "target")
    _write(tmp_path / "input" / "alone.png", _photo("hubble_deep_field"))
    _write(tmp_path / "target" / "lonely.png", _photo("hubble_deep_field"))
    _write(tmp_path / "input" / "coffee.jpg", _photo("coffee"))
    reasons = _reasons(layouts.recognise(tmp_path).skipped)
    assert reasons == {
        "input/alone.png": "has no target",
        "target/lonely.png": "has no input",
        "input/coffee.png": "a second file of that name; coffee.jpg is taken",
    }


def test_damaged_unequal_small_and_repeated_pairs_are_left_out_with_their_reason(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES)
    (tmp_path / "target" / "hubble_deep_field.png").write_bytes(b"no photo")
    _write(tmp_path / "target" / "coffee.png", _photo("coffee")[:, :-1])
    _write(tmp_path / "input" / "tiny.png", _photo("coffee")[:16, :16])
    _write(tmp_path / "target" / "tiny.png", _photo("coffee")[:16, :16])
    for side, photo in (("input", _darker(_photo("rocket"))), ("target", _photo("rocket"))):
        _write(tmp_path / side / "rocket2.png", photo)
    checked = _check(tmp_path)
    assert _reasons(checked.skipped) == {
        "hubble_deep_field.png": "target/hubble_deep_field.png is not a photo in a format that qatie reads",
        "coffee.png": "input and target differ in size: 96x64 and 95x64",
        "tiny.png": "is smaller than 32 pixels: 16x16",
        "rocket2.png": "is the same pair as rocket.png",
    }
    assert [p.files.name for p in checked.usable] == ["astronaut.png", "chelsea.png", "rocket.png"]


def test_swapped_targets_are_noticed(tmp_path):
    _pairs(tmp_path, "input", "target")
    _write(tmp_path / "target" / "coffee.png", _photo("astronaut"))
    _write(tmp_path / "target" / "astronaut.png", _photo("coffee"))
    reasons = _reasons(_check(tmp_path).skipped)
    assert reasons == {
        "astronaut.png": "shows another picture than its target; that of coffee.png fits: swapped?",
        "coffee.png": "shows another picture than its target; that of astronaut.png fits: swapped?",
    }


def test_a_foreign_target_is_noticed_and_a_plain_wall_is_not(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES[:3])
    _write(tmp_path / "target" / "coffee.png", _photo("rocket"))
    rng = np.random.default_rng(0)
    for side in ("input", "target"):
        _write(tmp_path / side / "wall.png", rng.integers(120, 124, (64, 96, 3), np.uint8))
    assert _reasons(_check(tmp_path).skipped) == {"coffee.png": "shows another picture than its target"}


@pytest.mark.parametrize("degraded", [1.0, 0.3])
def test_misalignment_is_measured_whatever_the_tone(degraded):
    photo = data.coffee()
    a, b = photo[10:310, 10:410], photo[7:307, 14:414]
    shift = checking.misalignment(Image.fromarray((a * degraded).astype(np.uint8)), Image.fromarray(b))
    assert shift == pytest.approx(5, abs=0.15)
    assert checking.misalignment(Image.fromarray(a), Image.fromarray(a)) == 0
    flat = Image.fromarray(np.full_like(a, 90))
    assert checking.misalignment(flat, flat) is None


def test_too_few_pairs_are_refused_with_the_number_needed(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES[:3])
    (tmp_path / "input" / "broken.png").write_bytes(b"")
    _write(tmp_path / "target" / "broken.png", _photo("hubble_deep_field"))
    with pytest.raises(DataError) as refused:
        paired.load(tmp_path, Store(10**9), 0.25, 0, 32)
    assert "3 usable pairs of different photos; training needs at least 4" in str(refused.value)
    assert "1 files were left out, the first is broken.png" in refused.value.hint


def test_exposures_of_one_photo_stay_on_one_side_of_the_split(tmp_path):
    for name in NAMES:
        for gain in (0.3, 0.6, 0.9):
            _write(tmp_path / "input" / f"{name}-{gain}.png", (_photo(name) * gain).astype(np.uint8))
            _write(tmp_path / "target" / f"{name}-{gain}.png", _photo(name))
    for seed in range(4):
        found = paired.load(tmp_path, Store(10**9), 0.2, seed, 32)
        assert len(found.validation) == 3
        assert len(found.training) == 12
        assert not {p.group for p in found.training} & {p.group for p in found.validation}


def test_crops_shrink_to_small_photos_and_the_smallest_are_left_out(tmp_path):
    _pairs(tmp_path, "input", "target")
    for side in ("input", "target"):
        _write(tmp_path / side / "hubble_deep_field.png", _photo("hubble_deep_field")[:40, :40])
    found = paired.load(tmp_path, Store(10**9), 0.25, 0, 128)
    assert found.crop == 64
    assert _reasons(found.skipped) == {"hubble_deep_field.png": "is smaller than the crops of 64: 40x40"}


def test_input_and_target_are_cut_alike_and_thumbnails_show_the_input(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES)
    pairs = PairSource(paired.load(tmp_path, Store(10**9), 0.2, 0, 32), 0)
    for batch in (pairs.crops(3, range(8)), pairs.full_frames(3, range(8))):
        assert (batch.input - 0.6 * batch.target).abs().mean() < 0.004
    assert pairs.crops(3, range(8)).view.mean() < 0.75 * pairs.full_frames(3, range(8)).target.mean()


def test_parts_of_a_batch_are_the_whole(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES)
    pairs = PairSource(paired.load(tmp_path, Store(10**9), 0.2, 0, 32), 0)
    whole, parts = pairs.crops(5, range(4)), [pairs.crops(5, range(i, i + 2)) for i in (0, 2)]
    assert np.array_equal(whole.input, np.concatenate([p.input for p in parts]))
    assert len(pairs.crop_names(5, range(4))) == 4


def test_photos_that_do_not_fit_into_memory_are_read_again_and_stay_the_same(tmp_path):
    _pairs(tmp_path, "input", "target", NAMES)
    roomy, narrow = Store(10**9), Store(60_000)
    sources = [PairSource(paired.load(tmp_path, store, 0.2, 0, 32), 0) for store in (roomy, narrow)]
    assert roomy.kept_share == 1
    assert 0 < narrow.kept_share < 0.5
    assert np.array_equal(sources[0].crops(1, range(6)).input, sources[1].crops(1, range(6)).input)
    assert sources[0].fingerprint == sources[1].fingerprint


def test_validation_of_thousands_is_an_even_sample():
    from qatie_cli.data.checking import UsablePair

    many = tuple(UsablePair(PairFiles(f"{i:04}", Path("a"), Path("b")), (96, 64), str(i)) for i in range(1000))
    names = validation.ValidationSet(many, Store(0)).names
    assert 32 < len(names) <= source.MOST_VALIDATED
    assert names[0] == "0000"
    assert int(names[-1]) > 900


def test_evaluating_takes_photos_without_partners_as_their_own_targets(tmp_path):
    _write(tmp_path / "deep" / "a.png", _photo("hubble_deep_field"))
    (found,) = layouts.pairs_or_photos(tmp_path).pairs
    assert found.input == found.target
    assert found.name == "deep/a.png"
    with pytest.raises(DataError, match="not a folder"):
        layouts.pairs_or_photos(tmp_path / "none")


def test_made_pairs_are_as_described_and_stay_when_made_again(tmp_path):
    for name in NAMES[:2]:
        _write(tmp_path / "clean" / "sub" / f"{name}.png", _photo(name))
    (tmp_path / "clean" / "broken.jpg").write_bytes(b"no photo")
    recipe = DegradationConfig(untouched=0.0)
    made = generation.generate(tmp_path / "clean", tmp_path / "out", recipe, versions=2)
    assert (made.pairs, made.existing) == (4, 0)
    assert [left.file for left in made.skipped] == ["broken.jpg", "broken.jpg"]
    assert made.sheet.is_file()
    assert len(layouts.recognise(tmp_path / "out").pairs) == 4
    rows = list(csv.DictReader((tmp_path / "out" / "pairs.csv").open()))
    assert [row["pair"] for row in rows] == [f"sub/{n}-{v}.png" for n in sorted(NAMES[:2]) for v in (1, 2)]
    target = np.asarray(Image.open(tmp_path / "out" / "target" / "sub" / "astronaut-1.png"))
    assert np.array_equal(target, _photo("astronaut"))
    seen = (tmp_path / "out" / "input" / "sub" / "astronaut-1.png").read_bytes()
    again = generation.generate(tmp_path / "clean", tmp_path / "out", recipe, versions=2)
    assert (again.pairs, again.existing) == (0, 4)
    other = generation.generate(tmp_path / "clean", tmp_path / "other", recipe, versions=2)
    assert (tmp_path / "other" / "input" / "sub" / "astronaut-1.png").read_bytes() == seen
    assert other.pairs == 4


def test_views_of_the_whole_show_what_a_thumbnail_of_a_whole_photo_shows(coffee):
    from qatie_cli.model import tone

    view = views.view(Image.fromarray(coffee), (0, 0, 1, 1), 64, flip=False)
    assert np.abs(view - tone.view(coffee)[0].permute(1, 2, 0).numpy()).mean() < 0.02


def test_names_that_are_not_utf8_are_split_and_listed(tmp_path):
    from qatie_cli import files
    from qatie_cli.data import splitting

    names = [f"{i}\udcff.jpg" for i in range(8)]
    assert len(splitting.held_out(names, 0.25, 0)) == 2
    files.write_atomic(tmp_path / "list.csv", names[0])
    assert (tmp_path / "list.csv").read_bytes() == b"0\xff.jpg"


def test_a_layout_whose_own_validation_cannot_be_used_says_so(tmp_path):
    _pairs(tmp_path / "training_data", "iphone", "canon", NAMES)
    (tmp_path / "test_data" / "patches").mkdir(parents=True)
    for side in ("iphone", "canon"):
        (tmp_path / "test_data" / "patches" / side).mkdir()
        (tmp_path / "test_data" / "patches" / side / "0.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match="None of the 1 pairs"):
        paired.load(tmp_path, Store(10**9), 0.2, 0, 32)


def test_what_the_table_says_of_pairs_that_were_there_stays(tmp_path):
    _write(tmp_path / "clean" / "a.png", _photo("coffee"))
    generation.generate(tmp_path / "clean", tmp_path / "out", DegradationConfig(), seed=0)
    before = (tmp_path / "out" / "pairs.csv").read_text()
    generation.generate(tmp_path / "clean", tmp_path / "out", DegradationConfig(), seed=5)
    assert (tmp_path / "out" / "pairs.csv").read_text() == before


def test_pairs_too_small_to_measure_are_refused(tmp_path):
    _write(tmp_path / "a.png", _photo("coffee")[:9, :40])
    with pytest.raises(DataError, match="too small to measure: 40x9"):
        paired.load_pair(PairFiles("a.png", tmp_path / "a.png", tmp_path / "a.png"), 1024)


def test_no_pair_takes_another_s_name(tmp_path):
    names = ["a.jpg", "a.png", "a.jpg.png", "b/a.jpg", "a.jpg.png.webp"]
    for index, name in enumerate(names):
        _write(tmp_path / "clean" / name, np.full((24, 24, 3), 40 * index, np.uint8))
    made = generation.generate(tmp_path / "clean", tmp_path / "out", DegradationConfig(), versions=2)
    assert made.pairs == 2 * len(names)
    targets = {int(np.asarray(Image.open(path)).mean()) // 35 for path in (tmp_path / "out" / "target").rglob("*.png")}
    assert targets == set(range(len(names)))
    assert len(list((tmp_path / "out" / "input").rglob("*.png"))) == 2 * len(names)
