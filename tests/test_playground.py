"""The playground as a person meets it: opened from a folder, in a real browser, its masks those of PyTorch."""

import base64
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cascadeclip
from cascadeclip.data.emojiscenes import CLASSES, EmojiScenes
from cascadeclip.explorers.compute import encode, probabilities, stage_logits, with_sum
from tests.support.browser import MARKS, computing, opened

pytestmark = MARKS

DOCS = Path(__file__).resolve().parents[1] / "docs"
SEGMENT = """async ([pixels, words, options]) => {
    const bytes = Uint8Array.from(atob(pixels), one => one.charCodeAt(0));
    const { stages, sum } = await playground.segment(bytes, words, options);
    return btoa([...stages, sum].map(found => String.fromCharCode(...found)).join(""));
}"""  # as text: lists of numbers take Playwright seconds
STATUS = "document.getElementById('status').textContent"
CLOSE = 1e-4  # two words whose scores differ by less may change places between two programs
MOST_CLOSE = 3e-4  # share of the pixels where that may happen
MOST_COMPUTING = 20.0  # s until the first result, of all cores together: 3 s on two, and room for busy machines


@pytest.fixture(scope="module")
def tools():
    """The modules that make the page, which are Sphinx's to import."""
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        yield importlib.import_module("playground")
    finally:
        sys.path.remove(str(DOCS / "_ext"))


@pytest.fixture(scope="module")
def site(tools, tmp_path_factory):
    target = tmp_path_factory.mktemp("site") / "playground"
    try:
        tools.build(target)
    except tools.NoRuntime as reason:
        pytest.skip(str(reason))
    return target


@pytest.fixture(scope="module")
def page(site, tmp_path_factory):
    """The page at a phone's width, its first masks drawn."""
    with opened(tmp_path_factory.mktemp("profile"), 390, 844, (site.as_uri(),)) as page:
        page.context.set_default_navigation_timeout(0)
        before = computing()
        page.goto((site / "index.html").as_uri())
        page.wait_for_function(f"playground.first !== null || {STATUS}.includes('cannot')", polling=250)
        page.computed = computing() - before
        assert "cannot" not in page.inner_text("#status"), page.inner_text("#status")
        yield page


@pytest.fixture(autouse=True)
def nothing_in_the_console(page):
    """No test may leave an error in the console, or have the page ask for anything outside its folder."""
    yield
    assert page.errors == [] and page.elsewhere == []


@pytest.fixture(scope="module")
def segmenter():
    return cascadeclip.load("mini/cascade-prompts")


def maps(page):
    """What is said of the maps of the best word: one text for each stage, and one for the sum."""
    page.wait_for_function("!busy")
    return [cell.get_attribute("aria-label") for cell in page.locator("#masks canvas").all()[:4]]


def here(page):
    return page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')")


def wanted(segmenter, image, words, on, offset, weights):
    """PyTorch's scores (S + 1, C, P, P) of the words for a picture (P, P, 3)."""
    encoded = encode(segmenter.model, [image])
    text = segmenter.clip.class_embeddings(words, segmenter.templates)
    logits = torch.cat([
        stage_logits(segmenter.model, encoded, text, stage, own if len(own) > 1 else None)
        for stage, own in enumerate(weights)
    ])  # fmt: skip
    seen = [place for place, word in enumerate(words) if word in segmenter.seen]
    return probabilities(with_sum(logits, on), image.shape[:2], seen, offset)


def found(page, image, words, on, offset, weights):
    """The page's best words (S + 1, P, P) for the same."""
    pixels = np.concatenate([image, np.full((*image.shape[:2], 1), 255, np.uint8)], axis=2)
    options = dict(on=on, offset=offset, weights=weights)
    answer = page.evaluate(SEGMENT, [base64.b64encode(pixels.tobytes()).decode(), words, options])
    labels = np.frombuffer(base64.b64decode(answer), dtype=np.uint8)
    return torch.from_numpy(labels.reshape(-1, *image.shape[:2]).astype(np.int64))


@pytest.mark.parametrize(
    ("scenes", "on", "offset", "weights"),
    [
        (20, [True, True, True], 0.1, None),
        (5, [True, False, True], 0.1, None),
        (5, [True, True, True], 0.35, None),
        (5, [False, True, True], 0.0, [[0.9, 0.1, 0.4], [0.2, 1.2, 0.7], [1.0]]),
    ],
    ids=["as it is", "a stage off", "another offset", "other weights"],
)
def test_best_words_are_those_of_pytorch(page, segmenter, scenes, on, offset, weights):
    if weights is None:
        weights = page.evaluate("WORLD.stages.map(stage => stage.weights)")
    close = total = 0
    for index in range(scenes):
        scene = EmojiScenes.split("test")[index]
        words = list(dict.fromkeys([*scene.things, *scene.stuff, *CLASSES[index::13]]))
        scores = wanted(segmenter, scene.image, words, on, offset, weights)
        best, other = scores.argmax(1), found(page, scene.image, words, on, offset, weights)
        differs = best != other
        gap = scores.gather(1, best[:, None]) - scores.gather(1, other[:, None])
        assert gap.max() < CLOSE, f"scene {index}"
        close, total = close + differs.sum().item(), total + differs.numel()
    print(f"{close} of {total} pixels are within {CLOSE} of two words and differ")
    assert close <= MOST_CLOSE * total


