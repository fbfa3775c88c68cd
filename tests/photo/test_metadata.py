"""What travels beside the pixels: EXIF, GPS, XMP, IPTC, makers' segments, texts."""

from __future__ import annotations

import dataclasses
import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from qatie_cli.photo import containers, decoding, encoding, exif, formats, iptc, xmp
from qatie_cli.photo.content import Photo

GPS_IFD, EXIF_IFD, MAKE, MAKER_NOTE = 0x8825, 0x8769, 0x010F, 0x927C
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description tiff:Orientation="6" exif:GPSLatitude="50,4.5N" dc:creator="me" xmlns:dc="d">'
    b"<exif:GPSLongitude>14,25.1E</exif:GPSLongitude><xmp:Thumbnails><rdf:Alt>old</rdf:Alt></xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def _tags(block: bytes) -> Image.Exif:
    tags = Image.Exif()
    tags.load(exif.PREFIX + block)
    return tags


def _block() -> bytes:
    tags = Image.Exif()
    tags[MAKE], tags[0x0112], tags[0x0132] = "A phone", 6, "2024:05:01 10:00:00"
    tags.get_ifd(EXIF_IFD)[MAKER_NOTE] = b"maker's own bytes, long enough to lie elsewhere"
    tags.get_ifd(GPS_IFD)[1], tags.get_ifd(GPS_IFD)[2] = "N", (50.0, 4.0, 30.25)
    return tags.tobytes().removeprefix(exif.PREFIX)


def test_gps_goes_and_everything_else_stays():
    before, after = _tags(_block()), _tags(exif.without_gps(_block()))
    assert before.get_ifd(GPS_IFD)
    assert not after.get_ifd(GPS_IFD)
    assert after[MAKE] == "A phone"
    assert after[0x0132] == "2024:05:01 10:00:00"
    assert after.get_ifd(EXIF_IFD)[MAKER_NOTE] == before.get_ifd(EXIF_IFD)[MAKER_NOTE]


def test_no_byte_of_the_position_stays():
    latitude = struct.pack("<IIIIII", 50, 1, 4, 1, 121, 4)
    block = _block()
    order = {b"II": "<", b"MM": ">"}[block[:2]]
    latitude = struct.pack(f"{order}IIIIII", 50, 1, 4, 1, 121, 4)
    assert latitude in block
    assert latitude not in exif.without_gps(block)
    assert exif.without_gps(b"cannot be understood") == b""


def test_xmp_is_made_upright_and_loses_its_thumbnail():
    upright = xmp.upright(XMP)
    assert b'tiff:Orientation="1"' in upright
    assert b"Thumbnails" not in upright
    assert b"<tiff:Orientation>1<" in xmp.upright(b"<tiff:Orientation>8</tiff:Orientation>")


def test_a_tag_whose_value_lies_outside_of_exif_makes_no_tiff_unreadable(coffee):
    tags = Image.Exif()
    tags[MAKE], tags[0x0110] = "A maker", "A model"
    block = tags.tobytes().removeprefix(exif.PREFIX)
    _, (make, _) = exif.entries(block)
    damaged = block[: make.at + 8] + b"\xff\x7f\0\0" + block[make.at + 12 :]
    read = decoding.read(encoding.encoded(Photo(coffee[:40, :60], "tiff", exif=damaged), "tiff"))
    assert np.array_equal(read.pixels, coffee[:40, :60])
    assert exif.raw(read.exif, 0x0110) == b"A model\0"
    assert exif.raw(read.exif, MAKE) is None


@pytest.mark.parametrize("value", [b'="6', b'="6x"', b'="6</', b"='6'", b">6", b'="68"'])
@pytest.mark.parametrize("fmt", ["png", "webp", "heic", "avif"])
def test_no_orientation_of_damaged_xmp_turns_a_photo(value, fmt, coffee):
    """Pillow and pillow-heif look no further than the digit."""
    packet = b"<x tiff:Orientation" + value
    written = encoding.encoded(Photo(coffee[:40, :60], fmt, xmp=xmp.upright(packet)), fmt)
    assert decoding.read(written).pixels.shape == (40, 60, 3)


