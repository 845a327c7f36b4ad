"""Settings: what is wrong with bad ones is said, and they survive being written down."""

import pytest

from cascadeclip.config import ModelConfig, TowerConfig, TrainConfig
from cascadeclip.errors import InputError

BAD_MODELS = [
    (dict(stages=((3,), (13,))), r"blocks 1\.\.12, not \[13\]"),
    (dict(stages=((0, 1),)), r"blocks 1\.\.12, not \[0\]"),
    (dict(stages=((6, 7, 6), (12,))), r"a block stands twice in \(6, 7, 6\)"),
    (dict(stages=()), "at least one block in every stage"),
    (dict(stages=((12,), ())), "at least one block in every stage"),
    (dict(stages=[[object()]] * 2000), "must be at most 1000 items"),  # and nothing about one of them
    (dict(stages=((object(),),) * 2000), "must be at most 1000 items"),
    (dict(aggregation="max"), "aggregation='max': choose from nga, sum, mean, concat, attention"),
    (dict(sigma=0.0), "sigma=0.0 must be positive"),
    (dict(prompt_tokens=-1), "prompt_tokens=-1 must not be negative"),
    (dict(decoder_layers=0), "decoder_layers=0 must be at least 1"),
    (dict(decoder_heads=7), "decoder_heads=7: the joint width 128"),
    (dict(decoder_heads=0), "decoder_heads=0"),
    (dict(dropout=1.0), r"dropout=1.0 must be in \[0, 1\)"),
    (dict(dropout=-0.1), r"dropout=-0.1 must be in \[0, 1\)"),
]
BAD_TOWERS = [
    (dict(heads=5), "tower.width=192 does not split into 5 heads"),
    (dict(image_size=100), "tower.image_size=100 is not a multiple of tower.patch_size=8"),
    *[
        ({name: 0}, f"tower.{name}=0 must be at least 1")
        for name in TowerConfig.__dataclass_fields__
        if name != "quick_gelu"
    ],
]


@pytest.mark.parametrize("settings", [dict(clip_norm=0.0), dict(focal_weight=0.0, dice_weight=0.0)])
def test_a_training_that_cannot_learn_is_refused(settings):
    with pytest.raises(InputError, match=f"{next(iter(settings))}=0"):
        TrainConfig(**settings)


@pytest.mark.parametrize(("settings", "message"), BAD_MODELS)
def test_bad_model_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**settings)


@pytest.mark.parametrize(("settings", "message"), BAD_TOWERS)
def test_bad_tower_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        TowerConfig(**settings)


def test_stages_that_are_one_flat_list_are_named():
    with pytest.raises(InputError, match="stages"):
        ModelConfig(stages=[6, 7, 8])


@pytest.mark.parametrize("part", ["ModelConfig", "TowerConfig"])
def test_unknown_settings_are_named(part):
    values = ModelConfig().to_dict()
    (values if part == "ModelConfig" else values["tower"])["colour"] = 3
    with pytest.raises(InputError, match=rf"{part}: unknown settings \['colour'\]"):
        ModelConfig.from_dict(values)


@pytest.mark.parametrize(("part", "name"), [("ModelConfig", "sigma"), ("TowerConfig", "heads")])
def test_missing_settings_are_named(part, name):
    values = ModelConfig().to_dict()
    del (values if part == "ModelConfig" else values["tower"])[name]
    with pytest.raises(InputError, match=rf"{part}: .*missing settings \['{name}'\]"):
        ModelConfig.from_dict(values)


def test_taps_are_the_blocks_below_the_last_in_ascending_order():
    assert ModelConfig(stages=((9, 7), (12, 7), (3,))).taps == (3, 7, 9)
    assert ModelConfig(stages=((12,),)).taps == ()
