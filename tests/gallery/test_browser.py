"""The pages in a real browser: Debian's Chromium, headless, from file://, with no network to ask for."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from qatie_cli.batch import planning
from qatie_cli.batch.planning import Naming
from qatie_cli.batch.running import Runner, Writing
from qatie_cli.gallery import album, links, overview, page, previews
from qatie_cli.gallery.entries import Provenance
from qatie_cli.gallery.spread import Spread
from qatie_cli.photo import discovery
from qatie_cli.photo.content import Photo

selenium = pytest.importorskip("selenium", reason="needs Selenium, which pip install '.[test]' brings")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(os.environ.get("QATIE_AXE", "missing"))
PHOTOS, MANY = 40, 2000
NASTY, SCHEME = "<script>alert(1)<!--.jpg", "javascript:alert(1).jpg"

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
needs_axe = pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core; QATIE_AXE names its axe.min.js")


class Browser:
    """A Chromium of its own, and what it said and asked for."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def open(self, path: Path, size: tuple[int, int] = (1300, 900), scheme: str = "light") -> None:
        self.collect()
        self.requests, self.complaints = [], []
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(path.as_uri())
        self.wait(lambda: self.script("return document.querySelectorAll('#photos li').length") > 0)

    def collect(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.complaints += [e["message"] for e in self.driver.get_log("browser")]

    def script(self, text: str, *arguments: object) -> object:
        return self.driver.execute_script(text, *arguments)

    def one(self, selector: str) -> object:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, until: object, seconds: float = 15) -> None:
        WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: until())

    def press(self, *keys: str) -> None:
        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def names(self) -> list[str]:
        return self.script("return [...document.querySelectorAll('#photos .open')].map(e => e.title)")

    def previews(self) -> int:
        """How many previews the page has asked for."""
        self.collect()
        return len({url for url in self.requests if url.endswith(".webp")})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.driver.quit()


def _brighter(photo: Photo, _how: object = None) -> Photo:
    """Each photo changed by another amount: 1 to 9 levels."""
    return photo.with_pixels(np.minimum(photo.rgb().astype(np.int16) + int(photo.pixels[0, 0, 0]) % 9 + 1, 255))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, astronaut, coffee) -> Path:
    """The folder of a batch of 40 photos and 2 that failed."""
    root = tmp_path_factory.mktemp("batch")
    (root / "in" / "sub").mkdir(parents=True)
    for index in range(PHOTOS):
        source = astronaut if index % 3 else coffee
        part = source[index : index + 240, index : index + (320 if index % 4 else 180)]
        name = {7: NASTY, 8: "sub/ü 8.jpg", 9: SCHEME}.get(index, f"IMG_{index}.jpg")
        Image.fromarray(part).save(root / "in" / name.replace("/", os.sep))
    (root / "in" / "broken.jpg").write_bytes(b"no photo")
    (root / "in" / f"x{NASTY}").write_bytes(b"")
    out = root / "out"
    plan = planning.plan([root / "in"], out, Naming())
    made = album.Album(out, plan, Provenance("qatie-c16", "int8 on x86", 1.0), 10**7)
    Runner(lambda p, _: p.with_pixels(_brighter(p).pixels.astype(np.uint8)), Writing(), previews=made).run(
        plan.tasks, made.add
    )
    made.write()
    return out


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, astronaut) -> Path:
    """A page of three photos compared and one left out."""
    root = tmp_path_factory.mktemp("compare")
    path = root / "page.html"
    for side in ("float", "int8"):
        (root / side).mkdir()
        for index in range(3):
            moved = astronaut[:300, :400].astype(np.int16) + (side == "int8") * (index * 4)
            Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8)).save(root / side / f"{index}.png")
    from qatie_cli.evaluation.comparison import Unpaired, find_pairs

    made = Spread(path, root / "float", root / "int8", 8)
    for pair in find_pairs(root / "float", root / "int8")[0]:
        made.compare(pair, 10**7)
    made.leave_out(Unpaired("z.png", "has no partner in int8"))
    made.write()
    return path


