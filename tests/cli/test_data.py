"""`cascadeclip data check | init`: what people read before they train on their own pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cascadeclip.cli.commands import app
from cascadeclip.errors import InputError


def cli(*arguments):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def picture(path, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(path)


def mask(path, numbers, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.resize(np.asarray(numbers, dtype=np.uint8), size[::-1] + np.shape(numbers)[1:])
    Image.fromarray(values).save(path)


@pytest.fixture
def own(tmp_path):
    for number in range(10):
        picture(tmp_path / "images" / f"{number}.jpg")
        mask(tmp_path / "masks" / f"{number}.png", [1, 25, 25, 255])
    picture(tmp_path / "images" / "alone.jpg")
    return tmp_path


def describe(folder, **more):
    values = {"1": "person", "25": "$10_bill", "70": "giraffe"}
    content = {"images": "images", "masks": "masks", "values": values, "unseen": ["giraffe"], **more}
    (folder / "own.json").write_text(json.dumps(content))
    return folder / "own.json"


def test_check_prints_shares_and_what_is_left_out_and_draws_overlays(own):
    printed = cli("check", describe(own))
    assert "train, a share of the pictures: 9 pictures with masks; 1 left out, without a mask (alone.jpg)" in printed
    assert "sizes from 8 x 6 to 8 x 6 px; 9 of 8 x 6" in printed
    rows = {line[:28].strip(): line[28:].split() for line in printed.splitlines() if "%" in line}
    assert rows["person"] == ["25.00", "%", "9", "25.00", "%", "1"]
    assert rows["$10_bill"] == ["50.00", "%", "9", "50.00", "%", "1"]
    assert rows["giraffe (unseen)"][:3] == ["0.00", "%", "0"] and rows["of no class"][:2] == ["25.00", "%"]
    assert "WARNING train: in no mask: giraffe" in printed
    overlays = sorted((own / "own-check").iterdir())
    assert len(overlays) == 5
    with Image.open(overlays[0]) as drawn:
        assert drawn.format == "PNG" and drawn.width > 200


def test_check_names_what_cannot_be_used(own):
    mask(own / "masks" / "3.png", [1, 77])
    mask(own / "masks" / "4.png", [1], size=(8, 5))
    (own / "images" / "5.jpg").write_bytes((own / "images" / "5.jpg").read_bytes()[:200])
    result = CliRunner().invoke(app, ["data", "check", str(describe(own))])
    assert isinstance(result.exception, InputError)
    for said in ("holds the values [77]", "8 x 6 px, its label map", "8 x 5", "5.jpg is no image or a damaged one"):
        assert said in result.output
    assert "3 cannot be used" in result.output or result.output.count("cannot be used") == 2


def test_check_warns_of_pictures_on_both_sides(own):
    printed = cli("check", describe(own, val_images="images", val_masks="masks"))
    assert "WARNING 10 pictures are trained on and evaluated on" in printed


def test_init_finds_folders_names_and_numbers(own):
    printed = cli("init", own)
    described = json.loads((own / "own.json").read_text())
    assert described == {
        "images": "images", "masks": "masks", "val_share": 0.1, "values": {"1": "class 1", "25": "class 25"},
        "ignored": [255], "unseen": [],
    }  # fmt: skip
    assert "wrote " in printed and "cascadeclip data check" in printed
    assert "9 pictures with masks" in cli("check", own / "own.json")
    with pytest.raises(InputError, match="is there already"):
        cli("init", own)


def test_init_of_one_folder_with_masks_beside_the_pictures(tmp_path):
    for number in range(4):
        picture(tmp_path / f"img{number}.png"), mask(tmp_path / f"img{number}_mask.png", [0, 1])
    cli("init", tmp_path)
    described = json.loads((tmp_path / "own.json").read_text())
    assert (described["images"], described["masks"], described["mask_name"]) == (".", ".", "{stem}_mask.png")
    assert described["values"] == {"0": "class 0", "1": "class 1"}


def test_init_of_a_split_with_masks_in_colours(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            picture(tmp_path / split / "images" / f"{split}{number}.jpg", (64, 48))
            mask(tmp_path / split / "labels" / f"{split}{number}.png", [[128, 0, 0], [0, 0, 0]], (64, 48))
    cli("init", tmp_path, "--out", tmp_path / "mine.json")
    described = json.loads((tmp_path / "mine.json").read_text())
    assert [described[key] for key in ("images", "masks", "val_images", "val_masks")] == [
        "train/images", "train/labels", "val/images", "val/labels",
    ]  # fmt: skip
    assert set(described["values"]) == {"128 0 0", "0 0 0"}


def test_init_of_a_folder_without_masks_says_what_it_looked_for(tmp_path):
    picture(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"no pictures with masks in .*a mask is a PNG"):
        cli("init", tmp_path)