def test_xmp_loses_its_position_and_nothing_else():
    stripped = xmp.without_places(XMP)
    assert b"GPS" not in stripped
    assert b'dc:creator="me"' in stripped
    assert b"Thumbnails" in stripped


def _resource(identity: int, body: bytes) -> bytes:
    return struct.pack(">4sHHI", b"8BIM", identity, 0, len(body)) + body + b"\0" * (len(body) % 2)


IPTC = _resource(0x0404, b"\x1c\x02\x78\x00\x05Prague")
STALE = _resource(0x040C, b"old thumbnail")


def test_photoshop_s_thumbnail_goes_and_iptc_stays():
    assert iptc.without_thumbnails(STALE + IPTC + STALE) == IPTC
    assert iptc.without_thumbnails(b"no resources") == b"no resources"


@pytest.fixture
def full_jpeg(tmp_path, coffee):
    """A JPEG with everything."""
    own = (0xE4, b"maker's segment"), (0xE1, containers.XMP_EXTENSION + b"further")
    extra = containers.jpeg_segments(STALE + IPTC, own)
    path = tmp_path / "a.jpg"
    Image.fromarray(coffee[:80, :120]).save(
        path, exif=exif.PREFIX + _block(), xmp=XMP, extra=extra, comment=b"nice", dpi=(300, 300), quality=83
    )
    return path


def test_a_jpeg_keeps_all_its_metadata(full_jpeg, tmp_path):
    read = decoding.read(full_jpeg)
    encoding.write(tmp_path / "b.jpg", read, "jpeg")
    with Image.open(tmp_path / "b.jpg") as written:
        kinds = dict(written.applist)
        assert kinds["APP4"] == b"maker's segment"
        assert kinds["APP13"] == containers.PHOTOSHOP + IPTC
        assert b'tiff:Orientation="1"' in written.info["xmp"]
        assert written.info["comment"] == b"nice"
        assert written.info["dpi"] == (300, 300)
    again = decoding.read(tmp_path / "b.jpg")
    assert again.jpeg_segments == read.jpeg_segments
    assert b"further" in again.jpeg_segments[0][1] + again.jpeg_segments[1][1]


def test_a_jpeg_is_written_as_finely_as_its_source(tmp_path, coffee):
    Image.fromarray(coffee).save(tmp_path / "fine.jpg", quality=98)
    read = decoding.read(tmp_path / "fine.jpg")
    encoding.write(tmp_path / "like.jpg", read, "jpeg")
    encoding.write(tmp_path / "small.jpg", read, "jpeg", quality=30)
    assert decoding.read(tmp_path / "like.jpg").jpeg == read.jpeg
    assert max(decoding.read(tmp_path / "small.jpg").jpeg.quantization[0]) > max(read.jpeg.quantization[0])


@pytest.mark.parametrize("colours", [1, 3])
def test_a_coarse_jpeg_is_not_written_coarsely_again(tmp_path, coffee, colours):
    Image.fromarray(coffee[..., 0] if colours == 1 else coffee).save(tmp_path / "coarse.jpg", quality=4)
    read = decoding.read(tmp_path / "coarse.jpg")
    brighter = dataclasses.replace(read, pixels=np.clip(read.pixels.astype(int) + 11, 0, 255).astype(np.uint8))
    encoding.write(tmp_path / "brighter.jpg", brighter, "jpeg")
    encoding.write(tmp_path / "default.jpg", dataclasses.replace(brighter, jpeg=None), "jpeg")
    again = decoding.read(tmp_path / "brighter.jpg")
    assert again.jpeg.quantization == decoding.read(tmp_path / "default.jpg").jpeg.quantization
    moved = np.abs(again.pixels.astype(int) - brighter.pixels)
    assert moved.mean() < 2  # nearly 11 with the source's steps


