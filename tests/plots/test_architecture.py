"""The diagram of a cascade: whatever its settings, every shape that it names is one that the model computes."""

import re
from dataclasses import replace

import pytest
import torch

from cascadeclip.config import ModelConfig, TowerConfig
from cascadeclip.model.cascade import CascadeCLIP
from cascadeclip.plots.architecture import plot_architecture

SMALL = TowerConfig(image_size=16, patch_size=4, width=12, layers=4, heads=2, embed_dim=8)
CONFIG = ModelConfig(stages=((1, 2), (3,), (4,)), prompt_tokens=0, decoder_heads=2, tower=SMALL)


def texts(config):
    figure = plot_architecture(config)
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.axes[0].texts]


def shape_after(letter, said):
    """The numbers behind a letter, without B and C."""
    (shape,) = (re.search(r"\(([^)]*)\)", text[text.index(letter) :])[1] for text in said if letter in text)
    return [int(part) for part in shape.split(", ") if part.isdigit()]


def test_the_shapes_are_those_that_the_model_computes():
    said = texts(CONFIG)
    with torch.inference_mode():
        output = CascadeCLIP(CONFIG).eval()(torch.randn(2, 3, 16, 16), torch.randn(5, 8))
    for number in (1, 2, 3):
        at, name = number - 1, "₁₂₃"[number - 1]
        assert shape_after(f"M{name}", said) == list(output.stage_logits[at].shape[2:])
        assert shape_after(f"Z{name}", said) == list(output.stage_tokens[at].shape[1:])
        assert shape_after(f"q{name}", said) == list(output.stage_queries[at].shape[2:])
    assert shape_after("g (", said) == list(output.image_embedding.shape[1:])


@pytest.mark.parametrize(
    "changes,wanted,unwanted",
    [
        ({}, ["blocks 1, 2", "block 3", "aggregation: NGA", "one block: as it is"], ["prompt tokens", "blocks 1 to"]),
        ({"prompt_tokens": 7}, ["+ 7 prompt tokens"], []),
        ({"aggregation": "concat"}, ["aggregation: concat"], ["NGA"]),
        ({"stages": ((4,),)}, ["blocks 1 to 3", "CLIP's own exit"], ["taps"]),
        ({"decoder_layers": 2}, ["decoder: 1 layer,"], ["1 layers"]),
        ({"decoder_layers": 1}, ["decoder:\nthe mask layer alone"], ["0 layers"]),
        ({"centre_text": True}, ["centred"], []),
        ({"stages": ((1, 2), (3, 4))}, ["taps, CLIP's exit"], ["centred"]),
    ],
)
def test_the_diagram_follows_the_settings(changes, wanted, unwanted):
    said = "\n---\n".join(texts(replace(CONFIG, **changes)))
    assert all(part in said for part in wanted)
    assert not any(part in said for part in unwanted)


def test_taps_that_stay_random_are_not_drawn_as_trained():
    def fill(config):
        figure = plot_architecture(config)
        boxes = dict(
            zip((t.get_text() for t in figure.axes[0].texts if t.get_text()), figure.axes[0].patches, strict=False)
        )
        (found,) = {box.get_facecolor() for text, box in boxes.items() if text.startswith("taps")}
        return found

    assert fill(replace(CONFIG, train_taps=True)) != fill(replace(CONFIG, train_taps=False))


def test_no_text_leaves_its_box():
    for config in (CONFIG, ModelConfig(), ModelConfig(stages=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)))):
        figure = plot_architecture(config)
        figure.draw_without_rendering()
        axis = figure.axes[0]
        boxes = [patch.get_bbox().transformed(axis.transData) for patch in axis.patches]
        for text in (text for text in axis.texts if "\n" in text.get_text() or "(B" in text.get_text()):
            own = text.get_window_extent()
            assert any(box.x0 <= own.x0 and own.x1 <= box.x1 and box.y0 <= own.y0 and own.y1 <= box.y1 for box in boxes)
