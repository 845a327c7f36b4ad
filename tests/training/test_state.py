"""Resumable states: of the same run, whole, and checked before anything is made of them."""

import json
import logging
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascadeclip.checkpoints.own import own_state
from cascadeclip.config import TrainConfig
from cascadeclip.data.folders import FolderDataset, matching_pairs
from cascadeclip.data.identity import data_identity
from cascadeclip.data.labels import LabelMap
from cascadeclip.errors import InputError
from cascadeclip.locks import locked
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.training.loop import train
from cascadeclip.training.state import PREVIOUS, STATE, _sum
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate

CONFIG = TrainConfig(steps=4, batch_size=2, learning_rate=1e-2, warmup=2, precision="fp32", checkpoint_every=2)


def run(out, config=CONFIG, text=TEXT, names=NAMES, unseen=UNSEEN, **kwargs):
    torch.manual_seed(3)
    model = CascadeCLIP(MODEL)
    train(model, Noise(), text, names, unseen, config, collate=collate, out=out, progress=False, **kwargs)
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, run(out, depends_on={"templates": ["{}"]})


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "copy")


def change(path, edit):
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(unseen=["c"]), "unseen classes"),
        (dict(names=["a", "c", "b"]), "classes, text embeddings|classes"),
        (dict(text=TEXT.flip(0)), "text embeddings"),
        (dict(depends_on={"templates": ["a {}"]}), "templates"),
        (dict(depends_on={"templates": ["{}"], "label numbers": 1}), "label numbers"),
        (dict(config=replace(CONFIG, seed=1)), "seed"),
    ],
)
def test_a_state_of_another_run_is_refused_and_the_difference_named(copy, changed, named):
    with pytest.raises(InputError, match=f"another|other settings \\({named}"):
        run(copy, **({"depends_on": {"templates": ["{}"]}} | changed))


def test_true_is_no_number_in_a_states_settings(tmp_path):
    """To Python it is 1."""
    config = replace(CONFIG, steps=1)
    run(tmp_path, config)

    def edit(state):
        state["config"] = json.dumps(json.loads(state["config"]) | {"steps": True})
        state["settings"] = json.dumps(json.loads(state["settings"]) | {"stages": [[True, 2], [3]]})
        state["sum"] = _sum(state)

    change(tmp_path / STATE, edit)
    with pytest.raises(InputError, match=r"other settings \(steps, stages\)"):
        run(tmp_path, config)


