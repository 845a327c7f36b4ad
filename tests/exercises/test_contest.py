"""The contest of assignment 3: its rules, its worlds, and how it is judged."""

import json
import re

import numpy as np
import pytest
import torch

import cascadeclip
from cascadeclip.analysis.lenses import block_tokens, raw_lens
from cascadeclip.data.transforms import normalise
from cascadeclip.exercises import EXERCISES, Wrong, contest, grade
from cascadeclip.exercises.answering import Here

SETTINGS = {"stages": [[6, 7, 8], [12]], "steps": 10, "batch_size": 4}


def judged(settings):
    return EXERCISES["my_settings"].judge(Here({"my_settings": settings}), 1)


REFUSED = [
    (None, "must be a dict"),
    ({"steps": contest.PICTURES, "batch_size": 2}, "over budget"),
    ({"steps": contest.PICTURES // 8 + 1, "batch_size": 8}, "over budget"),
    ({**SETTINGS, "transductive": True}, "labels of unseen classes may not be touched"),
    ({**SETTINGS, "unseen": []}, "the split is fixed"),
    ({**SETTINGS, "seed": 3}, "lucky seed"),
    ({**SETTINGS, "learning-rate": 0.1}, "there is no setting `learning-rate`"),
    ({**SETTINGS, "prompt_tokens": 500}, "must lie between 0 and 20"),
    ({**SETTINGS, "prompt_tokens": "ten"}, "must be a number"),
    ({**SETTINGS, "batch_size": 2.5}, "whole number"),
    ({**SETTINGS, "loss_size": None}, "full resolution"),
    ({**SETTINGS, "stages": [[13]]}, "blocks 1..12"),
    ({**SETTINGS, "stages": [12]}, "list of blocks for every stage"),
    ({**SETTINGS, "stages": [[5], [6], [7], [8], [9]]}, "at most 4"),
    ({**SETTINGS, "aggregation": "gauss"}, "choose from nga"),
    ({**SETTINGS, "seen_offset": True}, "must be a number"),
    ({**SETTINGS, "learning_rate": float("nan")}, "must lie between"),
    ({**SETTINGS, "things": 4}, "must lie between 1 and 3"),
    ({**SETTINGS, "styles": "noto"}, "must be a list of some of noto, twemoji, fluent"),
    ({**SETTINGS, "styles": ["oils"]}, "must be a list of some of"),
    ({**SETTINGS, "colours": 1}, "True or False"),
]


@pytest.mark.parametrize("settings,message", REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_settings_against_the_rules_are_refused(settings, message, monkeypatch):
    monkeypatch.setattr(contest, "_competed", lambda *arguments: pytest.fail("it trained all the same"))
    for wrong in judged(settings):
        assert message in str(wrong)
    with pytest.raises(Wrong, match=re.escape(message)):
        contest.compete(settings)


def test_numbers_of_any_kind_are_settings_and_huge_ones_are_refused(monkeypatch):
    asked = []
    monkeypatch.setattr(contest, "_competed", lambda choices, *more: asked.append(json.loads(choices)) or ())
    contest.compete({**SETTINGS, "decoder_heads": np.int64(4), "sigma": np.float64(2)})
    assert asked == [{**SETTINGS, "decoder_heads": 4, "sigma": 2.0}]
    with pytest.raises(Wrong, match="must lie between"):
        contest.compete({**SETTINGS, "steps": 10**400})


def test_points_of_settings_come_from_a_comparison_on_new_scenes(monkeypatch):
    baseline, asked, reached = 0.3, [], []

    def scores(choices, seed, split):
        asked.append((json.loads(choices), seed, split))
        return (("hIoU", baseline if asked[-1][0] == contest.BASELINE else reached[-1]),)

    monkeypatch.setattr(contest, "_competed", scores)
    for times, points in ((0.9, 1), (1.0, 1), (1.05, 5), (1.2, 7)):
        reached.append(times * baseline)
        assert grade("my_settings", {"my_settings": SETTINGS}, 3) == points
    assert all(settings in (SETTINGS, contest.BASELINE) and split == "test" for settings, _, split in asked)
    assert len({seed for _, seed, _ in asked}) == 1
    grade("my_settings", {"my_settings": SETTINGS}, 4)
    assert len({seed for _, seed, _ in asked}) == 2


@pytest.mark.slow
def test_plain_clip_is_scored_as_it_is_read():
    world, scores = contest.small_world("val"), contest.plain_clip("val")
    scenes = [world.eval_data("val")[i] for i in range(contest.SCORED)]
    images, labels = world.collate(scenes)
    clip = cascadeclip.clip.load_clip()
    with torch.inference_mode():
        tokens = raw_lens(clip.visual, block_tokens(clip.visual, normalise(images))[-1][:, 1:])
        maps = (tokens @ clip.class_embeddings(world.names).T).transpose(1, 2).unflatten(2, (12, 12))
        found = torch.nn.functional.interpolate(maps, (96, 96), mode="bilinear").argmax(1)
    right = (found == labels)[labels != 255]
    assert scores["pAcc"] == pytest.approx(right.double().mean().item(), abs=1e-4)
    assert contest.plain_clip("val", value_path=True)["hIoU"] > scores["hIoU"] > 0.05


def test_small_world_labels_its_classes_and_hides_the_unseen():
    world = contest.small_world()
    images, labels = world.collate([world.train_data(5)[i] for i in range(40)])
    assert images.shape == (40, 3, 96, 96) and labels.max() < len(world.names)
    scene = world.train_data(5)[7]
    assert {world.names[i] for i in labels[7].unique().tolist()} == {*scene.things, *scene.stuff}
    assert 4 <= len(world.unseen) < len(world.seen)


def test_settings_are_chosen_without_a_look_at_the_unseen_classes():
    final, choosing = contest.small_world("test"), contest.small_world("val")
    assert set(choosing.names) == set(final.seen) and not set(choosing.names) & set(final.unseen)
    assert choosing.unseen == contest.HELD_OUT and set(contest.HELD_OUT) < set(final.seen)
    scenes = [choosing.eval_data("val")[i] for i in range(40)]
    _, labels = choosing.collate(scenes)
    _, all_labels = final.collate(scenes)
    hidden = torch.isin(all_labels, torch.tensor([final.names.index(name) for name in final.unseen]))
    assert hidden.any() and (labels[hidden] == 255).all() and (labels[~hidden] != 255).all()


def test_training_scenes_are_those_chosen_and_scored_ones_stay():
    world = contest.small_world("test")
    shown = contest._with_data(world, {"things": 3, "styles": ["fluent", "noto"], "colours": True})
    scenes = [shown.train_data(3)[i] for i in range(30)]
    assert {scene.style for scene in scenes} == {"fluent", "noto"} and {len(s.things) for s in scenes} == {1, 2, 3}
    images, _, changes = shown.collate(scenes)
    assert changes.shape == (len(images), 6)
    assert {(scene.style, len(scene.things)) for scene in (shown.eval_data("test")[i] for i in range(9))} == {
        ("twemoji", 1)
    }
    plain = contest._with_data(world, {})
    assert plain.collate is world.collate and (plain.train_data(3)[1].image == world.train_data(3)[1].image).all()


def test_the_baseline_keeps_to_the_rules_and_a_wrong_settings_message_names_both_scores(monkeypatch):
    assert len(contest.checked(contest.BASELINE).model.stages) == 3
    monkeypatch.setattr(
        contest,
        "_competed",
        lambda choices, *more: (("hIoU", 0.3 if json.loads(choices) == contest.BASELINE else 0.2),),
    )
    _, beaten, tenth = judged(SETTINGS)
    assert "hIoU 20.0; the baseline, trained with the same seed, reaches 30.0" in str(beaten)
    assert "1.1 times as much, 33.0, is asked for" in str(tenth) and "another seed" in str(tenth)


@pytest.mark.slow
def test_training_really_takes_place_and_is_remembered(monkeypatch):
    scores = contest.compete(SETTINGS, seed=1)
    assert set(scores) == {"pAcc", "mIoU_seen", "mIoU_unseen", "hIoU"} and 0 < scores["pAcc"] < 1
    calls = []
    monkeypatch.setattr(contest, "train", lambda *arguments, **options: calls.append(1))
    assert contest.compete(dict(reversed(SETTINGS.items())), seed=1) == scores and not calls
    contest.compete(SETTINGS, seed=2)
    assert calls == [1]
