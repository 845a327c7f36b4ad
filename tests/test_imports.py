"""Imports run one way through the package's rooms, and what is heavy is imported when it is used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cascadeclip
from tests.support.imports import circle, imports_of, running_up

PACKAGE = Path(cascadeclip.__file__).parent
ORDER = (
    "_version", "_lazy", "errors", "utf8", "schema", "config", "colours", "files", "locks", "tensors", "processes",
    "model", "data", "clip", "checkpoints", "presets", "evaluation", "training", "sharing", "segmenter", "analysis",
    "plots", "experiments", "explorers", "exercises", "cli", "__main__",
)  # fmt: skip
HEAVY = {"torch", "torchvision", "open_clip", "matplotlib", "accelerate", "sklearn", "scipy", "numpy", "safetensors"}


def test_imports_run_down():
    imports = imports_of(PACKAGE)
    assert len(imports) > 250  # the reader finds them
    assert not running_up(imports, ORDER)
    assert [one.importer for one in imports if one.marked] == ["cascadeclip.segmenter"]


def test_no_module_imports_itself_by_a_detour():
    assert circle(imports_of(PACKAGE)) is None


def test_every_room_has_its_place():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("room", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda room: room.parent.name)
def test_a_room_says_what_every_file_in_it_is_for(room):
    said = ast.get_docstring(ast.parse(room.read_text()))
    files = {path.stem for path in room.parent.glob("[a-z]*.py")} | {
        path.parent.name for path in room.parent.glob("*/*.py")
    }
    assert {name for name in files if f"`{name}`" not in said} == set()


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "house" / f"{name.replace('__', '/', 1) if not name.startswith('__') else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "house"


@pytest.mark.parametrize(
    "upward",
    [
        "from house.upper.roof import tile",
        "import house.upper.roof",
        "from house.upper import roof",
        "from ..upper import roof",
        "from ..upper.roof import tile",
        "def build():\n    from house.upper.roof import tile",
        "try:\n    import house.upper.roof\nexcept ImportError:\n    pass",
        "from house import tile",  # through the package, which comes last
    ],
)
def test_an_import_that_runs_up_is_found_wherever_it_stands(tmp_path, upward):
    house = write(tmp_path, lower__floor=upward, lower____init__="", upper__roof="", upper____init__="", __init__="")
    (found,) = running_up(imports_of(house), ("lower", "upper"))
    assert found.importer == "house.lower.floor" and not found.marked
    assert not running_up(imports_of(house), ("upper", "lower")) or upward == "from house import tile"


@pytest.mark.parametrize(
    "fine",
    [
        "from house.upper.roof import tile  # upward: only when it rains",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.upper.roof import tile",
        "import upper.roof",
        "from house.lower import wall",
    ],
)
def test_what_is_marked_or_for_types_alone_may_run_up(tmp_path, fine):
    house = write(tmp_path, lower__floor=fine, lower__wall="", upper__roof="", __init__="")
    assert not running_up(imports_of(house), ("lower", "upper"))


def test_a_circle_is_found(tmp_path):
    one, two = "from house.lower.b import x", "def late():\n    from house.lower import c"
    house = write(tmp_path, lower__a=one, lower__b=two, lower__c="import house.lower.a", lower____init__="")
    assert set(circle(imports_of(house))) == {f"house.lower.{name}" for name in "abc"}


def test_a_circle_through_what_an_init_hands_on_is_found(tmp_path):
    init = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.lower.a import x"
    house = write(tmp_path, lower____init__=init, lower__a="from house.lower import x")
    assert set(circle(imports_of(house))) == {"house.lower", "house.lower.a"}


# --- the start --------------------------------------------------------------------------------------------------------


def imported_by(code: str) -> set[str]:
    """Top-level packages that a fresh Python has after running `code`."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def command(*arguments: str) -> str:
    return (
        f"sys.argv = ['cascadeclip', *{arguments!r}]\nfrom cascadeclip.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nelse:\n    raise AssertionError('went on')"
    )


@pytest.mark.slow
def test_what_is_heavy_is_seen_by_the_test():
    assert imported_by("import cascadeclip; cascadeclip.load") >= {"torch", "open_clip", "numpy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import cascadeclip",
        "import cascadeclip; cascadeclip.InputError, cascadeclip.TrainConfig, cascadeclip.model, dir(cascadeclip)",
        *(f"import cascadeclip.{room}" for room in ("model", "data", "evaluation", "explorers", "experiments", "cli")),
        command("--help"),
        command("--version"),
        *(command(name, "--help") for name in ("demo", "train", "evaluate", "experiments", "bench", "segment", "info")),
        command("train", "--stepz", "3"),
        command("trian"),
        command("train", "--steps", "many"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    assert not imported_by(code) & HEAVY


def test_rooms_hand_on_every_name_they_list():
    for room in sorted(PACKAGE.rglob("__init__.py")):
        name = ".".join(room.parent.relative_to(PACKAGE.parent).parts)
        module = __import__(name, fromlist=["*"])
        for public in getattr(module, "__all__", ()):
            assert public in dir(module) and getattr(module, public) is not None, (name, public)


def test_no_public_name_is_also_a_files():
    """As soon as such a file is imported, Python puts the module in the place of what the room hands on."""
    for room in sorted(PACKAGE.rglob("__init__.py")):
        module = importlib.import_module(".".join(room.parent.relative_to(PACKAGE.parent).parts))
        handed_on = [
            name for name in getattr(module, "__all__", ()) if not isinstance(getattr(module, name), ModuleType)
        ]
        assert not [name for name in handed_on if (room.parent / f"{name}.py").exists()], room


def test_an_unknown_name_is_an_attribute_error_that_says_where():
    with pytest.raises(AttributeError, match=r"'cascadeclip\.model' has no attribute 'CascadeClip'"):
        cascadeclip.model.CascadeClip  # noqa: B018
    with pytest.raises(ImportError, match="CascadeClip"):
        exec("from cascadeclip.model import CascadeClip")
