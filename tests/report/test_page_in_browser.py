"""The page in Chromium: sorting, filters, forecasts, provenance, keyboard, both themes, a phone's width."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import page_results
import pytest

from tsbench.report.page.document import page

pytest.importorskip("matplotlib")
pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs Chromium and its driver")

CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function channels(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(colour) {
  const [r, g, b] = channels(colour).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(element) {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (channels(colour)[3] === 255) return colour;
  }
  return "white";
}
const found = {};
for (const element of document.querySelectorAll("body *")) {
  const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!text || !element.checkVisibility() || element.closest("svg")) continue;
  const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))];
  found[`${element.tagName}.${element.className}`] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (
        *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("page")
    store = page_results.write_page_results(folder / "results")
    path = folder / "report.html"
    path.write_text(page(store), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page, at a desktop's width in the light theme; the console must stay empty."""
    show(browser, 1280, "light")
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def show(browser: Any, width: int, theme: str) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})


def column(browser: Any, place: int) -> list[str]:
    """Texts of a column of the table of long series, of the rows that are shown."""
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#long tbody tr:not([hidden])')]"
        ".map((row) => row.cells[arguments[0]].firstChild.textContent)",
        place,
    )
    return found


def heading(browser: Any, text: str) -> Any:
    headings = browser.find_elements(By.CSS_SELECTOR, "#long thead th")
    return next(each for each in headings if each.text.startswith(text))


def choose(browser: Any, name: str, text: str) -> None:
    Select(browser.find_element(By.ID, name)).select_by_visible_text(text)


def status(browser: Any) -> str:
    return str(browser.find_element(By.CSS_SELECTOR, "#long [role=status]").text)


def test_a_heading_sorts_numbers_as_numbers_and_says_so(opened: Any) -> None:
    mse = heading(opened, "MSE")
    assert mse.get_attribute("aria-sort") is None
    mse.find_element(By.TAG_NAME, "button").click()
    values = [float(text.split()[0]) for text in column(opened, 6)]
    assert values == sorted(values)
    assert mse.get_attribute("aria-sort") == "ascending"
    mse.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert [float(text.split()[0]) for text in column(opened, 6)] == sorted(values, reverse=True)
    assert mse.get_attribute("aria-sort") == "descending"
    change = heading(opened, "ΔMSE").find_element(By.TAG_NAME, "button")
    for _ in range(2):
        change.click()
        shown = column(opened, 7)
        assert set(shown[2:]) == {"–"} and "–" not in shown[:2]  # what is missing is last, either way


def test_filters_choose_rows_and_columns_and_the_line_counts(opened: Any) -> None:
    assert status(opened) == "7 of 7 rows shown."
    choose(opened, "long-2", "TS-Memory")
    assert status(opened) == "2 of 7 rows shown."  # one of them leaks
    choose(opened, "long-2", "Origin")
    choose(opened, "long-1", "48")
    assert (status(opened), column(opened, 0)) == ("1 of 7 rows shown.", ["Origin"])
    choose(opened, "long-score", "mae")
    visible = [
        each.text.split()[0] for each in opened.find_elements(By.CSS_SELECTOR, "#long th") if each.text
    ]
    assert "MAE" in visible and "MSE" not in visible and "CRPS" not in visible
    opened.find_element(By.CSS_SELECTOR, "#long button[type=reset]").click()
    assert opened.execute_async_script("setTimeout(arguments[0])") is None
    assert status(opened) == "7 of 7 rows shown."


