"""Own data as people have them: what is found, what is left out and told of, and how it is split."""

import json

import numpy as np
import pytest
from PIL import Image

from cascadeclip.data.folders import FolderDataset, find_pairs
from cascadeclip.data.own import OwnData, read_pairs
from cascadeclip.errors import InputError
from cascadeclip.presets import own_preset, read_own_preset


def picture(path, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def mask(path, value=1, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, np.uint8)).save(path)


def found_in(root, **options):
    return find_pairs(root / "images", root / "masks", **options)


def names(found):
    return [(one.name, other.name) for one, other in found.pairs]


@pytest.fixture
def folders(tmp_path):
    for stem in "abcdefghij":
        picture(tmp_path / "images" / f"{stem}.jpg")
        mask(tmp_path / "masks" / f"{stem}.png")
    return tmp_path


def test_what_is_left_out_is_counted_with_its_reason(folders):
    images = folders / "images"
    (images / "._a.jpg").write_bytes(b"\0\5\x16\7")
    (images / "notes.txt").write_text("x")
    (images / "k.heic").write_bytes(b"x")
    picture(images / "alone.png"), picture(images / "other.jpeg")
    found = found_in(folders)
    assert len(found.pairs) == 10
    assert found.left["hidden"] == ["._a.jpg"] and found.left["without a mask"] == ["alone.png", "other.jpeg"]
    said = str(found)
    assert said.startswith("10 pictures with masks; ") and "2 left out, without a mask (alone.png, other.jpeg)" in said
    assert "2 left out, of a suffix other than" in said and "k.heic, notes.txt" in said


def test_suffixes_in_capitals_belong_together(tmp_path):
    picture(tmp_path / "images" / "Street.JPG"), mask(tmp_path / "masks" / "street.PNG")
    assert names(found_in(tmp_path)) == [("Street.JPG", "street.PNG")]


def test_accents_stored_apart_belong_together(tmp_path):
    picture(tmp_path / "images" / "cafe\u0301.jpg"), mask(tmp_path / "masks" / "caf\u00e9.png")
    assert len(found_in(tmp_path).pairs) == 1


def test_one_folder_never_trains_masks_as_pictures(tmp_path):
    folder = tmp_path / "all"
    for stem in "abc":
        picture(folder / f"{stem}.jpg"), mask(folder / f"{stem}.png")
    mask(folder / "d.png")  # a mask without a picture
    found = find_pairs(folder, folder)
    assert names(found) == [("a.jpg", "a.png"), ("b.jpg", "b.png"), ("c.jpg", "c.png")]
    assert found.left == {"which would be masks of themselves": ["d.png"]}


