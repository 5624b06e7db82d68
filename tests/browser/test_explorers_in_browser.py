"""Explorers in Debian's chromium: sliders moved by keyboard, pixels compared, the console read, latencies logged."""

import contextlib
import io
import json
import os
import statistics
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError

from .conftest import REPOSITORY

pytestmark = pytest.mark.browser

PRESSES = 20
LINKED_MS, RECOMPUTED_MS = 60, 400
SECONDS_PER_MILLION = 0.04  # squares summed by Python, on the slowest core that the limits are meant for
PAGES = sorted((REPOSITORY / "reports" / "explorers").glob("*.html"))
# Resolves with the milliseconds from the next key press to the first animation frame that has another picture in it.
WATCH = """selector => { window.changed = new Promise(resolve => {
  const shown = () => {
    const image = document.querySelector(selector);
    return image && image.complete && image.naturalWidth ? image.src : '';
  };
  const before = shown();
  let start = null;
  document.addEventListener('keydown', event => { start = performance.now(); }, {capture: true, once: true});
  const look = () => {
    const now = shown();
    if (start !== null && now && now !== before) requestAnimationFrame(() => resolve(performance.now() - start));
    else requestAnimationFrame(look);
  };
  look();
}); }"""


def press(page, key, selector):
    """Press a key; the milliseconds until the picture at `selector` is another one."""
    page.evaluate(WATCH, selector)
    page.keyboard.press(key)
    return page.evaluate("""() => Promise.race([window.changed,
        new Promise((_, no) => setTimeout(() => no(new Error('the picture did not change')), 60000))])""")


def pixels(page, selector):
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB"), dtype=int)


def differing(first, second):
    """Share of the pixels that differ between two pictures of one size."""
    assert first.shape == second.shape, "the picture changed its size"
    return float((np.abs(first - second).max(axis=2) > 8).mean())


