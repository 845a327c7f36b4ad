"""Assignment 1, layers and alignment: what is tested, and which mistakes are known.

Every expected value is computed here from its definition, apart from the package's own functions.
Symbols: N = h * w patches, E joint width, L blocks, n samples, C classes.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from cascadeclip.analysis.lenses import Tower, block_tokens, raw_lens
from cascadeclip.clip.load import load_clip
from cascadeclip.config import TowerConfig
from cascadeclip.data.emojiscenes import CLASSES, EmojiScenes, collate
from cascadeclip.data.transforms import normalise
from cascadeclip.exercises.checking import CASES, Ask, Exercise, Part, Test, Wrong, expect, integer, shaped
from cascadeclip.exercises.similarity import cka_bounds, cka_noise, cka_value, gap_test
from cascadeclip.model.tower import build_tower
from cascadeclip.processes import own_draws

# --- word_map ------------------------------------------------------------------------------------------------------


def _word_map(lengths: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            height, width, joint = integer(random, 2, 4), integer(random, 5, 7), integer(random, 8, 16)
            tokens = F.normalize(torch.randn(1 + height * width, joint, generator=random), dim=-1)
            word = F.normalize(torch.randn(joint, generator=random), dim=-1)
            if lengths:
                tokens, word = tokens * (1 + 5 * torch.rand(len(tokens), 1, generator=random)), word * 3
            patches = tokens[1:]
            cosine = F.normalize(patches, dim=-1) @ F.normalize(word, dim=-1)
            right = cosine.view(height, width)
            every = F.normalize(tokens, dim=-1) @ F.normalize(word, dim=-1)
            mistakes = {
                "you took a plain dot product: a long token then looks similar to every word. A cosine divides by "
                "both lengths": (patches @ word).view(height, width),
                "your tokens have length 1 but the word does not: divide by its length, too": right * word.norm(),
                "the word has length 1 in your map but the tokens keep theirs: divide by each token's length": (
                    patches @ F.normalize(word, dim=-1)
                ).view(height, width),
                "your map starts with the class token: it stands first and belongs to no place in the picture": every[
                    :-1
                ].view(height, width),
                "your map still holds the class token, which belongs to no place in the picture": every,
                "rows and columns are mixed up: patches come row by row, h rows of w": cosine.view(width, height).T,
                "your map is transposed: expected (h, w)": right.T,
                "a flat list of similarities: bring it into the shape of the grid, (h, w)": cosine,
                "you took a softmax over the patches: the map should hold plain cosines": right.flatten()
                .softmax(0)
                .view(height, width),
            }
            expect(ask(tokens, word, (height, width)), right, mistakes, "the map")

    return test


# --- auroc ---------------------------------------------------------------------------------------------------------


def _auroc(scores: Tensor, is_class: Tensor, tie: float = 0.5) -> float:
    """Mean over all pairs (patch of the class, other patch): 1 if the first scores higher, `tie` if they are equal."""
    inside, outside = scores[is_class][:, None], scores[~is_class]
    return ((inside > outside).double() + tie * (inside == outside)).mean().item()


def _average_precision(scores: Tensor, is_class: Tensor) -> float:
    among = is_class[scores.argsort(descending=True)].double()
    return ((among.cumsum(0) / torch.arange(1, len(among) + 1)) * among).sum().item() / among.sum().item()


def _test_auroc(ties: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            count = integer(random, 20, 40)
            scores = torch.randn(count, generator=random)
            if ties:
                scores = (2 * scores).round() / 2
            is_class = torch.zeros(count, dtype=torch.bool)
            is_class[torch.randperm(count, generator=random)[: count // 4]] = True
            right, inside = _auroc(scores, is_class), is_class.sum().item()
            positive = scores > scores.mean()
            mistakes = {
                "two equal scores count as won in yours; a tie is a coin toss and counts one half": _auroc(
                    scores, is_class, 1.0
                ),
                "two equal scores count as lost in yours; a tie is a coin toss and counts one half": _auroc(
                    scores, is_class, 0.0
                ),
                "upside down: yours is the chance that a patch of the class scores *lower*": 1 - right,
                "you divided by the number of all pairs of patches; only pairs of one patch inside and one outside "
                "count": right * inside * (count - inside) / count**2,
                "this is average precision; AUROC asks how many pairs (inside, outside) are in the right order": (
                    _average_precision(scores, is_class)
                ),
                "this is the accuracy at one threshold; AUROC needs no threshold, it compares pairs of patches": (
                    (positive == is_class).double().mean().item()
                ),
            }
            expect(ask(scores, is_class), right, mistakes, "the AUROC")

    return test


# --- mean_over_classes ---------------------------------------------------------------------------------------------


def _test_means(absent: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        for _ in range(CASES):
            classes, often = integer(random, 5, 8), integer(random, 10, 15)
            present = torch.randperm(classes, generator=random)[: classes - 2 if absent else classes]
            index = torch.cat([present, present[:1].repeat(often)])  # one class is far more frequent than the others
            values = torch.rand(len(index), generator=random) + 0.5 * (index == present[0])
            per_class = torch.stack([values[index == c].mean() for c in present])
            mistakes = {
                "you took the mean over the rows: a class that is in many pictures then counts many times. Take a "
                "mean within each class first, then over the classes": values.mean(),
                "classes that are in no picture count as 0 in yours; nothing is known of them, leave them out": (
                    per_class.sum() / classes
                ),
                "you returned the means of the classes; return their mean, one number": per_class,
                "this is the sum over the classes, not the mean": per_class.sum(),
            }
            expect(ask(values, index, classes), per_class.mean(), mistakes, "the mean")

    return test


# --- held_out ------------------------------------------------------------------------------------------------------


def _split(ask: Ask, random: torch.Generator) -> tuple[Tensor, Tensor, int, set[tuple[int, ...]]]:
    """Three answers of `held_out` on one set of patches: (last mask, its pictures, how many to hold, all sets)."""
    pictures, share = integer(random, 12, 20), 0.25 + 0.25 * integer(random, 0, 1)
    picture_of = torch.arange(pictures).repeat_interleave(integer(random, 5, 9))
    picture_of = torch.randperm(100, generator=random)[:pictures][picture_of]  # numbers with gaps, in any order
    chosen = set()
    for seed in range(3):
        mask = shaped(ask(picture_of, share, seed), picture_of.shape, "the mask")
        if mask.dtype != torch.bool:
            raise Wrong("the mask must hold True and False: True for a patch that is held out")
        both = set(picture_of[mask].tolist()) & set(picture_of[~mask].tolist())
        if both:
            raise Wrong(
                f"{len(both)} of {pictures} pictures have patches on both sides. Patches of one picture are nearly the "
                "same, so a probe could learn them by heart: draw *pictures*, not patches"
            )
        chosen.add(tuple(picture_of[mask].unique().tolist()))
        if not 0 < len(picture_of[mask].unique()) < pictures:
            raise Wrong("all patches are on one side: nothing is left to fit on, or nothing to test on")
    return mask, picture_of, round(share * pictures), chosen


def _whole_pictures(ask: Ask, random: torch.Generator) -> None:
    for _ in range(CASES):
        _split(ask, random)


def _fair_share(ask: Ask, random: torch.Generator) -> None:
    for _ in range(CASES):
        mask, picture_of, wanted, chosen = _split(ask, random)
        held = len(picture_of[mask].unique())
        if abs(held - wanted) > 1:
            raise Wrong(
                f"{held} pictures are held out, of {len(picture_of.unique())}; the share asked for makes {wanted}"
            )
        if len(chosen) == 1:
            raise Wrong("other seeds give the same pictures: draw them at random, with a generator of that seed")


# --- auroc_by_block ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _mini() -> tuple[Tower, Tensor]:
    clip = load_clip()
    return clip.visual, clip.class_embeddings(CLASSES)


def _by_block(similarity: Tensor, patches: Tensor) -> Tensor:
    """similarity (L, B, N, C), the patches' classes (B, N) -> (L,): AUROC by row, by class, mean over classes."""
    values: dict[int, list[Tensor]] = {}
    for image, labels in enumerate(patches):
        for c in labels.unique().tolist():
            if not (labels == c).all():
                of_blocks = [_auroc(block[image, :, c], labels == c) for block in similarity]
                values.setdefault(c, []).append(torch.tensor(of_blocks))
    return torch.stack([torch.stack(rows).mean(0) for rows in values.values()]).mean(0)