def test_the_same_run_is_not_refused(copy, finished):
    again = run(copy, depends_on={"templates": ["{}"]})
    for one, other in zip(own_state(again).values(), own_state(finished[1]).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("written", [["b", "c"], ["c", "b"]])
def test_the_order_in_which_unseen_classes_are_named_does_not_matter(tmp_path, written):
    """Nothing that is computed depends on it; the second is a state of an earlier version."""
    whole = run(tmp_path / "whole", unseen=["b", "c"])
    run(tmp_path / "stopped", unseen=["b", "c"], until=2)

    def as_written(state):
        state["run"] = json.dumps(json.loads(state["run"]) | {"unseen classes": written})
        state["sum"] = _sum(state)

    change(tmp_path / "stopped" / STATE, as_written)
    again = run(tmp_path / "stopped", unseen=["c", "b"])
    for one, other in zip(own_state(again).values(), own_state(whole).values(), strict=True):
        assert torch.equal(one, other)


def test_a_text_embedded_on_another_device_is_the_same(copy):
    run(copy, text=TEXT + 1e-5, depends_on={"templates": ["{}"]})


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "another kind": lambda path: path.write_text("hello"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a flipped bit": lambda path: flip(path),
    "another pickle": lambda path: torch.save([1, 2], path),
    "no step": lambda path: change(path, lambda state: state.pop("step")),
    "step as text": lambda path: change(path, lambda state: state.update(step="4")),
    "step as a float": lambda path: change(path, lambda state: state.update(step=4.0)),
    "step beyond the run": lambda path: change(path, lambda state: state.update(step=5)),
    "step below 0": lambda path: change(path, lambda state: state.update(step=-3)),
    "a log that is no list": lambda path: change(path, lambda state: state.update(log="{}")),
    "a log of numbers": lambda path: change(path, lambda state: state.update(log="[1]")),
    "no optimiser": lambda path: change(path, lambda state: state["optimiser"].pop("state")),
    "an optimiser dropped": lambda path: change(path, lambda state: state["optimiser"].update(state={})),
    "an optimiser of more steps": lambda path: change(path, lambda state: moments(state)["step"].fill_(99)),
    "moments dropped": lambda path: change(path, lambda state: state["optimiser"]["state"].pop(0)),
    "moments cut": lambda path: change(path, lambda state: shrink(state["optimiser"]["state"][0])),
    "moments of text": lambda path: change(path, lambda state: state["optimiser"]["state"][0].update(exp_avg="a")),
    "moments of NaN": lambda path: change(path, lambda state: state["optimiser"]["state"][0]["exp_avg"].fill_(np.nan)),
    "weights of NaN": lambda path: change(path, lambda state: state["model"]["encoder.prompts"].fill_(np.nan)),
    "weights cut": lambda path: change(path, lambda state: state["model"].update({"encoder.prompts": torch.zeros(1)})),
    "weights of text": lambda path: change(path, lambda state: state["model"].update({"encoder.prompts": "a"})),
    "weights under a number": lambda path: change(path, lambda state: state["model"].update({3: torch.zeros(1)})),
    "sparse weights": lambda path: change(path, lambda state: convert(state["model"], torch.Tensor.to_sparse)),
    "weights without values": lambda path: change(path, lambda state: convert(state["model"], lambda w: w.to("meta"))),
    "sparse moments": lambda path: change(path, lambda state: convert(moments(state), torch.Tensor.to_sparse)),
    "text of whole numbers": lambda path: change(path, lambda state: convert(state, torch.Tensor.bool)),
    "a log of steps in words": lambda path: change(path, lambda state: state.update(log='[{"step": "two"}]')),
    "a log of steps to come": lambda path: change(path, lambda state: state.update(log='[{"step": 99}]')),
    "a log of words": lambda path: change(path, lambda state: state.update(log='[{"step": 2, "total": "low"}]')),
    "a log of a step that is true": lambda path: rewrite(path, log='[{"step": true}]'),
    "a log of a score that is true": lambda path: rewrite(path, log='[{"step": 2, "total": true}]'),
    "a step that is true": lambda path: rewrite(path, step=True),
    "loss scaling that is true": lambda path: rewrite(path, scaler={"scale": True}),
    "no such format": lambda path: change(path, lambda state: state.update(format=0)),
    "settings cut": lambda path: change(path, lambda state: state.update(config='{"steps":')),
    "8-bit moments": lambda path: change(path, lambda state: convert(moments(state), as_bytes)),
    "8-bit weights": lambda path: change(path, lambda state: convert(state["model"], as_bytes)),
    "8-bit text": lambda path: change(path, lambda state: convert(state, as_bytes)),
    "half moments": lambda path: change(path, lambda state: convert(moments(state), torch.Tensor.half)),
    "other moments": lambda path: change(path, lambda state: moments(state)["exp_avg"].mul_(2)),
    "other weights": lambda path: change(path, lambda state: state["model"]["encoder.prompts"].mul_(2)),
    "an earlier step": lambda path: change(path, lambda state: state.update(step=3)),
    "fewer moves": lambda path: change(path, lambda state: moments(state)["step"].fill_(1)),
    "a count of moments that is none": lambda path: change(path, lambda state: state.update(moments=torch.zeros(3))),
    "moments under fractions": lambda path: change(path, lambda state: state["optimiser"].update(state={0.5: {}})),
    "no run": lambda path: change(path, lambda state: state.pop("run")),
    "settings deep": lambda path: change(path, lambda state: state.update(config="[" * 100_000)),
}


def rewrite(path, **parts):
    """Other parts, and the checksum that goes with them."""

    def edit(state):
        state.update(parts)
        state["sum"] = _sum(state)

    change(path, edit)


def flip(path):
    weights = torch.load(path, weights_only=True)["model"]["encoder.prompts"].numpy().tobytes()
    content = bytearray(path.read_bytes())
    content[content.index(weights)] ^= 1
    path.write_bytes(content)


def moments(state):
    return state["optimiser"]["state"][0]


def convert(tensors, how):
    tensors.update({name: how(tensor) for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)})


def as_bytes(tensor):
    return tensor.to(torch.float8_e4m3fn)


