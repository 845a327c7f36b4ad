"""The explorers without a browser: what a front end would send is set or sent from here."""

import contextlib
import ctypes
import gc
import importlib
import io
import random
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

import ipywidgets
import traitlets
from anywidget._util import enable_custom_widget_manager_once
from IPython.core.formatters import DisplayFormatter

from cascadeclip.analysis.dense import METHODS
from cascadeclip.analysis.pictures import Picture, scene_pictures
from cascadeclip.errors import InputError
from cascadeclip.explorers import base, widgets
from cascadeclip.explorers.canvas import Drawing
from cascadeclip.explorers.clickable import ClickablePicture
from tests.support.hands import another, interact, png, said, send, sent, settable

ALL = (widgets.LayerScrubber, widgets.WordExplorer, widgets.CascadeExplorer, widgets.SurgeryBench)
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def made():
    """One explorer of each kind on six scenes, put back to how it started before every test that asks for it."""
    pictures, found = scene_pictures(6), {}

    def make(kind):
        if kind not in found:
            one = kind(pictures=pictures)
            found[kind] = one, {control: control.value for control in settable(one)}, one.chooser.options
        one, start, options = found[kind]
        one.chooser.options = options
        one.chooser.index = 0
        with one.at_once():
            for control, value in start.items():
                control.value = value
        assert not one.message.value
        return one

    return make


@pytest.mark.slow
@each
def test_the_picture_is_the_figure_of_the_controls(kind, made):
    one = made(kind)
    shown = np.asarray(Image.open(io.BytesIO(one.picture.value)))
    assert np.array_equal(shown, np.asarray(one.figure().image))
    assert shown.shape[1] == 960 and len(np.unique(shown)) > 50


@pytest.mark.slow
@each
def test_every_control_changes_the_picture_and_back(kind, made):
    one = made(kind)
    one.clicked(0.1, 0.2)
    if kind is widgets.SurgeryBench:
        one.repair.value = True  # without it, its slider has nothing to say
        one.blocks[10].value = True  # one block has to stay
    for control in settable(one):
        if control in (one.chooser, getattr(one, "sigma", None)):
            continue
        before, value = one.picture.value, control.value
        control.value = another(control)
        assert not one.message.value and one.picture.value != before, control.description
        control.value = value
        assert one.picture.value == before, f"{control.description} left something behind"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_stands_beside_the_cascade_and_on_the_bench(made, method):
    words, bench = made(widgets.WordExplorer), made(widgets.SurgeryBench)
    before = [words.picture.value, bench.picture.value]
    words.beside.value = bench.method.value = method
    assert not words.message.value and not bench.message.value
    assert words.picture.value != before[0] and bench.picture.value != before[1]
    assert bench.attention.disabled and bench.repair.disabled
    bench.method.value = None
    assert not bench.attention.disabled and bench.picture.value == before[1]


def test_the_bench_needs_a_block(made):
    bench = made(widgets.SurgeryBench)
    bench.blocks[-1].value = False
    assert "name one or more of the tower" in bench.message.value
    bench.blocks[5].value = True
    assert not bench.message.value


def test_refinement_and_background_on_the_bench(made):
    bench = made(widgets.SurgeryBench)
    bench.method.value = "naclip"
    before = bench.picture.value
    bench.pamr.value = 3
    assert bench.picture.value != before and not bench.message.value
    before, bench.background.value = bench.picture.value, 0.9
    assert bench.picture.value != before and not bench.message.value


@each
def test_another_picture_brings_its_words(kind, made):
    one = made(kind)
    before, picture = one.picture.value, one.chooser.options[3][1]
    one.chooser.value = picture
    assert one.picture.value != before and not one.message.value
    if one.words is not None:
        assert one.words.value == (picture.words[0] if kind is widgets.LayerScrubber else ", ".join(picture.words))


@each
def test_every_control_has_a_name_that_is_shown_whole(kind, made):
    names = [(control.description, control.style.description_width) for control in settable(made(kind))]
    assert all(name and width == "initial" for name, width in names)


