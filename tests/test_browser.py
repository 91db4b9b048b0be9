"""The page in a real, headless Chromium: no error, no request, and everything that should move does.

Skipped, with the reason, where there is no Chromium with its driver or no selenium.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reporting_runs import run

from concept_depth.reporting.page import write_page

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no headless Chromium here: apt-get install chromium chromium-driver"
)


class Browser:
    """A window, and what the tests ask of it."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1180,900"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, path: Path) -> None:
        self.driver.get_log("performance")
        self.driver.get_log("browser")
        self.driver.get(path.as_uri())

    def wait(self, script: str, *arguments: Any) -> Any:
        """The value of a script as soon as it is true; fails after half a minute."""
        deadline = time.monotonic() + 30
        while not (value := self.js(script, *arguments)):
            assert time.monotonic() < deadline, f"never came true: {script}\n{self.complaints()}"
            time.sleep(0.05)
        return value

    def show(self, selector: str) -> None:
        """Scroll a chart into view and wait until it is drawn."""
        self.js(
            "document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", selector
        )
        self.wait("return document.querySelector(arguments[0] + ' .main-svg') !== null", selector)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Everything asked of a network since the page was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:", "blob:"))]

    def hover(self, x: float, y: float) -> None:
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x - 3, y=y - 3)
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    window = Browser()
    yield window
    window.driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    many = [
        run(name, model=model, at=at, strength=strength)
        for model in ("model a", "model b")
        for name, at, strength in (("early", 1, 2.0), ("late", 6, 2.0), ("absent", 4, 0.0))
    ]
    hostile = run("<img src=x onerror='window.hacked=1'>", model="</title><script>window.hacked=1", hostile=True)
    return {
        "one": write_page([run()], folder / "one.html"),
        "many": write_page(many, folder / "many.html"),
        "hostile": write_page([hostile], folder / "hostile.html"),
        "three classes": write_page([run("kinds", K=3)], folder / "three.html"),
    }


def draw_everything(browser: Browser) -> int:
    charts = browser.js("return document.querySelectorAll('[data-chart]').length")
    for index in range(charts):
        browser.js(
            "document.querySelectorAll('[data-chart]')[arguments[0]].scrollIntoView({behavior: 'instant'})", index
        )
        browser.wait(
            "return document.querySelectorAll('[data-chart]')[arguments[0]].querySelector('.main-svg')", index
        )
    return charts


@pytest.mark.parametrize("name", ["one", "many", "hostile", "three classes"])
def test_a_page_draws_everything_without_an_error_or_a_request(browser, pages, name):
    browser.open(pages[name])
    assert draw_everything(browser) >= 3
    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.js("return window.hacked") is None


