"""The paper's comparisons, as lists of settings. Every row is the one model class with other values.

A variant states what differs from its preset; the first variant of a comparison is what the others are held against.
`paper` says which way the published tables point, in words; what is measured stands in the tables that are written.
"""

from dataclasses import dataclass, field
from typing import Any

from cascadeclip.data.emojiscenes import STYLES
from cascadeclip.errors import InputError

CASCADE, LAST = ((6, 7, 8), (9, 10, 11), (12,)), ((12,),)
FUSED = ((6, 7, 8, 9, 10, 11, 12),)
PAPER = {  # what the mini presets do otherwise; prompt tokens and the quirks of the code have tables of their own
    "dropout": 0.1,
    "train_taps": False,
    "centre_text": False,
    "aligned_start": "none",
}
LONGER = 2.0  # from a random start, the cascade still learns where others have long finished
AS_IN_PAPER = {  # names of rows that take one of these settings from the paper, and the rest from preset `mini-frozen`
    "aligned_start": "random start",
    "centre_text": "raw text",
    "train_taps": "untrained taps",
    "dropout": "dropout 0.1",
}


@dataclass(frozen=True)
class Variant:
    """One row of a comparison.

    Attributes:
        name: of the row.
        model, training: settings that differ from the preset's `ModelConfig` and `TrainConfig`.
        steps: length of training as a multiple of the comparison's.
        seen_offset: another one than the preset's; None keeps it.
        calibrated: the offset is chosen on seen classes that a second training hides, see `calibrate.py`.
        transductive: self-training, from the model half-way through the inductive run.
        train_styles, test_styles: drawing styles of the mini world's things; None for all.
    """

    name: str
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    steps: float = 1.0
    seen_offset: float | None = None
    calibrated: bool = False
    transductive: bool = False
    train_styles: tuple[str, ...] | None = None
    test_styles: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """A table: what it asks, what the paper found, and its rows."""

    name: str
    question: str
    paper: str
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or len(names) < 2:
            raise InputError(f"comparison {self.name}: it needs two variants or more, of different names, not {names}")


def _rows(setting: str, values: dict[str, object]) -> tuple[Variant, ...]:
    """One variant per value of one model setting."""
    return tuple(Variant(name, {setting: value}) for name, value in values.items())


def _fusions(settings: dict[str, Any], steps: float = 1.0) -> tuple[Variant, ...]:
    """The last layer alone, blocks 6-12 fused naively, and the cascade, all with the same settings."""
    return (
        Variant("last layer", {**settings, "stages": LAST}, steps=steps),
        Variant("sum", {**settings, "stages": FUSED, "aggregation": "sum"}, steps=steps),
        Variant("concat", {**settings, "stages": FUSED, "aggregation": "concat"}, steps=steps),
        Variant("cascade", {**settings, "stages": CASCADE}, steps=steps),
    )


def _without_ours(stages: tuple[tuple[int, ...], ...]) -> tuple[Variant, ...]:
    """The preset, then one at a time of what it does otherwise than the paper taken back."""
    taken_back = (
        Variant(name, {"stages": stages, key: PAPER[key]}, steps=LONGER if key == "aligned_start" else 1.0)
        for key, name in AS_IN_PAPER.items()
    )
    return Variant("preset mini-frozen", {"stages": stages}), *taken_back


def _with_and_without_cascade(name: str, settings: dict[str, Any]) -> tuple[Variant, ...]:
    return Variant(name, {**settings, "stages": LAST}), Variant(f"{name} + cascade", {**settings, "stages": CASCADE})