def test_one_folder_of_png_files_is_told_apart_by_the_masks_names(tmp_path):
    folder = tmp_path / "all"
    for stem in "ab":
        picture(folder / f"{stem}.png"), mask(folder / f"{stem}_mask.png")
    assert names(find_pairs(folder, folder, mask_name="{stem}_mask.png")) == [
        ("a.png", "a_mask.png"), ("b.png", "b_mask.png"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="masks of themselves"):
        own_preset(folder, folder, ["x", "y"]).train_data(0)


def test_masks_in_a_folder_below_the_pictures(tmp_path):
    picture(tmp_path / "a.png"), mask(tmp_path / "masks" / "a.png"), mask(tmp_path / "masks" / "left_over.png")
    found = find_pairs(tmp_path, tmp_path / "masks")
    assert names(found) == [("a.png", "a.png")] and not found.left


def test_sub_folders_and_names_with_more_than_the_stem(tmp_path):
    for city in ("aachen", "bonn"):
        picture(tmp_path / "images" / city / "0_leftImg8bit.png"), mask(tmp_path / "masks" / city / "0_gt.png")
    picture(tmp_path / "images" / "bonn" / "0_right.png")
    found = found_in(tmp_path, mask_name="{stem}_gt.png", picture_name="{stem}_leftImg8bit")
    assert [one.parent.name for pair in found.pairs for one in pair] == ["aachen", "aachen", "bonn", "bonn"]
    assert list(found.left) == ["not named {stem}_leftImg8bit"]


@pytest.mark.parametrize("name", ["mask.png", "{stem}/{stem}.png", "../{stem}.png"])
def test_names_of_masks_without_a_stem_or_with_a_folder_are_refused(folders, name):
    with pytest.raises(InputError, match="mask name"):
        found_in(folders, mask_name=name)


def test_two_pictures_never_share_a_mask(folders):
    picture(folders / "images" / "a.png")
    with pytest.raises(InputError, match=r"a.jpg and .*a.png both have the mask"):
        found_in(folders)


def test_folders_that_link_in_a_circle_are_walked_once(folders):
    (folders / "images" / "again").symlink_to(folders / "images")
    assert len(found_in(folders).pairs) == 10


def test_a_share_is_held_back_and_stays_when_pictures_are_added(folders):
    own = OwnData(folders / "images", folders / "masks", ["x", "y"], val_share=0.3)
    train, val = (own.find(split)[0].pairs for split in ("train", "val"))
    assert (len(train), len(val)) == (7, 3) and not set(train) & set(val)
    picture(folders / "images" / "z.jpg"), mask(folders / "masks" / "z.png")
    assert len(set(own.find("val")[0].pairs) & set(val)) >= 2
    for path in list((folders / "images").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="one picture cannot be split"):
        own.find("val")


def test_a_share_stays_when_a_second_sub_folder_is_added(tmp_path):
    for stem in "abcdefghijklmnopqrst":
        picture(tmp_path / "images" / "first" / f"{stem}.jpg"), mask(tmp_path / "masks" / "first" / f"{stem}.png")
    (tmp_path / "pairs.csv").write_text("".join(f"images/first/{s}.jpg,masks/first/{s}.png\n" for s in "abcdefghij"))
    folders = OwnData(tmp_path / "images", tmp_path / "masks", ["x", "y"], val_share=0.3)
    listed = OwnData(pairs=tmp_path / "pairs.csv", names=["x", "y"], val_share=0.3)
    before = [set(own.find("val")[0].pairs) for own in (folders, listed)]
    picture(tmp_path / "images" / "second" / "a.jpg"), mask(tmp_path / "masks" / "second" / "a.png")
    with (tmp_path / "pairs.csv").open("a") as file:
        file.write("images/second/a.jpg,masks/second/a.png\n")
    after = [set(own.find("val")[0].pairs) for own in (folders, listed)]
    assert all(len(old & new) >= len(old) - 1 for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "image,mask\nimages/a.jpg,masks/a.png\nimages/Straße.jpg,masks/Straße.png\n"),
        ("pairs.csv", "images/a.jpg;masks/a.png\r\nimages/Straße.jpg;masks/Straße.png\r\n"),
        ("pairs.json", '[["images/a.jpg", "masks/a.png"], {"image": "images/Straße.jpg", "mask": "masks/Straße.png"}]'),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_of_pairs(folders, name, text, mark):
    picture(folders / "images" / "Straße.jpg"), mask(folders / "masks" / "Straße.png")
    (folders / name).write_text(mark + text, encoding="utf-8")
    found, _ = OwnData(names=["x", "y"], pairs=folders / name, val_pairs=folders / name).find("train")
    assert [one.name for one, _ in found.pairs] == ["a.jpg", "Straße.jpg"]


def test_a_list_of_pairs_tells_what_it_leaves_out(folders):
    text = "a.jpg,a.png\na.jpg,b.png\nnone.jpg,a.png\nb.jpg,none.png\n"
    (folders / "pairs.csv").write_text(text)
    found = read_pairs(folders / "pairs.csv", folders / "images", folders / "masks")
    assert len(found.pairs) == 1 and {reason: len(left) for reason, left in found.left.items()} == {
        "named twice": 1, "whose picture is missing": 1, "without a mask": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "C:\\a.jpg", "a\0b.jpg", "x" * 300 + ".jpg"])
def test_a_list_never_leads_out_of_its_folder(folders, name):
    (folders / "pairs.json").write_text(json.dumps([[name, "a.png"]]))
    with pytest.raises(InputError, match="do not trust it"):
        read_pairs(folders / "pairs.json", folders, folders)


