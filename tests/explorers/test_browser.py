"""The explorers as a person meets them: JupyterLab, a real browser, the mouse."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.support.browser import MARKS, PATIENCE, opened

pytestmark = MARKS

ROOT = Path(__file__).resolve().parents[2]
BADGE = "https://colab.research.google.com/assets/"  # the notebook's one picture from elsewhere; no test fetches it
HARMLESS = ("favicon", "Permissions-Policy", "ResizeObserver loop")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on the loopback interface over a folder with the explorers' notebook; its address and folder."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = jupytext.read(ROOT / "notebooks" / "explorer.py")
    notebook.metadata = {"kernelspec": dict(name="python3", display_name="Python 3", language="python")}
    nbformat.write(notebook, folder / "explorer.ipynb")
    shutil.copy(ROOT / "notebooks" / "explorer.ipynb", folder / "stored.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "jupyterlab_settings_dir" / "@jupyterlab"
    for name, content in {
        "notebook-extension/tracker": '{"windowingMode": "none"}',  # cells out of sight stay in the page
        "apputils-extension/notification": '{"fetchNews": "false"}',
    }.items():
        (settings / name).parent.mkdir(parents=True)
        (settings / f"{name}.jupyterlab-settings").write_text(content)
    places = {name: str(folder / name.lower()) for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR",
              "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}  # fmt: skip
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH")) if part)
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root",
         f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--ServerApp.password=",
         "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        env={**os.environ, **places, "PYTHONPATH": path}, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            assert server.poll() is None, (folder / "lab.log").read_text()
            time.sleep(0.5)
        else:
            raise AssertionError((folder / "lab.log").read_text())
        yield SimpleNamespace(address=address, folder=folder)
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@pytest.fixture(scope="module")
def page(lab, tmp_path_factory):
    """The notebook, run to its end."""
    here = (lab.address, lab.address.replace("http", "ws"), BADGE)
    with opened(tmp_path_factory.mktemp("profile"), 1500, 1100, here) as page:
        empty = '<svg xmlns="http://www.w3.org/2000/svg"/>'
        page.context.route(f"{BADGE}**", lambda asked: asked.fulfill(content_type="image/svg+xml", body=empty))
        page.goto(f"{lab.address}/lab/tree/explorer.ipynb")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
        for _ in range(5):  # what is asked of a kernel before the page is wholly connected gets lost
            page.wait_for_timeout(2000)
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            if all_cells_run(page):
                break
        else:
            raise AssertionError(f"the notebook stopped at {prompts(page)}")
        yield page


def prompts(page):
    return [text for text in page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts() if text]


def all_cells_run(page):
    """Wait for all explorers; False if the kernel has nothing to do and they do not stand there. Errors are told."""
    at_rest = 0
    for _ in range(PATIENCE // 1000):
        if failed := page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts():
            raise AssertionError(failed[0])
        if page.locator(".jp-OutputArea .widget-vbox img").count() == 4:
            return True
        at_rest = 0 if "[*]:" in prompts(page) else at_rest + 1
        if at_rest == 15:
            return False
        page.wait_for_timeout(1000)
    return False


def open_explorer(page, name):
    """The explorer's box of widgets, in sight, its picture drawn."""
    cell = page.locator(".jp-CodeCell", has=page.locator(".jp-InputArea", has_text=f"{name}(")).last
    box = cell.locator(".jp-OutputArea .widget-vbox").first
    box.locator("img").wait_for()
    box.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    return box


