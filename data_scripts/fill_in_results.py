"""Write the stored results into the documents that show them: `python data_scripts/fill_in_results.py`."""

from pathlib import Path

from cascadeclip.experiments import filled
from cascadeclip.files import write_text

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("*.md", "docs/**/*.md", "notebooks/**/*.md", "cascadeclip/assets/*.md")


def documents():
    """Markdown files of the repository that hold a mark."""
    found = {path for pattern in SHOWN for path in ROOT.glob(pattern)}
    return sorted(path for path in found if "<!-- results: " in path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in documents():
        before = path.read_text(encoding="utf-8")
        if (after := filled(before)) != before:
            write_text(path, after)
            print(f"rewrote {path.relative_to(ROOT)}")
