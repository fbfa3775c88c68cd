"""Outputs about as fine as their sources, and sidecars beside them."""

import io

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image

from qatie_cli.photo import decoding, encoding, fineness
from qatie_cli.photo.content import Photo


def compressed(pixels, fmt, quality):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, fmt, quality=quality)
    return content.getvalue()


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 97])
def test_a_jpeg_says_how_fine_it_is(coffee, quality):
    assert fineness.of_photo(decoding.read(compressed(coffee, "JPEG", quality))) == pytest.approx(quality, abs=2)


@pytest.mark.parametrize(("fmt", "name"), [("WEBP", "webp"), ("AVIF", "avif"), ("HEIF", "heic")])
@pytest.mark.parametrize("quality", [50, 80])
def test_the_setting_of_other_formats_is_found_by_size(coffee, fmt, name, quality):
    decoding.open_heif()
    photo = decoding.read(compressed(np.ascontiguousarray(coffee[:200, :300]), fmt, quality))
    again = encoding.encoded(photo, name, "source")
    assert len(again) == pytest.approx(photo.coded_bytes, rel=0.3)


@pytest.mark.parametrize("quality", [40, 85])
def test_quality_source_keeps_a_jpeg_s_own_steps(coffee, quality):
    content = compressed(coffee, "JPEG", quality)
    photo = decoding.read(content)
    again = encoding.encoded(photo, "jpeg", "source")
    assert decoding.read(again).jpeg.quantization == photo.jpeg.quantization
    assert len(again) == pytest.approx(len(content), rel=0.1)
    assert len(encoding.encoded(photo, "jpeg")) > 1.2 * len(again)


@pytest.mark.parametrize("fmt", ["webp", "avif", "heic"])
def test_other_formats_are_as_fine_as_the_jpeg_that_they_were(coffee, fmt):
    """Neither much larger than the source nor coarser than re-encoding it as JPEG."""
    coffee = np.ascontiguousarray(coffee[:200, :300])
    coarse, fine = (decoding.read(compressed(coffee, "JPEG", quality)) for quality in (50, 92))
    sizes = [len(encoding.encoded(photo, fmt, "source")) for photo in (coarse, fine)]
    assert sizes[0] < 0.6 * sizes[1]
    assert sizes[0] < len(compressed(coffee, "JPEG", 50))
    assert sizes[1] < len(encoding.encoded(fine, fmt))


def test_what_had_no_loss_is_written_finely(coffee):
    photo = Photo(coffee, "png")
    assert fineness.of_photo(photo) == 100
    assert len(encoding.encoded(photo, "jpeg", "source")) > len(encoding.encoded(photo, "jpeg", 95))


def test_large_photos_are_measured_by_parts(coffee):
    large = np.tile(coffee, (3, 3, 1))
    photo = decoding.read(compressed(large, "WEBP", 70))
    assert fineness._parts(photo.pixels).shape == (768, 768, 3)
    assert fineness.setting("webp", fineness.of_photo(photo)) == pytest.approx(70, abs=12)


def test_quality_source_on_the_command_line(tmp_path, weights_file, coffee):
    (tmp_path / "a.jpg").write_bytes(compressed(coffee, "JPEG", 50))
    common = ("--weights", weights_file, "--strength", "0")
    qatie_here("enhance", tmp_path / "a.jpg", "-o", tmp_path / "o", "--quality", "source", *common)
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "o" / "a.jpg") as after:
        assert before.quantization == after.quantization
    for wrong in ("0", "101", "fine", "1.5", "9_5", "+95"):
        done = qatie_here("enhance", tmp_path / "a.jpg", "-o", tmp_path / "p", "--quality", wrong, *common, code=2)
        assert f"Invalid quality '{wrong}'" in done.stderr


# --- sidecars -----------------------------------------------------------------------------------------------------

SIDECAR = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" tiff:Orientation="{}" exif:GPSLatitude="48,1N" '
    'crs:CropLeft="{}" crs:CropTop="{}" crs:CropRight="{}" crs:CropBottom="{}"/></rdf:RDF></x:xmpmeta>'
)


@pytest.fixture
def with_sidecars(tmp_path, coffee):
    """A folder with a turned photo and its sidecars, and one that is nobody's."""
    folder = tmp_path / "photos"
    folder.mkdir()
    block = Image.Exif()
    block[0x0112] = 6
    Image.fromarray(coffee).save(folder / "A.webp", exif=block.tobytes())
    for name in ("a.XMP", "A.webp.xmp", "b.xmp"):
        (folder / name).write_text(SIDECAR.format(6, 0.1, 0.2, 0.5, 0.9))
    return folder


def test_sidecars_go_along_and_stay_true(tmp_path, with_sidecars, weights_file):
    out = tmp_path / "out"
    common = ("--weights", weights_file, "--format", "jpeg", "--suffix", "-q")
    qatie_here("enhance", with_sidecars, "-o", out, "--sidecars", *common)
    assert {path.name for path in out.iterdir()} == {".qatie", "A-q.jpg", "A-q.XMP", "A-q.jpg.xmp"}
    wanted = SIDECAR.format(1, 0.1, 0.1, 0.8, 0.5)  # left = 1 - bottom, top = left, right = 1 - top, bottom = right
    assert (out / "A-q.XMP").read_text() == (out / "A-q.jpg.xmp").read_text() == wanted
    done = qatie_here("enhance", with_sidecars, "-o", out, "--sidecars", *common)
    assert "already done" in done.stderr


def test_sidecars_of_somebody_stay(tmp_path, with_sidecars, weights_file):
    out = tmp_path / "out"
    out.mkdir()
    (out / "A.XMP").write_text("mine")
    done = qatie_here("enhance", with_sidecars, "-o", out, "--sidecars", "--strip-gps", "--weights", weights_file)
    assert "stays as it is" in done.stderr
    assert (out / "A.XMP").read_text() == "mine"
    assert "GPS" not in (out / "A.webp.xmp").read_text()


def test_without_the_option_sidecars_are_left(tmp_path, with_sidecars, weights_file):
    out = tmp_path / "out"
    qatie_here("enhance", with_sidecars, "-o", out, "--weights", weights_file)
    assert not list(out.glob("*.[xX][mM][pP]"))
    for other in ("--in-place", "--strip-metadata"):
        target = () if other == "--in-place" else ("-o", tmp_path / "p")
        done = qatie_here("enhance", with_sidecars, *target, "--sidecars", other, "--yes", code=2)
        assert "contradict" in done.stderr