@pytest.mark.parametrize("resolution", [None, 300])
def test_no_resolution_is_made_up(coffee, resolution):
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    content = io.BytesIO()
    Image.fromarray(coffee).save(content, "JPEG", exif=tags, **({"dpi": (300, 300)} if resolution else {}))
    photo = decoding.read(content.getvalue())
    assert photo.dpi == (resolution and (resolution, resolution))
    with Image.open(io.BytesIO(encoding.encoded(photo, "jpeg"))) as opened:
        assert opened.info["jfif_unit"] == (1 if resolution else 0)
        assert opened.info["jfif_density"] == (resolution or 1, resolution or 1)


def test_progressive_stays_progressive(tmp_path, coffee):
    Image.fromarray(coffee).save(tmp_path / "a.jpg", progressive=True)
    encoding.write(tmp_path / "b.jpg", decoding.read(tmp_path / "a.jpg"), "jpeg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.info["progressive"]


@pytest.mark.parametrize("fmt", formats.FORMATS)
def test_without_gps_no_format_holds_the_place(full_jpeg, tmp_path, fmt):
    out = tmp_path / f"b{formats.FORMATS[fmt][0]}"
    encoding.write(out, decoding.read(full_jpeg).without_gps(), fmt)
    again = decoding.read(out)
    assert not _tags(again.exif).get_ifd(GPS_IFD)
    assert _tags(again.exif)[MAKE] == "A phone"
    assert b"GPS" not in (again.xmp or b"")
    assert b"dc:creator" in again.xmp


@pytest.mark.parametrize("fmt", formats.FORMATS)
def test_without_metadata_only_colours_stay(full_jpeg, tmp_path, fmt):
    out = tmp_path / f"b{formats.FORMATS[fmt][0]}"
    encoding.write(out, decoding.read(full_jpeg).without_metadata(), fmt)
    again = decoding.read(out)
    assert not again.xmp
    assert not again.photoshop
    assert not again.comment
    assert not again.jpeg_segments
    assert not again.exif or MAKE not in _tags(again.exif)


def test_iptc_goes_into_tiff_and_is_missed_elsewhere(full_jpeg, tmp_path):
    read = decoding.read(full_jpeg)
    encoding.write(tmp_path / "b.tif", read, "tiff")
    assert decoding.read(tmp_path / "b.tif").photoshop == IPTC
    assert "IPTC left out, png has no place for it" in encoding.left_out(read, "png")


def test_a_png_keeps_texts_and_colour_chunks(tmp_path, coffee):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "me")
    texts.add_itxt("Title", "Kaffee ☕")
    texts.add(b"gAMA", struct.pack(">I", 45455))
    Image.fromarray(coffee[:20, :30]).save(tmp_path / "a.png", pnginfo=texts, dpi=(150, 150))
    encoding.write(tmp_path / "b.png", decoding.read(tmp_path / "a.png"), "png")
    with Image.open(tmp_path / "b.png") as written:
        assert written.text["Author"] == "me"
        assert written.text["Title"] == "Kaffee ☕"
        assert written.info["gamma"] == pytest.approx(0.45455)
        assert written.info["dpi"] == pytest.approx((150, 150), abs=0.1)


def test_exif_too_long_for_a_jpeg_is_said_not_lost_silently(tmp_path, coffee):
    tags = Image.Exif()
    tags.get_ifd(EXIF_IFD)[MAKER_NOTE] = b"x" * 70000
    long = Photo(coffee, "png", exif=tags.tobytes().removeprefix(exif.PREFIX))
    assert encoding.left_out(long, "jpeg") == ("EXIF left out, it is damaged or too long for jpeg",)
    encoding.write(tmp_path / "a.jpg", long, "jpeg")
    assert decoding.read(tmp_path / "a.jpg").exif is None


