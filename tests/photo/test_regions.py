"""Places in a picture that metadata names stay where they are in the picture."""

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from qatie_cli.photo import containers, decoding, encoding, exif, extended_xmp, regions
from qatie_cli.photo.regions import Turn

WIDTH, HEIGHT = 320, 240
FACE = (200, 40, 48, 24)  # left, top, width, height in the stored picture
NAMESPACES = " ".join(
    f'xmlns:{prefix}="{address}"'
    for prefix, address in {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "mwg": "http://www.metadataworkinggroup.com/schemas/regions/",
        "A": "http://ns.adobe.com/xmp/sType/Area#",
        "D": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
        "MP": "http://ns.microsoft.com/photo/1.2/",
        "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
        "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
        "apple-fi": "http://ns.apple.com/faceinfo/1.0/",
        "I": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "GPano": "http://ns.google.com/photos/1.0/panorama/",
        "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "exif": "http://ns.adobe.com/exif/1.0/",
        "dc": "http://purl.org/dc/elements/1.1/",
        "N": "http://ns.adobe.com/xmp/note/",
    }.items()
)


def packet(body, attributes=""):
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMESPACES}><rdf:Description {attributes}>{body}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def photo_file(xmp, orientation, exif_block=None):
    """A JPEG of a dark picture whose face is bright, as stored, with an orientation."""
    pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    left, top, width, height = FACE
    pixels[top : top + height, left : left + width] = 230
    block = Image.Exif()
    block[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=95, exif=exif_block or block.tobytes(), xmp=xmp)
    return content.getvalue()


def bright(photo):
    """Left, top, width and height of the face in a photo."""
    rows, columns = np.nonzero(photo.pixels[..., 0] > 130)
    return columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()


def number(text, name):
    return float(re.search(rf"\b{name}(?:\s*=\s*[\"']|>)\s*(-?[\d.]+)".encode(), text)[1])