@pytest.fixture
def page(browser):
    """A page that notes every error in the console and every request beyond this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.errors, page.strangers = [], []
    page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on(
        "request",
        lambda r: page.strangers.append(r.url) if r.url.startswith("http") and "127.0.0.1" not in r.url else None,
    )
    yield page
    assert page.errors == []
    assert page.strangers == []
    context.close()


def open_notebook(page, lab, name, explorer="ratio"):
    page.goto(f"{lab}/lab/tree/{name}?reset")
    page.locator(".jp-Notebook").first.wait_for(timeout=60_000)
    return f".dqas-explorer-{explorer}"


def restored(page, selector):
    """Wait for what a saved notebook shows; JupyterLab now and then loses its widgets while a kernel starts: reload."""
    with contextlib.suppress(TimeoutError):
        return page.locator(selector).wait_for(timeout=30_000)
    print("reloaded: the saved widgets were not restored")
    page.errors.clear()
    page.reload()
    page.locator(selector).wait_for(timeout=60_000)


def running_kernels(lab):
    with urllib.request.urlopen(f"{lab}/api/kernels") as answer:
        return json.load(answer)


def stop_kernels(lab):
    for kernel in running_kernels(lab):
        urllib.request.urlopen(urllib.request.Request(f"{lab}/api/kernels/{kernel['id']}", method="DELETE"))
    assert running_kernels(lab) == []


@pytest.mark.parametrize("explorer", ["ratio", "rounds"])
def test_an_executed_notebook_answers_without_a_kernel(page, lab, executed, screenshots, explorer):
    assert executed.stat().st_size < 3_000_000
    print(f"\nexecuted notebook: {executed.stat().st_size:,} bytes")
    box = open_notebook(page, lab, executed.name, explorer)
    restored(page, f"{box} img")
    deadline = time.monotonic() + 60
    while not any(kernel["execution_state"] == "idle" for kernel in running_kernels(lab)):
        assert time.monotonic() < deadline, "JupyterLab starts a kernel for the notebook it opened"
        time.sleep(0.1)
    stop_kernels(lab)
    page.locator(f"{box} .noUi-handle").first.scroll_into_view_if_needed()
    page.locator(f"{box} .noUi-handle").first.focus()
    before = pixels(page, f"{box} img")
    alt = page.locator(f"{box} img").get_attribute("alt")
    times = [press(page, "ArrowLeft" if n % 2 == 0 else "ArrowRight", f"{box} img") for n in range(PRESSES)]
    press(page, "ArrowLeft", f"{box} img")
    assert differing(before, pixels(page, f"{box} img")) > 0.01
    assert page.locator(f"{box} img").get_attribute("alt") != alt
    assert len(alt) > 60
    assert running_kernels(lab) == []
    report(f"{explorer}, linked, no kernel", times, LINKED_MS)
    page.errors[:] = [text for text in page.errors if "kernel" not in text.lower() and "404" not in text]


def report(name, times, limit):
    median, allowed = statistics.median(times), limit * slowness()
    print(
        f"{name}: median {median:.0f} ms, worst {max(times):.0f} ms of {len(times)} presses (at most {allowed:.0f} ms; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)"
    )
    assert median <= allowed


def slowness():
    """Factor on the limits: programs per core at the moment, times how slowly a core runs Python."""
    started = time.process_time()
    sum(i * i for i in range(1_000_000))
    core = (time.process_time() - started) / SECONDS_PER_MILLION
    return max(1.0, os.getloadavg()[0] / os.cpu_count()) * max(1.0, core)


def test_looks_in_both_themes_and_two_widths(page, lab, executed, screenshots):
    box = open_notebook(page, lab, executed.name)
    restored(page, f"{box} img")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{'true' if theme == 'light' else 'false'}'")
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 900})
            page.locator(f"{box} img").scroll_into_view_if_needed()
            page.wait_for_timeout(400)
            frame, window = page.locator(f"{box} img").bounding_box(), page.locator(".jp-Notebook").bounding_box()
            assert frame["x"] >= window["x"]
            assert frame["x"] + frame["width"] <= window["x"] + window["width"], "the picture is cut off"
            caption, place = (page.locator(f"{box} {part}").last for part in ("figcaption:visible", ".dqas-frames"))
            caption, place = caption.bounding_box(), place.bounding_box()
            assert caption["y"] + caption["height"] <= place["y"] + place["height"], "the caption is cut off"
            page.screenshot(path=screenshots / f"lab-{theme}-{width}.png")
    stop_kernels(lab)
    page.errors[:] = [text for text in page.errors if "kernel" not in text.lower() and "404" not in text]


def test_free_choices_are_drawn_by_the_kernel(page, lab, executed, screenshots):
    box = open_notebook(page, lab, "plain.ipynb")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    page.locator(f"{box} img").wait_for(state="attached", timeout=240_000)
    page.locator(".dqas-explorer-rounds img").wait_for(state="attached", timeout=240_000)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=240_000)
    page.locator(f"{box} img").scroll_into_view_if_needed()
    idle(page, box)
    before = pixels(page, f"{box} img")
    times = []
    for which, (number, key) in enumerate([(9, "ArrowRight"), (1, "ArrowRight"), (9, "ArrowLeft"), (1, "ArrowLeft")]):
        page.locator(f"{box} .noUi-handle").nth(1 + which % 2).focus()
        times += [press(page, key, f"{box} img") for _ in range(number)]
    assert len(times) == PRESSES
    page.locator(f"{box} .noUi-handle").nth(1).focus()
    press(page, "ArrowRight", f"{box} img")
    idle(page, box)
    assert differing(before, pixels(page, f"{box} img")) > 0.01
    report("ratio, recomputed in the kernel", times, RECOMPUTED_MS)
    page.locator(f"{box} .noUi-handle").first.focus()
    times = [press(page, "ArrowLeft" if n % 2 == 0 else "ArrowRight", f"{box} img") for n in range(PRESSES)]
    report("ratio, linked, after a free choice", times, LINKED_MS)
    page.screenshot(path=screenshots / "lab-kernel.png")
    stop_kernels(lab)
    page.errors[:] = [text for text in page.errors if "kernel" not in text.lower() and "404" not in text]


def idle(page, box):
    """Wait until nothing is being drawn."""
    page.wait_for_function(
        "box => !document.querySelector(box).textContent.includes('rawing')", arg=box, timeout=60_000
    )


def test_there_are_pages():
    assert {path.stem for path in PAGES} == {"ratio", "ratio-cifar10", "drop_share", "class_budget", "rounds"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_works_by_keyboard_and_loads_nothing(page, path, screenshots):
    assert path.stat().st_size < 2_000_000
    page.goto(path.as_uri(), wait_until="commit")
    there = "() => { const i = document.images[0]; return i && i.complete && i.naturalWidth && performance.now(); }"
    first = page.wait_for_function(there).json_value()
    page.wait_for_load_state("load")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "turn"
    before, alt = pixels(page, "#frame"), page.locator("#frame").get_attribute("alt")
    page.keyboard.press("Home")
    times = [press(page, "ArrowRight" if n % 2 == 0 else "ArrowLeft", "#frame") for n in range(PRESSES)]
    page.keyboard.press("End")
    page.wait_for_timeout(100)
    assert differing(before, pixels(page, "#frame")) > 0.01
    assert page.locator("#frame").get_attribute("alt") != alt
    said = page.locator("#said").inner_text()
    assert page.locator("#turn").get_attribute("aria-valuetext") == said
    report(f"page {path.stem}", times, LINKED_MS)
    print(f"page {path.stem}: first picture after {first:.0f} ms, {path.stat().st_size:,} bytes")
    assert first < 1000 * slowness()
    if page.locator("#choice").count():
        page.keyboard.press("Tab")
        there = page.locator("#frame").get_attribute("src")
        page.keyboard.press("ArrowDown")
        page.wait_for_function("src => document.images[0].src !== src", arg=there)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (1280, 800):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.screenshot(path=screenshots / f"page-{path.stem}-{theme}-{width}.png", full_page=True)