@pytest.mark.parametrize("fmt", ["jpeg", "png", "webp", "heic", "avif"])
def test_exif_stays_byte_for_byte(coffee, fmt):
    """Maker notes hold offsets into it."""
    photo = Photo(coffee[:80, :120], "jpeg", exif=exif.upright(_block()))
    assert MAKER_NOTE in _tags(photo.exif).get_ifd(EXIF_IFD)
    assert decoding.read(encoding.encoded(photo, fmt)).exif == photo.exif


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_holds_the_exif_block_as_it_is(tmp_path, coffee, order):
    """Maker notes hold offsets into the file: their surroundings must not move."""
    mark = {"<": b"II", ">": b"MM"}[order]
    note = b"maker's bytes with offsets"
    block = mark + struct.pack(f"{order}HI", 42, 8)
    block += struct.pack(f"{order}H", 1) + struct.pack(f"{order}HHII", EXIF_IFD, 4, 1, 26) + struct.pack(f"{order}I", 0)
    block += struct.pack(f"{order}H", 1) + struct.pack(f"{order}HHII", MAKER_NOTE, 7, len(note), 44)
    block += struct.pack(f"{order}I", 0) + note
    photo = Photo(coffee[:33, :21], "jpeg", exif=block)
    encoding.write(tmp_path / "a.tif", photo, "tiff")
    content = (tmp_path / "a.tif").read_bytes()
    assert content[8 : len(block)] == block[8:]
    with Image.open(io.BytesIO(content)) as written:
        assert np.array_equal(np.asarray(written), coffee[:33, :21])
        assert written.getexif().get_ifd(EXIF_IFD)[MAKER_NOTE] == note


def _ifd(order: str, kind: int, value: int, link: bytes) -> bytes:
    mark = {"<": b"II", ">": b"MM"}[order]
    field = struct.pack(f"{order}HHI", 0x0112, kind, 1) + struct.pack(
        f"{order}I" if kind == 4 else f"{order}Hxx", value
    )
    return mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", 1) + field + link


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("link", [b"\0\0\0\0", b"\xff\xff\xff\x7f", b""])
def test_the_orientation_is_set_whatever_else_is_damaged(order, kind, link):
    """A viewer would otherwise turn an upright photo once more."""
    block = exif.upright(_ifd(order, kind, 6, link))
    assert exif.orientation(block) == 1
    assert exif.orientation(_ifd(order, kind, 6, link)) == 6


def test_a_tiff_is_not_confused_by_tags_about_other_pixels(tmp_path, coffee):
    tags = Image.Exif()
    tags[MAKE], tags[322], tags[323], tags[339] = "A phone", 16, 16, 3
    photo = Photo(coffee[:64, :64], "jpeg", exif=tags.tobytes().removeprefix(exif.PREFIX))
    encoding.write(tmp_path / "a.tif", photo, "tiff")
    again = decoding.read(tmp_path / "a.tif")
    assert np.array_equal(again.pixels, coffee[:64, :64])
    assert _tags(again.exif)[MAKE] == "A phone"


def test_iptc_of_any_type_is_read_from_tiff(tmp_path, coffee):
    """libtiff declares IPTC as LONGs, others as bytes."""
    import tifffile

    iptc = b"\x1c\x02\x78\x00\x06Prague\x00"
    for kind, values in ((4, struct.unpack("<3I", iptc)), (7, iptc)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            coffee[:20, :30],
            photometric="rgb",
            extratags=[(33723, kind, len(values), values, True)],
        )
        assert iptc[:11] in decoding.read(tmp_path / "a.tif").photoshop


PLACES = (
    b'<x:xmpmeta><rdf:Description drone-dji:GpsLatitude="+50.07" drone-dji:GpsLongtitude="+14.4"'
    b' photoshop:City="Prague" dc:rights="mine"><Iptc4xmpCore:Location>Old Town</Iptc4xmpCore:Location>'
    b"<Iptc4xmpExt:LocationCreated><rdf:Bag>Old Town</rdf:Bag></Iptc4xmpExt:LocationCreated>"
    b"</rdf:Description></x:xmpmeta>"
)


def test_names_and_positions_of_places_go_whatever_their_prefix():
    stripped = xmp.without_places(PLACES)
    for trace in (b"50.07", b"14.4", b"Prague", b"Old Town"):
        assert trace not in stripped
    assert b'dc:rights="mine"' in stripped
    assert xmp.without_places(PLACES.decode().encode("utf-16")) == b""