def _only_local(browser: Browser, folder: Path) -> None:
    """No complaint on the console, and nothing asked for that does not lie in `folder`."""
    browser.collect()
    assert browser.complaints == []
    # The browser draws its own controls, such as the cross in a search field, from itself.
    asked = [u for u in browser.requests if not u.startswith("chrome://resources/")]
    assert [u for u in asked if not unquote(u).startswith(folder.as_uri())] == []


def _split(browser: Browser, selector: str) -> float:
    """Where the divider stands, by what is seen: in percent of the picture's width."""
    script = (
        "const p = document.querySelector(arguments[0]), d = p.querySelector('.divider').getBoundingClientRect(),"
        "b = p.getBoundingClientRect(); return (d.left + d.width / 2 - b.left) / b.width * 100"
    )
    return browser.script(script, selector)


FIRST, LARGE = "#photos li:nth-child(1) .pair", "dialog .pair"


def test_the_page_is_complete_and_asks_for_nothing(browser, gallery):
    browser.open(gallery / "index.html")
    browser.wait(lambda: len(browser.names()) == PHOTOS)
    assert "40 photos" in browser.one("header").text
    assert "2 failed" in browser.one("header").text
    assert "qatie-c16, int8 on x86, strength 1" in browser.one("header").text
    assert NASTY in browser.names()
    assert browser.script("return document.scripts.length") == 2  # the data and the script: none came from a name
    shape = browser.script("const i = document.querySelector('.pair .left'); return [i.naturalWidth, i.naturalHeight]")
    assert shape[0] > 0
    _only_local(browser, gallery)


def test_the_mouse_moves_the_slider_and_a_click_opens_the_photo(browser, gallery):
    browser.open(gallery / "index.html")
    pair = browser.one(FIRST)
    assert abs(_split(browser, FIRST) - 50) < 1
    width = pair.rect["width"]
    ActionChains(browser.driver).move_to_element(pair).click_and_hold().move_by_offset(round(width * 0.3), 0).perform()
    assert abs(_split(browser, FIRST) - 80) < 2
    ActionChains(browser.driver).move_by_offset(round(-width * 0.6), 0).release().perform()
    assert abs(_split(browser, FIRST) - 20) < 2
    assert not browser.script("return document.querySelector('dialog').open")
    ActionChains(browser.driver).move_to_element(pair).click().perform()
    assert browser.script("return document.querySelector('dialog').open")
    assert browser.one("#single-name").text == browser.names()[0]
    large = browser.one(LARGE)
    ActionChains(browser.driver).move_to_element_with_offset(
        large, round(large.rect["width"] * 0.25), 0
    ).click().perform()
    assert abs(_split(browser, LARGE) - 75) < 2
    browser.one("#close").click()
    assert not browser.script("return document.querySelector('dialog').open")
    _only_local(browser, gallery)


def test_touch_moves_the_slider(browser, gallery):
    browser.open(gallery / "index.html", (390, 800))
    box = browser.one(FIRST).rect
    send = browser.driver.execute_cdp_cmd
    y = box["y"] + box["height"] / 2
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.6), ("touchMove", 0.9), ("touchEnd", None)):
        points = [] if share is None else [{"x": box["x"] + box["width"] * share, "y": y}]
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert abs(_split(browser, FIRST) - 90) < 2
    _only_local(browser, gallery)


def test_the_keyboard_does_everything(browser, gallery):
    browser.open(gallery / "index.html")
    names = browser.names()
    browser.script("document.querySelector('#photos input').focus()")
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert abs(_split(browser, FIRST) - 53) < 1
    spoken = browser.script("return document.activeElement.getAttribute('aria-valuetext')")
    assert spoken == "53% Original, 47% Enhanced"
    outline = browser.script("return getComputedStyle(document.querySelector(arguments[0])).outlineStyle", FIRST)
    assert outline == "solid"  # where the focus is can be seen
    browser.press(Keys.TAB)
    browser.press(Keys.ENTER)
    assert browser.one("#single-name").text == names[0]
    assert browser.one("#single-place").text == f"1 of {PHOTOS}"
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.one("#single-name").text == names[2]
    browser.press(Keys.ARROW_LEFT)
    assert browser.one("#single-name").text == names[1]
    for _ in range(12):  # Tab stays in the dialog and comes by the slider
        browser.press(Keys.TAB)
        if browser.script("return document.activeElement.matches('dialog input')"):
            break
    browser.press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert abs(_split(browser, LARGE) - 48) < 1
    assert browser.one("#single-name").text == names[1]
    browser.press("b")
    assert _split(browser, LARGE) > 99
    browser.press("b")
    assert _split(browser, LARGE) < 1
    browser.press(Keys.PAGE_DOWN)
    assert browser.one("#single-name").text == names[2]
    browser.press(Keys.ESCAPE)
    assert not browser.script("return document.querySelector('dialog').open")
    assert browser.script("return document.activeElement.title") == names[2]
    _only_local(browser, gallery)


