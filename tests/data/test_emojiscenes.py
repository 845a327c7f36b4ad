"""EmojiScenes: a pure function of (seed, index), true labels and captions, and options that are respected."""

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from cascadeclip.data import emojiscenes
from cascadeclip.data.emojiscenes import CLASSES, SEEN, SPLITS, STUFF, STYLES, THINGS, UNSEEN, EmojiScenes, draw_scene
from cascadeclip.data.textures import TEXTURES, texture_sheets
from cascadeclip.data.transforms import normalise, to_tensor
from cascadeclip.errors import InputError

SCENES = [(0, 0), (7, 3), (123, 45), (900_002, 999)]


@pytest.fixture(scope="module")
def many():
    return [draw_scene(11, index) for index in range(150)]


def digest(scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes() + scene.caption.encode()).hexdigest()


# --- a pure function ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "index"), SCENES)
def test_a_scene_drawn_twice_has_the_same_bytes(seed, index):
    first = draw_scene(seed, index)
    draw_scene(seed + 1, index)  # drawing another one in between changes nothing
    emojiscenes.sprite.cache_clear()
    texture_sheets.cache_clear()
    assert digest(draw_scene(seed, index)) == digest(first)


def just_the_scene(scene):
    return scene


def test_a_worker_process_draws_the_same_scenes_in_any_order():
    dataset = EmojiScenes(6, seed=3, size=48)
    wanted = [digest(dataset[index]) for index in range(6)]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]):
        loader = DataLoader(dataset, batch_size=None, sampler=order, num_workers=2, collate_fn=just_the_scene)
        assert [digest(scene) for scene in loader] == [wanted[index] for index in order]


PINNED = [  # compared on every platform: a change of one byte anywhere is a change of the world
    (0, 0, {}, "adf4bd8d320fe04d38baae83909752f30792909f06e9606bb46b2f4ada600675"),
    (123, 45, {}, "be2d14553b050b64b830873f3366aead7e95d9f19b782a806b6e5c2b0f13924d"),
    (900_001, 0, {}, "a0a01224c97630192c25b26ee0fbb8e091a014304a3885c152e11d0b23e2c619"),
    (900_002, 999, {}, "1775331075e3717fd0ae4b52841e0afb015881d43277cc796c78cb256aa626ae"),
    (3, 4, dict(size=48), "abf4efce038f2dc792ab318fea8cd6c4f494b571de0c05fe8ad11feddaa5c162"),
    (3, 4, dict(size=160, objects=(4, 4)), "b56ef866776faad2d210524def2616f41f62195967c04af70965fcfa93eea06f"),
]


@pytest.mark.parametrize(("seed", "index", "options", "sha256"), PINNED)
def test_scenes_have_their_pinned_bytes(seed, index, options, sha256):
    assert digest(draw_scene(seed, index, **options)) == sha256


def test_every_seed_and_every_index_is_another_scene(many):
    scenes = many[:20] + [draw_scene(seed, index) for seed in (12, 13) for index in range(20)]
    assert len({digest(scene) for scene in scenes}) == len(scenes)


def test_a_thing_is_drawn_differently_in_every_style():
    pictures = {style: emojiscenes.sprite("cat", style, 48)[0].astype(int) for style in STYLES}
    for one in STYLES:
        for other in STYLES:
            assert (np.abs(pictures[one] - pictures[other]).mean() > 5) == (one != other)


# --- labels and captions --------------------------------------------------------------------------------------------


def test_arrays_have_the_documented_shapes_and_types(many):
    for scene in many:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert scene.labels.shape == (96, 96) and scene.labels.dtype == np.uint8


def test_pixels_belong_to_the_listed_classes_and_each_owns_one(many):
    for scene in many:
        owners = {CLASSES[label] for label in np.unique(scene.labels)}
        assert owners == {*scene.things, *scene.stuff}
        assert set(scene.things) <= set(THINGS) and set(scene.stuff) <= set(STUFF)
        assert 1 <= len(scene.things) <= 3 and 1 <= len(scene.stuff) <= 2


def test_the_caption_names_every_thing_and_no_absent_class(many):
    for scene in many:
        words = scene.caption.replace(",", "").split()
        assert [word for word in words if word in THINGS] == list(scene.things)
        named = [word for word in words if word in STUFF]
        assert named in ([], list(scene.stuff))
    with_stuff = np.mean([any(name in scene.caption.split() for name in scene.stuff) for scene in many])
    assert 0.65 < with_stuff < 0.95


def test_a_thing_that_others_hide_is_neither_listed_nor_named():
    scene = draw_scene(1, 0, size=48, objects=(20, 20))
    assert 1 <= len(scene.things) < 20
    assert {CLASSES.index(name) for name in scene.things} <= set(np.unique(scene.labels).tolist())
    assert [word for word in scene.caption.replace(",", "").split() if word in THINGS] == list(scene.things)


