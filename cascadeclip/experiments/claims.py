"""The paper's claims, each held against a comparison on the mini world: does it hold here?"""

from dataclasses import dataclass, field
from typing import Any

from cascadeclip.errors import InputError
from cascadeclip.experiments.report import in_points, stored_report

HOLDS, NOT_HERE, CANNOT_SAY, NOT_RUN = "holds", "not here", "cannot say", "not run yet"


@dataclass(frozen=True)
class Claim:
    """One claim, and what to measure for it.

    Attributes:
        claim: what the paper says, in words of ours.
        published: its effect there, where a number is published; every number is of ViT-B/16, in points of mean IoU.
        comparison, row, measure: whose difference to the first row is measured here.
        more: whether the claim is that the difference is positive.
        why: verdict -> what explains it, as far as that was tested; empty where nothing was.
    """

    claim: str
    published: str
    comparison: str
    row: str
    measure: str
    more: bool = True
    why: dict[str, str] = field(default_factory=dict)


_MIXED = {  # of one trained model of each kind, on the test pictures
    NOT_HERE: "not the seen offset: it takes unseen words for one another, even where no seen word is on offer "
    "(notebook 04b, section 5)"
}

CLAIMS = (
    Claim(
        "Summing the blocks into one decoder costs unseen classes.",
        "direction only",
        "fusion", "sum", "mIoU_unseen", more=False,
    ),
    Claim(
        "Concatenating them does, too.",
        "direction only",
        "fusion", "concat", "mIoU_unseen", more=False,
    ),
    Claim(
        "The cascade is ahead of the last layer alone on unseen classes.",
        "VOC 77.8 to 83.0, COCO-Stuff 41.1 to 43.4",
        "fusion", "cascade", "mIoU_unseen", why=_MIXED,
    ),
    Claim(
        "It is ahead in hIoU as well.",
        "VOC 84.3 to 87.5, COCO-Stuff 40.8 to 42.3",
        "fusion", "cascade", "hIoU", why=_MIXED,
    ),
    Claim(
        "The cascade is ahead of naive fusion (here: of the sum).",
        "direction only",
        "naive-fusion", "cascade", "hIoU", why=_MIXED,
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


def _measured(claim: Claim) -> dict[str, Any] | None:
    """The row of the stored report; None if it was not run."""
    try:
        report = stored_report(claim.comparison)
    except InputError:
        return None
    return next(row for row in report["rows"] if row["name"] == claim.row)


def verdict(claim: Claim) -> str:
    """Whether a claim holds on the mini world: by the 95 % interval of the difference, over seeds and pictures."""
    row = _measured(claim)
    if row is None:
        return NOT_RUN
    found = row["difference"][claim.measure]
    if row["not_compared"] or found["low"] is None or found["low"] <= 0 <= found["high"]:
        return CANNOT_SAY
    return HOLDS if (found["low"] > 0) == claim.more else NOT_HERE


def claims_table() -> str:
    """Paper against here, as Markdown: claim, published effect, effect here with its interval, verdict, why."""
    lines = [
        "| claim of the paper | published (ViT-B/16) | here: difference, points (95 %) | verdict | why |",
        "|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        row, found = _measured(claim), verdict(claim)
        here = f"`cascadeclip experiments {claim.comparison}`"
        if row is not None:
            label = "unseen" if claim.measure == "mIoU_unseen" else claim.measure
            here = row["not_compared"] or f"{label} {in_points(row['difference'][claim.measure])}"
        lines.append(f"| {claim.claim} | {claim.published} | {here} | {found} | {claim.why.get(found, '')} |")
    return "\n".join(lines) + "\n"
