"""The paper's claims, each held against a comparison on the mini world: does it hold here?"""

from dataclasses import dataclass, field
from typing import Any

from cascadeclip.errors import InputError
from cascadeclip.experiments.findings import in_points
from cascadeclip.experiments.report import stored_report

HOLDS, NOT_HERE, CANNOT_SAY, NOT_RUN = "holds", "not here", "cannot say", "not run yet"


@dataclass(frozen=True)
class Claim:
    """One claim, and what to measure for it.

    Attributes:
        claim: what the paper says, in words of ours.
        published: its effect there, where a number is published; every number is of ViT-B/16, in points of mean IoU.
        comparison, row, measure: whose difference to the first row is measured here.
        as_paper: the comparison of the same rows with the settings of the paper (`comparisons.PAPER`); empty for none.
        more: whether the claim is that the difference is positive.
        why: verdict with the preset's settings -> what explains it, as far as that was tested; empty where nothing was.
    """

    claim: str
    published: str
    comparison: str
    row: str
    measure: str
    as_paper: str = ""
    more: bool = True
    why: dict[str, str] = field(default_factory=dict)


_STUFF = {  # three seeds, see notebooks/results/stuff.json
    NOT_HERE: "preset only: unseen stuff (sand, snow) is taken for unseen things; where its pixels do not count, the "
    "cascade is ahead of the last layer on unseen things, but not of the sum (notebooks/results/why.md)"
}

CLAIMS = (
    Claim(
        "Summing the blocks into one decoder costs unseen classes.",
        "direction only",
        "fusion", "sum", "mIoU_unseen", "fusion-paper", more=False,
    ),
    Claim(
        "Concatenating them does, too.",
        "direction only",
        "fusion", "concat", "mIoU_unseen", "fusion-paper", more=False,
    ),
    Claim(
        "The cascade is ahead of the last layer alone on unseen classes.",
        "VOC 77.8 to 83.0, COCO-Stuff 41.1 to 43.4",
        "fusion", "cascade", "mIoU_unseen", "fusion-paper", why=_STUFF,
    ),
    Claim(
        "It is ahead in hIoU as well.",
        "VOC 84.3 to 87.5, COCO-Stuff 40.8 to 42.3",
        "fusion", "cascade", "hIoU", "fusion-paper", why=_STUFF,
    ),
    Claim(
        "The cascade is ahead of naive fusion (here: of the sum).",
        "direction only",
        "naive-fusion", "cascade", "hIoU", "naive-fusion-paper", why=_STUFF,
    ),
    Claim(
        "Self-training on pseudo labels raises unseen classes.",
        "VOC 83.0 to 93.2, COCO-Stuff 43.4 to 62.5",
        "setting", "transductive", "mIoU_unseen",
    ),
    Claim(
        "Visual prompts raise hIoU.",
        "direction only",
        "prompts", "10", "hIoU",
    ),
    Claim(
        "NGA is ahead of summing the blocks of a stage.",
        "direction only",
        "aggregation", "sum", "hIoU", more=False,
    ),
    Claim(
        "Decoders and text projections of their own are ahead of shared ones.",
        "direction only",
        "sharing", "both shared", "hIoU", more=False,
    ),
)  # fmt: skip


def _measured(claim: Claim, comparison: str) -> dict[str, Any] | None:
    """The row of the stored report; None if it was not run."""
    try:
        report = stored_report(comparison)
    except InputError:
        return None
    return next(row for row in report["rows"] if row["name"] == claim.row)


def verdict(claim: Claim, as_paper: bool = False) -> str:
    """Whether a claim holds on the mini world: by the 95 % interval of the difference, over seeds and pictures.

    Args:
        as_paper: between models with the settings of the paper, not with the preset's; for claims that have both.
    """
    row = _measured(claim, claim.as_paper if as_paper else claim.comparison)
    if row is None:
        return NOT_RUN
    found = row["difference"][claim.measure]
    if row["not_compared"] or found["low"] is None or found["low"] <= 0 <= found["high"]:
        return CANNOT_SAY
    return HOLDS if (found["low"] > 0) == claim.more else NOT_HERE


def claims_table() -> str:
    """Paper against here, as Markdown: claim, published effect, effect here with its interval and verdict (with the
    settings of preset `mini-frozen`, then with the paper's), why."""
    lines = [
        "| claim of the paper | published (ViT-B/16) | preset `mini-frozen`: difference, points (95 %) "
        "| settings of the paper: difference | why |",
        "|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        here, as_paper = _cell(claim, False), _cell(claim, True) if claim.as_paper else ""
        lines.append(
            f"| {claim.claim} | {claim.published} | {here} | {as_paper} | {claim.why.get(verdict(claim), '')} |"
        )
    return "\n".join(lines) + "\n"


def _cell(claim: Claim, as_paper: bool) -> str:
    """What was found, and the verdict; how to find it where it was not run."""
    comparison = claim.as_paper if as_paper else claim.comparison
    row, found = _measured(claim, comparison), verdict(claim, as_paper)
    if row is None:
        return f"*{found}*: `cascadeclip experiments {comparison}`"
    if row["not_compared"]:
        return f"*{found}*: {row['not_compared']}"
    label = "unseen" if claim.measure == "mIoU_unseen" else claim.measure
    return f"**{found}**: {label} {in_points(row['difference'][claim.measure])}"
