"""The command line as people and scripts use it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import QATIE, qatie, qatie_here
from PIL import Image

from qatie_cli import __version__, engines, metrics
from qatie_cli.data import demo
from qatie_cli.enhance.pixels import enhance
from qatie_cli.model import checkpoint, shipped
from qatie_cli.photo import decoding

HEAVY = ("torch", "numpy", "PIL", "safetensors", "skimage", "jinja2")


@pytest.fixture
def folder(tmp_path, coffee, astronaut) -> Path:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "A phone", 6
    Image.fromarray(coffee[:200, :300]).save(root / "a.jpg", quality=92, exif=exif)
    Image.fromarray(astronaut[:160, :160]).save(root / "sub" / "b.png")
    return root


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["enhance", "--help"], ["train", "--help"], ["weights", "path"]]
)
def test_help_and_version_import_nothing_heavy(arguments, own_home):
    script = (
        "import sys\n"
        "from qatie_cli.cli import main\n"
        f"sys.argv = ['qatie', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_dry_run_imports_no_torch_and_writes_nothing(folder, tmp_path):
    script = (
        "import sys\nfrom qatie_cli.cli import main\n"
        f"sys.argv = ['qatie', 'enhance', {str(folder)!r}, '-o', {str(tmp_path / 'out')!r}, '--dry-run']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "a.jpg -> " in done.stdout
    assert not (tmp_path / "out").exists()


def test_short_options_are_the_long_ones(folder, tmp_path):
    assert qatie_here("enhance", "-h").stdout == qatie_here("enhance", "--help").stdout
    assert qatie_here("weights", "list", "-h").stdout
    done = qatie_here("enhance", folder / "sub" / "b.png", "-o", tmp_path / "out", "-f", "webp", "-v")
    assert "b.webp  0.0 MP  decode" in done.stderr
    assert qatie_here("enhance", folder / "a.jpg", "--in-place", "-y", "-q").stderr == ""


def test_version_is_the_package_s():
    assert qatie("--version").stdout.strip() == f"qatie {__version__}"


def test_enhance_writes_better_photos_with_their_metadata(folder, tmp_path):
    done = qatie("enhance", folder, "-o", tmp_path / "out")
    assert done.stdout == ""
    assert "2 photos enhanced" in done.stderr
    assert f"int8 on {engines.resolve('auto')}" in done.stderr
    with Image.open(tmp_path / "out" / "a.jpg") as written:
        assert written.size == (200, 300)  # upright
        assert written.getexif()[0x010F] == "A phone"
        assert written.getexif()[0x0112] == 1
    assert (tmp_path / "out" / "sub" / "b.png").is_file()
    again = qatie("enhance", folder, "-o", tmp_path / "out")
    assert "2 photos already done" in again.stderr


def test_metadata_can_be_left_out(folder, tmp_path):
    qatie_here("enhance", folder / "a.jpg", "-o", tmp_path / "out", "--strip-metadata")
    with Image.open(tmp_path / "out" / "a.jpg") as written:
        assert not written.getexif()
        assert written.size == (200, 300)


def test_strength_zero_gives_the_photo_back(folder, tmp_path):
    qatie_here("enhance", folder / "sub" / "b.png", "-o", tmp_path / "out", "--strength", 0)
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "out" / "b.png")), np.asarray(Image.open(folder / "sub" / "b.png"))
    )


@pytest.mark.parametrize("engine", engines.available())
def test_every_engine_can_be_chosen_and_agrees(engine, folder, tmp_path):
    photo = folder / "sub" / "b.png"
    done = qatie_here("enhance", photo, "-o", tmp_path / "out.png", "--backend", engine, "--threads", 1)
    assert engine in done.stderr
    exact = enhance(np.asarray(Image.open(photo)), engines.load(checkpoint.read(shipped.locate("qatie-c16")), "float"))
    assert metrics.psnr(np.asarray(Image.open(tmp_path / "out.png")), exact) > 40


def test_some_failed_is_exit_code_3_and_names_them(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"no photo")
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", code=3)
    assert "broken.jpg" in done.stderr
    assert "2 photos enhanced" in done.stderr
    assert (tmp_path / "out" / "a.jpg").is_file()


def test_nothing_done_is_exit_code_1(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    qatie_here("enhance", tmp_path / "broken.jpg", "-o", tmp_path / "out", code=1)
    (tmp_path / "empty").mkdir()
    qatie_here("enhance", tmp_path / "empty", "-o", tmp_path / "out", code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["enhance"],
        ["enhance", "none.jpg", "-o", "out"],
        ["enhance", ".", "-o", "out", "--engine", "turbo"],
        ["enhance", ".", "-o", "out", "--strength", "2"],
        ["enhance", "."],
        ["enhance", "-o", "out"],
        ["enhance", ".", "-o", "out", "--in-place"],
        ["enhance", ".", "--in-place", "--yes", "--format", "png"],
        ["enhance", ".", "-o", "out", "--max-memory", "much"],
        ["enhance", ".", "-o", "out", "--files-from", "none.txt"],
        ["enhance", ".", "-o", "-"],
        ["enhance", "-", "a.jpg", "-o", "out"],
        ["enhance", "-", "-o", "new.jpg", "--dry-run"],
        ["enhance", "-", "-o", "exists.jpg"],
        ["enhance", "x" * 300, "-o", "out"],
        ["enhance", ".", "-o", "out", "--suffix", "/x"],
        ["train", "--clean", ".", "--out", "run", "--recipe", "none.toml"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exists.jpg").write_bytes(b"a photo")
    assert qatie_here(*arguments, code=2).stderr
    assert {p.name for p in tmp_path.iterdir()} == {"exists.jpg"}
    assert (tmp_path / "exists.jpg").read_bytes() == b"a photo"


def test_a_name_neither_controls_the_terminal_nor_is_taken_for_markup(tmp_path):
    """A name such as these would clear the screen, or vanish into a colour."""
    name = "a\x1b[2J\r\u202e[red]b[/].jpg"
    refused = qatie_here("enhance", tmp_path / name, "-o", tmp_path / "out", code=2).stderr
    assert "a\\x1b[2J\\r\\u202e[red]b[/].jpg" in refused
    assert not [c for c in refused if not c.isprintable() and c != "\n"]


def test_dry_run_tells_what_it_would_take(folder, tmp_path):
    (folder / "notes.txt").write_text("x")
    (folder / "broken.jpg").write_bytes(b"no photo")
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--dry-run")
    assert sorted(done.stdout.splitlines()) == sorted(
        f"{folder / name} -> {tmp_path / 'out' / name}" for name in ("a.jpg", "broken.jpg", "sub/b.png")
    )
    assert "3 photos to enhance, 0.1 MP; about" in done.stderr
    assert "1 of them cannot be read" in done.stderr
    assert "notes.txt (not named like photos)" in done.stderr


def test_a_report_is_written(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"no photo")
    qatie_here("enhance", folder, "-o", tmp_path / "out", "--report", tmp_path / "reports" / "r.json", code=3)
    report = json.loads((tmp_path / "reports" / "r.json").read_text())
    assert report["counts"] == {"enhanced": 2, "failed": 1}
    assert report["engine"] == engines.resolve("auto")
    assert qatie_here("enhance", folder, "-o", tmp_path / "o", "--report", tmp_path, code=1).stderr.count("\n") == 1
    for stream in ("-", "/dev/stdout"):
        done = qatie("enhance", folder, "-o", tmp_path / "out", "--report", stream, code=3)
        assert json.loads(done.stdout)["counts"] == {"skipped": 2, "failed": 1}


def test_originals_are_replaced_only_when_that_is_meant(folder):
    before = (folder / "a.jpg").read_bytes()
    assert "--yes" in qatie_here("enhance", folder, "--in-place", code=2).stderr
    assert (folder / "a.jpg").read_bytes() == before
    assert "2 photos enhanced" in qatie_here("enhance", folder, "--in-place", "--yes").stderr
    after = (folder / "a.jpg").read_bytes()
    assert after != before
    assert "2 photos already done" in qatie_here("enhance", folder, "--in-place", "--yes").stderr
    assert (folder / "a.jpg").read_bytes() == after


def test_a_suffix_lets_results_stand_beside_their_photos(folder):
    qatie_here("enhance", folder, "-o", folder, "--suffix", "_better")
    assert (folder / "a_better.jpg").is_file()
    assert (folder / "sub" / "b_better.png").is_file()
    assert "2 photos already done" in qatie_here("enhance", folder, "-o", folder, "--suffix", "_better").stderr
    assert not list(folder.rglob("*_better_better*"))


@pytest.mark.parametrize("separator", ["\n", "\0", "\r\n"])
def test_photos_can_come_from_a_list(folder, tmp_path, separator, monkeypatch):
    odd = "new\nline ñ 写真.png" if separator == "\0" else "ñ 写真.png"
    (folder / "sub" / "b.png").rename(folder / "sub" / odd)
    (tmp_path / "list").write_bytes(separator.join(["photos/a.jpg", f"photos/sub/{odd}", ""]).encode())
    monkeypatch.chdir(tmp_path)
    qatie_here("enhance", "--files-from", tmp_path / "list", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "photos" / "a.jpg").is_file()
    assert (tmp_path / "out" / "photos" / "sub" / odd).is_file()


def test_one_photo_goes_through_pipes(folder, tmp_path):
    command = [sys.executable, "-P", "-m", "qatie_cli", "enhance", "-", "-o", "-", "--strength", "0"]
    done = subprocess.run(command, input=(folder / "sub" / "b.png").read_bytes(), capture_output=True, check=True)
    with Image.open(io.BytesIO(done.stdout)) as made, Image.open(folder / "sub" / "b.png") as source:
        assert np.array_equal(np.asarray(made), np.asarray(source))
    assert b"damaged" not in done.stderr
    refused = subprocess.run(command, input=b"no photo", capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"Standard input is not a photo" in refused.stderr
    assert refused.stdout == b""


def test_pipes_need_no_temporary_folder(folder, tmp_path):
    """In a container with a read-only root there is none."""
    script = (
        "import sys, tempfile\nfrom qatie_cli.cli import main\n"
        "def refuse(*_, **__):\n    raise OSError(30, 'Read-only file system')\n"
        "tempfile.mkstemp = tempfile.mkdtemp = tempfile._get_default_tempdir = refuse\n"
        "sys.argv = ['qatie', 'enhance', '-', '-o', sys.argv[1], '--strength', '0', '--format', sys.argv[2]]\nmain()\n"
    )
    photo = (folder / "sub" / "b.png").read_bytes()
    for target, fmt in (("-", "tiff"), ("/dev/stdout", "webp")):
        command = [sys.executable, "-P", "-c", script, target, fmt]
        done = subprocess.run(command, input=photo, capture_output=True, check=True)
        with Image.open(io.BytesIO(done.stdout)) as made:
            assert (made.format.lower(), made.size) == (fmt, (160, 160))


def _closed(redirections: str, *command: object) -> subprocess.CompletedProcess:
    """Run a command without some of its standard streams, as schedulers and daemons may."""
    program = ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *map(str, command)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_standard_streams_may_be_closed(folder, tmp_path):
    photo = folder / "a.jpg"
    assert _closed("<&- >&- 2>&-", *QATIE, "enhance", folder, "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "out" / "a.jpg").is_file()
    for arguments in ((photo, "-o", "-"), (photo, "-o", tmp_path / "out", "--report", "-")):
        done = _closed(">&-", *QATIE, "enhance", *arguments)
        assert (done.returncode, done.stderr) == (2, "Error: Standard output is closed. Give a file instead of -.\n")
    done = _closed("<&-", *QATIE, "enhance", "-", "-o", "-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: Standard input is empty.")
    assert "needs confirmation" in _closed("<&-", *QATIE, "enhance", photo, "--in-place").stderr


@pytest.mark.parametrize("redirections", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_descriptor_of_a_closed_stream(redirections, tmp_path):
    """A C library's remark would be written into a photo."""
    script = (
        "import os, sys, qatie_cli.cli as cli\ncli._fill_closed_streams()\n"
        "photo = open(sys.argv[1], 'w')\nos.write(2, b'remark')\nphoto.write(str(photo.fileno() > 2))\n"
    )
    done = _closed(redirections, sys.executable, "-P", "-c", script, tmp_path / "photo")
    assert done.returncode == 0
    assert (tmp_path / "photo").read_text() == "True"


