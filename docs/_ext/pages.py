"""Pages that are made at every build from what is written down elsewhere: notebooks, result tables, API, commands."""

import ast
import inspect
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import typer.main
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from cascadeclip.cli import app as commands

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cascadeclip"


def write(docs: Path) -> None:
    """Bring every made page up to date; files whose content stays are left alone, so that a second build is short."""
    stored = {f"notebooks/{path.name}": path.read_bytes() for path in ROOT.glob("notebooks/*.ipynb")}
    made = {name: content.replace(b"](../docs/", b"](../") for name, content in stored.items()}
    made |= {
        f"notebooks/assignments/{p.name}": p.read_bytes() for p in ROOT.glob("notebooks/assignments/release/*/*.ipynb")
    }
    linked = [*ROOT.glob("notebooks/**/*.png"), *ROOT.glob("notebooks/solutions/*.py")]
    made |= {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in linked}
    texts = {"notebooks/results/README.md": _with_figures(ROOT / "notebooks" / "results" / "README.md")}
    texts["notebooks/results/why.md"] = (ROOT / "notebooks" / "results" / "why.md").read_text(encoding="utf-8")
    texts |= {"reference/commands.md": _commands()} | _api()
    made |= {name: text.encode() for name, text in texts.items()}
    for folder in ("notebooks", "reference"):
        for path in sorted((docs / folder).rglob("*")):
            if path.is_file() and path.relative_to(docs).as_posix() not in made:
                path.unlink()
    for name, content in made.items():
        path = docs / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


# --- results ----------------------------------------------------------------------------------------------------------


def _with_figures(path: Path) -> str:
    """The index of a folder of result tables, each with its figure below."""
    parts = path.read_text(encoding="utf-8").split("\n## ")
    for number, part in enumerate(parts[1:], start=1):
        name = part.splitlines()[0]
        drawn = f"![{name}]({name}.png)"
        parts[number] = f"{part.rstrip()}\n\n{drawn}\n" if drawn[2:] not in part else part
    return "\n## ".join(parts)


# --- commands ---------------------------------------------------------------------------------------------------------


def _commands() -> str:
    """The help of every command, as the shell shows it."""
    group = typer.main.get_command(commands)
    context = group.make_context("cascadeclip", [], resilient_parsing=True)
    parts = ["# The command line", "What `--help` says of every command."]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        parts += [f"## cascadeclip {name}", f"```text\n{command.get_help(inner)}\n```"]
        for part in command.list_commands(inner) if hasattr(command, "list_commands") else ():
            below = command.get_command(inner, part)
            text = below.get_help(below.make_context(part, [], parent=inner, resilient_parsing=True))
            parts += [f"### cascadeclip {name} {part}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


# --- the API ----------------------------------------------------------------------------------------------------------


def rooms() -> dict[str, ModuleType]:
    """Every room of the package that hands on names, and `presets`, by its full name."""
    files = [path.parent for path in PACKAGE.rglob("__init__.py")]
    names = sorted("cascadeclip" + ".".join(["", *path.relative_to(PACKAGE).parts]) for path in files)
    modules = {name: import_module(name) for name in names}
    return {name: module for name, module in modules.items() if getattr(module, "__all__", ())}


@cache
def public() -> dict[str, list[str]]:
    """Room -> the names that are documented there: each once, in the last room that hands it on (the most special)."""
    home: dict[tuple[str, str], str] = {}
    for room, module in rooms().items():
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, ModuleType) and not name.startswith("__"):
                home[_origin(room, name)] = room
    listed: dict[str, list[str]] = {room: [] for room in rooms()}
    for (_, name), room in home.items():
        listed[room].append(name)
    return listed


def _origin(room: str, name: str) -> tuple[str, str]:
    """Module and name that a handed-on name comes from."""
    return getattr(getattr(import_module(room), name), "__module__", room), name


def _api() -> dict[str, str]:
    """A page per room, with what its `__init__` says of it and every public name; and their list."""
    pages, toc = {}, []
    documented = public()
    for room, module in rooms().items():
        if not documented[room]:
            continue
        toc.append(room)
        about = ast.get_docstring(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))) or ""
        names = sorted(documented[room], key=str.lower)
        table = "\n".join(f"- {{py:obj}}`{name} <{room}.{name}>`: {_first(module, name)}" for name in names)
        entries = "\n\n".join(_entry(module, room, name) for name in names)
        pages[f"reference/{room}.md"] = f"# `{room}`\n\n{about}\n\n{table}\n\n```{{eval-rst}}\n{entries}\n```\n"
    presets = ".. automodule:: cascadeclip.presets\n   :members:\n"
    pages["reference/cascadeclip.presets.md"] = f"# `cascadeclip.presets`\n\n```{{eval-rst}}\n{presets}```\n"
    listing = "\n".join(sorted([*toc, "cascadeclip.presets"]))
    pages["reference/index.md"] = f"{ABOUT_API}\n\n```{{toctree}}\n:maxdepth: 1\n\n{listing}\n```\n"
    return pages


ABOUT_API = """# API reference

Every public name of every room, from its docstring. Letters are those of the [notation](../method/notation.md). Names
that `cascadeclip` itself hands on are listed where they live."""


def _first(module: ModuleType, name: str) -> str:
    """The first sentence that is said of a name."""
    value = getattr(module, name)
    said = (value.__doc__ if isinstance(value, type) or inspect.isroutine(value) else None) or ""
    line = " ".join(said.strip().split("\n\n")[0].split())
    return line.split(". ")[0].rstrip(".") if line else "a constant"


def _entry(module: ModuleType, room: str, name: str) -> str:
    value = getattr(module, name)
    kind = "autoclass" if isinstance(value, type) else "autofunction" if inspect.isroutine(value) else "autodata"
    exception = isinstance(value, type) and issubclass(value, Exception)
    options = {"autodata": "   :no-value:\n"}.get(kind, "")
    return f".. {'autoexception' if exception else kind}:: {room}.{name}\n{options}"


def to_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Element | None:
    """A link to `cascadeclip.model.cascade.CascadeCLIP` leads to `cascadeclip.model.CascadeCLIP`, which is documented.

    What is ours and not public is no link; what is nowhere stays an error.
    """
    target = str(node.get("reftarget", ""))
    wanted = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or not wanted:
        return None
    for room, names in public().items():
        if wanted in names and (target == wanted or target.startswith("cascadeclip.")):
            found = f"{room}.{wanted}"
            return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", found, node, contnode)
    module = sys.modules.get(target.rpartition(".")[0])
    return contnode if target.startswith("cascadeclip.") and hasattr(module, wanted) else None