def test_a_figure_opens_its_provenance_by_keyboard_and_escape_gives_the_focus_back(opened: Any) -> None:
    choose(opened, "long-2", "TS-Memory")
    figure = opened.find_element(By.CSS_SELECTOR, "#long tr:not([hidden]) td[data-figure] button")
    figure.send_keys(Keys.ENTER)
    dialog = opened.find_element(By.ID, "made")
    assert dialog.get_attribute("open")
    assert opened.find_element(By.ID, "made-title").text.startswith("MSE 0.3050 ± 0.0071 best: TS-Memory")
    seeds = dialog.find_elements(By.TAG_NAME, "summary")
    assert [each.text[-6:] for each in seeds] == ["seed 0", "seed 1"]
    seeds[0].click()
    for text in ("Data SHA-256", "d" * 64, "Some CPU, 1 thread", "700 of 2800, stride 4", "2026-01-02"):
        assert text in dialog.text
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.get_attribute("open")
    assert opened.switch_to.active_element == figure


def test_forecasts_are_drawn_and_follow_the_choice(opened: Any) -> None:
    settings = Select(opened.find_element(By.ID, "browser-setting"))
    assert len(settings.options) == 2
    assert len(Select(opened.find_element(By.ID, "browser-window")).options) == 4
    drawn = []
    for channel in ("HUFL", "OT"):
        choose(opened, "browser-channel", channel)
        drawn.append(opened.find_element(By.CSS_SELECTOR, "#drawing .target").get_attribute("d"))
        assert f"· {channel} ·" in opened.find_element(By.ID, "drawing-text").text
    assert drawn[0] != drawn[1]
    assert drawn[0].startswith("M") and "NaN" not in drawn[0]
    assert len(opened.find_elements(By.CSS_SELECTOR, "#drawing .band")) == 2
    words = opened.find_element(By.ID, "drawing-text").text
    assert "Mean absolute error of this window" in words and "is in the 80 % interval" in words
    settings.select_by_index(1 if page_results.NASTY in settings.options[1].text else 0)
    assert page_results.NASTY in opened.find_element(By.ID, "drawing-text").text
    assert opened.find_elements(By.CSS_SELECTOR, "img[src=x]") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("pressed", [False, True])
def test_text_has_contrast_in_both_themes_however_they_are_chosen(
    browser: Any, address: str, theme: str, pressed: bool
) -> None:
    show(browser, 1280, theme)
    browser.get(address)
    button = browser.find_element(By.ID, "theme")
    if pressed:
        button.send_keys(Keys.SPACE)
    dark = (theme == "dark") != pressed
    assert button.get_attribute("aria-pressed") == str(dark).lower()
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")
    for summary in browser.find_elements(By.TAG_NAME, "summary"):
        browser.execute_script("arguments[0].parentElement.open = true", summary)
    low = {name: ratio for name, ratio in browser.execute_script(CONTRAST).items() if ratio < 4.5}
    assert low == {}


@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(browser: Any, address: str, width: int) -> None:
    show(browser, width, "light")
    browser.get(address)
    browser.execute_script("for (const each of document.querySelectorAll('details')) each.open = true")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "const box = document.querySelector('#long .scroll'); return box.scrollWidth > box.clientWidth"
    assert browser.execute_script(wide)
    cut = "return [...document.querySelectorAll('.table caption')].filter((each) => each.offsetWidth > "
    assert browser.execute_script(f"{cut}each.closest('.scroll').clientWidth).length") == 0


def test_tab_reaches_the_skip_link_first_and_shows_where_it_is(opened: Any) -> None:
    body = opened.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    link = opened.switch_to.active_element
    assert link.text == "Skip to the results"
    assert opened.execute_script("return getComputedStyle(arguments[0]).outlineStyle", link) == "solid"
    link.send_keys(Keys.ENTER)
    opened.switch_to.active_element.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("id") == "long-0"


def test_without_javascript_tables_are_there_and_controls_are_not(browser: Any, address: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address)
        shown = browser.find_element(By.TAG_NAME, "main").text
        assert "Scores of cells on long series" in shown and "Drawing forecasts needs JavaScript" in shown
        assert "0.3050 ± 0.0071" in shown
        assert not any(each.is_displayed() for each in browser.find_elements(By.CSS_SELECTOR, "form, #theme"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
