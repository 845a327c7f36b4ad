"""Write the stored results, and the table of notebook 06, into the documents that show them.

python data_scripts/fill_in_results.py
"""

import json
import re
from pathlib import Path

from cascadeclip.errors import InputError
from cascadeclip.experiments import filled
from cascadeclip.files import write_text

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("*.md", "docs/*.md", "docs/method/*.md", "notebooks/**/*.md", "cascadeclip/assets/*.md")
MAP = ROOT / "notebooks" / "06_method_map.ipynb"
COLUMNS = ("method", "blocks", "pixel mIoU seen", "pixel mIoU unseen", "AUROC", "boundary F")


def documents() -> list[Path]:
    """Markdown files of the repository that hold a mark."""
    found = {path for pattern in SHOWN for path in ROOT.glob(pattern)}
    return sorted(path for path in found if "<!-- results: " in path.read_text(encoding="utf-8"))


def method_map() -> str:
    """`COLUMNS` of the table that notebook 06 printed when it was last run."""
    cells = json.loads(MAP.read_text(encoding="utf-8"))["cells"]
    printed = ["".join(o.get("data", {}).get("text/markdown", "")) for cell in cells for o in cell.get("outputs", ())]
    for table in printed:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
        if rows and set(COLUMNS) <= set(rows[0]):
            chosen = [rows[0].index(name) for name in COLUMNS]
            return "".join(f"| {' | '.join(row[place] for place in chosen)} |\n" for row in rows)
    raise InputError(f"{MAP} has no output with the columns {', '.join(COLUMNS)}: run it")


def with_results(text: str) -> str:
    """A document with every mark filled."""
    mark = r"(<!-- results of notebook 06 -->\n\n).*?(\n<!-- end of results of notebook 06 -->)"
    return filled(re.sub(mark, lambda found: found[1] + method_map() + found[2], text, flags=re.DOTALL))


if __name__ == "__main__":
    for path in documents():
        before = path.read_text(encoding="utf-8")
        if (after := with_results(before)) != before:
            write_text(path, after)
            print(f"rewrote {path.relative_to(ROOT)}")
