"""What is run and reported as a whole: the paper's comparisons (`comparisons` says which, `run` trains and scores them,
`kept` tells what was done before, `curves` follows their trainings, `report` writes their tables, `figures` draws
them, `findings` says them in words, `claims` holds the paper's claims against them, `texts` brings them into the
documents), the demo (`demo`), and what presets cost on a device (`bench`, `bench_data`, `bench_report`).

It may import all rooms from `model` to `plots`.
"""

from typing import TYPE_CHECKING

from cascadeclip._lazy import on_first_use

if TYPE_CHECKING:
    from cascadeclip.experiments.bench import Case, growth_cases, matmul_tflops, sized_preset
    from cascadeclip.experiments.bench_report import bench_table, plot_growth, run_bench
    from cascadeclip.experiments.claims import CLAIMS, Claim, claims_table, verdict
    from cascadeclip.experiments.comparisons import COMPARISONS, Comparison, Variant, get_comparison
    from cascadeclip.experiments.demo import run_demo
    from cascadeclip.experiments.figures import plot_curves, plot_leads, plot_report
    from cascadeclip.experiments.findings import conclusion, finding
    from cascadeclip.experiments.report import markdown, read_report, stored_report, write_index, write_report
    from cascadeclip.experiments.run import (
        MEASURES,
        Row,
        budgeted,
        compare_counts,
        run_ahead,
        run_comparison,
        trained_run,
    )
    from cascadeclip.experiments.texts import filled
else:
    __getattr__, __dir__ = on_first_use(__name__)

__all__ = [
    "CLAIMS",
    "COMPARISONS",
    "MEASURES",
    "Case",
    "Claim",
    "Comparison",
    "Row",
    "Variant",
    "bench_table",
    "budgeted",
    "claims_table",
    "compare_counts",
    "conclusion",
    "filled",
    "finding",
    "get_comparison",
    "growth_cases",
    "markdown",
    "matmul_tflops",
    "plot_curves",
    "plot_growth",
    "plot_leads",
    "plot_report",
    "read_report",
    "run_ahead",
    "run_bench",
    "run_comparison",
    "run_demo",
    "sized_preset",
    "stored_report",
    "trained_run",
    "verdict",
    "write_index",
    "write_report",
]
