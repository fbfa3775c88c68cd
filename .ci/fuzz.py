"""Fuzz what a batch does with a photo: seeded mutations of small files of every format and of the metadata in them.

    python .ci/fuzz.py FOLDER [--mutations 20000] [--seed 0]

Each mutation is read as a batch reads it, prepared, converted to sRGB, written and read again, in a worker process. A
fault is a crash, any exception but PhotoError, an output that cannot be read, more than 5 seconds of processor time, or
more memory than a batch reserves for the photo. Files that caused one stay in FOLDER; FOLDER/done.jsonl lets the same
command go on after an interruption. Needs Linux and about half an hour.
"""

from __future__ import annotations

import argparse
import functools
import gc
import io
import json
import random
import re
import resource
import select
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from qatie_cli.batch.running import Writing
from qatie_cli.enhance import memory
from qatie_cli.errors import PhotoError
from qatie_cli.gallery import previews
from qatie_cli.photo import colour, containers, decoding, encoding, formats, iptc, spaces
from qatie_cli.photo.beside.gain_map import Boost, GainMap
from qatie_cli.photo.beside.motion import Motion
from qatie_cli.photo.content import Photo
from qatie_cli.photo.fineness import SOURCE

SECONDS = 5.0  # of processor time a photo may take
LATE = 60.0  # seconds after which the worker is ended
MAX_PIXELS = 1_000_000
SLACK = 64 << 20  # bytes of libraries that a photo is the first to use
ADDRESS_SPACE = 4 << 30  # of the worker
FORMATS = ("jpeg", "png", "webp", "tiff", "heic", "avif")
WRITINGS = (Writing(), Writing(strip_gps=True), Writing(strip_metadata=True), Writing(quality=SOURCE),
            Writing(no_hdr=True, no_motion=True))  # fmt: skip

# --- payloads -----------------------------------------------------------------------------------------------------

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" '
    b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" xmlns:C="http://ns.google.com/photos/1.0/container/" '
    b'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" xmlns:G="http://ns.google.com/photos/1.0/camera/" '
    b'xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    b'xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" '
    b'tiff:Orientation="6" exif:GPSLatitude="50,4.5N" photoshop:City="Prague" GPano:CroppedAreaLeftPixels="3" '
    b'hdrgm:Version="1.0" G:MotionPhoto="1" crs:CropTop="0.1" crs:HasCrop="True">'
    b"<xmp:Thumbnails><rdf:Alt><rdf:li>QUJD</rdf:li></rdf:Alt></xmp:Thumbnails>"
    b'<C:Directory><rdf:Seq><rdf:li><C:Item Item:Semantic="GainMap" Item:Length="99"/></rdf:li></rdf:Seq></C:Directory>'
    b"<mwg-rs:Regions><mwg-rs:AppliedToDimensions/><mwg-rs:RegionList><rdf:Bag><rdf:li>"
    b'<mwg-rs:Area stArea:x="0.1" stArea:y="0.2" stArea:w="0.1" stArea:h="0.1"/></rdf:li></rdf:Bag>'
    b"</mwg-rs:RegionList></mwg-rs:Regions></rdf:Description></rdf:RDF></x:xmpmeta>"
)
TOKENS = re.compile(rb"[<>/\"'=\s]+|[^<>/\"'=\s]+")
IPTC = b"".join(
    struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text
    for number, text in ((5, b"title"), (25, b"keyword"), (90, b"Prague"), (101, b"Bohemia"), (120, b"caption"))
)
PHOTOSHOP = iptc.resource(IPTC) + struct.pack(">4sHHI", b"8BIM", 0x0409, 0, 4) + b"jpeg"


def exif_block() -> bytes:
    """EXIF with a position, a maker note, a subject and a thumbnail."""
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x0110] = 6, "Maker", "Model"
    inner, places = tags.get_ifd(0x8769), tags.get_ifd(0x8825)
    inner[0x927C], inner[0x9286], inner[0xA001] = bytes(range(64)), b"ASCII\0\0\0comment", 65535
    inner[0x9214], inner[0xA002], inner[0xA003] = (20, 20, 5, 5), 64, 48
    places[1], places[2], places[3], places[4] = "N", (50.0, 4.0, 30.25), "E", (14.0, 25.0, 1.5)
    return tags.tobytes().removeprefix(b"Exif\0\0")


