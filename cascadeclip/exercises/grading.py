"""What nbgrader needs besides its own parts: limits on time and output, and tests that cannot get lost.

Named in `notebooks/assignments/nbgrader_config.py`; needs nbgrader (`pip install 'cascadeclip[teach]'`).
"""

from typing import Any

from nbformat import NotebookNode
from nbgrader.preprocessors import Execute, OverwriteCells
from nbgrader.utils import is_grade, is_locked

OWN_CELL = 30  # seconds for a cell that a student may write into
GIVEN_CELL = 60  # seconds for a cell of ours that may call a student's functions
TEST_CELL = 300  # seconds for a test: it limits what it calls by itself, and one trains models
CHARACTERS = 100_000  # of output that are kept of a cell


def cell_timeout(cell: NotebookNode) -> int:
    """Seconds after which a cell is interrupted."""
    if is_grade(cell):
        return TEST_CELL
    return GIVEN_CELL if is_locked(cell) else OWN_CELL


class BoundedExecute(Execute):
    """Runs a notebook and keeps only the first `CHARACTERS` of what each cell prints or shows.

    What comes after that is dropped as it arrives, so that a flood fills no memory. Small results and errors are always
    kept: nbgrader reads the points from them.
    """

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        content, kind = msg["content"], msg["msg_type"]
        if kind == "execute_input":
            self._kept = 0
        elif kind == "stream":
            room = max(CHARACTERS - self._kept, 0)
            self._kept += len(content["text"])
            if self._kept > CHARACTERS:
                if not room:
                    return None
                content["text"] = content["text"][:room] + "\n... output cut ...\n"
        elif kind in ("display_data", "execute_result"):
            large = [mime for mime, data in content["data"].items() if len(str(data)) > CHARACTERS]
            if mime_left := content["data"].keys() - large:
                content["data"] = {mime: content["data"][mime] for mime in mime_left}
            else:
                content["data"] = {"text/plain": "... output cut ..."}
        return super().process_message(msg, cell, cell_index)


class KeepTests(OverwriteCells):
    """Puts back, at the end, the test cells that a submission lacks, and takes its marks off what is not ours.

    Tests find the student's functions wherever these stand. nbgrader's own `add_missing_cells` places a test behind the
    answer it belongs to, and fails when that cell is missing as well. It also refuses a notebook with a copied cell, or
    one pasted from another assignment: to us that is an unmarked cell of the student's.
    """

    add_missing_cells = True

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if "grade_id" not in cell.metadata.get("nbgrader", {"grade_id": None}):
            del cell.metadata["nbgrader"]
        return cell, resources

    def add_missing_grade_cells(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        released = self.gradebook.find_notebook(self.notebook_id, self.assignment_id)
        sources = {cell.name: cell for cell in released.source_cells}
        there = {cell.metadata.nbgrader.get("grade_id") for cell in nb.cells if is_grade(cell)}
        for test in released.grade_cells:
            if test.name not in there:
                self.log.warning("The test %s is missing from the submission; it is added again", test.name)
                nb.cells.append(self.missing_cell_transform(sources[test.name], test.max_score))
        return nb, resources