def test_memory_that_is_too_little_for_a_photo_is_told_with_figures(folder, tmp_path):
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--max-memory", "1MB", code=1)
    assert "--max-memory" in done.stderr


def test_decoders_remarks_do_not_reach_the_terminal(tmp_path, coffee):
    """Pillow warns of broken EXIF; the photo is fine."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(coffee[:40, :60]).save(folder / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    done = qatie("enhance", folder, "-o", tmp_path / "out")
    assert len(done.stderr.strip().splitlines()) == 1


def test_bars_and_messages_stay_out_of_pipes(folder, tmp_path):
    done = qatie("enhance", folder, "-o", tmp_path / "out", "--quiet")
    assert done.stdout == ""
    assert done.stderr == ""


def test_int8_on_a_gpu_is_refused_in_plain_words(folder, tmp_path):
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--engine", "fbgemm", "--device", "cuda", code=2)
    assert "CPU only" in done.stderr


def test_foreign_weights_are_refused_in_one_line(folder, tmp_path):
    (tmp_path / "foreign.safetensors").write_text("no weights")
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--weights", tmp_path / "foreign.safetensors", code=1)
    assert "foreign.safetensors is not a qatie weights file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_own_weights_are_used(folder, tmp_path, weights_file):
    done = qatie_here("enhance", folder, "-o", tmp_path / "out", "--weights", weights_file)
    assert weights_file.name in done.stderr


def test_weights_commands(own_home):
    assert shipped.DEFAULT in qatie_here("weights", "list").stdout
    path = Path(qatie_here("weights", "path").stdout.strip())
    assert own_home in path.parents
    assert checkpoint.read(path).activations
    path.write_bytes(b"damaged")
    assert "repaired" in qatie_here("weights", "verify").stdout
    assert shipped.is_intact(path, shipped.manifest()[shipped.DEFAULT])
    assert str(path) in qatie_here("weights", "clear").stdout
    assert not path.exists()


def test_demo_makes_pictures_that_are_nearer_to_the_original(tmp_path):
    done = qatie_here("demo", "-o", tmp_path / "out")
    pictures = sorted(p.stem for p in (tmp_path / "out" / "before-after").iterdir())
    assert pictures == ["astronaut", "chelsea", "coffee", "motorcycle", "rocket"]
    assert "before-after" in done.stderr
    gains = []
    for name, original in demo.originals().items():
        before, after = (decoding.read(tmp_path / "out" / f / f"{name}.jpg").pixels for f in ("phone", "enhanced"))
        gains.append(metrics.psnr(after, original) - metrics.psnr(before, original))
    assert np.mean(gains) > 1