def profiles() -> list[bytes]:
    """ICC profiles: sRGB, Adobe RGB, Display P3, gray."""
    made = [imagecodecs.cms_profile(name) for name in ("srgb", "adobergb")]
    return [*made, spaces.profile(spaces.DCF_ADOBE_RGB), spaces.profile(spaces.DCF_ADOBE_RGB, gray=True)]


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """(H, W, 3) uint8 with structure."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


# --- files --------------------------------------------------------------------------------------------------------


def saved(pixels: np.ndarray, fmt: str, **options: object) -> bytes:
    """A file by Pillow."""
    content = io.BytesIO()
    image = Image.fromarray(pixels)
    image.convert(options.pop("mode", image.mode)).save(content, fmt, **options)
    return content.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    """A file by tifffile."""
    content = io.BytesIO()
    tifffile.imwrite(content, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **options)
    return content.getvalue()


@functools.cache
def seeds() -> list[tuple[str, bytes]]:
    """Files of every format, each with its format's name."""
    decoding.open_heif()
    plain = picture()
    deep = plain.astype(np.uint16) * 257
    clear = np.dstack([plain, plain[..., :1]])
    block, icc = exif_block(), profiles()[1]
    video = b"\0\0\0\x18ftypmp42" + bytes(range(200)) + struct.pack(">I4s", 16, b"moov") + bytes(8)
    everything = {"exif": block, "icc": icc, "xmp": XMP, "photoshop": PHOTOSHOP, "dpi": (300.0, 300.0)}
    beside = {"gain_map": GainMap(plain[::4, ::4, :1], Boost()), "motion": Motion(video)}
    made = [(fmt, encoding.encoded(Photo(plain, fmt, **everything), fmt)) for fmt in FORMATS]
    made += [(fmt, encoding.encoded(Photo(plain, fmt, xmp=XMP, **beside), fmt)) for fmt in ("jpeg", "heic", "avif")]
    made += [(fmt, encoding.encoded(Photo(deep, fmt, exif=block), fmt)) for fmt in ("png", "tiff", "heic", "avif")]
    alpha = {"alpha": np.ascontiguousarray(clear[..., 3])}
    made += [(fmt, encoding.encoded(Photo(plain, fmt, **alpha), fmt)) for fmt in ("png", "webp", "tiff", "heic")]
    made += [
        ("jpeg", saved(plain, "JPEG", progressive=True, subsampling=2, comment=b"comment")),
        ("jpeg", saved(plain, "JPEG", mode="CMYK")),
        ("jpeg", saved(plain, "JPEG", mode="L", restart_marker_blocks=4)),
        ("png", saved(plain, "PNG", mode="P", transparency=3)),
        ("png", saved(plain, "PNG", mode="1")),
        ("webp", saved(clear, "WEBP", lossless=True, exif=b"Exif\0\0" + block)),
        ("tiff", tiff(deep, compression="zlib", predictor=True)),
        ("tiff", tiff(plain, tile=(16, 16), compression="lzw", iccprofile=icc)),
        ("tiff", tiff(plain[..., 0].astype(np.float32))),
        ("tiff", tiff(plain, extratags=[(33723, 7, len(IPTC), IPTC, True), (700, 1, len(XMP), XMP, True)])),
        ("tiff", saved(plain, "TIFF", mode="LAB")),
        ("tiff", saved(plain, "TIFF", compression="jpeg")),
        ("bmp", saved(plain, "BMP")),
    ]  # fmt: skip
    return made


# --- mutations ----------------------------------------------------------------------------------------------------