@pytest.mark.parametrize(
    "name",
    (
        *("GPSLatitude", "GpsLongtitude", "DestLongitude", "City", "State", "Country", "CountryCode", "CountryName"),
        *("ProvinceState", "Location", "LocationCreated", "LocationShown", "Sublocation", "WorldRegion"),
    ),
)
def test_every_property_of_a_place_goes_whether_attribute_or_element(name):
    """EXIF 2.32 in XMP, photoshop:*, Iptc4xmpCore:* and Iptc4xmpExt:* (IPTC Photo Metadata 2023.1), DJI's drones."""
    kept = f'<x:x any:A{name}B="kept"><any:A{name}B>kept</any:A{name}B></x:x>'
    attribute, element = f'<x:x any:{name}="here"', f"<any:{name}>here</any:{name}></x:x>"
    packet = kept.replace("<x:x", attribute).replace("</x:x>", element)
    assert xmp.without_places(packet.encode()) == kept.encode()


def test_places_go_from_iptc_and_captions_stay():
    caption, city = b"\x1c\x02\x78\x00\x04Walk", b"\x1c\x02\x5a\x00\x06Prague"
    block = iptc.resource(caption + city) + _resource(0x0424, PLACES)
    stripped = iptc.without_places(block)
    assert b"Walk" in stripped
    assert b"Prague" not in stripped


def test_a_motion_photo_s_video_travels_and_its_old_description_does_not(tmp_path, coffee):
    Image.fromarray(coffee[:80, :120]).save(tmp_path / "a.jpg", xmp=b'<x GCamera:MicroVideo="1" dc:title="t"/>')
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"\0\0\0\x18ftypmp42" + bytes(500))
    read = decoding.read(tmp_path / "a.jpg")
    assert read.motion.content == b"\0\0\0\x18ftypmp42" + bytes(500)
    assert read.notes == ()
    assert encoding.left_out(read, "png")[-1] == "the video of a motion photo is left out"
    assert b"MicroVideo" not in read.xmp
    assert b"dc:title" in read.xmp


def test_xmp_too_long_for_a_jpeg_is_said(tmp_path, coffee):
    photo = Photo(coffee[:20, :30], "heic", xmp=b"<x>" + b"y" * 70000 + b"</x>")
    assert encoding.left_out(photo, "jpeg") == ("XMP left out, it is too long for JPEG",)
    encoding.write(tmp_path / "a.jpg", photo, "jpeg")
    assert decoding.read(tmp_path / "a.jpg").xmp is None


@pytest.mark.parametrize("fmt", formats.FORMATS)
def test_exif_that_makes_no_sense_does_not_keep_a_photo_from_being_written(tmp_path, coffee, fmt):
    photo = Photo(coffee[:20, :30], "jpeg", exif=b"no EXIF at all", dpi=(72.0, 72.0))
    encoding.write(tmp_path / f"a{formats.FORMATS[fmt][0]}", photo, fmt)
    assert decoding.read(tmp_path / f"a{formats.FORMATS[fmt][0]}").pixels.shape == (20, 30, 3)


def test_exif_as_imagemagick_writes_it_into_png_is_read(tmp_path, coffee):
    block = exif.PREFIX + _block()
    text = f"\nexif\n{len(block):8}\n" + block.hex() + "\nwhat a careless writer left"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Raw profile type exif", text, zip=True)
    Image.fromarray(coffee[:20, :30]).save(tmp_path / "a.png", pnginfo=texts)
    assert _tags(decoding.read(tmp_path / "a.png").exif)[MAKE] == "A phone"


@pytest.mark.parametrize("fmt", ["heic", "avif"])
def test_damaged_exif_does_not_turn_a_photo_that_is_written(fmt, coffee):
    """Its byte order is damaged, so nothing can set its orientation to 1; libheif reads it all the same."""
    exif = b"M\0\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    photo = Photo(np.ascontiguousarray(coffee[:48, :64]), "png", exif=exif)
    assert decoding.read(encoding.encoded(photo, fmt)).pixels.shape == (48, 64, 3)
    assert any("EXIF" in note for note in encoding.left_out(photo, fmt))
