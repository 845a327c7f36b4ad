"""What nbgrader needs besides its own parts: a judge out of reach, limits on time and output, tests that stay.

The judge sits in nbgrader's process. A notebook's process is asked for its answers only (`kernel`), whatever became of
it: it gives no points, and what it prints or shows while it is asked is not read.

Named in `notebooks/assignments/nbgrader_config.py`; needs nbgrader (`pip install 'cascadeclip[teach]'`).
"""

import asyncio
import base64
import re
import subprocess
import time
from queue import Empty
from typing import Any

from jupyter_core.utils import ensure_async, run_sync
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute, OverwriteCells
from nbgrader.utils import is_grade, is_locked

from cascadeclip.exercises import EXERCISES
from cascadeclip.exercises.checking import Exercise, Verdict, verdict
from cascadeclip.exercises.distant import IN_KERNEL, Distant
from cascadeclip.exercises.patience import Patience

OWN_CELL = 30  # seconds of work for a cell that a student may write into
GIVEN_CELL = 60  # seconds of work for a cell of ours that may call a student's functions
START = 60  # seconds of work for the notebook's process to import the package
CHARACTERS = 100_000  # of output that are kept of a cell
LOSSES = 3  # processes that a notebook may take with it; the cells after that are not run


def cell_timeout(cell: NotebookNode) -> int:
    """Seconds of work after which a cell is interrupted."""
    return GIVEN_CELL if is_locked(cell) else OWN_CELL


def exercise_of(cell: NotebookNode) -> Exercise | None:
    """The exercise that a test cell is about; None for all other cells."""
    return EXERCISES.get(cell.metadata.nbgrader["grade_id"].removeprefix("test_")) if is_grade(cell) else None


def outputs_of(found: Verdict, remarks: list[str], count: int) -> list[NotebookNode]:
    """What a test cell shows. nbgrader reads the points from it."""
    said = [*(f"Note: {remark}" for remark in remarks), *found.lines]
    shown = [new_output("stream", name="stdout", text="".join(f"{line}\n" for line in said))] if said else []
    if found.wrong is not None:
        return [*shown, _error(str(found.wrong))]
    return [*shown, new_output("execute_result", {"text/plain": repr(found.points)}, execution_count=count)]


def _error(message: str) -> NotebookNode:
    return new_output("error", ename="Wrong", evalue=message, traceback=[f"Wrong: {message}"])