def test_things_are_smaller_the_more_there_are():
    def covered(count):
        scenes = [draw_scene(4, index, things=("apple", "bear", "book"), objects=(count, count)) for index in range(60)]
        return [(scene.labels == label).sum() ** 0.5 for scene in scenes for label in map(CLASSES.index, scene.things)]

    assert np.median(covered(1)) > 1.2 * np.median(covered(2)) > 1.2 * 1.15 * np.median(covered(3))
    assert max(covered(3)) <= 48 < max(covered(1)) <= 80


def test_articles_agree_with_their_nouns():
    captions = [draw_scene(5, index, things=("apple", "cat")).caption.split() for index in range(60)]
    pairs = {f"{a} {b}" for caption in captions for a, b in pairwise(caption) if b in ("apple", "cat")}
    assert {"an apple", "a cat"} <= pairs
    assert not {"a apple", "an cat"} & pairs


def test_labels_lie_under_the_red_of_a_strawberry_in_the_night():
    for index in range(20):
        scene = draw_scene(2, index, styles=("twemoji",), things=("strawberry",), stuff=("night",), objects=(1, 1))
        red = scene.image[..., 0].astype(int) - scene.image[..., 2]
        thing = scene.labels == CLASSES.index("strawberry")
        assert 48 * 48 * 0.2 < thing.sum() < 80 * 80
        assert red[thing].mean() > 60 > red[~thing].mean()


def test_every_class_appears_in_the_fixed_test_set():
    labels = np.concatenate([np.unique(EmojiScenes.split("test", size=48)[index].labels) for index in range(600)])
    assert set(labels.tolist()) == set(range(len(CLASSES)))


# --- classes and splits ---------------------------------------------------------------------------------------------


def test_the_unseen_classes_are_those_of_the_issue():
    unseen = "tiger rabbit owl turtle banana pizza bus rocket guitar umbrella camera cactus sand snow"
    assert tuple(unseen.split()) == UNSEEN
    assert sorted(SEEN + UNSEEN) == sorted(CLASSES) and not set(SEEN) & set(UNSEEN)


def test_there_are_sixty_things_ten_stuffs_and_three_styles():
    assert len(THINGS) >= 60 and len(set(CLASSES)) == len(CLASSES) == len(THINGS) + 10
    assert STUFF == ("grass", "water", "sand", "brick", "wood", "sky", "snow", "night", "stone", "leaves")
    assert STYLES == ("noto", "twemoji", "fluent")


def test_fixed_sets_have_seeds_of_their_own():
    sets = {name: EmojiScenes.split(name) for name in SPLITS}
    assert {name: len(scenes) for name, scenes in sets.items()} == {"val": 300, "test": 1000, "balanced": 1240}
    assert sets["val"].seed != sets["test"].seed and 0 not in {scenes.seed for scenes in sets.values()}
    scenes = {name: {digest(dataset[index]) for index in range(50)} for name, dataset in sets.items()}
    assert not scenes["val"] & scenes["test"]


def test_the_layout_is_the_same_at_other_sizes():
    for index in range(40):
        full = draw_scene(7, index)
        half, double = draw_scene(7, index, size=48), draw_scene(7, index, size=192)
        assert (full.labels[1::2, 1::2] == half.labels).mean() > 0.9
        assert (double.labels[1::2, 1::2] == full.labels).mean() > 0.9
        assert full.caption == half.caption == double.caption


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(24, 130),
    styles=st.sets(st.sampled_from(STYLES), min_size=1).map(sorted),
    things=st.sets(st.sampled_from(THINGS), min_size=4, max_size=9).map(sorted),
    stuff=st.sets(st.sampled_from(STUFF), min_size=1, max_size=3).map(sorted),
    objects=st.sampled_from([(1, 1), (1, 3), (2, 2), (4, 4)]),
)
def test_options_are_respected(seed, size, styles, things, stuff, objects):
    scene = EmojiScenes(1, seed, size=size, styles=styles, things=things, stuff=stuff, objects=objects)[0]
    assert scene.image.shape == (size, size, 3) and scene.labels.shape == (size, size)
    assert scene.style in styles
    assert set(scene.things) <= set(things) and set(scene.stuff) <= set(stuff)
    assert 1 <= len(scene.things) <= objects[1]


def test_the_number_of_objects_and_the_style_cover_their_range(many):
    assert {len(scene.things) for scene in many} == {1, 2, 3}
    assert {scene.style for scene in many} == set(STYLES)


def test_the_smallest_allowed_size_can_be_drawn():
    dataset = EmojiScenes(200, seed=5, size=16, objects=(1, 1))
    assert all(dataset[index].things for index in range(200))