def test_a_click_chooses_block_and_patch_and_sliders_follow(made):
    one = made(widgets.LayerScrubber)
    before = one.picture.value
    one.picture._handle_custom_msg({"x": (8 + 14.7 * 3.5) / 960, "y": (46 + 14.7 * 6.5) / 560}, [])
    assert (one.block.value, one.row.value, one.column.value) == (12, 7, 4)
    assert one.picture.value != before
    one.picture._handle_custom_msg({"x": 0.142, "y": 0.505}, [])  # upper left of the montage: block 1
    assert one.block.value == 1
    before = one.picture.value
    one.picture._handle_custom_msg({"x": 0.001, "y": 0.999}, [])  # beside everything
    assert one.picture.value == before


def test_stages_switched_off_change_the_sum(made):
    one = made(widgets.WordExplorer)
    for stage in one.stages[1:]:
        stage.value = False
    assert not one.message.value
    one.stages[0].value = False
    assert "every stage is switched off" in said(one)
    one.stages[2].value = True
    assert not one.message.value


def test_sigma_and_the_button_set_the_weights(made):
    one = made(widgets.CascadeExplorer)
    start, before = [slider.value for slider in one.weights], one.picture.value
    one.sigma.value = 2.0
    expected = [np.exp(-(d**2) / 8) for d in (2, 1, 0)] * 2
    assert [slider.value for slider in one.weights] == pytest.approx(expected)
    assert one.picture.value != before
    one.offset.value = 0.4
    one.reset.click()
    assert [slider.value for slider in one.weights] == start and (one.offset.value, one.sigma.value) == (0.1, 1.0)
    assert one.picture.value == before
    for slider in one.weights:  # a browser sends back what its slider shows
        slider.value = round(slider.value, 2)
    assert [slider.value for slider in one.weights] != start and one.picture.value == before


def test_what_changes_together_is_drawn_once(made, monkeypatch):
    one, drawn = made(widgets.CascadeExplorer), []
    figure = one.figure
    monkeypatch.setattr(one, "figure", lambda: drawn.append(1) or figure())
    with one.at_once():
        one.sigma.value = 2.0  # sets six sliders, at once
        one.offset.value = 0.3
    assert len(drawn) == 1
    one.sigma.value = 3.0
    send(one.upload, "mine.png", png())
    one.chooser.index = 1
    assert len(drawn) == 4


def test_a_cascade_without_nga_has_nothing_to_move(make_model):
    model = make_model(stages=((4,),))
    with pytest.raises(InputError, match="no weights to move"):
        widgets.CascadeExplorer(SimpleNamespace(model=model, seen=()), [])


def test_classes_are_seen_however_they_are_written():
    segmenter, classes = widgets.load("mini/cascade"), ("Cat", "tiger ", "GRASS")
    found = widgets.CascadeExplorer(segmenter, scene_pictures(1), classes, scored=0)
    assert found.unseen == ["tiger "]


@each
def test_pictures_without_truth_are_explored_without_scores(kind, made):
    unknown = [Picture("one", picture.image, picture.words) for picture in scene_pictures(2)]
    one = kind(pictures=unknown)
    assert not one.message.value and one.picture.value


@pytest.mark.parametrize("kind", [widgets.LayerScrubber, widgets.WordExplorer, widgets.SurgeryBench])
@pytest.mark.parametrize(("words", "expected"), [("zeppelin", "does not know the word"), (" ,", "no words given")])
def test_wrong_words_are_told_and_the_picture_stays(kind, words, expected, made):
    one = made(kind)
    before, good = one.picture.value, one.words.value
    one.words.value = words
    assert expected in said(one) and 'role="alert"' in one.message.value
    assert "Traceback" not in said(one) and one.picture.value == before
    one.words.value = good
    assert not one.message.value


def test_a_second_word_does_not_fit_into_the_scrubber(made):
    one = made(widgets.LayerScrubber)
    one.words.value = "cat, dog"
    assert "give at most 1" in said(one)


@each
def test_errors_at_the_start_stop_the_cell(kind):
    with pytest.raises(InputError, match=r"does not know the word|of one size"):
        kind(pictures=[Picture("one", np.zeros((8, 8, 3), np.uint8), ("zeppelin",), np.zeros((8, 8), int)),
                       Picture("two", np.zeros((8, 9, 3), np.uint8), ("cat",), np.zeros((8, 9), int))])  # fmt: skip