class BoundedExecute(Execute):
    """Runs a notebook, judges its test cells, and writes what these show.

    Of what each cell prints or shows, the first `CHARACTERS` are kept. A cell that cannot be stopped, or that ends the
    notebook's process, costs no more than itself: the cells before it are run again in a new process.
    """

    kc: Any  # the client of the notebook's process
    iopub_timeout = 20  # seconds between a cell's end and its last output, on a machine that is busy

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> Any:
        self._lost: list[int] = []  # positions of cells that took the process with them
        self._told: set[str] = set()  # remarks that were made
        self._overheard = 0
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> tuple[NotebookNode, Any]:
        if index == 0:
            self._prepare()
        exercise = exercise_of(cell)
        if len(self._lost) >= LOSSES and cell.cell_type == "code":
            cell.outputs = [_error(f"not run: {LOSSES} cells before this one ended the notebook's process")]
            return cell, resources
        try:
            if exercise is None:
                cell, resources = super().preprocess_cell(cell, resources, index)
            else:
                self._judge(cell, exercise, index)
        except (CellTimeoutError, DeadKernelError) as error:
            self.log.warning("Cell %d ended the notebook's process, or could not be stopped: %s", index, error)
            cell.outputs = [_error("this cell ended the notebook's process, or could not be stopped")]
            self._lost.append(index)
            self._start_again(index)
        return cell, resources

    # --- a process for the notebook ---

    def start_new_kernel(self, **options: Any) -> None:
        """What goes past the notebook, straight to the process's own output, is no part of the log."""
        super().start_new_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)

    def _prepare(self) -> None:
        self._gone = False
        try:
            self._ask(f"{IN_KERNEL}.bound_output()", START)
        except ValueError as error:
            self.log.warning("The notebook's process cannot import the package: %s", error)

    def _start_again(self, upto: int) -> None:
        """A new process in which the cells before `upto` are run once more, but for those that ended one."""
        if len(self._lost) >= LOSSES:
            return
        self.kc.stop_channels()
        self.kc = None
        run_sync(self._restart)()
        self.start_new_kernel_client()
        self._prepare()
        for index, cell in enumerate(self.nb.cells[:upto]):
            if index in self._lost or cell.cell_type != "code" or exercise_of(cell) is not None:
                continue
            try:
                self.execute_cell(NotebookNode({**cell, "outputs": []}), index, store_history=True)
            except (CellTimeoutError, DeadKernelError):
                self._lost.append(index)
                return self._start_again(upto)

    async def _restart(self) -> None:
        await ensure_async(self.km.restart_kernel(now=True))

    async def _async_poll_for_reply(self, *arguments: Any, **named: Any) -> Any:
        self._patience = Patience(self.km.provisioner.pid, arguments[2] or OWN_CELL)
        return await super()._async_poll_for_reply(*arguments, **named)

    async def _async_handle_timeout(self, timeout: int, cell: NotebookNode | None = None) -> Any:
        """Asked at the end of each period: a cell that works, and was kept from it by others, has another one."""
        if not self._patience.is_over():
            return None
        return await super()._async_handle_timeout(timeout, cell)

    # --- tests ---

    def _judge(self, cell: NotebookNode, exercise: Exercise, index: int) -> None:
        """Writes a test cell's outputs: remarks, what holds and what is wrong, and the points as its value."""
        self._overheard = 0
        answers = Distant(self._ask)
        seed = re.search(r"^seed = (\d+)", cell.source, re.MULTILINE)
        found = verdict(exercise, answers, int(seed[1]) if seed else None)
        if self._overheard:
            answers.remarks.append("this notebook goes on printing while its answers are tested; that is left out")
        remarks = [one for one in answers.remarks if one not in self._told]
        self._told.update(remarks)
        for remark in remarks:
            self.log.warning("%s: %s", exercise.name, remark)
        self.code_cells_executed += 1
        cell.execution_count = self.code_cells_executed
        cell.outputs = outputs_of(found, remarks, cell.execution_count)
        if self._gone:
            self._lost.append(index)
            self._start_again(index)

    def _ask(self, expression: str, seconds: float) -> str:
        """What an expression gives in the notebook's process: text that it has written in base64.

        Raises:
            ValueError: no such answer came, with what came instead.
        """
        found: dict[str, Any] = run_sync(self._reply)(expression, seconds)
        try:
            value = found["content"]["user_expressions"]["answer"]
            if value["status"] != "ok":
                raise ValueError(f"{value.get('ename')}: {value.get('evalue')}")
            return base64.b64decode(value["data"]["text/plain"].strip("'")).decode()
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it sent something else ({error})") from error

    async def _reply(self, expression: str, seconds: float) -> dict[str, Any]:
        sent = self.kc.execute("", silent=True, store_history=False, user_expressions={"answer": expression})
        message, patience = await ensure_async(sent), Patience(self.km.provisioner.pid, seconds)
        period_ends = time.monotonic() + seconds
        overhearing = asyncio.ensure_future(self._overhear())
        try:
            while True:
                if time.monotonic() >= period_ends:
                    if patience.is_over():
                        break
                    period_ends = time.monotonic() + seconds
                try:
                    reply = await ensure_async(self.kc.shell_channel.get_msg(timeout=1))
                except Empty:
                    await self._async_check_alive()
                    continue
                if reply["parent_header"].get("msg_id") == message:
                    return dict(reply)
        except DeadKernelError as error:
            self._gone = True
            raise ValueError("it has ended") from error
        finally:
            overhearing.cancel()
        self._gone = True
        raise ValueError("a cell or a thread keeps it busy")

    async def _overhear(self) -> None:
        """Takes what is printed while a test is judged, and drops it."""
        while True:
            message = await ensure_async(self.kc.iopub_channel.get_msg(timeout=None))
            self._overheard += message["msg_type"] == "stream"

    # --- output ---

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
