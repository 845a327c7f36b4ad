"""What the README promises of the code, checked against the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_promised_line_counts_are_true():
    promised = re.findall(r"\| `(cascadeclip/model/\w+\.py)` \|.*\| (\d+) \|", (ROOT / "README.md").read_text())
    assert [name for name, _ in promised] == [
        f"cascadeclip/model/{n}.py" for n in ("encoder", "cascade", "losses", "tower")
    ]
    for name, lines in promised:
        assert len((ROOT / name).read_text().splitlines()) == int(lines), name


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).is_file(), target
