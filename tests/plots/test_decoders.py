"""Figures of the decoders: attention against PyTorch's own, what is drawn where, and a watched training run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from cascadeclip.config import TrainConfig
from cascadeclip.data.transforms import normalise
from cascadeclip.errors import InputError
from cascadeclip.model.cascade import CascadeCLIP, TextImageDecoder
from cascadeclip.model.losses import segmentation_loss
from cascadeclip.plots.decoders import (
    TrainingWatch,
    attention_by_layer,
    auroc_against,
    plot_attention,
    plot_mask_history,
    plot_stage_masks,
)
from cascadeclip.training.loop import train
from tests.support.noise import MODEL, NAMES, TEXT, UNSEEN, Noise, collate

CONFIG = TrainConfig(steps=6, batch_size=2, learning_rate=1e-2, warmup=2, precision="fp32", validate_every=2)


def new_model():
    torch.manual_seed(3)
    return CascadeCLIP(MODEL)


def new_watch(config=CONFIG, labels=None, **kwargs):
    images, own = collate([Noise()[index] for index in range(3)])
    return TrainingWatch(images, own if labels is None else labels, TEXT, NAMES, UNSEEN, config, **kwargs)


def run(validate=None):
    model = new_model()
    log = train(
        model, Noise(), TEXT, NAMES, UNSEEN, CONFIG, collate=collate, validate=validate, progress=False
    )  # fmt: skip
    return model, log


def picture_and_mask(size=16):
    generator = np.random.default_rng(0)
    mask = np.zeros((size, size), dtype=bool)
    mask[4:9, 5:12] = True
    return generator.integers(0, 256, (size, size, 3), dtype=np.uint8), mask


def drawn_maps(figure, shape):
    """The arrays of all heat maps of that shape in a figure, row by row."""
    panels = [image for axis in figure.axes for image in axis.images if np.asarray(image.get_array()).shape == shape]
    return [np.asarray(panel.get_array()) for panel in panels], panels


def test_attention_is_that_of_pytorch_with_the_same_weights(randomise):
    torch.manual_seed(0)
    decoder = randomise(TextImageDecoder(8, heads=2, layers=3)).eval()
    queries, tokens = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    maps = attention_by_layer(decoder, queries, tokens)
    assert [tuple(found.shape) for found in maps] == [(2, 3, 5)] * 3
    with torch.no_grad():
        for layer, found in zip(decoder.layers, maps[:-1], strict=True):
            reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
            parts = (layer.query, layer.key, layer.value)
            reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            torch.testing.assert_close(found, 5 * reference(queries, tokens, tokens)[1])
            torch.testing.assert_close(found.mean(-1), torch.ones(2, 3))
            queries = layer(queries, tokens)
        torch.testing.assert_close(maps[-1], decoder.mask(queries, tokens))


def test_a_decoder_of_one_layer_has_mask_logits_only(randomise):
    decoder = randomise(TextImageDecoder(8, heads=2, layers=1)).eval()
    queries, tokens = torch.randn(1, 2, 8), torch.randn(1, 4, 8)
    (found,) = attention_by_layer(decoder, queries, tokens)
    torch.testing.assert_close(found, decoder(queries, tokens).detach())


def test_attention_figure_shows_every_map_on_common_scales():
    image, mask = picture_and_mask()
    generator = np.random.default_rng(1)
    maps = [[generator.random((2, 2)), generator.random((2, 2)), generator.normal(size=(2, 2))] for _ in range(2)]
    figure = plot_attention(image, maps, ["one", "two"], mask, "cat")
    arrays, panels = drawn_maps(figure, (2, 2))
    assert all(
        np.array_equal(found, given) for found, given in zip(arrays, [m for row in maps for m in row], strict=True)
    )
    assert len({panel.get_clim() for panel in panels}) == 2  # attention around an even look, logits around 0
    titles = [axis.get_title() for axis in figure.axes]
    assert {"layer 1: attention", "layer 2: attention", "layer 3: mask logits"} <= set(titles)
    assert "cat" in figure.get_suptitle()


def test_attention_figure_of_a_one_layer_decoder():
    image, mask = picture_and_mask()
    figure = plot_attention(image, [[np.eye(2)]], ["one"], mask, "cat")
    assert [axis.get_title() for axis in figure.axes][:2] == ["picture", "layer 1: mask logits"]


def test_stage_masks_end_with_their_sum_and_share_one_scale():
    image, mask = picture_and_mask()
    logits = np.random.default_rng(2).normal(size=(2, 3, 4, 4))
    masks = np.stack([mask, ~mask, np.zeros_like(mask)])  # the third class is not in the picture
    figure = plot_stage_masks(image, logits, masks, ["a", "b", "c"], ["s1", "s2"])
    arrays, panels = drawn_maps(figure, (4, 4))
    assert len(arrays) == 9
    assert all(np.allclose(arrays[3 * c + 2], arrays[3 * c] + arrays[3 * c + 1]) for c in range(3))
    (limits,) = {panel.get_clim() for panel in panels}
    assert limits[0] == -limits[1] == pytest.approx(-max(np.abs(found).max() for found in arrays))


def test_mask_history_is_in_order_of_the_steps_and_shows_the_contrast_within_each_picture():
    image, mask = picture_and_mask()
    pattern = np.array([[1.0, -1.0], [2.0, -2.0]])
    history = {20: np.stack([3 + pattern, 5 - pattern]), 0: np.full((2, 2, 2), -1.0)}
    figure = plot_mask_history(np.stack([image] * 2), np.stack([mask] * 2), ["a", "b"], history)
    assert [axis.get_title() for axis in figure.axes][:3] == ["picture", "step 0", "step 20"]
    arrays, panels = drawn_maps(figure, (2, 2))
    assert all(np.allclose(found, wanted) for found, wanted in zip(arrays, [0, pattern, 0, -pattern], strict=True))
    assert {panel.get_clim() for panel in panels} == {(-2, 2)}


@pytest.mark.parametrize(
    "draw",
    [
        lambda image, mask: plot_attention(image, [[np.eye(2)]], ["one", "two"], mask, "cat"),
        lambda image, mask: plot_attention(image, [[np.eye(2)], [np.eye(2)] * 2], ["one", "two"], mask, "cat"),
        lambda image, mask: plot_stage_masks(image, np.zeros((2, 1, 4, 4)), mask[None], ["a", "b"], ["s1", "s2"]),
        lambda image, mask: plot_stage_masks(image, np.zeros((2, 1, 4, 4)), mask[None], ["a"], ["s1"]),
    ],
)
def test_names_that_do_not_belong_to_the_maps_are_refused(draw):
    with pytest.raises(InputError):
        draw(*picture_and_mask())


@pytest.mark.slow
def test_watching_a_run_changes_nothing_and_shows_every_look():
    shown = []
    watch = new_watch(keep=(0, 4), kept_scenes=2, show=shown.append)
    watch(new_model())
    model, log = run(watch)
    assert [entry["step"] for entry in watch.history] == [0, 2, 4, 6]
    assert len(shown) == 4 and all(isinstance(figure, Figure) for figure in shown)
    assert {step: tuple(kept.shape) for step, kept in watch.kept.items()} == {0: (2, 3, 2, 2), 4: (2, 3, 2, 2)}
    assert log[-1]["held_out_total"] == watch.history[-1]["held_out_total"]
    unwatched, _ = run()
    states = zip(model.state_dict().values(), unwatched.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in states)


def test_the_last_look_is_at_the_last_step_also_off_the_beat():
    config = replace(CONFIG, steps=5)
    watch = new_watch(config)
    model = new_model()
    watch(model)
    train(model, Noise(), TEXT, NAMES, UNSEEN, config, collate=collate, validate=watch, progress=False)
    assert [entry["step"] for entry in watch.history] == [0, 2, 4, 5]


@pytest.mark.parametrize("loss_size", [None, 4])
def test_held_out_loss_is_what_training_computes(loss_size):
    watch, model = new_watch(replace(CONFIG, loss_size=loss_size)), new_model().eval()
    found = watch(model)
    labels = torch.tensor([0, 255, 1])[watch.labels][:, :: 16 // (loss_size or 16), :: 16 // (loss_size or 16)]
    with torch.inference_mode():
        logits = model(normalise(watch.images), TEXT[[0, 2]]).mask_logits
    wanted = segmentation_loss(logits, labels)
    assert found["held_out_focal"] == pytest.approx(wanted["focal"].item(), rel=1e-5)
    assert found["held_out_dice"] == pytest.approx(wanted["dice"].item(), rel=1e-5)


def test_accuracy_is_counted_apart_for_seen_and_unseen_pixels():
    watch = new_watch(seen_offset=0.0)
    logits = torch.full((3, 3, 16, 16), -9.0)
    logits.scatter_(1, watch.labels[:, None], 9.0)
    logits[watch.labels[:, None].expand_as(logits) == 1] = 0.0  # an unseen pixel: all tie, the first class wins
    found = watch._accuracy(logits)
    assert found == {"pAcc_seen": 1.0, "pAcc_unseen": 0.0}


def test_ignored_pixels_count_in_no_accuracy():
    labels = torch.full((3, 16, 16), 255)
    labels[:, 0, 0] = 1
    watch = new_watch(labels=labels)
    logits = torch.full((3, 3, 16, 16), -9.0)
    logits[:, 1] = 9.0
    assert watch._accuracy(logits)["pAcc_unseen"] == 1.0


def test_class_255_of_many_is_watched_like_any_other():
    names = [str(index) for index in range(300)]
    images, labels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 4, 4), 255)
    labels[0, 0], labels[0, 1] = 299, 65_535
    logits = torch.full((1, 300, 4, 4), -9.0)
    logits[:, 255] = 9.0
    watch = TrainingWatch(images, labels, torch.zeros(300, 2), names, ["255", "299"], replace(CONFIG, loss_size=None))
    assert watch._accuracy(logits)["pAcc_unseen"] == pytest.approx(8 / 12)
    watch = TrainingWatch(images, labels, torch.zeros(300, 2), names, ["3"], replace(CONFIG, loss_size=None))
    wanted = segmentation_loss(logits[:, watch.seen], watch.table[labels], 65_535)["total"]
    assert watch._held_out_loss(logits)["held_out_total"] == pytest.approx(wanted.item(), rel=1e-4)


def test_the_seen_offset_moves_pixels_to_unseen_classes():
    logits = torch.zeros(3, 3, 16, 16)
    logits[:, 0] += 0.05
    labels = torch.ones(3, 16, 16, dtype=torch.int64)
    assert new_watch(labels=labels, seen_offset=0.0)._accuracy(logits)["pAcc_unseen"] == 0
    assert new_watch(labels=labels, seen_offset=0.1)._accuracy(logits)["pAcc_unseen"] == 1


def test_final_figure_adds_the_training_batches():
    watch = new_watch()
    watch(new_model())
    _, log = run(watch)
    loss, accuracy = watch.figure(log).axes[:2]
    assert "training batch" in [text.get_text() for text in loss.get_legend().get_texts()]
    assert "training batch" not in [text.get_text() for text in watch.figure().axes[0].get_legend().get_texts()]
    assert loss.get_xlabel() and loss.get_ylabel() and accuracy.get_xlabel() and accuracy.get_ylabel()
    assert loss.get_xlim() == (0, CONFIG.steps)


def test_a_watch_without_a_beat_is_refused():
    with pytest.raises(InputError, match="validate_every"):
        new_watch(replace(CONFIG, validate_every=0))


def test_auroc_is_taken_against_the_classes_asked_for_only():
    labels = torch.tensor([[[0, 0], [1, 2]], [[1, 1], [2, 2]]])
    logits = torch.zeros(2, 3, 2, 2)
    logits[0, 0] = torch.tensor([[2.0, 1.0], [0.0, 3.0]])  # class 0: above class 1, below class 2
    logits[1, 1] = torch.tensor([[1.0, 3.0], [2.0, 2.0]])  # class 1: half of its patches above class 2
    assert auroc_against(logits, labels, [0], [1]).tolist() == [1.0]
    assert auroc_against(logits, labels, [0], [0, 2]).tolist() == [0.0]
    assert auroc_against(logits, labels, [0], [1, 2]).tolist() == [0.5]
    assert auroc_against(logits, labels, [0, 1], [2]).tolist() == [0.0, 0.5, 0.5]  # two of picture 0, one of picture 1


def test_auroc_leaves_out_pictures_without_patches_on_both_sides():
    labels = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    assert auroc_against(torch.zeros(2, 2, 2, 2), labels, [0, 1], [0, 1]).shape == (0,)
