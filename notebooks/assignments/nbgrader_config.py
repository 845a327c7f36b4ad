"""Settings of nbgrader for these assignments: what a submission may cost, and what is put back before grading."""

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    DeduplicateIds,
    IgnorePattern,
    LimitOutput,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from cascadeclip.exercises.grading import BoundedExecute, KeepTests, cell_timeout

c = get_config()  # noqa: F821 (nbgrader brings it)

c.CourseDirectory.course_id = "cascadeclip"

# What `nbgrader zip_collect` unpacks: a folder per student, named after the student, with the notebook in it.
c.FileNameCollectorPlugin.named_regexp = r".*[/\\](?P<student_id>[^/\\]+)[/\\](?P<file_id>a\d_\w+)"

# A copied cell loses its number, changed or deleted tests come back.
c.Autograde.sanitize_preprocessors = [ClearOutput, DeduplicateIds, OverwriteKernelspec, KeepTests, CheckCellMetadata]

# nbgrader's own list, with an `Execute` that drops what a cell prints beyond 100,000 characters.
c.Autograde.autograde_preprocessors = [
    BoundedExecute,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]

# Endless loops: the limits stand in `cascadeclip.exercises.grading`, that of one call in `checking`.
c.ExecutePreprocessor.timeout_func = cell_timeout
c.ExecutePreprocessor.interrupt_on_timeout = True

c.LimitOutput.max_lines = 200
c.LimitOutput.max_traceback = 40