def shrink(entry):
    entry["exp_avg"] = entry["exp_avg"].flatten()[:1].clone()


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_gives_way_to_the_one_before_it(copy, finished, damage, caplog):
    """The run goes on from the step of the last whole state, to the same weights."""
    DAMAGES[damage](copy / STATE)
    with caplog.at_level(logging.WARNING):
        again = run(copy, depends_on={"templates": ["{}"]})
    assert f"going on from {copy / PREVIOUS}, after step 2" in caplog.text and str(copy / STATE) in caplog.text
    for one, other in zip(own_state(again).values(), own_state(finished[1]).values(), strict=True):
        assert torch.equal(one, other)
    assert run(copy, depends_on={"templates": ["{}"]})  # and the good state was not lost by it


@pytest.mark.parametrize(
    "stored",
    [
        lambda moment: torch.cat([moment[None].movedim(0, -1)] * 2, -1)[..., 0],
        lambda moment: moment.T.contiguous().T if moment.ndim == 2 else moment,
        torch.Tensor.double,
    ],
)
def test_moments_may_lie_in_any_order(copy, finished, stored):
    """The fused optimiser reads and writes past them otherwise."""

    def edit(state):
        entries = state["optimiser"]["state"].values()
        for entry in entries:
            entry.update({name: stored(entry[name]) for name in ("exp_avg", "exp_avg_sq")})
            entry["step"] = moments(state)["step"]  # the same memory for all

    (copy / PREVIOUS).replace(copy / STATE)
    change(copy / STATE, edit)
    again = run(copy, depends_on={"templates": ["{}"]})
    for one, other in zip(own_state(again).values(), own_state(finished[1]).values(), strict=True):
        assert torch.equal(one, other)


def test_a_run_whose_scores_are_no_numbers_goes_on(tmp_path):
    """A validation set without an unseen class has no score of it."""
    config = replace(CONFIG, validate_every=1)
    told = dict(collate=collate, out=tmp_path, progress=False)
    told["validate"] = lambda model: {"pAcc": 0.5, "hIoU": float("nan")}
    for until in (2, None):
        torch.manual_seed(3)
        log = train(CascadeCLIP(MODEL), Noise(), TEXT, NAMES, UNSEEN, config, until=until, **told)
    assert [(entry["step"], entry["pAcc"]) for entry in log] == [(step, 0.5) for step in (1, 2, 3, 4)]
    assert all(np.isnan(entry["hIoU"]) for entry in log)


def test_without_another_state_the_file_and_the_way_on_are_named(copy):
    (copy / PREVIOUS).unlink()
    (copy / STATE).write_bytes(b"")
    with pytest.raises(InputError, match=r"state\.pt is cut short.*remove it to start anew"):
        run(copy, depends_on={"templates": ["{}"]})


def test_a_state_of_an_older_version_goes_on_with_a_line(copy, caplog):
    def older(state):
        for name in ("format", "version", "run", "text", "moments", "sum"):
            del state[name]
        settings = json.loads(state["settings"])
        del settings["centre_text"], settings["spectral_blocks"]
        state["settings"] = json.dumps(settings)

    change(copy / STATE, older)
    with caplog.at_level(logging.WARNING):
        run(copy, unseen=["c"])
    assert "is of an older cascadeclip, which did not note classes" in caplog.text
    assert "is of an older cascadeclip, which wrote no checksum" in caplog.text


@pytest.mark.parametrize(
    "newer",
    [
        lambda state: state.update(format=2),
        lambda state: state.update(settings=json.dumps(json.loads(state["settings"]) | {"colour": 1})),
    ],
)
def test_a_state_of_a_newer_version_is_named_as_such(copy, newer):
    change(copy / STATE, newer)
    with pytest.raises(InputError, match=r"written by a newer cascadeclip .*upgrade"):
        run(copy, depends_on={"templates": ["{}"]})


def test_states_say_who_wrote_them(finished):
    state = torch.load(finished[0] / STATE, weights_only=True)
    assert state["format"] == 1 and state["version"]


def test_a_state_without_a_checksum_is_told_of(copy, caplog):
    change(copy / STATE, lambda state: state.pop("sum"))
    run(copy, depends_on={"templates": ["{}"]})
    assert f"{copy / STATE} is of an older cascadeclip, which wrote no checksum" in caplog.text