@each
def test_unforeseen_errors_are_shown_with_their_traceback(kind, made, monkeypatch):
    one = made(kind)

    def broken(*_):
        raise RuntimeError("out of <order>")

    monkeypatch.setattr(one, "figure", broken)
    control = settable(one)[-1]
    control.value = another(control)
    assert "Traceback" in said(one) and "out of &lt;order&gt;" in one.message.value
    monkeypatch.undo()
    one.redraw()
    assert not one.message.value


def test_errors_in_a_click_a_button_or_a_new_picture_are_shown(made, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of order")

    one = made(widgets.LayerScrubber)
    monkeypatch.setattr(one, "clicked", broken)
    one.picture._handle_custom_msg({"x": 0.5, "y": 0.5}, [])
    assert "out of order" in said(one)
    one = made(widgets.CascadeExplorer)
    monkeypatch.setattr(one, "_set_weights", broken)
    one.reset.click()
    assert "out of order" in said(one)
    one.redraw()
    one.sigma.value = 3.3
    assert "out of order" in said(one)
    one = made(widgets.WordExplorer)
    monkeypatch.setattr(one, "picture_changed", broken)
    one.chooser.index = 2
    assert "out of order" in said(one)


@pytest.mark.slow
@each
def test_an_own_picture_is_chosen_and_explored(kind, made):
    one = made(kind)
    words, before = one.words and one.words.value, one.picture.value
    send(one.upload, "mine.png", png())
    assert not one.message.value and one.picture.value != before
    assert one.chooser.value.image.shape == (60, 90, 3) and one.chooser.label == "yours: mine.png"
    assert not one.upload.value and (one.words is None or one.words.value == words)
    one.chooser.index = 0
    for number in range(base.KEPT + 2):
        send(one.upload, f"{number}.png", png())
    assert len(one.chooser.options) == 6 + base.KEPT and one.chooser.options[6][0] == "yours: 2.png"
    send(one.upload, "mine.png", png())
    send(one.upload, "mine.png", png(90, 60))  # the same name again
    assert [title for title, _ in one.chooser.options].count("yours: mine.png") == 1
    assert one.chooser.value.image.shape == (90, 60, 3) and not one.message.value


@each
def test_a_file_that_is_no_picture_is_told(kind, made):
    one = made(kind)
    before = one.picture.value, one.chooser.value
    send(one.upload, "notes.txt", b"no picture")
    assert "notes.txt is no image" in said(one)
    assert (one.picture.value, one.chooser.value) == before


def test_a_patch_outside_a_smaller_picture_moves_inside(made):
    one = made(widgets.LayerScrubber)
    send(one.upload, "wide.png", png(40, 80))
    one.column.value = 24
    assert not one.message.value
    one.chooser.index = 0
    assert one.column.value == 12 and not one.message.value


def in_a_kernel(monkeypatch, **content):
    kernel = SimpleNamespace(get_parent=lambda channel: {"content": content} if channel == "shell" else {})
    monkeypatch.setattr(base, "get_ipython", lambda: SimpleNamespace(kernel=kernel))


@each
def test_programs_and_readers_get_the_static_figure(kind, made, monkeypatch):
    one = made(kind)
    in_a_kernel(monkeypatch, allow_stdin=False)
    bundle = one._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png"} and bundle["text/plain"] == kind.__doc__.splitlines()[0]
    in_a_kernel(monkeypatch, allow_stdin=True)
    both = one._repr_mimebundle_()
    assert both["application/vnd.jupyter.widget-view+json"]["model_id"] == one.model_id
    assert both["image/png"] == bundle["image/png"]
    monkeypatch.setattr(base, "get_ipython", lambda: None)
    assert set(one._repr_mimebundle_()) == {"text/plain", "image/png"}


def test_what_ipywidgets_7_brings_is_shown_and_taken(made, monkeypatch):
    """There, a widget displays itself before anyone asks for its picture, and files come by name."""
    monkeypatch.setattr(ipywidgets.VBox, "_ipython_display_", lambda self: pytest.fail("asked"), raising=False)
    one = made(widgets.WordExplorer)
    in_a_kernel(monkeypatch, allow_stdin=True)
    formats, _ = DisplayFormatter().format(one)
    assert "image/png" in formats and formats["application/vnd.jupyter.widget-view+json"]["model_id"] == one.model_id

    (file,) = sent("mine.png", png())
    content, metadata = file.pop("content"), file
    assert base.sent_file({"mine.png": {"metadata": metadata, "content": bytes(content)}}) == ("mine.png", png())
    assert base.sent_file(sent("mine.png", png())) == ("mine.png", png())


@each
def test_an_upload_of_ipywidgets_7_is_explored(kind, made):
    """The widget keeps files by name, which only the front end may set."""

    class Upload(ipywidgets.ValueWidget):
        value = traitlets.Dict(read_only=True)

    one = made(kind)
    before, upload, own = one.picture.value, Upload(), one.upload
    upload.observe(one._uploaded, "value")
    one.upload = upload
    try:
        for _ in range(2):  # the same file may be given again
            upload.set_trait("value", {"mine.png": {"metadata": {"name": "mine.png"}, "content": png()}})
            assert not one.message.value and upload.value == {} and one.chooser.label == "yours: mine.png"
            assert one.picture.value != before
            one.chooser.index = 0
    finally:
        one.upload = own


def test_a_picture_is_clickable_in_colab_too(monkeypatch):
    enabled = []
    output = SimpleNamespace(enable_custom_widget_manager=lambda: enabled.append(True))
    monkeypatch.setitem(sys.modules, "google.colab", SimpleNamespace(output=output))
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    enable_custom_widget_manager_once.cache_clear()
    one = widgets.LayerScrubber(pictures=scene_pictures(2))
    assert isinstance(one.picture, ClickablePicture) and enabled


def test_without_ipywidgets_the_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("cascadeclip.explorers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'cascadeclip[notebooks]'")):
        print(importlib.import_module("cascadeclip.explorers").LayerScrubber)