def picture(box):
    """What is seen of the explorer's picture, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(box.locator("img").screenshot())).convert("RGB")).astype(int)


def unlike(one, other):
    return one.shape != other.shape or (np.abs(one - other).max(-1) > 30).sum() > 100


def changed(page, box, before):
    """Wait until the picture differs in more than a hundred pixels, the kernel rests and the picture stays: sliders
    draw one for every value on their way. Returns the last one."""
    idle = page.get_by_text("Python 3 (ipykernel) | Idle")
    last, stays = before, 0
    for _ in range(600):
        now = picture(box)
        stays = 0 if unlike(now, last) or not idle.count() else stays + 1
        last = now
        if stays >= 5 and unlike(now, before):
            return now
        page.wait_for_timeout(200)
    raise AssertionError("the picture did not change")


def move(box, description, key, times=1):
    """Move a slider by keyboard."""
    handle = box.locator(".widget-slider", has_text=description).locator(".noUi-handle").first
    handle.focus()
    for _ in range(times):
        handle.press(key)


@pytest.fixture(autouse=True)
def nothing_in_the_console(page):
    """No test may leave an error in the console, or have the browser ask for anything outside the loopback."""
    yield
    assert [text for text in page.errors if not any(known in text for known in HARMLESS)] == []
    assert page.elsewhere == []


def test_layer_scrubber_answers_to_clicks_and_sliders(page, tmp_path):
    box = open_explorer(page, "LayerScrubber")
    box.screenshot(path=tmp_path / "scrubber.png")
    before = picture(box)
    image = box.locator("img").bounding_box()
    scale = image["width"] / 960
    box.locator("img").click(position={"x": 70 * scale, "y": 180 * scale})  # in the picture, upper left
    clicked = changed(page, box, before)
    # (180 - 46) / 14.67 = 9.1 and (70 - 8) / 14.67 = 4.2, counted from 1
    readouts = "box => [...box.querySelectorAll('.widget-readout')].map(one => one.innerText).join() === '12,10,5'"
    page.wait_for_function(readouts, arg=box.element_handle())
    move(box, "block", "ArrowLeft", 5)
    changed(page, box, clicked)
    page.wait_for_function("box => box.querySelector('.widget-readout').innerText === '7'", arg=box.element_handle())
    before = picture(box)
    move(box, "row", "ArrowRight")
    changed(page, box, before)
    assert box.locator("img").get_attribute("alt").startswith("Layer scrubber")
    box.screenshot(path=tmp_path / "scrubber-after.png")


def test_word_explorer_takes_words_and_switches_stages(page, tmp_path):
    box = open_explorer(page, "WordExplorer")
    before = picture(box)
    field = box.locator("input[type=text]")
    field.fill("umbrella, sand")
    field.press("Enter")
    before = changed(page, box, before)
    box.locator("input[type=checkbox]").nth(1).uncheck()
    before = changed(page, box, before)
    field.fill("zeppelin")
    field.press("Enter")
    box.get_by_role("alert").wait_for()
    assert "does not know the word 'zeppelin'" in box.get_by_role("alert").inner_text()
    box.screenshot(path=tmp_path / "words-error.png")
    field.fill("balloon, sand")
    field.press("Enter")
    changed(page, box, before)
    assert box.get_by_role("alert").count() == 0
    box.locator("select").first.select_option(index=3)  # the picture; the other chooses a method
    page.wait_for_function("box => box.querySelector('input[type=text]').value.includes('telephone')",
                           arg=box.element_handle())  # fmt: skip
    box.screenshot(path=tmp_path / "words.png")


def test_cascade_explorer_moves_weights_and_offset(page, tmp_path):
    box = open_explorer(page, "CascadeExplorer")
    before = picture(box)  # without the offset
    box.get_by_role("button", name="as trained").click()
    start = changed(page, box, before)
    move(box, "offset", "ArrowRight", 20)
    before = changed(page, box, start)
    move(box, "sigma", "End")
    before = changed(page, box, before)
    box.screenshot(path=tmp_path / "cascade.png")
    box.get_by_role("button", name="as trained").click()
    assert not unlike(changed(page, box, before), start), "'as trained' did not bring its picture back"


def test_surgery_bench_cuts(page, tmp_path):
    box = open_explorer(page, "SurgeryBench")
    before = picture(box)
    box.get_by_role("button", name="key-key", exact=True).click()
    before = changed(page, box, before)
    for part in ("residual", "feed-forward"):  # cut already
        box.get_by_label(part).check()
        before = changed(page, box, before)
    box.screenshot(path=tmp_path / "surgery.png")


def test_own_picture(page, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "mine.png")
    box = open_explorer(page, "LayerScrubber")
    before = picture(box)
    with page.expect_file_chooser() as chooser:
        box.get_by_role("button", name="your own picture").click()
    chooser.value.set_files(tmp_path / "mine.png")
    changed(page, box, before)
    assert box.locator("select option:checked").inner_text().replace("\xa0", " ") == "yours: mine.png"
    box.screenshot(path=tmp_path / "own.png")


def test_a_notebook_that_is_only_read_shows_the_figures(lab, page):
    """Saved with its widgets and opened without a kernel's answer, every explorer has its picture in the file."""
    page.locator("[data-jp-item-name=save]").first.click()
    views = []
    for _ in range(300):
        page.wait_for_timeout(200)
        try:
            saved = nbformat.read(lab.folder / "explorer.ipynb", as_version=4)
        except nbformat.reader.NotJSONError:  # half written
            continue
        bundles = [output.data for cell in saved.cells for output in cell.get("outputs", []) if "data" in output]
        views = [bundle for bundle in bundles if "application/vnd.jupyter.widget-view+json" in bundle]
        if len(views) == 4:
            break
    assert len(views) == 4 and all("image/png" in bundle for bundle in views)


def test_the_stored_notebook_shows_the_figures_without_being_run(lab, page):
    """Run by a program, as the notebooks of the repository are: nobody shows widgets then, and the pictures remain."""
    reader = page.context.new_page()
    reader.goto(f"{lab.address}/lab/workspaces/reader/tree/stored.ipynb")
    for name in ("LayerScrubber", "WordExplorer", "CascadeExplorer", "SurgeryBench"):
        cell = reader.locator(".jp-CodeCell", has=reader.locator(".jp-InputArea", has_text=f"{name}(")).last
        shown = cell.locator(".jp-OutputArea-output img")
        shown.wait_for()
        assert shown.evaluate("image => image.naturalWidth") == 960
    assert reader.get_by_text("displaying widget").count() == reader.get_by_text("Loading widget").count() == 0
    reader.close()