def center_area(x, y, w, h):
    return (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT


CX, CY, SW, SH = center_area(*FACE)
MWG_HEAD = f'<mwg:Regions rdf:parseType="Resource"><mwg:AppliedToDimensions D:w="{WIDTH}" D:h="{HEIGHT}"/>'
SYNTAXES = {
    "attributes": f'<mwg:Area A:x="{CX}" A:y="{CY}" A:w="{SW}" A:h="{SH}" A:unit="normalized"/>',
    "single quotes": f"<mwg:Area A:unit = 'normalized' A:h ='{SH}' A:w= '{SW}' A:y='{CY}'\n A:x='{CX}' />",
    "elements": f'<mwg:Area rdf:parseType="Resource"><A:x>{CX}</A:x><A:y>\n{CY}\n</A:y><A:w>{SW}</A:w><A:h>{SH}</A:h>'
    "<A:unit>normalized</A:unit></mwg:Area>",
    "description": f'<mwg:Area><rdf:Description A:x="{CX}" A:y="{CY}"><A:w>{SW}</A:w><A:h>{SH}</A:h>'
    "</rdf:Description></mwg:Area>",
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_face_region_lies_on_its_face(orientation, syntax):
    body = MWG_HEAD + f"<mwg:RegionList><rdf:Bag><rdf:li>{SYNTAXES[syntax]}</rdf:li></rdf:Bag></mwg:RegionList>"
    photo = decoding.read(photo_file(packet(body + "</mwg:Regions>"), orientation))
    height, width = photo.pixels.shape[:2]
    left, top, face_width, face_height = bright(photo)
    wanted = (
        (left + face_width / 2) / width,
        (top + face_height / 2) / height,
        face_width / width,
        face_height / height,
    )
    assert [number(photo.xmp, f"A:{name}") for name in "xywh"] == pytest.approx(wanted, abs=0.01)
    assert (number(photo.xmp, "D:w"), number(photo.xmp, "D:h")) == (width, height)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_every_maker_s_regions_lie_on_the_face(orientation):
    left, top, face_width, face_height = FACE
    corner = (left / WIDTH, top / HEIGHT, SW, SH)
    body = (
        '<MP:RegionInfo rdf:parseType="Resource"><MPRI:Regions><rdf:Bag><rdf:li MPReg:Rectangle="'
        + ", ".join(map(str, corner))
        + '" MPReg:PersonDisplayName="A, B"/></rdf:Bag></MPRI:Regions></MP:RegionInfo>'
        f'<I:ImageRegion><rdf:Bag><rdf:li rdf:parseType="Resource"><I:RegionBoundary I:rbShape="rectangle" '
        f'I:rbUnit="pixel" I:rbX="{left}" I:rbY="{top}" I:rbW="{face_width}" I:rbH="{face_height}"/>'
        "</rdf:li></rdf:Bag></I:ImageRegion>"
        f"<exif:SubjectArea><rdf:Seq><rdf:li>{left + face_width // 2}</rdf:li><rdf:li>{top + face_height // 2}</rdf:li>"
        f"<rdf:li>{face_width}</rdf:li><rdf:li>{face_height}</rdf:li></rdf:Seq></exif:SubjectArea>"
    )
    edges = (corner[0], corner[1], corner[0] + SW, corner[1] + SH)
    attributes = " ".join(
        f'crs:Crop{name}="{value}"' for name, value in zip(("Left", "Top", "Right", "Bottom"), edges, strict=True)
    )
    attributes += f' tiff:ImageWidth="{WIDTH}" tiff:ImageLength="{HEIGHT}"'
    photo = decoding.read(photo_file(packet(body, attributes), orientation))
    height, width = photo.pixels.shape[:2]
    x, y, w, h = bright(photo)
    rectangle = re.search(rb'MPReg:Rectangle="([^"]+)"', photo.xmp)[1]
    assert [float(v) for v in rectangle.split(b", ")] == pytest.approx(
        (x / width, y / height, w / width, h / height), abs=0.01
    )
    assert b'MPReg:PersonDisplayName="A, B"' in photo.xmp
    assert [number(photo.xmp, f"I:rb{name}") for name in "XYWH"] == pytest.approx((x, y, w, h), abs=2)
    crop = [number(photo.xmp, f"crs:Crop{name}") for name in ("Left", "Top", "Right", "Bottom")]
    assert crop == pytest.approx((x / width, y / height, (x + w) / width, (y + h) / height), abs=0.01)
    items = re.search(rb"<exif:SubjectArea>(.*)</exif:SubjectArea>", photo.xmp)[1]
    values = [float(v) for v in re.findall(rb"<rdf:li>([^<]+)", items)]
    assert values == pytest.approx((x + w / 2, y + h / 2, w, h), abs=2)
    assert (number(photo.xmp, "tiff:ImageWidth"), number(photo.xmp, "tiff:ImageLength")) == (width, height)


def subject_exif(orientation, order):
    """EXIF with SubjectArea, SubjectLocation and sizes."""
    left, top, width, height = FACE
    area = (left + width // 2, top + height // 2, width, height)
    o = order
    first_at, second_at = 8, 8 + 2 + 4 * 12 + 4
    values_at = second_at + 2 + 2 * 12 + 4
    first = struct.pack(o + "H", 4)
    first += struct.pack(o + "HHII", 0x0100, 4, 1, WIDTH) + struct.pack(o + "HHII", 0x0101, 4, 1, HEIGHT)
    first += struct.pack(o + "HHIHH", 0x0112, 3, 1, orientation, 0)
    first += struct.pack(o + "HHII", 0x8769, 4, 1, second_at) + struct.pack(o + "I", 0)
    second = struct.pack(o + "H", 2) + struct.pack(o + "HHII", 0x9214, 3, 4, values_at)
    second += struct.pack(o + "HHIHH", 0xA214, 3, 2, *area[:2]) + struct.pack(o + "I", 0)
    head = (b"II*\x00" if o == "<" else b"MM\x00*") + struct.pack(o + "I", first_at)
    return b"Exif\0\0" + head + first + second + struct.pack(o + "4H", *area)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_subject_of_exif_stays_the_subject(orientation, order):
    photo = decoding.read(photo_file(packet(""), orientation, subject_exif(orientation, order)))
    height, width = photo.pixels.shape[:2]
    x, y, w, h = bright(photo)
    area = exif.numbers(photo.exif, 0x9214, (exif.EXIF_POINTER,))
    assert area == pytest.approx((x + w / 2, y + h / 2, w, h), abs=2)
    assert exif.numbers(photo.exif, 0xA214, (exif.EXIF_POINTER,)) == area[:2]
    assert exif.numbers(photo.exif, 0x0100) + exif.numbers(photo.exif, 0x0101) == (width, height)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_face_is_upright_in_an_upright_picture(orientation):
    roll = {3: 180, 6: 270, 8: 90}[orientation]
    photo = decoding.read(
        photo_file(packet(f"<apple-fi:AngleInfoRoll>{roll}</apple-fi:AngleInfoRoll>", 'dc:title="Region"'), orientation)
    )
    assert number(photo.xmp, "apple-fi:AngleInfoRoll") == 0


@pytest.mark.parametrize("elements", [False, True])
def test_a_panorama_keeps_its_parts(elements):
    values = {"FullPanoWidthPixels": 640, "FullPanoHeightPixels": 300, "CroppedAreaLeftPixels": 100,
              "CroppedAreaTopPixels": 20, "CroppedAreaImageWidthPixels": WIDTH,
              "CroppedAreaImageHeightPixels": HEIGHT}  # fmt: skip
    if elements:
        text = packet("".join(f"<GPano:{name}>{value}</GPano:{name}>" for name, value in values.items()))
    else:
        text = packet("", " ".join(f'GPano:{name}="{value}"' for name, value in values.items()))
    seen = decoding.read(photo_file(text, 6)).xmp
    assert {name: number(seen, f"GPano:{name}") for name in values} == {
        "FullPanoWidthPixels": 300, "FullPanoHeightPixels": 640, "CroppedAreaLeftPixels": 300 - 20 - HEIGHT,
        "CroppedAreaTopPixels": 100, "CroppedAreaImageWidthPixels": HEIGHT,
        "CroppedAreaImageHeightPixels": WIDTH}  # fmt: skip


def test_regions_of_the_turned_picture_stay():
    """Some programs write regions of what they show, and its size."""
    body = f'<mwg:AppliedToDimensions D:w="{HEIGHT}" D:h="{WIDTH}"/><mwg:Area A:x="0.1" A:y="0.2" A:w="0.3" A:h="0.4"/>'
    seen = decoding.read(photo_file(packet(body), 6)).xmp
    assert [number(seen, f"A:{name}") for name in "xywh"] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("turn", [Turn(6, 8, 6)])
@pytest.mark.parametrize(
    "body",
    [
        b"<A:x>one</A:x><A:y>2</A:y>",
        b'<mwg:Area A:x="0.1"/>',
        b'<mwg:Area A:x="0.1" A:y="0.2',
        b'<MPReg:x MPReg:Rectangle="1,2,3"/>',
        b"</a></b></c><Area>",
        b"<A:x><A:x><A:x>" * 300,
    ],
)
def test_what_makes_no_sense_is_left_alone(turn, body):
    text = packet("").replace(b"</rdf:Description>", body + b"</rdf:Description>")
    assert regions.turned(text, turn) == text


# --- extended XMP -------------------------------------------------------------------------------------------------

GUID = b"0123456789ABCDEF0123456789ABCDEF"


def part(guid, whole, start, text):
    return 0xE1, containers.XMP_EXTENSION + guid + struct.pack(">II", whole, start) + text


def with_extension(*parts):
    text = packet("", f'N:HasExtendedXMP="{GUID.decode()}" dc:title="kept"')
    content = photo_file(text, 1)
    at = content.index(b"\xff\xdb")
    return content[:at] + containers.jpeg_segments(None, parts) + content[at:]


def test_a_packet_names_its_continuation_only_where_that_is(tmp_path):
    whole = (part(GUID, 10, 5, b"fghij"), part(GUID, 10, 0, b"abcde"))
    photo = decoding.read(with_extension(*whole))
    assert b"HasExtendedXMP" in photo.xmp
    assert photo.jpeg_segments == whole
    again = decoding.read(encoding.encoded(photo, "jpeg"))
    assert b"HasExtendedXMP" in again.xmp
    for fmt in ("png", "webp", "tiff", "avif"):
        content = encoding.encoded(photo, fmt)
        assert b"HasExtendedXMP" not in content
        assert b"kept" in content
        assert any("XMP continues" in note for note in encoding.left_out(photo, fmt))
    assert b"HasExtendedXMP" not in (photo.without_gps().xmp or b"")


@pytest.mark.parametrize(
    "parts",
    [(), (part(GUID, 10, 0, b"abcde"),), (part(GUID[::-1], 5, 0, b"abcde"),), (part(GUID, 10, 5, b"fghij"),),
     ((0xE1, containers.XMP_EXTENSION + GUID),)],
)  # fmt: skip
def test_what_is_no_whole_continuation_goes_with_its_mention(parts):
    photo = decoding.read(with_extension(*parts))
    assert b"HasExtendedXMP" not in photo.xmp
    assert b'dc:title="kept"' in photo.xmp
    assert photo.jpeg_segments == parts


def test_the_mention_goes_as_an_element_too():
    text = packet(f"<N:HasExtendedXMP>{GUID.decode()}</N:HasExtendedXMP><dc:title>kept</dc:title>")
    assert extended_xmp.without_mention(text) == packet("<dc:title>kept</dc:title>")
