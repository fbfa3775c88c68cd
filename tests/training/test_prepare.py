"""From options to a run, without the command line."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from samples import EVERY_NETWORK

from qatie_cli.data.clean import CleanPhotos
from qatie_cli.data.paired import Pairs
from qatie_cli.errors import DataError, UsageError
from qatie_cli.training import prepare as preparing
from qatie_cli.training.prepare import Options, prepare
from qatie_cli.training.run import RunInterruptedError

SMALL = ("batch=2", "tone_batch=2", "crop=32", "width=4")


@pytest.fixture
def pairs(tmp_path, coffee, astronaut):
    """Four pairs and an input without a target."""
    photos = (coffee, astronaut, coffee[:, ::-1], astronaut[:, ::-1])
    for name, factor in (("input", 0.5), ("target", 1.0)):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for index, photo in enumerate(photos):
            small = Image.fromarray(np.ascontiguousarray(photo)).resize((96, 64))
            Image.fromarray((np.asarray(small) * factor).astype(np.uint8)).save(
                tmp_path / "pairs" / name / f"{index}.png"
            )
    Image.fromarray(coffee).resize((96, 64)).save(tmp_path / "pairs" / "input" / "alone.png")
    return tmp_path / "pairs"


def test_pairs_are_read_and_what_is_skipped_is_listed(pairs, tmp_path):
    counts = []
    options = Options(tmp_path / "run", data=pairs, steps=6, qat=True, settings=SMALL, device="cpu")
    with prepare(options, on_start=counts.append, on_read=lambda: counts.append("read")) as ready:
        assert counts == [4, *["read"] * 4]
        assert isinstance(ready.photos, Pairs)
        assert [file.file for file in ready.photos.skipped] == ["input/alone.png"]
        assert len(ready.photos.training) == 3
        assert (ready.recipe.tone_steps, ready.recipe.steps, ready.recipe.qat_steps) == (6, 6, 1)
        assert ready.setting.notes == {"data": str(pairs)}
    rows = list(csv.DictReader((tmp_path / "run" / "left-out.csv").open()))
    assert rows == [{"file": "input/alone.png", "reason": "has no target"}]


def test_good_photos_are_degraded_and_validated_on_a_folder_of_its_own(pairs, tmp_path):
    options = Options(tmp_path / "run", clean=pairs / "target", val=pairs, steps=1, settings=SMALL, device="cpu")
    with prepare(options) as ready:
        assert isinstance(ready.photos, CleanPhotos)
        assert len(ready.photos.training) == 4
        assert ready.source.validation_names == ["0.png", "1.png", "2.png", "3.png"]
    assert (tmp_path / "run" / "validation-left-out.csv").is_file()


def test_a_run_is_resumed_by_its_folder_alone(pairs, tmp_path):
    options = Options(tmp_path / "run", data=pairs, steps=2, settings=SMALL, device="cpu")
    with prepare(options) as ready, pytest.raises(RunInterruptedError):
        ready.train(should_stop=lambda: True)
    with prepare(Options(tmp_path / "run", resume=True, device="cpu")) as again:
        assert again.recipe == ready.recipe
        assert again.setting.notes == ready.setting.notes
        assert again.train().weights.is_file()
    other = dataclasses.replace(options, resume=True, seed=1)
    with pytest.raises(DataError, match="another recipe"), prepare(other):
        pass


@EVERY_NETWORK
def test_weights_to_start_from_bring_their_shape_and_lower_rates(pairs, tmp_path, weights, weights_file):
    options = Options(tmp_path / "run", data=pairs, init=str(weights_file), steps=1, settings=SMALL[:3], device="cpu")
    with prepare(options) as ready:
        assert ready.recipe.config.network == weights.config.network
        assert ready.recipe.rate == 3e-4
        assert ready.setting.init is not None
        assert set(ready.setting.notes) == {"data", "init", "init_sha256"}


@pytest.mark.parametrize("given", [{}, {"data": "a", "clean": "b"}])
def test_photos_come_from_one_folder(tmp_path, given):
    paths = {name: tmp_path / folder for name, folder in given.items()}
    with (
        pytest.raises(UsageError, match="Training needs photos"),
        prepare(Options(tmp_path / "run", device="cpu", **paths)),
    ):
        pass


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("speed", "Invalid setting 'speed'"),
        ("rate=fast", "Invalid setting 'rate=fast'"),
        ("speed=1", "unknown setting speed"),
        ("tone_gains=[0.5]", "tone_gains needs a number for each"),
        ("degradation.smear=[0, 1, 2]", "degradation.smear is now called degradation.denoise_blur"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(UsageError, match=message):
        preparing.merged({}, [setting])


def test_settings_override_the_recipe_and_its_sections():
    settings = ["rate=5e-4", "loss.psnr_y=1", "longest=900", "tone_guide=largest"]
    recipe = preparing.merged({"rate": 1e-3, "loss": {"l1": 2.0}}, settings)
    assert recipe.tone_guide == "largest"
    kept = ["tone_grid=16", "tone_channels=4", "tone_depth=3", "tone_gains=[1, 0.5, 0]"]
    assert preparing.merged({}, kept).tone_gains == (1, 0.5, 0)
    assert (recipe.rate, recipe.loss.l1, recipe.loss.psnr_y, recipe.longest) == (5e-4, 2.0, 1, 900)


def test_preparing_knows_no_command_line():
    script = "import sys, qatie_cli.training.prepare; print({'typer', 'rich'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
