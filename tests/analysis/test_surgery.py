"""Surgery on the last block, against open_clip's own modules and formulas written out."""

import itertools

import pytest
import torch
from torch import nn

from cascadeclip.analysis.lenses import block_inputs, last_layer_tokens, value_path_tokens
from cascadeclip.analysis.pictures import scene_pictures
from cascadeclip.analysis.surgery import VALUE_PATH, Surgery, last_block, operate, repair_outliers
from cascadeclip.clip.load import load_clip
from cascadeclip.data.emojiscenes import CLASSES
from cascadeclip.errors import InputError
from cascadeclip.explorers.surgery import bench_scores, lay_out, own_words_only

GRID = (12, 12)


@pytest.fixture(scope="module")
def clip():
    return load_clip()


@pytest.fixture(scope="module")
def visual(clip):
    return clip.visual


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(visual, images):
    with torch.inference_mode():
        return block_inputs(visual, images)[-1]


def attention_of(block, normed, one, other):
    """open_clip's attention module, its query and key projections replaced by those named."""
    width, rows = normed.shape[-1], {"query": 0, "key": 1}
    module = nn.MultiheadAttention(width, block.attn.num_heads, batch_first=True).eval()
    weight, bias = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
    module.in_proj_weight.data = torch.cat([weight[rows[one]], weight[rows[other]], weight[2]])
    module.in_proj_bias.data = torch.cat([bias[rows[one]], bias[rows[other]], bias[2]])
    module.out_proj.load_state_dict(block.attn.out_proj.state_dict())
    return module(normed, normed, normed, need_weights=False)[0]


def expected(visual, tokens, attention, residual, feed_forward):
    block = visual.transformer.resblocks[-1]
    mixed = attention_of(block, block.ln_1(tokens), *attention.split("-"))
    tokens = tokens + mixed if residual else mixed
    if feed_forward:
        tokens = tokens + block.mlp(block.ln_2(tokens))
    joint = visual.ln_post(tokens[:, 1:]) @ visual.proj
    return joint / joint.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    ("attention", "residual", "feed_forward"),
    list(itertools.product(("query-key", "query-query", "key-key"), (True, False), (True, False))),
)
@torch.inference_mode()
def test_each_cut_is_what_multihead_attention_gives_with_its_projections_swapped(
    visual, inputs, attention, residual, feed_forward
):
    found = last_block(visual, inputs, GRID, Surgery(attention, residual, feed_forward))
    assert found.shape == (2, 144, 128)
    torch.testing.assert_close(found, expected(visual, inputs, attention, residual, feed_forward), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_no_surgery_is_the_last_layer_and_the_value_path_is_maskclips(visual, images):
    torch.testing.assert_close(operate(visual, images, Surgery()), last_layer_tokens(visual, images), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        operate(visual, images, VALUE_PATH), value_path_tokens(visual, images), atol=1e-5, rtol=0
    )


def test_surgery_leaves_the_tower_as_it_was(visual, images):
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    operate(visual, images, Surgery("key-key", residual=False, feed_forward=False, repair=1.1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in visual.state_dict().items())


def repaired_slowly(tokens, grid, factor):
    """One patch after the other, in plain Python."""
    tokens, (rows, columns) = tokens.clone(), grid
    for picture in tokens:
        patches = picture[1:].clone()
        length = patches.norm(dim=-1)
        bad = (length > factor * length.median()).tolist()
        good = [i for i in range(len(patches)) if not bad[i]]
        for i in (i for i in range(len(patches)) if bad[i]):
            row, column = divmod(i, columns)
            near = [
                r * columns + c
                for r in range(max(row - 1, 0), min(row + 2, rows))
                for c in range(max(column - 1, 0), min(column + 2, columns))
                if not bad[r * columns + c]
            ]
            picture[1 + i] = patches[near or good].mean(0)
    return tokens


def test_outliers_become_the_mean_of_their_good_neighbours():
    tokens = torch.randn(3, 1 + 4 * 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens[0, [1, 7, 20]] *= 30  # a corner, one inside, the other corner
    block = [5 * r + c + 1 for r in range(3) for c in range(3)]
    tokens[1, block] *= 30  # the corner patch has no good neighbour left
    found, outliers = repair_outliers(tokens, (4, 5), 4.0)
    torch.testing.assert_close(found, repaired_slowly(tokens, (4, 5), 4.0))
    assert outliers[0].nonzero().flatten().tolist() == [0, 6, 19]
    assert outliers[1].sum() == 9 and not outliers[2].any()
    assert torch.equal(found[2], tokens[2]) and torch.equal(found[:, 0], tokens[:, 0])


@torch.inference_mode()
def test_repair_happens_before_the_block(visual, inputs):
    fixed, outliers = repair_outliers(inputs, GRID, 1.2)
    assert outliers.any()
    found = last_block(visual, inputs, GRID, Surgery("key-key", repair=1.2))
    torch.testing.assert_close(found, expected(visual, fixed, "key-key", True, True), atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrong", [dict(attention="value-query"), dict(repair=0.5), dict(repair=float("nan"))])
def test_unknown_cuts_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name}="):
        Surgery(**wrong)


# --- scores ---


def test_patches_choose_among_their_pictures_own_words():
    similarity = torch.tensor([[[3.0, 2, 1, 9], [1, 2, 3, 9]], [[9.0, 2, 1, 3], [9, 5, 6, 1]]])
    labels = torch.tensor([[0, 2], [1, 255]])
    assert own_words_only(similarity, labels).tolist() == [[0, 2], [1, 1]]


def test_scores_are_those_of_a_loop_over_pictures_and_classes(clip):
    pictures = scene_pictures(4)
    text = clip.class_embeddings(CLASSES)
    bench = lay_out(clip.visual, pictures, text)
    assert bench.labels.shape == (4, 144) and set(bench.inputs) == {"trained", "random"}
    tokens = last_block(clip.visual, bench.inputs["trained"], bench.grid, VALUE_PATH)
    truth, right, union = bench.labels, {}, {}
    for picture in range(4):
        own = truth[picture].unique().tolist()
        guess = [own[i] for i in (tokens[picture] @ text[own].T).argmax(1).tolist()]
        for c in own:
            hit, true = torch.tensor(guess) == c, truth[picture] == c
            right[c] = right.get(c, 0) + (hit & true).sum().item()
            union[c] = union.get(c, 0) + (hit | true).sum().item()
    expected_score = sum(right[c] / union[c] for c in union) / len(union)
    assert bench_scores(bench, VALUE_PATH)["right words"] == pytest.approx(expected_score, abs=1e-9)


def test_baselines_are_worse_than_maskclips_surgery_and_surgery_than_nothing(clip):
    bench = lay_out(clip.visual, scene_pictures(16), clip.class_embeddings(CLASSES))
    after, before = bench_scores(bench, VALUE_PATH), bench_scores(bench, Surgery())
    assert list(after) == ["right words", "wrong words", "shuffled patches", "random tower"]
    assert after["right words"] > 2 * max(value for name, value in after.items() if name != "right words")
    assert after["right words"] > before["right words"] + 0.15
    assert bench_scores(bench, VALUE_PATH) == after, "the baselines are drawn anew"


def test_pictures_without_labels_have_no_scores(clip):
    with pytest.raises(InputError, match="labelled"):
        lay_out(clip.visual, [], clip.class_embeddings(["cat"]))