EDGES = (0, 1, 2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


def position(content: bytes, chance: random.Random) -> int:
    """Where to change it: as often in the first kilobyte, where files describe themselves, as anywhere."""
    return chance.randrange(max(1, min(len(content), 1024) if chance.random() < 0.5 else len(content)))


def some_bytes(content: bytes, chance: random.Random) -> bytes:
    """Other bytes in up to 32 places."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 32)) if content else 0):
        at = position(content, chance)
        changed[at] = chance.choice(
            (0, 1, 127, 128, 255, changed[at] ^ 1 << chance.randrange(8), chance.randrange(256))
        )
    return bytes(changed)


def an_integer(content: bytes, chance: random.Random) -> bytes:
    """An integer at the edge of a type, of either byte order, in one to three places."""
    for _ in range(chance.choice((1, 1, 3))):
        size = chance.choice((1, 2, 4, 8))
        value = (chance.choice(EDGES) + chance.choice((-1, 0, 0, 1))) % (1 << 8 * size)
        at = position(content, chance)
        content = content[:at] + value.to_bytes(size, chance.choice(("big", "little"))) + content[at + size :]
    return content


def a_part(content: bytes, chance: random.Random) -> bytes:
    """A part cut off, removed, doubled or exchanged."""
    first, last = sorted((position(content, chance), position(content, chance)))
    part = content[first:last]
    return chance.choice((
        content[:last],
        content[:first] + content[last:],
        content[:last] + part * chance.choice((1, 1, 2, min(1000, 1 + 200_000 // max(1, len(part))))) + content[last:],
        content[:first] + chance.randbytes(len(part)) + content[last:],
        content[:first] + chance.choice(seeds())[1][first:last] + content[last:],
        content[:first] + chance.randbytes(chance.randrange(64)) + content[first:],
    ))  # fmt: skip


def tokens(content: bytes, chance: random.Random) -> bytes:
    """Words and signs of XMP moved, removed or repeated up to 64 kB."""
    found = TOKENS.findall(content)
    for _ in range(chance.choice((1, 2, 5)) if found else 0):
        at, other = chance.randrange(len(found)), chance.randrange(len(found))
        times = chance.choice((0, 0, 2, 3, 65536 // (1 + len(found[other]))))
        found[at] = chance.choice((found[other], b"".join(found[at:other])[:300])) * times
    return b"".join(found)


OF_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (some_bytes, an_integer, a_part)


def of_payload(fmt: str, chance: random.Random) -> bytes:
    """A sound file of a format with a mutated payload: EXIF, XMP, IPTC, ICC, or two of them.

    Raises:
        Exception: the payload does not fit into the format.
    """
    block, packet, resources, icc = exif_block(), XMP, PHOTOSHOP, chance.choice(profiles())
    for what in chance.sample(("exif", "xmp", "iptc", "icc"), chance.choice((1, 1, 2))):
        change = chance.choice(OF_BYTES)
        if what == "exif":
            block = change(block, chance)
        elif what == "xmp":
            packet = chance.choice((tokens, tokens, change))(packet, chance)
        elif what == "iptc":
            resources = iptc.resource(change(IPTC, chance)) if chance.random() < 0.5 else change(resources, chance)
        else:
            icc = change(icc, chance)
    pixels = picture()
    if fmt == "tiff":
        tags = [(700, 1, len(packet), packet, True), (34377, 7, len(resources), resources, True)]
        return tiff(pixels, iccprofile=icc, extratags=tags)
    if fmt == "png":
        text = "\n8bim\n      " + f"{len(resources)}\n{resources.hex()}\n"
        chunks = [(b"iCCP", b"icc\0\0" + imagecodecs.zlib_encode(icc)), (b"eXIf", block),
                  containers.xmp_chunk(packet), (b"tEXt", b"Raw profile type iptc\0" + text.encode())]  # fmt: skip
        content = saved(pixels, "PNG")
        return content[:33] + b"".join(containers.png_chunk(*chunk) for chunk in chunks) + content[33:]
    options = {"exif": b"Exif\0\0" + block, "icc_profile": icc, "xmp": packet}
    if fmt == "jpeg":
        extended = ((0xE1, containers.XMP_EXTENSION + packet[:60000]),) if chance.random() < 0.2 else ()
        return saved(pixels, "JPEG", **options, extra=containers.jpeg_segments(resources, extended))
    return saved(pixels, formats.FORMATS[fmt][1], **options)


def mutation(seed: int, index: int) -> tuple[str, bytes]:
    """The format and the content of one of them."""
    chance = random.Random(f"{seed}-{index}")
    fmt, content = seeds()[index % len(seeds())]
    if chance.random() < 0.4 and fmt in FORMATS:
        try:
            return fmt, of_payload(fmt, chance)
        except Exception:
            chance = random.Random(f"{seed}-{index}-{fmt}")  # an encoder refuses the payload: mutate the file
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        content = chance.choice(OF_BYTES)(content, chance)
    return fmt, content


# --- the worker ---------------------------------------------------------------------------------------------------


def reserved(header: decoding.Header | None, fmt: str) -> int:
    """What a batch reserves for a photo."""
    if header is None or header.width * header.height > MAX_PIXELS:
        return 0
    size, sample_bytes = (header.width, header.height), header.sample_bytes
    encode = memory.encode_bytes(*size, fmt, header.progressive, sample_bytes)
    held = max(header.decode_bytes, memory.held_bytes(*size, sample_bytes, header.gray), encode)
    return held + header.beside_bytes


def resident(field: str) -> int:
    """Bytes that VmRSS or VmHWM of this process says."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) << 10


def through(path: Path, chance: random.Random) -> tuple[str, int]:
    """What a batch does with a photo, the network aside; how it ended, and the bytes that are reserved.

    Raises:
        Exception: anything is a fault.
    """
    writing = chance.choice(WRITINGS)
    wanted = chance.choice((None, None, *FORMATS))
    header = decoding.header(path)
    size = reserved(header, wanted or "avif")
    try:
        photo = writing.prepared(decoding.read(path, MAX_PIXELS))
        fmt = wanted or formats.kept_format(photo.source_format)
        encoding.check_encodable(photo, fmt)
    except PhotoError as error:
        if "\n" in error.one_line():
            raise ValueError("a reason of several lines") from error
        return "refused", size
    if header is None:
        raise ValueError("a photo without a header was read")
    encoding.left_out(photo, fmt)
    colours = colour.of_photo(photo)
    if colours is not None:
        rows = np.ascontiguousarray(photo.rgb()[:64])
        colours.from_srgb(colours.to_srgb(rows))
    previews.reduced(photo)
    full = np.iinfo(photo.pixels.dtype).max
    try:
        content = encoding.encoded(photo.with_pixels(full - photo.rgb()), fmt, writing.quality)
    except PhotoError:
        return "not encoded", size
    again = decoding.read(content, MAX_PIXELS)
    if again.pixels.shape[:2] != photo.pixels.shape[:2]:
        raise ValueError(f"{photo.pixels.shape} became {again.pixels.shape} as {fmt}")
    exif = again.exif if fmt != "tiff" else None  # a TIFF describes its pixels by the same tags
    if writing.strip_metadata and (exif or again.xmp or again.photoshop or again.motion):
        raise ValueError(f"metadata left in {fmt}")
    return "enhanced", size


def work(folder: Path, seed: int) -> None:
    """Answer a line for every index on standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    seeds()
    for line in sys.stdin:
        index = int(line)
        fmt, content = mutation(seed, index)
        path = folder / f"{index}{formats.FORMATS.get(fmt, ('.bmp',))[0]}"
        path.write_bytes(content)
        gc.collect()
        memory.give_free_memory_back()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        began, fault, size = time.process_time(), "", 0
        try:
            ended, size = through(path, random.Random(f"{index}"))
        except Exception:
            ended, fault = "fault", traceback.format_exc(limit=-4)
        seconds, taken = time.process_time() - began, resident("VmHWM") - before
        if not fault and seconds > SECONDS:
            ended, fault = "fault", f"takes {seconds:.1f} s"
        if not fault and taken > size + SLACK:
            ended, fault = "fault", f"takes {taken >> 20} MB, {size >> 20} MB are reserved"
        if not fault:
            path.unlink()
        row = {"index": index, "format": fmt, "ended": ended, "seconds": round(seconds, 3), "bytes": taken}
        print(json.dumps(row | {"reserved": size, "fault": fault}), flush=True)


# --- the parent ---------------------------------------------------------------------------------------------------


class Worker:
    """A process that is started anew where it ended."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._process: subprocess.Popen[str] | None = None

    def ask(self, index: int) -> dict:
        """What became of a mutation."""
        if self._process is None:
            command = [sys.executable, __file__, str(self._folder), "--seed", str(self._seed), "--worker"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{index}\n")
        process.stdin.flush()
        line = process.stdout.readline() if select.select([process.stdout], [], [], LATE)[0] else ""
        if line:
            return json.loads(line)
        process.kill()
        code = process.wait()
        self._process = None
        fmt, _ = mutation(self._seed, index)
        how = f"is not done after {LATE:.0f} s, or the worker ended with {code}"
        return {
            "index": index,
            "format": fmt,
            "ended": "fault",
            "seconds": LATE,
            "bytes": 0,
            "reserved": 0,
            "fault": how,
        }

    def end(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Run the mutations that are not done yet; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.folder, options.seed)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    done = options.folder / "done.jsonl"
    rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    known = {row["index"] for row in rows}
    worker = Worker(options.folder, options.seed)
    try:
        with done.open("a", encoding="utf-8") as file:
            for index in (index for index in range(options.mutations) if index not in known):
                rows.append(worker.ask(index))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                if rows[-1]["fault"]:
                    print(f"{index}: {rows[-1]['fault']}", flush=True)
    finally:
        worker.end()
    sys.exit(1 if tell(rows) else 0)


def tell(rows: list[dict]) -> int:
    """Print the table; how many faults there were."""
    ends = ("enhanced", "refused", "not encoded", "fault")
    print(f"\n| format | mutations | {' | '.join(ends)} | most seconds | most MB |\n|---|---|---|---|---|---|---|---|")
    for fmt in (*dict.fromkeys(row["format"] for row in rows), "all"):
        some = [row for row in rows if fmt in ("all", row["format"])]
        counts = Counter(row["ended"] for row in some)
        cells = [len(some), *(counts[end] for end in ends)]
        cells += [f"{max(row['seconds'] for row in some):.2f}", max(row["bytes"] for row in some) >> 20]
        print(f"| {fmt} | {' | '.join(map(str, cells))} |")
    return sum(bool(row["fault"]) for row in rows)


if __name__ == "__main__":
    main()