def test_it_is_small_and_quick(site, page):
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert size < 30e6
    first = page.evaluate("playground.first") / 1000
    print(f"{size / 1e6:.1f} MB; first result after {first:.1f} s, {page.computed:.1f} s of computing")
    assert min(first, page.computed) < MOST_COMPUTING
    assert page.evaluate("document.documentElement.scrollWidth") == 390  # nothing stands out on a phone


def test_a_thing_is_placed_moved_and_removed_with_keys_only(page):
    page.evaluate("document.activeElement.blur()")
    for _ in range(20):
        page.keyboard.press("Tab")
        if here(page) == "thing":
            break
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "Tab", "Tab"):  # cat, dog, tiger, rabbit
        page.keyboard.press(key)
    assert here(page) == "add"
    page.keyboard.press("Enter")
    placed = page.evaluate("({ ...scene.things.at(-1), button: null })")
    assert placed["name"] == "rabbit" and here(page).startswith("rabbit, 40 pixels wide")
    assert "rabbit" in page.input_value("#words").split(", ")
    across = "ArrowRight" if placed["left"] < 28 else "ArrowLeft"
    for key in (across, f"Shift+{across}", "-"):
        page.keyboard.press(key)
    moved = page.evaluate("scene.things.at(-1).left") - placed["left"]
    assert moved == (10 if across == "ArrowRight" else -8) and here(page).startswith("rabbit, 38 pixels wide")
    assert "rabbit (unseen)" in maps(page)[3] and "rabbit, 38 pixels wide" in page.inner_text("#status")
    page.keyboard.press("Delete")
    assert page.evaluate("scene.things.every(thing => thing.name !== 'rabbit')")
    assert page.evaluate("document.activeElement.classList.contains('thing')")
    page.wait_for_function(f"{STATUS}.includes('rabbit is removed')")


def test_a_thing_is_dragged(page):
    thing = page.locator(".thing").first
    thing.scroll_into_view_if_needed()
    before, box = page.evaluate("scene.things[0].left"), thing.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + page.evaluate("$('scene').clientWidth / 4"), box["y"] + 20)
    page.mouse.up()
    assert page.evaluate("scene.things[0].left") == before + 24
    page.locator("#left").fill("3")
    assert page.evaluate("scene.things[0].left") == 3


def test_words_are_taken_and_unknown_ones_told(page):
    field = page.locator("#words")
    field.fill("Tiger, zeppelin, sand")
    field.press("Enter")
    assert "“zeppelin”" in page.locator("#problem").inner_text()
    assert field.get_attribute("aria-invalid") == "true"
    page.wait_for_function("shown.words.join() === 'tiger,sand'")
    assert page.locator("#legend li").all_inner_texts()[0].startswith("tiger (unseen)")
    field.fill("zeppelin")
    field.press("Enter")
    assert "at least one word" in page.locator("#problem").inner_text()
    field.fill("tiger, s")
    offered = page.locator("#known option").evaluate_all("options => options.map(option => option.value)")
    assert "tiger, sand" in offered and "tiger, tiger" not in offered and len(offered) == 71
    field.fill("tiger, sky, grass, balloon")
    field.press("Enter")
    page.wait_for_function("shown.words.length === 4")
    assert page.locator("#problem").inner_text() == "" and field.get_attribute("aria-invalid") == "false"


def test_stages_weights_and_offset_change_the_sum(page):
    start = maps(page)
    page.get_by_role("checkbox", name="stage 2").uncheck()
    off = maps(page)
    assert off[:3] == start[:3] and off[3] != start[3]
    for stage in (1, 3):
        page.get_by_role("checkbox", name=f"stage {stage}").uncheck()
    assert maps(page)[3] == "best word, sum: no stage is on"
    for stage in (1, 2, 3):
        page.get_by_role("checkbox", name=f"stage {stage}").check()
    assert maps(page) == start
    page.locator("#offset").press("End")
    offset = maps(page)
    assert offset[3] != start[3] and page.locator("#offset + output").inner_text() == "0.50"
    page.locator("#offset").fill("0.1")
    page.locator("#sigma").press("End")
    weighed = maps(page)
    assert weighed[2] == start[2] and weighed[3] != start[3]  # the last stage reads one block, without weights
    page.get_by_role("button", name="As trained").click()
    assert maps(page) == start


def test_a_random_scene_brings_its_words(page):
    page.get_by_role("button", name="Random scene").click()
    maps(page)
    assert page.input_value("#words") == page.evaluate("wordsInScene().join(', ')")
    assert "The sum is right at" in page.inner_text("#status")