BAD = [
    (dict(styles=("noto", "comic")), r"style: \['comic'\]; choose from noto, twemoji, fluent"),
    (dict(styles=()), "no style"),
    (dict(things=("cat", "unicorn")), r"thing: \['unicorn'\]; choose from cat, dog"),
    (dict(things=("grass",)), r"thing: \['grass'\]"),
    (dict(stuff=("lava",)), r"stuff: \['lava'\]; choose from grass, water"),
    (dict(stuff=()), "no stuff"),
    (dict(objects=(0, 2)), r"objects=\(0, 2\) must be 1 <= fewest <= most"),
    (dict(objects=(3, 2)), r"objects=\(3, 2\)"),
    (dict(things=("cat", "dog"), objects=(1, 3)), r"most <= 2 things"),
    (dict(size=7), "size=7 px is too small"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        EmojiScenes(3, **options)


def test_unknown_splits_and_scenes_out_of_range_are_named():
    with pytest.raises(InputError, match="no split 'train'; choose from val, test"):
        EmojiScenes.split("train")
    dataset = EmojiScenes(3)
    assert len(dataset) == 3
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"scene {index} of a set of 3"):
            dataset[index]


# --- textures and tensors -------------------------------------------------------------------------------------------


def test_textures_differ_from_each_other_and_between_variants():
    sheets = texture_sheets(96)
    assert list(sheets) == list(TEXTURES)
    colours = [tuple(sheet.mean((0, 1, 2)).round()) for sheet in sheets.values()]
    assert len(set(colours)) == len(colours)
    for sheet in sheets.values():
        assert sheet.shape == (3, 256, 256, 3) and sheet.dtype == np.uint8
        assert (sheet[0] != sheet[1]).any() and (sheet[1] != sheet[2]).any()


def test_normalise_follows_imagenet():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 3).expand(3, 1, 3)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        wanted = torch.tensor([(value / 255 - mean) / std for value in (0, 128, 255)])
        torch.testing.assert_close(normalise(image)[channel, 0], wanted)
    assert torch.equal(normalise(image[None]), normalise(image)[None])


def test_to_tensor_moves_the_colours_first():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = to_tensor(image[:, ::-1])
    assert tensor.dtype == torch.uint8 and tensor.shape == (3, 2, 4) and tensor.is_contiguous()
    assert tensor[1, 0].tolist() == [10, 7, 4, 1]


# --- balanced sets --------------------------------------------------------------------------------------------------


def test_the_balanced_set_deals_every_class_equally_often():
    seed, length = SPLITS["balanced"]
    for names, most, times in ((THINGS, 3, 39), (STUFF, 2, 186)):
        dealt = [emojiscenes._dealt(seed, index, names, 1, most) for index in range(length)]
        assert all(len(set(cards)) == len(cards) <= most for cards in dealt)
        counts = Counter(name for cards in dealt for name in cards)
        assert counts == dict.fromkeys(names, times)
        assert {len(cards) for cards in dealt} == set(range(1, most + 1))


def test_a_balanced_scene_is_drawn_of_what_was_dealt():
    scenes = EmojiScenes.split("balanced")
    for index in (0, 61, 62, 125, 700, 1239):
        scene, things = scenes[index], emojiscenes._dealt(scenes.seed, index, THINGS, 1, 3)
        assert set(scene.things) <= set(things) and set(scene.stuff) <= set(
            emojiscenes._dealt(scenes.seed, index, STUFF, 1, 2)
        )
        assert scene.things, "drawn, if perhaps covered in part"
    few = EmojiScenes(9, 5, things=THINGS[:3], stuff=STUFF[:1], balanced=True)
    assert {few[index].stuff for index in range(9)} == {STUFF[:1]}
    assert Counter(name for index in range(9) for name in few[index].things) == dict.fromkeys(THINGS[:3], 6)


def test_a_world_without_classes_draws_none_of_them():
    world = EmojiScenes(40, seed=5, size=32, styles=STYLES[:2], objects=(2, 2))
    hidden = [CLASSES.index(name) for name in UNSEEN]
    assert any(np.isin(scene.labels, hidden).any() for scene in world)
    strict = world.without(hidden)
    assert not any(np.isin(scene.labels, hidden).any() for scene in strict)
    assert not any(word in scene.caption.split() for scene in strict for word in UNSEEN)
    assert (len(strict), strict.seed) == (40, 5)
    kept = {"size": 32, "styles": STYLES[:2], "objects": (2, 2)}
    assert {key: strict.options[key] for key in kept} == kept
    with pytest.raises(InputError, match="unknown or no stuff"):
        world.without([CLASSES.index(name) for name in STUFF])
