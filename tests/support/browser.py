"""A real browser for tests: Chromium, driven by Playwright."""

import os
import shutil
from contextlib import contextmanager, suppress

import pytest

NEEDED = bool(os.environ.get("CASCADECLIP_BROWSER"))  # set where a missing browser is an error, not a reason to skip
if NEEDED:
    import playwright.sync_api as sync_api
    import psutil
else:
    psutil = pytest.importorskip("psutil", reason="no psutil: pip install psutil")
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

MARKS = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and not NEEDED, reason="no Chromium found: install the package `chromium`"),
]

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
PATIENCE = 240_000  # ms, for everything; machines that run tests may be busy


def computing():
    """Seconds that the browser and what drives it have computed so far, on all cores: waiting does not count, so that
    other programs hardly matter."""
    times = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            times.append(process.cpu_times())
    return sum(one.user + one.system for one in times)


@contextmanager
def opened(profile, width, height, here):
    """A page of a new browser whose profile lies in the folder `profile`.

    What the console says of errors is kept in `page.errors`, and in `page.elsewhere` every address that was asked for
    and starts with none of `here`.
    """
    assert CHROMIUM, "no Chromium found, and CASCADECLIP_BROWSER demands one: install the package `chromium`"
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(FLAGS), viewport={"width": width, "height": height}
        )
        context.set_default_timeout(PATIENCE)
        page = context.pages[0]
        page.errors, page.elsewhere = [], []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        here = (*here, "blob:", "data:")
        page.on("request", lambda asked: None if asked.url.startswith(here) else page.elsewhere.append(asked.url))
        yield page
        context.close()