def test_sorting_finding_and_the_two_views(browser, gallery):
    browser.open(gallery / "index.html")
    browser.wait(lambda: len(browser.names()) == PHOTOS)
    plain = [n for n in browser.names() if n.startswith("IMG_")]
    assert plain == sorted(plain, key=discovery.natural)
    order = Select(browser.one("#order"))
    assert [o.text for o in order.options][:2] == ["Name", "Most changed"]
    for label, sign in (("Most changed", -1), ("Least changed", 1)):
        order.select_by_visible_text(label)
        browser.wait(lambda: len(browser.names()) == PHOTOS)
        amounts = [float(e.text.split()[-1].rstrip("%")) for e in browser.all(".brief") if e.text]
        assert amounts == sorted(amounts, key=lambda v: sign * v)
        assert len(set(amounts)) > 4
    order.select_by_visible_text("Newest first")
    order.select_by_visible_text("Slowest first")
    browser.wait(lambda: len(browser.names()) == PHOTOS)
    browser.one("#find").send_keys("sub/")
    assert browser.names() == ["sub/ü 8.jpg"]
    assert browser.one("#photos .open").text == "ü 8.jpg"
    assert browser.one("#count").text == "1 of 40 shown"
    browser.one("#show-single").click()
    assert browser.one("#single-place").text == "1 of 1"
    assert browser.one("#show-single").get_attribute("aria-pressed") == "true"
    for link, folder in (("#open-left", "in"), ("#open-right", "out")):
        assert unquote(browser.script(f"return document.querySelector('{link}').href")).endswith(
            f"/{folder}/sub/ü 8.jpg"
        )
    browser.press(Keys.ESCAPE)
    browser.one("#find").send_keys(Keys.CONTROL, "a", Keys.NULL, "javascript")
    browser.one("#show-single").click()
    for link in ("#open-left", "#open-right"):
        assert browser.script(f"return document.querySelector('{link}').protocol") == "file:"
    browser.press(Keys.ESCAPE)
    # The dialog says that it has closed a little later than it closes.
    browser.wait(lambda: browser.one("#show-grid").get_attribute("aria-pressed") == "true")
    browser.one("#find").send_keys(Keys.CONTROL, "a", Keys.NULL, "nowhere")
    assert browser.names() == []
    assert browser.one("#none").is_displayed()
    _only_local(browser, gallery)


def test_the_failed_list_opens_with_reasons(browser, gallery):
    browser.open(gallery / "index.html")
    rows = browser.all("#left-out li")
    assert not rows[0].is_displayed()
    browser.script("document.querySelector('summary').focus()")
    browser.press(Keys.ENTER)
    assert [r.is_displayed() for r in rows] == [True, True]
    assert rows[0].text.splitlines() == ["in/broken.jpg", "It is not a photo in a format that qatie reads."]
    assert f"x{NASTY}" in rows[1].text
    assert "is empty" in rows[1].text
    _only_local(browser, gallery)


def test_the_comparison_shows_figures_and_the_difference(browser, comparison):
    browser.open(comparison)
    assert browser.names() == ["2.png", "1.png", "0.png"]  # the worst first
    assert "float against int8" in browser.one("h1").text
    assert "PSNR" in browser.one("table").text
    assert "z.png" in browser.one("#left-out").get_attribute("textContent")
    browser.one(".tools [data-mode=difference]").click()
    assert browser.one("#legend").is_displayed()
    browser.wait(lambda: browser.script("return document.querySelector('.difference').naturalWidth") > 0)
    browser.one("#photos .open").click()
    assert browser.one("dialog .difference").is_displayed()
    browser.press("d")
    assert browser.one("dialog .left").is_displayed()
    assert "CIEDE2000" in browser.one("#figures").text
    _only_local(browser, comparison.parent)


