"""The designer in a real browser: the form, the data in the plot, and its look on a desktop and on a phone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, sync_playwright

from hf_sched.designer.run_form import RunForm
from hf_sched.reference.named_schedule import NamedSchedule

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}")]
CONFIG = """\
max_length: 512
learning_rate: 1.0e-4
num_train_epochs: 2
warmup_steps: 0.1
lr_scheduler_type: wsd
lr_scheduler_kwargs: {decay: 25%, floor_ratio: 0.1}
"""
PASTED = """\
stage: sft
template: qwen3
learning_rate: 3.0e-5
max_steps: 400
warmup_ratio: 0.1
lr_scheduler_type: cosine
"""
ABOUT = ("--num-processes", "4", "--dataset-size", "6400")
TRACES = (
    "() => document.querySelector('.js-plotly-plot')._fullData.map(t => [t.name, Array.from(t.x), Array.from(t.y)])"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("designer") / "sft.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def address(config):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "hf_sched", "design", str(config), *ABOUT, "--port", str(port), "--no-browser"]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert f"http://127.0.0.1:{port}" in server.stdout.readline()
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    """The page, whose plot is drawn. At the end it must have used no other host and reported no error."""
    width, height = request.param
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    hosts, errors = set(), []
    page.on("request", lambda sent: hosts.add(sent.url.split("/")[2] if sent.url.startswith("http") else ""))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(address)
    page.wait_for_selector(".js-plotly-plot .main-svg")
    yield page
    page.close()
    assert hosts - {""} == {address.split("/")[2]} and not errors


def wait_for_traces(
    page: Page, names: list[str], steps: int | None = None, curve: list[float] | None = None
) -> list[tuple[str, list, list]]:
    """The traces of the plot once they have these names, and the first one so many steps or this curve."""
    deadline = time.monotonic() + 60
    while True:
        traces = [trace for trace in page.evaluate(TRACES) if not trace[0].startswith("trace ")]
        is_there = [name for name, _, _ in traces] == names and steps in (None, len(traces[0][1]))
        is_there = is_there and curve in (None, traces[0][2])
        if is_there or time.monotonic() > deadline:
            assert [(name, len(x)) for name, x, _ in traces][:1] == [(names[0], steps or len(traces[0][1]))]
            assert [name for name, _, _ in traces] == names
            return traces
        page.wait_for_timeout(200)


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#{name} input, #{name} textarea").first


def put(page: Page, name: str, text: str) -> None:
    """Type a text into a field, as a user does."""
    field(page, name).fill("")
    field(page, name).press_sequentially(text)
    field(page, name).press("Tab")


def open_tab(page: Page, name: str) -> None:
    """Open a tab, on a phone from the menu of those that do not fit."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").first.click()
        tab = page.locator(".overflow-dropdown button").filter(has_text=name)
    tab.click()


def screenshot(page: Page, name: str) -> None:
    """Save a picture of the whole page into the folder `DESIGNER_SCREENSHOTS`, if it is given."""
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    if folder := os.environ.get("DESIGNER_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}-{page.viewport_size['width']}.png", full_page=True)


def test_plot_shows_the_plan_and_follows_the_form(page, config):
    command = [sys.executable, "-m", "hf_sched", "plan", str(config), *ABOUT, "--json"]
    planned = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    label = "wsd:decay=25%,floor_ratio=0.1"
    ((_, x, y),) = wait_for_traces(page, [label])
    assert (x, y) == (list(range(planned["num_training_steps"])), planned["curve"])
    assert field(page, "num_processes").input_value() == "4"

    put(page, "max_steps", "500")
    put(page, "learning_rate", "2e-4")
    wait_for_traces(page, [label], 500)
    put(page, "decay-0", "100")
    label = "wsd:decay=100,floor_ratio=0.1"
    page.wait_for_function(
        "() => document.querySelector('#phases input, #phases textarea').value.includes('decay 100 ')"
    )
    form = RunForm(2e-4, 500, warmup_steps=0.1)
    ((_, _, y),) = wait_for_traces(page, [label], 500)
    assert y == form.plan(NamedSchedule("wsd", {"decay": 100, "floor_ratio": 0.1})).curve.tolist()

    field(page, "phases").focus()
    field(page, "phases").press("Tab")  # a text that nobody changed does not replace the schedule
    page.wait_for_timeout(1000)
    wait_for_traces(page, [label], 500)
    field(page, "phases").fill("warmup 5% | hold | decay 30%")  # pasted as a whole
    field(page, "phases").press("Enter")
    wait_for_traces(page, ["warmup 5% | hold | decay 30%"], 500)
    text = "warmup 10% cosine | hold 40% | decay 1-sqrt to 0.05"
    put(page, "phases", text)
    curve = form.plan(NamedSchedule("phases", {"phases": text})).curve.tolist()
    # The label is cut, so it is the same before the last letters are typed.
    ((_, _, y),) = wait_for_traces(page, [f"{text[:47]}…"], 500, curve)
    assert y == curve
    assert field(page, "phases").input_value() == text

    menu = page.get_by_label("Add a schedule")
    menu.click()
    menu.press_sequentially("cosine (tr")
    page.get_by_role("option").filter(has_text="cosine (transformers)").first.click()
    _, (_, _, y) = wait_for_traces(page, [f"{text[:47]}…", "cosine"], 500)
    assert y == form.plan(NamedSchedule("cosine")).curve.tolist()
    screenshot(page, "form")

    page.get_by_label("Hours").click()
    page.get_by_text("is required for the axis 'Hours'").wait_for()
    put(page, "seconds_per_step", "7.2")
    page.get_by_text("1 hours").wait_for()
    (_, x, _), _ = wait_for_traces(page, [f"{text[:47]}…", "cosine"], 500)
    assert x[-1] == pytest.approx(499 * 7.2 / 3600, rel=1e-12)


def paste(page: Page, text: str) -> None:
    open_tab(page, "Configuration")
    page.locator("#paste .cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)
    page.get_by_role("button", name="Check it and show its curve").click()


def test_pasted_configuration_shows_its_curve_and_findings(page):
    wait_for_traces(page, ["wsd:decay=25%,floor_ratio=0.1"])
    paste(page, CONFIG + "lr_groups: {lm_head: 0.1x}\nweight_decay: 0.1\nschedules: {weight_decay: decay to 0}\n")
    _, (_, _, head), (_, _, decay) = wait_for_traces(page, ["wsd:decay=25%,floor_ratio=0.1", "lm_head", "weight_decay"])
    assert max(head) == pytest.approx(1e-5) and (decay[0], decay[-1]) == (1, 0)
    paste(page, PASTED)
    page.get_by_text("Read as LLaMA-Factory").wait_for()
    ((_, _, y),) = wait_for_traces(page, ["cosine"], 400)
    assert y == RunForm(3e-5, 400, warmup_steps=0.1).plan(NamedSchedule("cosine")).curve.tolist()
    assert field(page, "max_steps").input_value() == "400"
    screenshot(page, "paste")
    open_tab(page, "Copy")
    page.locator("code").get_by_text("lr_scheduler_type: cosine").wait_for()
    screenshot(page, "copy")


def test_server_has_no_analytics(address):
    with urllib.request.urlopen(f"{address}config") as answer:
        assert json.load(answer)["analytics_enabled"] is False