def test_without_a_clickable_picture_the_sliders_remain(monkeypatch):
    monkeypatch.delitem(sys.modules, "cascadeclip.explorers.clickable", raising=False)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    one = widgets.LayerScrubber(pictures=scene_pictures(2))
    before = one.picture.value
    assert isinstance(one.picture, ipywidgets.Image)
    one.row.value = 5
    assert one.picture.value != before


def test_the_clickable_picture_loads_nothing_from_elsewhere(made):
    script = made(widgets.LayerScrubber).picture._esm
    assert "export default" in script and "model.send" in script
    assert not re.search(r"https?:|import[ (]|require", script)


def occupied():
    """MB of memory that this process needs: what C's allocator only keeps for later is given back first."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@each
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_two_hundred_interactions_leave_nothing_behind(kind, made):
    one, pick = made(kind), random.Random(1)
    for _ in range(20):
        interact(one, pick)
    before = occupied()
    for _ in range(200):
        interact(one, pick)
        assert one.picture.value and "Traceback" not in said(one), said(one)
    assert occupied() - before < 50
    kept = [thing for thing in gc.get_objects() if issubclass(type(thing), Figure | Drawing)]
    assert not kept, "figures are kept"
    assert not getattr(sys.modules.get("matplotlib.pyplot"), "get_fignums", list)()


@each
@pytest.mark.slow
def test_a_redraw_takes_less_than_a_fifth_of_a_second(kind, made):
    """The calling thread's own time, so that other programs do not count; the best of several, after a warm-up."""
    one, pick, times = made(kind), random.Random(2), {}
    for control in settable(one):
        if isinstance(control, ipywidgets.FloatSlider | ipywidgets.IntSlider | ipywidgets.Checkbox):
            for _ in range(10):
                value, start = another(control, pick), time.thread_time()
                control.value = value
                times.setdefault(control.description, []).append(time.thread_time() - start)
    print({name: f"{1000 * min(found[1:]):.0f} ms" for name, found in times.items()})
    assert times and all(min(found[1:]) < 0.2 for found in times.values())
