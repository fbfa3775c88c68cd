"""Make the pictures of the documentation, and the table of docs/evaluation.md, anew with the shipped weights.

Needs the extras demo, compare and test, Debian's chromium and chromium-driver, Linux, and about a minute.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import io
import os
import platform
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.common.by import By

from qatie_cli.data import demo
from qatie_cli.evaluation import comparison
from qatie_cli.photo import decoding
from qatie_cli.photo.content import Photo

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
# Free to be published: astronaut is NASA's and in the public domain, the others are CC0. The demo's motorcycle is not.
NAMES = ("coffee", "chelsea", "astronaut", "rocket")
WIDTH = 1200  # pixels of a picture, at most
COLUMNS = 110  # of the terminal that is recorded


def qatie(*arguments: object) -> None:
    """Run the command from this source tree."""
    subprocess.run([sys.executable, "-m", "qatie_cli", *map(str, arguments)], check=True, cwd=ROOT)


def save(path: Path, picture: Image.Image) -> None:
    """A small JPEG."""
    picture = picture.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    picture.save(path, quality=88, optimize=True, progressive=True)


def screenshot(page: Path, size: tuple[int, int], scheme: str, single: bool) -> Image.Image:
    """What the page looks like in Chromium."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        # A mouse and no touch screen: primary and available pointer types of Blink.
        mouse = "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                     "disable-background-networking", "disable-component-update", "hide-scrollbars",
                     f"blink-settings={mouse}", f"user-data-dir={profile}"):  # fmt: skip
            options.add_argument(f"--{flag}")
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            driver.get(page.as_uri())
            if single:
                driver.find_element(By.ID, "show-single").click()
            time.sleep(2)  # for the pictures
            path = page.with_name("screenshot.png")
            driver.save_screenshot(str(path))
        finally:
            driver.quit()
    with Image.open(path) as picture:
        return picture.convert("RGB")


def run_in_terminal(arguments: list[str], folder: Path) -> str:
    """What a command leaves on a terminal of `COLUMNS` columns, with its colours."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "qatie_cli", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=follower, stderr=follower):
        os.close(follower)
        written = b""
        try:
            while block := os.read(leader, 65536):
                written += block
        except OSError:  # Linux says so at the end
            pass
    os.close(leader)
    return final_screen(written.decode())


def final_screen(written: str) -> str:
    """The lines that remain after the progress bar has erased itself."""
    lines = [""]
    for code, text in re.findall(
        r"(\r\n|\r|\n|\x1b\[1A|\x1b\[2K|\x1b\[\?25[lh])|((?:\x1b\[[\d;]*m|[^\r\n\x1b])+)", written
    ):
        if code in ("\n", "\r\n"):
            lines.append("")
        elif code == "\x1b[1A":
            lines.pop()
        elif code == "\x1b[2K":
            lines[-1] = ""
        lines[-1] += text
    return "\n".join(lines).rstrip()


def record(phone: Path, folder: Path) -> str:
    """A terminal with two runs over the demo's photos and a broken one, as SVG."""
    shutil.copytree(phone, folder / "photos")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    screen = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for command in ("qatie enhance photos/ -o out/ --strip-gps --verbose", "qatie enhance photos/ -o out/ --strip-gps"):
        screen.print(Text(f"$ {command}", "bold"))
        screen.print(Text.from_ansi(run_in_terminal(command.split()[1:], folder)), soft_wrap=True)
    # No font is fetched from another host.
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    return screen.export_svg(title="qatie", code_format=template)


def machine() -> str:
    """The processor, and today."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = re.sub(r"\s*(\d+-Core|Processor|CPU|@.*|\(R\)|\(TM\))", "", found[1]).strip() if found else platform.machine()
    today = datetime.datetime.now(datetime.UTC).strftime("%d %B %Y").lstrip("0")
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' if threads > 1 else ''} of {cpu}, PyTorch {torch.__version__.split('+')[0]}, {today}"


def figures(phone: Path, enhanced: Path, original: np.ndarray) -> list[str]:
    """PSNR, SSIM and CIEDE2000 to the original before and after."""
    target = Photo(original, "png")
    both = [comparison.similarity(decoding.read(path), target) for path in (phone, enhanced)]
    return [
        " → ".join(f"{getattr(d, name):.{digits}f}" for d in both)
        for name, digits in (("psnr_db", 1), ("ssim", 3), ("ciede2000", 1))
    ]


def main() -> None:
    """All of it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        qatie("demo", "-o", work / "demo")
        phone = work / "phone"
        phone.mkdir()
        for name in NAMES:
            with Image.open(work / "demo" / "before-after" / f"{name}.png") as picture:
                save(PICTURES / f"{name}.jpg", picture)
            shutil.copy(work / "demo" / "phone" / f"{name}.jpg", phone)
        (PICTURES / "run.svg").write_text(record(phone, work), encoding="utf-8")
        began = time.monotonic()
        qatie("enhance", phone, "-o", work / "Photos", "--gallery")
        seconds = time.monotonic() - began
        album = work / "Photos" / "index.html"
        save(PICTURES / "gallery.jpg", screenshot(album, (1200, 800), "light", single=False))
        save(PICTURES / "gallery-single.jpg", screenshot(album, (1200, 800), "dark", single=True))
        rows = [
            f"| {name} | "
            + " | ".join(figures(phone / f"{name}.jpg", work / "demo" / "enhanced" / f"{name}.jpg", original))
            + " |"
            for name, original in demo.originals().items()
            if name in NAMES
        ]
    table = "\n".join(
        [
            "| photo of the demo, phone → enhanced | PSNR, dB | SSIM | CIEDE2000 |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Against the original photos; {machine()}. All four with their gallery took "
            f"{seconds:.1f} s, PyTorch's start included.",
        ]
    )
    page = ROOT / "docs" / "evaluation.md"
    text = page.read_text(encoding="utf-8")
    text, count = re.subn(
        r"(<!-- demo figures[^\n]*-->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        sys.exit(f"{page} has no place for the table.")
    page.write_text(text, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