def _test_blocks(trained: bool) -> Test:
    def test(ask: Ask, random: torch.Generator) -> None:
        scenes = EmojiScenes(100_000, seed=integer(random, 1, 100_000), size=96 if trained else 32)
        images, labels = collate([scenes[i] for i in range(6)])
        if trained:
            visual, text = _mini()
        else:
            with own_draws(integer(random, 0, 100_000)):
                layers = integer(random, 3, 5)
                tower = TowerConfig(image_size=32, width=24, heads=3, embed_dim=16, layers=layers)
                visual = build_tower(tower).eval()
            text = F.normalize(torch.randn(len(CLASSES), 16, generator=random), dim=-1)
        images = normalise(images)
        with torch.no_grad():
            tokens = torch.stack(block_tokens(visual, images))
            embedded, plain = raw_lens(visual, tokens), F.normalize(tokens @ visual.proj, dim=-1)
        side = visual.patch_size[0]
        patches = labels.unfold(1, side, side).unfold(2, side, side).flatten(3).mode(3).values.flatten(1).long()
        right = _by_block(embedded[:, :, 1:] @ text.T, patches)
        mistakes = {
            "the blocks are in reverse order: block 1 comes first": right.flip(0),
            "this is the last block alone: return one value per block": right[-1],
            "your patches are shifted by one: the class token stands *first*, drop that one": _by_block(
                embedded[:, :, :-1] @ text.T, patches
            ),
            "upside down: a patch of the class should score higher, not lower": 1 - right,
            "the raw lens is `ln_post` and then `proj`; the LayerNorm is missing in yours": _by_block(
                plain[:, :, 1:] @ text.T, patches
            ),
        }
        expect(ask(visual, images, labels, text), right, mistakes, "the list of AUROCs")

    return test