_ALL = (
    Comparison(
        "fusion",
        "What happens when several blocks are fused into one decoder, instead of one decoder per stage?",
        "Fusing blocks 6-12 by sum or concatenation costs unseen classes against the last layer; the cascade gains.",
        _fusions({}),
    ),
    Comparison(
        "naive-fusion",
        "Is the cascade ahead of naive fusion?",
        "It is, on seen and unseen classes.",
        _fusions({})[1:],
    ),
    Comparison(
        "fusion-paper",
        "And with the settings of the paper: dropout, untrained taps, raw text, a random start?",
        "Fusing blocks 6-12 by sum or concatenation costs unseen classes against the last layer; the cascade gains.",
        _fusions(PAPER, LONGER),
    ),
    Comparison(
        "naive-fusion-paper",
        "And is the cascade ahead of naive fusion with the settings of the paper?",
        "It is, on seen and unseen classes.",
        _fusions(PAPER, LONGER)[1:],
    ),
    Comparison(
        "components",
        "What does each part add: the cascade, NGA, visual prompts?",
        "Each adds to the one before, on seen and unseen classes.",
        (
            Variant("last layer", {"stages": LAST}),
            Variant("+ cascade", {"stages": CASCADE, "aggregation": "sum"}),
            Variant("+ NGA", {"stages": CASCADE}),
            Variant("+ prompts", {"stages": CASCADE, "prompt_tokens": 10}),
        ),
    ),
    Comparison(
        "stages",
        "How are blocks split into stages, and how many decoders does it take?",
        "Three decoders over blocks 6-12 are best; early blocks do not help.",
        _rows(
            "stages",
            {
                "6-8, 9-11, 12": CASCADE,
                "12": LAST,
                "9-11, 12": ((9, 10, 11), (12,)),
                "6-11, 12": ((6, 7, 8, 9, 10, 11), (12,)),
                "3-5, 6-8, 9-11, 12": ((3, 4, 5), *CASCADE),
                "10, 11, 12": ((10,), (11,), (12,)),
            },
        ),
    ),
    Comparison(
        "aggregation",
        "How do the blocks of a stage become one?",
        "NGA is ahead of sum, mean, concatenation and attention.",
        (
            Variant("nga"),
            Variant("nga, frozen", {"train_aggregation": False}),
            *(Variant(kind, {"aggregation": kind}) for kind in ("sum", "mean", "concat", "attention")),
        ),
    ),
    Comparison(
        "sigma",
        "How wide is NGA's Gaussian at the start?",
        "About 1 is best, differences are small.",
        _rows("sigma", {f"{sigma:g}": float(sigma) for sigma in (1, 0.25, 0.5, 2, 4, 8)}),
    ),
    Comparison(
        "sharing",
        "Do stages need text projections and decoders of their own?",
        "Independent ones are ahead of shared ones.",
        (
            Variant("independent"),
            Variant("shared projection", {"shared_projection": True}),
            Variant("shared decoder", {"shared_decoder": True}),
            Variant("both shared", {"shared_projection": True, "shared_decoder": True}),
        ),
    ),
    Comparison(
        "prompts",
        "How many prompt tokens per block?",
        "A frozen CLIP is far behind; the best number depends on the data set (10, 35, 50).",
        _rows("prompt_tokens", {str(number): number for number in (0, 1, 5, 10, 20, 50)}),
    ),
    Comparison(
        "bases",
        "Does the cascade help on other base methods, too?",
        "Frozen CLIP, ZegCLIP and SPT-SEG all gain from it.",
        (
            *_with_and_without_cascade("frozen CLIP", {"prompt_tokens": 0}),
            *_with_and_without_cascade("ZegCLIP", {"prompt_tokens": 10}),
            *_with_and_without_cascade("SPT-SEG", {"prompt_tokens": 10, "spectral_blocks": (1, 2)}),
        ),
    ),
    Comparison(
        "loss",
        "How are focal and dice loss weighted?",
        "100 to 1 on the benchmarks.",
        (
            Variant("preset"),
            *(Variant(f"focal {weight}", training={"focal_weight": float(weight)}) for weight in (10, 20, 100, 200)),
            Variant("no dice", training={"dice_weight": 0.0}),
        ),
    ),
    Comparison(
        "length",
        "How long is trained?",
        "The paper trains 20,000 to 80,000 steps and shows no such table.",
        (Variant("1 x"), *(Variant(f"{factor:g} x", steps=factor) for factor in (0.5, 2.0))),
    ),
    Comparison(
        "offset",
        "What is taken off the seen classes' probability?",
        "0.1 in the inductive setting.",
        tuple(Variant(f"{offset:g}", seen_offset=offset) for offset in (0.1, 0.0, 0.05, 0.15, 0.2, 0.3)),
    ),
    Comparison(
        "setting",
        "What does self-training on pseudo labels of unseen classes add?",
        "A lot on unseen classes, little on seen ones.",
        (Variant("inductive"), Variant("transductive", transductive=True, seen_offset=0.0)),
    ),
    Comparison(
        "styles",
        "Are things found in a drawing style that no mask ever showed? (the mini world's cross-dataset test)",
        "Trained on COCO-Stuff, the cascade is ahead of ZegCLIP on VOC and Context.",
        tuple(
            Variant(name, {"stages": stages}, train_styles=styles, test_styles=STYLES[2:])
            for name, stages, styles in (
                ("last layer, other styles", LAST, STYLES[:2]),
                ("cascade, other styles", CASCADE, STYLES[:2]),
                ("cascade, that style too", CASCADE, STYLES),
            )
        ),
    ),
    Comparison(
        "quirks",
        "Do the quirks of the authors' code matter?",
        "Nobody has published this.",
        (
            Variant("preset mini-frozen"),
            Variant("class embedding twice", {"class_embedding_twice": True}),
            Variant("untrained taps", {"train_taps": False}),
            Variant("ignored pixels left out", training={"ignored_are_negatives": False}),
            Variant("dropout 0.1", {"dropout": 0.1}),
        ),
    ),
    Comparison(
        "beyond",
        "What does each change of our own do to the cascade?",
        "Not in the paper: its tap projections and last layers start at random, the taps stay so, text is not centred.",
        (
            *_without_ours(CASCADE),
            Variant("last stage aligned", {"aligned_start": "last"}),
            Variant("calibrated offset", calibrated=True),
        ),
    ),
    Comparison(
        "beyond-last-layer",
        "And what does it do to the last layer alone?",
        "Not in the paper.",
        _without_ours(LAST),
    ),
)

COMPARISONS = {comparison.name: comparison for comparison in _ALL}


def get_comparison(name: str) -> Comparison:
    """The comparison of that name; an `InputError` lists the names there are."""
    if name not in COMPARISONS:
        raise InputError(f"no comparison {name!r}; choose from {', '.join(COMPARISONS)}")
    return COMPARISONS[name]