def _violations(browser: Browser) -> list[str]:
    """What axe-core calls moderate, serious or critical, in words."""
    browser.script(AXE.read_text(encoding="utf-8"))
    browser.driver.set_script_timeout(60)
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done(r.violations))"
    )
    grave = [v for v in found if v["impact"] != "minor"]
    return [f"{v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes'][:3]]}" for v in grave]


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["gallery", "comparison"])
def test_nothing_is_in_the_way_of_assistive_technology(browser, gallery, comparison, scheme, kind):
    browser.open(gallery / "index.html" if kind == "gallery" else comparison, scheme=scheme)
    browser.one("summary").click()
    browser.one("#find").send_keys("g" if kind == "gallery" else "1")
    assert _violations(browser) == []
    browser.one("#show-single").click()
    assert _violations(browser) == []


@pytest.fixture(scope="module")
def large_gallery(tmp_path_factory, astronaut) -> Path:
    """A page of 2,000 entries with long names, and previews of their own for each."""
    out = tmp_path_factory.mktemp("large")
    folder = out / ".gallery"
    previews.write(folder, "0" * 16, "before", astronaut[:300, :400])
    shown = []
    for index in range(MANY):
        name = f"Pictures from the journey to the north/{index // 100:02} day/IMG_20260704_{index:06}.jpg"
        key = links.key_of(name)
        for side in ("before", "after"):
            for target, made in zip(
                previews.paths(folder, key, side), previews.paths(folder, "0" * 16, "before"), strict=True
            ):
                os.link(made, target)
        shown.append(
            page.PhotoRow(
                key, name, (4000, 3000), f"../in/{name}", name, (index % 97 / 10, 12.0, 0.87, 1782000000 + index), 0
            )
        )
    content = page.Page(
        kind=page.GALLERY,
        title="Journey",
        summary=(f"{MANY} photos",),
        labels=("Original", "Enhanced"),
        sides=("before", "after"),
        folder=".gallery",
        figures=overview.FIGURES,
        orders=overview.ORDERS,
        photos=tuple(shown),
        provenances=("qatie-c16, int8 on onednn, strength 1",),
    )
    page.write(out / "index.html", dataclasses.replace(content, photos=tuple(shown)))
    return out


def test_two_thousand_photos_stay_fluid(browser, large_gallery, record_property):
    path = large_gallery / "index.html"
    assert path.stat().st_size < 1_000_000
    browser.open(path)
    browser.wait(lambda: browser.script("return performance.getEntriesByType('paint').length") > 0)
    paint = browser.script("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 2000
    browser.wait(lambda: browser.script("return document.querySelectorAll('#photos li').length") == MANY)
    time.sleep(0.5)
    first = browser.previews()
    assert 0 < first < 200  # of 4,000
    browser.script("window.scrollTo(0, document.body.scrollHeight / 2)")
    browser.wait(lambda: browser.previews() > first)
    time.sleep(0.5)
    assert browser.previews() < 600
    frames = browser.driver.execute_async_script(
        "const done = arguments[0], took = []; let last = performance.now();"
        "const step = () => { const now = performance.now(); took.push(now - last); last = now; scrollBy(0, 60); "
        "took.length < 60 ? requestAnimationFrame(step) : done(took.sort((a, b) => a - b)) };"
        "requestAnimationFrame(step)"
    )
    began = time.monotonic()
    Select(browser.one("#order")).select_by_visible_text("Most changed")
    sorting = time.monotonic() - began
    browser.wait(lambda: browser.script("return document.querySelectorAll('#photos li').length") == MANY)
    assert sorting < 2
    figures = {"first_paint_ms": paint, "median_frame_ms": frames[30], "bytes": path.stat().st_size, "sort_s": sorting}
    print(figures, first)
    for name, value in figures.items():
        record_property(name, value)
    _only_local(browser, large_gallery)
