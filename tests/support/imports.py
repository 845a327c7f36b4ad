"""Reads which file of a package imports which, without running any of them."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

MARK = "# upward:"  # on the line of an import that is meant to run up, with the reason


class Import(NamedTuple):
    """One import: the importing and the imported module, and the line with its mark."""

    importer: str
    imported: str
    line: int
    marked: bool


def imports_of(root: Path) -> list[Import]:
    """Every import of a package's own modules in the package's folder `root`, wherever in a file it stands.

    What is imported for type checkers alone does not count; in an `__init__`, which hands those names on, it does.
    """
    files = {_name(path, root): path for path in sorted(root.rglob("*.py"))}
    found = []
    for name, path in files.items():
        lines = path.read_text().splitlines()
        for node in _walk(ast.parse(path.read_text()), with_types=path.stem == "__init__"):
            for target in _targets(node, name, path.stem == "__init__"):
                imported = target if target in files else target.rpartition(".")[0]
                if imported in files and imported != name:
                    found.append(Import(name, imported, node.lineno, MARK in lines[node.lineno - 1]))
    return found


def running_up(imports: list[Import], order: tuple[str, ...]) -> list[Import]:
    """Those from a room to one that comes later in `order`; rooms are named by the part after the package's name."""
    return [one for one in imports if not one.marked and _rank(one.imported, order) > _rank(one.importer, order)]


def circle(imports: list[Import]) -> list[str] | None:
    """Modules that import each other in turn, the first again at the end; None if there are none."""
    graph: dict[str, set[str]] = {}
    for one in imports:
        if not one.marked:
            graph.setdefault(one.importer, set()).add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _rank(module: str, order: tuple[str, ...]) -> int:
    """Position of a module's room; the package itself hands everything on and comes last."""
    room = module.split(".")[1] if "." in module else None
    return len(order) if room is None else order.index(room)


def _walk(node: ast.AST, *, with_types: bool):
    for child in ast.iter_child_nodes(node):
        for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif for_types and not with_types:
            for branch in child.orelse:
                yield from _walk(ast.Module([branch], []), with_types=with_types)
        else:
            yield from _walk(child, with_types=with_types)


def _targets(node: ast.Import | ast.ImportFrom, importer: str, is_package: bool) -> list[str]:
    """Dotted names that may be modules: those after `import`, or the module and its name after `from`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    parts = importer.split(".")
    above = parts[: len(parts) - node.level + is_package] if node.level else []
    module = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{module}.{alias.name}" for alias in node.names]