def test_a_latin_1_list_is_refused_by_name(folders):
    (folders / "pairs.csv").write_bytes("images/Straße.jpg,masks/a.png".encode("latin-1"))
    with pytest.raises(InputError, match=r"pairs.csv is not UTF-8"):
        read_pairs(folders / "pairs.csv", folders, folders)


def described(folders, **more):
    (folders / "own.json").write_text(
        "\ufeff" + json.dumps({"images": "images", "masks": "masks", **more}, ensure_ascii=False), encoding="utf-8"
    )
    return read_own_preset(folders / "own.json")


def test_a_description_with_gaps_in_its_numbers(folders):
    preset = described(folders, values={"1": "Straße", "25": "giraffe"}, unseen=["giraffe"])
    assert preset.seen == ("Straße",)
    data = preset.train_data(0)
    assert isinstance(data, FolderDataset) and len(data) == 9
    assert data.read(0)[1].tolist() == [[0] * 6] * 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "no class words: give names, or values"),
        ({"names": ["x"], "values": {"1": "x"}}, "both names and values"),
        ({"names": 3}, "names=3 must be text or a list"),
        ({"names": ["x", "y"], "first": "1"}, "first='1' must be a whole number"),
        ({"names": ["x", "y"], "ignored": ["0"]}, r"ignored\[0\]='0' must be a whole number"),
        ({"names": ["x", "y"], "val_share": 1.5}, "val_share"),
        ({"names": ["x", "y"], "steps": 2.5}, "steps=2.5 must be a whole number"),
        ({"names": ["x", 3]}, r"names\[1\]=3 must be text"),
        ({"names": ["x", "y"], "val_share": "0.1"}, "val_share='0.1' must be a finite number"),
        ({"names": ["x", "y"], "ignored": [1, "2"]}, r"ignored\[1\]='2' must be a whole number"),
        ({"names": ["x", "y"], "ignored": "all"}, "ignored='all' must be a list of whole numbers"),
        ({"names": ["x", "y"], "unseen": None}, "unseen=None must be text or a list"),
        ({"names": ["x", "y"], "mask_name": 1}, "mask_name=1 must be text"),
        ({"values": 1}, r"values=1 must be an object, \{\.\.\.\} or a list"),
        ({"names": ["x", "y"], "images": 3}, "images=3 must be text or a path"),
        ({"names": ["x", "X"]}, "given twice"),
        ({"names": ["x", "y"], "unseen": ["z"]}, "unseen but no class: z"),
        ({"names": ["x", "y"], "__class__": 1}, "unknown '__class__'; its keys are"),
        ({"names": ["x", "y"], "data": {}}, "unknown 'data'"),
    ],
)
def test_descriptions_that_cannot_be(folders, more, message):
    with pytest.raises(InputError, match=message) as error:
        described(folders, **more)
    assert "own.json" in str(error.value)


@pytest.mark.parametrize("text", ["mask,picture\n{m},{p}\n", "id;image;split;label\n1;{p};train;{m}\n"])
def test_titles_say_which_column_is_which(tmp_path, text):
    picture(tmp_path / "one.png"), mask(tmp_path / "two.png")
    (tmp_path / "list.csv").write_text(text.format(p="one.png", m="two.png"))
    found = read_pairs(tmp_path / "list.csv", tmp_path, tmp_path)
    assert found.pairs == [(tmp_path / "one.png", tmp_path / "two.png")] and not found.left


def test_no_picture_is_its_own_mask(tmp_path):
    picture(tmp_path / "one.png")
    (tmp_path / "list.csv").write_text("one.png,one.png\n")
    with pytest.raises(InputError, match=r"list\.csv, entry 1: one\.png is named as its own mask"):
        read_pairs(tmp_path / "list.csv", tmp_path, tmp_path)


def test_an_open_quotation_mark_in_a_list_is_one_line(tmp_path):
    (tmp_path / "list.csv").write_text('one.png,"two.png\n' + "x" * 200_000)
    with pytest.raises(InputError, match=r"list\.csv is damaged, no CSV list"):
        read_pairs(tmp_path / "list.csv", tmp_path, tmp_path)