EXERCISES = (
    Exercise(
        "word_map(tokens, word, grid)",
        (
            Part("the right cosine at the right place", 1, _word_map(lengths=False)),
            Part("for tokens and words of any length", 1, _word_map(lengths=True)),
        ),
    ),
    Exercise(
        "auroc(scores, is_class)",
        (
            Part("pairs in the right order are counted", 2, _test_auroc(ties=False)),
            Part("ties count one half", 1, _test_auroc(ties=True)),
        ),
        frozenset({"localise", "roc_auc_score", "auroc_against"}),
    ),
    Exercise(
        "mean_over_classes(values, class_index, classes)",
        (
            Part("every class counts once", 1, _test_means(absent=False)),
            Part("classes without a row are left out", 1, _test_means(absent=True)),
        ),
    ),
    Exercise(
        "debiased_cka(x, y)",
        (
            Part("1 for a rotated and scaled copy, less for others", 1, cka_bounds),
            Part("near 0 for unrelated wide layers", 2, cka_noise),
            Part("the value of the formula", 2, cka_value),
        ),
        frozenset({"CKA"}),
    ),
    Exercise(
        "held_out(picture_of, share, seed)",
        (
            Part("no picture on both sides", 1, _whole_pictures),
            Part("the right share, drawn at random", 1, _fair_share),
        ),
    ),
    Exercise(
        "modality_gap(image, text)",
        (
            Part("distance of the centroids", 1, gap_test(lengths=False)),
            Part("for embeddings of any length", 1, gap_test(lengths=True)),
        ),
        frozenset({"modality_gap"}),
    ),
    Exercise(
        "auroc_by_block(visual, images, labels, text)",
        (
            Part("on a small tower with random weights", 2, _test_blocks(trained=False)),
            Part("on Mini-CLIP", 2, _test_blocks(trained=True)),
        ),
    ),
)
