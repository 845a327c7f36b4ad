"""`cascadeclip info`: what a bug report needs."""

from importlib.metadata import version

import pytest
import torch
from typer.testing import CliRunner

import cascadeclip
from cascadeclip.cli import info
from cascadeclip.cli.commands import app


@pytest.fixture
def rows():
    result = CliRunner().invoke(app, ["info"], catch_exceptions=False)
    assert result.exit_code == 0
    return {line[:21].strip(): line[21:] for line in result.stdout.splitlines()}


def test_versions_devices_and_folders_are_said(rows):
    assert rows["cascadeclip"].startswith(f"{cascadeclip.__version__} in ")
    assert rows["torch"] == version("torch") and rows["typer"] == version("typer")
    assert "cores" in rows["cpu"] and "fp32" in rows["cpu"]
    assert ("cuda" in rows) != torch.cuda.is_available()
    assert "huggingface" in rows["weights of the Hub"] and rows["weights of OpenAI"].endswith("clip")


def test_what_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("torch", "no-such-package"))
    assert dict(info.info())["no-such-package"] == "not installed"


def test_every_name_is_a_dependency_that_may_matter():
    """A package that is renamed would be called missing for ever."""
    import tomllib
    from pathlib import Path

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for some in project["optional-dependencies"].values() for text in some)]
    required = {canonicalize_name(Requirement(text).name) for text in texts}
    assert {canonicalize_name(name) for name in info.PACKAGES} <= required