def test_a_folder_in_use_is_refused(tmp_path):
    @contextmanager
    def other_thread():
        import threading

        have, done = threading.Event(), threading.Event()

        def hold():
            with locked(tmp_path):
                have.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        have.wait()
        yield
        done.set()
        thread.join()

    with other_thread(), pytest.raises(InputError, match="is in use by"):
        run(tmp_path)


# --- which data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A builder of folders with pictures and masks."""

    def make(name, seed=0):
        rng = np.random.default_rng(seed)
        for part, shape in (("images", (16, 16, 3)), ("masks", (16, 16))):
            (tmp_path / name / part).mkdir(parents=True)
            for number in range(3):
                values = rng.integers(0, 3, shape, dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / name / part / f"{number}.png")
        return tmp_path / name

    return make


def identity(folder, label_map=None, **options):
    pairs = matching_pairs(folder / "images", folder / "masks")
    return data_identity(FolderDataset(pairs, label_map or LabelMap(3)), collate, **options)


def test_data_are_told_apart_by_what_is_in_them_and_not_by_where_they_are(own, tmp_path):
    one = own("one")
    assert identity(one) == identity(own("moved")) != identity(own("other", seed=1))
    assert identity(one)["label numbers"] != identity(one, LabelMap(3, ignored=(254, 255)))["label numbers"]
    before = identity(one, every="time")
    values = np.asarray(Image.open(one / "masks" / "1.png")).copy()
    values[0, 0] = (values[0, 0] + 1) % 3
    Image.fromarray(values).save(one / "masks" / "1.png")
    assert identity(one, every="time") != before and identity(one) != identity(own("as it was"))


def test_a_change_of_any_file_is_found_where_it_must_be(tmp_path):
    """In the middle of many, and at the end of a large one; a copy is the same data by content, and not by time."""
    rng = np.random.default_rng(0)
    for number in range(100):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(put(tmp_path / "one" / "masks" / f"{number}.png"))
        picture = Image.fromarray(rng.integers(0, 255, (150, 150, 3), np.uint8))
        picture.save(put(tmp_path / "one" / "images" / f"{number}.bmp"))
    shutil.copytree(tmp_path / "one", tmp_path / "copy", copy_function=shutil.copyfile)
    one, copy = tmp_path / "one", tmp_path / "copy"
    assert identity(one, every="content") == identity(copy, every="content")
    assert identity(one, every="time") != identity(copy, every="time")
    before = [identity(one, every=every) for every in ("content", "time")]
    path = one / "images" / "50.bmp"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert all(identity(one, every=every) != old for every, old in zip(("content", "time"), before, strict=True))


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


class Shades(torch.utils.data.Dataset):
    """Data that are neither files nor drawn by the package: a shade for each item."""

    def __init__(self, shades):
        self.shades = shades

    def __len__(self):
        return len(self.shades)

    def __getitem__(self, index):
        return torch.full((3, 4, 4), self.shades[index], dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)


def test_all_items_of_other_data_are_looked_at_or_it_is_said_that_they_are_not(caplog, monkeypatch):
    same, changed = [0] * 100, [0] * 50 + [1] + [0] * 49
    assert data_identity(Shades(same), collate) == data_identity(Shades(changed), collate)  # a sample
    for every in ("time", "content"):
        one, other = (data_identity(Shades(shades), collate, every=every) for shades in (same, changed))
        assert one != other and not caplog.text
    monkeypatch.setattr("cascadeclip.data.identity.MOST_READ", 99)
    data_identity(Shades(same), collate, every="content")
    assert "of the 100 items of Shades only 32 are looked at" in caplog.text


def test_an_item_that_cannot_be_read_is_named():
    class Ending(Shades):
        def __getitem__(self, index):
            raise StopIteration

    with pytest.raises(InputError, match=r"^item 0 cannot be read"):
        data_identity(Ending([0]), collate)


def test_drawn_data_are_told_apart_by_their_settings():
    from cascadeclip.data.emojiscenes import EmojiScenes, collate

    scenes = [EmojiScenes(9), EmojiScenes(9, 1), EmojiScenes(8), EmojiScenes(9, styles=("noto",))]
    assert len({json.dumps(data_identity(one, collate)) for one in [*scenes, EmojiScenes(9)]}) == 4
