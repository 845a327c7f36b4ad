"""What the documentation's own style and script do in a real browser."""

import shutil
from pathlib import Path

from tests.support.browser import MARKS, opened

pytestmark = MARKS

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
PAGE = """<!doctype html><meta charset="utf-8">
<link rel="icon" href="data:,"><link rel="stylesheet" href="site.css"><script src="subscripts.js"></script>
<math><msub><mi>M</mi><mi>s</mi></msub></math>"""
LOWERED = """() => {
    const [letter, below] = [...document.querySelectorAll("mi")].map(one => one.getBoundingClientRect().bottom);
    return below - letter;
}"""


def test_subscripts_stand_below_their_letters(tmp_path):
    """With a mathematical font by themselves, without one by our script."""
    for path in STATIC.iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    with opened(tmp_path / "profile", 390, 844, (tmp_path.as_uri(),)) as page:
        page.goto((tmp_path / "page.html").as_uri())
        assert page.evaluate(LOWERED) >= 1
        assert page.errors == [] and page.elsewhere == []
