"""The package as people get it: its settings agree, its wheel is complete, its files name no machine."""

import json
import re
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import cascadeclip

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cascadeclip"


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_installs_what_pyproject_says(project):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert environment["name"] == project["name"]
    assert re.split("[=<>]", python)[0] == "python" and pip == "pip"
    assert Version(python.split("=")[1]) in SpecifierSet(project["requires-python"])
    assert by_pip == {"pip": ["-e .[all]"]}


@pytest.mark.slow
def test_an_editable_install_by_any_client_is_found_one_folder_above_the_checkout(run, tmp_path):
    """There, the checkout's own folder looks like an empty package of the same name, and is seen before any finder."""
    checkout, wheel, site = tmp_path / "cascadeclip", tmp_path / "wheel", tmp_path / "site"
    shutil.copytree(ROOT / "cascadeclip", checkout / "cascadeclip", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / path, checkout)
    wheel.mkdir()
    build = f"from setuptools.build_meta import build_editable; print(build_editable({str(wheel)!r}))"
    name = run(sys.executable, "-c", build, cwd=checkout).split()[-1]
    zipfile.ZipFile(wheel / name).extractall(site)
    found = (
        f"import sys, site; sys.path = [p for p in sys.path if {str(ROOT)!r} not in p]; "
        f"site.addsitedir({str(site)!r}); import cascadeclip; print(cascadeclip.__file__)"
    )
    told = run(sys.executable, "-S", "-c", found, cwd=tmp_path, PYTHONPATH="")
    assert told.strip() == str(checkout / "cascadeclip" / "__init__.py")


def test_requirements_are_ranges_and_all_is_everything(project):
    extras = project["optional-dependencies"]
    assert set(extras) == {"data", "dev", "docs", "export", "lab", "notebooks", "teach", "train", "all"}
    everything = Requirement(extras["all"][0])
    assert (everything.name, everything.extras) == (project["name"], set(extras) - {"all"})
    texts = [text for name, group in extras.items() if name != "all" for text in group]
    requirements = [Requirement(text) for text in project["dependencies"] + texts]
    requirements = [requirement for requirement in requirements if requirement.name != project["name"]]  # its extras
    assert {clause.operator for requirement in requirements for clause in requirement.specifier} == {">="}
    assert len({requirement.name for requirement in requirements}) == len(requirements)


def test_licences_cover_every_style():
    text = (PACKAGE / "assets" / "LICENSES.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for style, source in json.loads((PACKAGE / "assets" / "sprites.json").read_text())["provenance"].items():
        (row,) = (row for row in rows if f"`{style}`" in row)
        assert f"`{source['npm']}`" in row and f"`{source['tarball_sha256']}`" in row
        assert f"[{source['licence']}](" in row
    for target in re.findall(r"\((licenses/[^)]+)\)", text):
        assert len((PACKAGE / "assets" / target).read_text()) > 1000


@pytest.mark.slow
def test_wheel_holds_every_module_and_asset(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and (path.suffix in (".py", ".typed") or PACKAGE / "assets" in path.parents)
    }
    assert {"cascadeclip/assets/sprites.png", "cascadeclip/assets/licenses/CC-BY-4.0.txt"} <= files
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files
    assert wheel.name == f"cascadeclip-{cascadeclip.__version__}-py3-none-any.whl"


@pytest.mark.slow
def test_installed_wheel_draws_scenes_and_segments(run, installed, tmp_path):
    """In an empty folder, where no checkout is."""
    code = (
        f"import cascadeclip; assert cascadeclip.__file__.startswith({str(installed)!r}), cascadeclip\n"
        "import numpy as np\n"
        "from cascadeclip.data.emojiscenes import EmojiScenes\n"
        "scene = EmojiScenes.split('test')[0]\n"
        "print(scene.image.shape, len(scene.things) > 0)\n"
        "image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)\n"
        "print(tuple(cascadeclip.load('mini').segment(image, ['cat', 'grass']).labels.shape))"
    )
    printed = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert printed[-2:] == ["(96, 96, 3) True", "(80, 100)"]


def test_no_file_names_a_path_of_one_machine(run):
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    texts = {path: (ROOT / path).read_bytes() for path in listing.split("\0") if (ROOT / path).is_file()}
    assert "pyproject.toml" in texts
    machine_path = re.compile(rb"(?<![\w.~>)}\]/-])/(?:work|root|tmp)/")
    guilty = [path for path, text in texts.items() if b"\0" not in text and machine_path.search(text)]
    assert not guilty