def test_the_check_would_see_an_error_and_a_request(browser, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<img src="http://127.0.0.1:9/pixel.png"><script>null.x</script>', encoding="utf-8")
    browser.open(page)
    assert browser.requests() == ["http://127.0.0.1:9/pixel.png"]
    assert any("TypeError" in complaint for complaint in browser.complaints())


def test_the_slider_moves_the_points_and_names_the_layer(browser, pages):
    browser.open(pages["one"])
    browser.show("[data-chart=space]")
    browser.js("document.getElementById('layer').focus()")
    before = browser.js("return document.querySelector('[data-chart=space]').data[0].x")
    named = browser.js("return document.getElementById('layer-name').textContent")
    browser.press("ArrowLeft", 37)
    browser.wait("return document.getElementById('layer-name').textContent !== arguments[0]", named)
    browser.wait(
        "return JSON.stringify(document.querySelector('[data-chart=space]').data[0].x) !== arguments[0]",
        json.dumps(before),
    )
    assert browser.js("return document.getElementById('layer').getAttribute('aria-valuetext')").startswith(
        "layer "
    )


def test_play_runs_to_the_last_layer(browser, pages):
    browser.open(pages["one"])
    browser.show("[data-chart=space]")
    browser.js("document.getElementById('layer').value = 6; document.getElementById('play').click()")
    browser.wait("return document.getElementById('layer').value === document.getElementById('layer').max")
    browser.wait("return document.getElementById('play').textContent === '▶'")


def test_the_text_of_a_point_is_shown_when_it_is_pointed_at(browser, pages):
    for name in ("one", "hostile"):
        browser.open(pages[name])
        browser.show("[data-chart=space]")
        place = browser.wait(
            """
            const chart = document.querySelector('[data-chart=space]'), box = chart.getBoundingClientRect();
            if (!chart._fullLayout) return null;
            const {xaxis, yaxis} = chart._fullLayout, points = chart.data[0];
            // A point that stands alone, so that no other is nearer to the pointer.
            let best = null, room = -1;
            points.x.forEach((x, i) => {
              if (Math.abs(x) > xaxis.range[1] || Math.abs(points.y[i]) > yaxis.range[1]) return;
              let near = Infinity;
              chart.data.slice(0, 2).forEach((other, k) => other.x.forEach((u, j) => {
                if (k || j !== i) near = Math.min(
                  near, Math.hypot(xaxis.d2p(u) - xaxis.d2p(x), yaxis.d2p(other.y[j]) - yaxis.d2p(points.y[i])));
              }));
              if (near > room) { room = near; best = i; }
            });
            return {x: box.left + xaxis._offset + xaxis.d2p(points.x[best]),
                    y: box.top + yaxis._offset + yaxis.d2p(points.y[best]), index: points.customdata[best]};
            """
        )
        browser.hover(place["x"], place["y"])
        browser.wait("return !document.getElementById('tip').hidden")
        data = browser.js("return JSON.parse(document.getElementById('data').textContent).space")
        said = browser.js("return document.getElementById('tip').textContent")
        assert data["text"][place["index"]] in said
        assert data["classes"][data["label"][place["index"]]] in said
        assert browser.js("return document.querySelector('#tip script, #tip img, #tip a')") is None


def test_the_metric_of_the_curves_can_be_switched(browser, pages):
    for name in ("one", "many"):
        browser.open(pages[name])
        browser.show("[data-chart=curve]")
        curves = "document.querySelector('[data-chart=curve]').data.find((t) => t.name === 'curve').y"
        before = browser.js(f"return {curves}")
        browser.js(
            "const m = document.getElementById('metric'); m.value = 'auroc'; m.dispatchEvent(new Event('change'))"
        )
        browser.wait(f"return JSON.stringify({curves}) !== arguments[0]", json.dumps(before))
    assert browser.complaints() == []


def test_values_of_a_curve_can_be_read_with_the_keyboard_and_the_pointer(browser, pages):
    browser.open(pages["one"])
    browser.show("[data-chart=curve]")
    browser.js("document.querySelector('[data-chart=curve]').focus()")
    browser.press("ArrowRight", 39)
    browser.press("ArrowRight", 39)
    assert browser.js("return document.getElementById('tip').textContent").startswith("layer 1 of 8: 0.")
    browser.press("Escape", 27)
    assert browser.js("return document.getElementById('tip').hidden")
    middle = browser.js(
        "const box = document.querySelector('[data-chart=curve] .nsewdrag').getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + box.height / 2]"
    )
    browser.hover(*middle)
    browser.wait("return document.getElementById('tip').textContent.startsWith('layer 4 of 8')")


def test_the_colours_follow_the_system_and_the_button(browser, pages):
    paper = "return getComputedStyle(document.body).backgroundColor"
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.open(pages["one"])
    light = browser.js(paper)
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = browser.js(paper)
    assert light != dark
    browser.js("document.getElementById('theme').click()")
    assert browser.js(paper) == light
    browser.js("document.getElementById('theme').click()")
    assert browser.js(paper) == dark
    browser.command("Emulation.setEmulatedMedia", features=[])


def test_everything_that_can_be_operated_has_a_name(browser, pages):
    for name in ("one", "many"):
        browser.open(pages[name])
        draw_everything(browser)
        nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
        operated = [
            node
            for node in nodes
            if not node.get("ignored")
            and node.get("role", {}).get("value")
            in {"button", "link", "slider", "combobox", "searchbox", "image", "img"}
        ]
        assert len(operated) > 5
        nameless = [node["role"]["value"] for node in operated if not node.get("name", {}).get("value")]
        assert nameless == []


@pytest.mark.parametrize("name", ["one", "many", "hostile"])
def test_a_page_fits_a_telephone(browser, pages, name):
    browser.command("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    try:
        browser.open(pages[name])
        draw_everything(browser)
        assert browser.js("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.command("Emulation.clearDeviceMetricsOverride")


def test_without_scripts_the_results_still_stand_there(browser, pages):
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["many"])
        text = browser.command("DOM.getDocument", depth=0) and browser.driver.find_element("tag name", "main").text
        for words in ("early is linearly separable", "absent is not linearly separable", "Depth by model"):
            assert words in text
        assert len(browser.driver.find_elements("css selector", "svg.curve polyline")) == 3
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_a_printed_page_has_its_charts_and_no_controls(browser, pages):
    browser.open(pages["one"])
    draw_everything(browser)
    browser.command("Emulation.setEmulatedMedia", media="print")
    try:
        assert not browser.driver.find_element("id", "theme").is_displayed()
        assert browser.driver.find_element("css selector", "[data-chart=curve] .main-svg").is_displayed()
        assert len(browser.command("Page.printToPDF", printBackground=True)["data"]) > 10_000
    finally:
        browser.command("Emulation.setEmulatedMedia", media="")
