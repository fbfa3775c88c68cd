"""Motion photos keep their video, byte for byte, and descriptions that name its place."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from commands import qatie_here
from PIL import Image

from qatie_cli.batch.running import Writing
from qatie_cli.photo import decoding, encoding, leftovers
from qatie_cli.photo.beside import samsung, writing


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


PLACE = _box(b"\xa9xyz", b"\0\x12\x15\xc7+50.0870+014.4208/")
VIDEO = _box(b"ftyp", b"mp42\0\0\0\0isommp42") + _box(b"mdat", bytes(range(256)) * 8)
VIDEO += _box(b"moov", _box(b"udta", PLACE))
RDF = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF></x:xmpmeta>'
CAMERA = 'xmlns:{p}="http://ns.google.com/photos/1.0/camera/"'
ATTRIBUTES = '<rdf:Description {c} {p}:MotionPhoto="1" {p}:MotionPhotoPresentationTimestampUs="500000"/>'
ELEMENTS = (
    "<rdf:Description {c}><{p}:MotionPhoto>1</{p}:MotionPhoto>"
    "<{p}:MotionPhotoPresentationTimestampUs>500000</{p}:MotionPhotoPresentationTimestampUs></rdf:Description>"
)


def _packet(form: str = ATTRIBUTES, prefix: str = "GCamera") -> bytes:
    return RDF.format(form.format(c=CAMERA.format(p=prefix), p=prefix)).encode()


def _motion(coffee: np.ndarray, packet: bytes, fmt: str = "JPEG", trailer: bytes = VIDEO) -> bytes:
    decoding.open_heif()
    made = io.BytesIO()
    Image.fromarray(coffee[:80, :120]).save(made, fmt, xmp=packet)
    return made.getvalue() + (trailer if fmt == "JPEG" else _box(b"mpvd", trailer))


def _lengths(packet: bytes) -> dict[str, int]:
    """What the container directory says, as exiftool would read it."""
    items = re.findall(r"<Container:Item [^>]*>", packet.decode())
    pairs = [dict(re.findall(r'Item:(\w+)="([^"]*)"', item)) for item in items]
    return {pair["Semantic"]: int(pair.get("Length", 0)) for pair in pairs}


def _xmp(content: bytes) -> bytes:
    return content[content.index(b"<x:xmpmeta") : content.index(b"</x:xmpmeta>")]


@pytest.mark.parametrize("form", [ATTRIBUTES, ELEMENTS])
@pytest.mark.parametrize("prefix", ["GCamera", "Camera"])
def test_the_video_travels_whatever_the_syntax_of_its_description(coffee, form, prefix):
    photo = decoding.read(_motion(coffee, _packet(form, prefix)))
    assert photo.notes == ()
    assert photo.motion.microseconds == 500000
    assert b"MotionPhoto" not in photo.xmp
    written = encoding.encoded(photo, "jpeg")
    assert written.endswith(VIDEO)
    packet = _xmp(written)
    assert _lengths(packet) == {"Primary": 0, "MotionPhoto": len(VIDEO)}
    assert packet.count(b"MotionPhoto=") == 1
    assert b'MotionPhotoPresentationTimestampUs="500000"' in packet
    assert b"MicroVideo" not in packet


def test_the_first_version_of_the_format_is_kept_and_counts_from_the_end(coffee):
    old = '<rdf:Description {c} {p}:MicroVideo="1" {p}:MicroVideoOffset="7" {p}:MicroVideoPresentationTimestampUs="9"/>'
    written = encoding.encoded(decoding.read(_motion(coffee, _packet(old))), "jpeg")
    assert f'MicroVideoOffset="{len(VIDEO)}"'.encode() in written
    assert written.count(b"MicroVideoOffset") == 1
    assert b'MicroVideoPresentationTimestampUs="9"' in written


def test_from_a_heic_box_it_goes_behind_a_jpeg_and_into_the_box_of_a_heic(coffee):
    photo = decoding.read(_motion(coffee, _packet(), "HEIF"))
    assert photo.notes == ()
    jpeg = encoding.encoded(photo, "jpeg")
    assert jpeg.endswith(VIDEO)
    assert _lengths(_xmp(jpeg)) == {"Primary": 0, "MotionPhoto": len(VIDEO)}
    assert b"image/heic" not in jpeg
    for fmt in ("heic", "avif"):
        written = encoding.encoded(photo, fmt)
        assert written.endswith(_box(b"mpvd", VIDEO))
        assert b'Item:Padding="8"' in written
        again = decoding.read(written)
        assert again.notes == ()
        assert again.motion.content == VIDEO


def test_samsung_s_trailer_travels_as_a_whole(coffee):
    def block(kind: int, name: bytes, data: bytes) -> bytes:
        return struct.pack("<HHI", 0, kind, len(name)) + name + data

    blocks = [block(0x0A01, b"Image_UTC_Data", b"1700000000000"), block(0x0A30, b"MotionPhoto_Data", VIDEO)]
    blocks.append(block(0x0AA1, b"MCC_Data", b"310"))
    rows, back = b"", 0
    for body in reversed(blocks):
        back += len(body)
        rows = struct.pack("<HHII", 0, struct.unpack_from("<H", body, 2)[0], back, len(body)) + rows
    directory = b"SEFH" + struct.pack("<II", 107, len(blocks)) + rows
    trailer = b"".join(blocks) + directory + struct.pack("<I", len(directory)) + b"SEFT"
    content = _motion(coffee, _packet(), trailer=trailer)
    assert samsung.start(content, 0) == len(content) - len(trailer)
    photo = decoding.read(content)
    assert photo.notes == ()
    written = encoding.encoded(photo, "jpeg")
    assert written.endswith(trailer)
    at = len(written) - _lengths(_xmp(written))["MotionPhoto"]
    assert written[at : at + len(VIDEO)] == VIDEO
    assert f'Item:Padding="{trailer.index(VIDEO)}"'.encode() in written
    assert encoding.left_out(photo, "heic") == (writing.SAMSUNG_DATA,)
    assert encoding.encoded(photo, "heic").endswith(_box(b"mpvd", VIDEO))
    still = blocks[0] + b"SEFH" + struct.pack("<IIHHII", 107, 1, 0, 0x0A01, len(blocks[0]), len(blocks[0]))
    still += struct.pack("<I", 24) + b"SEFT"
    photo = decoding.read(_motion(coffee, b"", trailer=still))
    assert encoding.encoded(photo, "jpeg").endswith(still)
    for fmt in ("heic", "avif"):  # without a video its data are the same in both
        assert encoding.left_out(photo, fmt) == ()
        written = encoding.encoded(photo, fmt)
        assert written.endswith(_box(b"sefd", still))
        again = decoding.read(written)
        assert again.notes == ()
        assert encoding.left_out(again, "jpeg") == ()
        assert encoding.encoded(again, "jpeg").endswith(still)
        assert b"MotionPhoto" not in encoding.encoded(again, "jpeg")
    assert encoding.left_out(photo, "png") == (writing.SAMSUNG_DATA,)


def test_boxes_of_samsung_s_heic_follow_the_video(coffee):
    content = _motion(coffee, _packet(), "HEIF")
    old = content.index(VIDEO)
    content += _box(b"sefd", b"MotionPhoto_Datampv2" + struct.pack(">II", old, len(VIDEO)) + b"SEFT")
    photo = decoding.read(content)
    assert photo.notes == ()
    written = encoding.encoded(photo, "heic")
    at, size = struct.unpack(">II", written[written.index(b"Datampv2") + 8 :][:8])
    assert written[at : at + size] == VIDEO
    assert _lengths(_xmp(written))["MotionPhoto"] == len(written) - at
    assert encoding.left_out(photo, "jpeg") == (writing.SAMSUNG_DATA,)


def test_a_place_goes_from_the_video_with_the_others(coffee):
    photo = decoding.read(_motion(coffee, _packet())).without_gps()
    assert len(photo.motion.content) == len(VIDEO)
    assert b"+50.0870" not in photo.motion.content
    assert photo.motion.content.replace(bytes(len(PLACE) - 8), b"").startswith(VIDEO[: VIDEO.index(PLACE)])
    keyed = VIDEO + _box(b"free", b"com.apple.quicktime.location.ISO6709")
    without = decoding.read(_motion(coffee, _packet(), trailer=keyed)).without_gps()
    assert without.motion is None
    assert without.notes == ("the video of a motion photo is left out, for the place in it",)


def test_it_is_left_out_on_purpose_or_by_name(coffee):
    photo = decoding.read(_motion(coffee, _packet()))
    assert encoding.left_out(photo, "webp") == (leftovers.VIDEO,)
    for chosen in (Writing(no_motion=True), Writing(strip_metadata=True)):
        written = encoding.encoded(chosen.prepared(photo), "jpeg")
        assert b"ftyp" not in written
        assert b"MotionPhoto" not in written
        assert encoding.left_out(chosen.prepared(photo), "webp") == ()


def test_the_command_keeps_and_leaves_out(coffee, tmp_path, weights_file):
    source = tmp_path / "a.jpg"
    source.write_bytes(_motion(coffee, _packet()))
    options = ("--weights", weights_file, "-o", tmp_path / "out")
    qatie_here("enhance", source, *options)
    assert (tmp_path / "out" / "a.jpg").read_bytes().endswith(VIDEO)
    qatie_here("enhance", source, *options, "--no-motion")  # other settings: it is redone
    assert b"ftyp" not in (tmp_path / "out" / "a.jpg").read_bytes()
    qatie_here("enhance", source, "--weights", weights_file, "--in-place", "--yes")
    assert source.read_bytes().endswith(VIDEO)


def test_videos_of_phones_travel_unchanged(shared):
    content = (shared / "realworld/hdr/samsung-s22-motion.heic").read_bytes()
    photo = decoding.read(content)
    video = photo.motion.content
    assert len(video) == 3226469
    assert video in content
    assert encoding.encoded(photo, "jpeg").endswith(video)
    for name in ("motion-elements.jpg", "pixel-motion-uhdr.jpg", "motion.heic"):
        small = decoding.read(shared / "realworld/reported" / name)
        written = encoding.encoded(small, "jpeg")
        assert written.endswith(small.motion.content)
        assert _lengths(_xmp(written))["MotionPhoto"] == len(small.motion.content)
