"""Training and measuring from the command line: as people run it, kill it and share it between processes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import QATIE, qatie, qatie_here
from PIL import Image
from safetensors.torch import load_file

from qatie_cli import installation, metrics
from qatie_cli.model import checkpoint


def pairs_of(folder, photos):
    """Pairs of a darker photo and the photo itself, one for each."""
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
    for index, photo in enumerate(photos):
        Image.fromarray(photo // 2).save(folder / "input" / f"{index}.png")
        Image.fromarray(photo).save(folder / "target" / f"{index}.png")
    return folder


def _four(coffee, astronaut):
    photos = (coffee, astronaut, coffee[:, ::-1], astronaut[:, ::-1])
    return [np.asarray(Image.fromarray(np.ascontiguousarray(p)).resize((160, 120))) for p in photos]


SMALL = ("--width", 4, "--steps", 3, "--batch", 2, "--crop", 32, "--set", "tone_batch=2", "--device", "cpu")


def test_evaluate_reports_figures_as_json_and_csv(tmp_path, coffee):
    data = pairs_of(tmp_path / "pairs", [coffee])
    (data / "input" / "alone.png").write_bytes((data / "input" / "0.png").read_bytes())
    done = qatie_here("evaluate", "--data", data, "--json", "--csv", tmp_path / "figures.csv")
    assert "alone.png has no target" in done.stderr
    report = json.loads(done.stdout)
    assert set(report["mean"]) == {"identity", "autocontrast", "clahe", "float", report["engine"]}
    assert report["photos"]["0.png"]["identity"]["psnr_db"] == pytest.approx(metrics.psnr(coffee // 2, coffee))
    assert report["mean"]["autocontrast"]["psnr_db"] > report["mean"]["identity"]["psnr_db"]
    assert report["mean"]["identity"]["aligned_db"] > 40
    assert report["mean"][report["engine"]]["agreement_db"] > 36
    rows = list(csv.DictReader((tmp_path / "figures.csv").open()))
    assert {row["method"] for row in rows} == set(report["mean"])
    assert float(rows[0]["ciede2000"]) > 5


def test_training_on_good_photos_ends_with_usable_weights(tmp_path, coffee, astronaut):
    clean = tmp_path / "clean"
    clean.mkdir()
    for index, photo in enumerate(_four(coffee, astronaut)):
        Image.fromarray(photo).save(clean / f"{index}.png")
    (tmp_path / "recipe.toml").write_text("tone_steps = 2\nwidth = 4\nbatch = 2\ncrop = 32\ntone_batch = 2\n")
    recipe = ("--recipe", tmp_path / "recipe.toml", "--steps", 3, "--qat")
    done = qatie("train", "--clean", clean, "--out", tmp_path / "run", *recipe)
    assert "QAT" in done.stderr
    assert "Steps: tone 2, float 3, qat 1." in done.stderr
    for name in ("config.toml", "metrics.csv", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).is_file()
    qatie("enhance", clean, "-o", tmp_path / "out", "--weights", tmp_path / "run" / "last.safetensors")
    refused = qatie("train", "--clean", clean, "--out", tmp_path / "run", "--steps", 3, code=1)
    assert "--resume" in refused.stderr


def test_shipped_weights_are_fine_tuned_on_pairs(tmp_path, coffee, astronaut):
    data = pairs_of(tmp_path / "pairs", _four(coffee, astronaut))
    (data / "target" / "1.png").write_bytes(b"no photo")
    for index in (4, 5):
        (data / "input" / f"{index}.png").write_bytes((data / "input" / f"{index - 4}.png").read_bytes())
    options = ("train", "--data", data, "--init", "qatie-c16", "--out", tmp_path / "run", *SMALL[2:])
    refused = qatie_here(*options, code=1)
    assert "3 usable pairs of different photos; training needs at least 4" in refused.stderr
    Image.fromarray(_four(coffee, astronaut)[1]).save(data / "target" / "1.png")
    done = qatie_here(*options)
    assert "before the first step" in done.stderr
    assert "start" in done.stderr
    left_out = list(csv.DictReader((tmp_path / "run" / "left-out.csv").open()))
    assert left_out == [{"file": f"input/{i}.png", "reason": "has no target"} for i in (4, 5)]
    weights = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert weights.recipe["rate"] == 3e-4
    assert weights.data["run"]["init"] == "qatie-c16"
    assert len(weights.data["run"]["init_sha256"]) == 64


def test_a_run_is_resumed_by_its_folder_alone(tmp_path, coffee, astronaut):
    data = pairs_of(tmp_path / "pairs", _four(coffee, astronaut))
    ablation = (*SMALL, "--set", "fusion_refiner=false")
    done = qatie_here("train", "--data", data, "--out", tmp_path / "run", *ablation)
    assert "Network: width 4, no fusion refiner, 12,379 parameters." in done.stderr
    again = qatie_here("train", "--out", tmp_path / "run", "--resume", "--device", "cpu")
    assert "Weights:" in again.stderr
    other = qatie_here("train", "--data", data, "--out", tmp_path / "run", "--resume", *ablation, "--seed", 1, code=1)
    assert "another recipe" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Training needs photos"),
        (["--data", "x", "--clean", "y"], "Training needs photos"),
        (["--data", "nothing"], "not a folder"),
        (["--clean", "x", "--set", "speed"], "Invalid setting 'speed'"),
        (["--clean", "x", "--set", "speed=1"], "unknown setting speed"),
        (["--clean", "x", "--set", "degradation.grain=[0,1,2]"], "is now called degradation.noise_correlation"),
        (["--clean", "x", "--set", "loss.gan=1"], "unknown loss gan"),
        (["--clean", "x", "--set", "rate=fast"], "Invalid setting 'rate=fast'"),
        (["--clean", "x", "--set", 'rate="fast"'], "has the wrong type"),
        (["--clean", "x", "--set", "ema=1.5"], "ema must be"),
        (["--resume"], "no run in"),
    ],
)
def test_training_options_that_make_no_sense_get_one_line(tmp_path, options, message):
    missing = message in ("not a folder", "no run in")
    refused = qatie_here("train", "--out", tmp_path / "run", *options, code=1 if missing else 2)
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_processes_that_share_batches_learn_what_one_learns(tmp_path, coffee, astronaut):
    """PyTorch's torchrun with two processes on this machine, 20 steps of each stage that is continuous."""
    data = pairs_of(tmp_path / "pairs", _four(coffee, astronaut))
    options = [
        *SMALL,
        "--steps",
        20,
        "--set",
        "tone_dropout=0.2",
        "--set",
        "ema=0.9",
        "--set",
        "micro_batch=1",
        "--quiet",
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "qatie_cli"]
    for name, command in (("one", QATIE), ("two", torchrun)):
        arguments = ["train", "--data", data, "--out", tmp_path / name, *options]
        subprocess.run([*command, *map(str, arguments)], check=True, capture_output=True)
    one, two = (load_file(tmp_path / name / "resume.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        if name.startswith("ema."):
            assert (tensor - two[name]).abs().max() < 1e-5, name
    assert not (tmp_path / "two" / "left-out.csv").exists()


def test_a_run_killed_anywhere_goes_on_to_the_same_weights(tmp_path, coffee, astronaut):
    data = pairs_of(tmp_path / "pairs", _four(coffee, astronaut))
    options = ["train", "--data", data, *SMALL, "--steps", 12, "--qat", "--set", "qat_steps=6", "--quiet"]
    qatie(*options, "--out", tmp_path / "whole")
    command = [*QATIE, *map(str, options), "--out", str(tmp_path / "killed")]
    for wait in ("config.toml", "resume.safetensors", "float.safetensors"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "killed" / wait).exists():
            time.sleep(0.02)
        process.kill()
        process.wait()
        if "--resume" not in command:
            command.append("--resume")
    subprocess.run(command, check=True, capture_output=True)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_pairs_are_checked_and_made_from_the_command_line(tmp_path, coffee, astronaut):
    clean = tmp_path / "clean"
    clean.mkdir()
    Image.fromarray(coffee).save(clean / "coffee.jpg")
    Image.fromarray(astronaut).save(clean / "astronaut.png")
    (tmp_path / "recipe.toml").write_text("[degradation]\nuntouched = 0\nexposure = [1, -2, -2]\n")
    made = qatie_here(
        "pairs", "make", clean, "-o", tmp_path / "made", "--recipe", tmp_path / "recipe.toml", "--longest", 256
    )
    assert "2 pairs written" in made.stderr
    seen = np.asarray(Image.open(tmp_path / "made" / "input" / "coffee.png"))
    assert seen.shape == (171, 256, 3)
    assert seen.mean() < 0.7 * coffee.mean()
    Image.fromarray(coffee).save(tmp_path / "made" / "target" / "lonely.png")
    checked = qatie_here("pairs", "check", tmp_path / "made")
    assert "input/ and target/: 2 usable pairs of 2 photos" in checked.stdout
    assert "left out: target/lonely.png has no input" in checked.stdout
    assert "Misalignment over 2 pairs" in checked.stderr


@pytest.mark.parametrize(
    "arguments", [["train", "--clean", "x", "-o", "run"], ["evaluate", "--data", "x"], ["pairs", "check", "x"]]
)
def test_a_missing_extra_is_named(arguments):
    script = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'skimage' else find(name, *a)\n"
        "from qatie_cli.cli import main\n"
        f"sys.argv = ['qatie', *{arguments!r}]\n"
        "main()\n"
    )
    found = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert installation.extra("train") in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr
