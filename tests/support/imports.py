"""The import graph of a tree of Python files, read with `ast`: nothing here imports the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

# Where an import stands. `by name` is one through the loader of optional parts, `package` the
# package around an imported module, which Python runs first.
Where: TypeAlias = Literal["module", "function", "type checking", "by name", "package"]

# Calls that import what a string names. A file run by its path is not one.
IMPORTERS = {
    "__import__",
    "exec_module",
    "import_module",
    "importorskip",
    "module_from_spec",
    "resolve_name",
    "run_module",
}
RUNNERS = {"eval", "exec"}
# What the one loader of optional parts offers, see the project's core/optional.py.
LOADER = "optional"
LOADING = {"folders", "load", "names"}
IMPORT_STATEMENT = re.compile(r"\bimport\b|__import__|import_module")


@dataclass(frozen=True)
class Module:
    """A Python file.

    Attributes:
        name: What other files import it as.
        path: Where it is, from the root of its tree.
        is_package: Whether it is the `__init__.py` of a folder.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module
    is_package: bool

    @property
    def package(self) -> str:
        """Return what a relative import with one dot starts from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class Edge:
    """An import of one module by another, which may not exist."""

    importer: str
    imported: str
    path: Path
    line: int
    where: Where

    def because(self, why: str) -> str:
        """Return the edge as a line to print."""
        return f"{self.path}:{self.line}: {self.importer} -> {self.imported} ({self.where}): {why}"


class Statement(NamedTuple):
    """An import statement, and where it stands."""

    node: ast.Import | ast.ImportFrom
    where: Where


Modules: TypeAlias = dict[str, Module]


def read(root: Path, folder: str, base: str = "") -> Modules:
    """Return the modules in a folder, by name.

    Args:
        root: Where paths are printed from.
        folder: The folder in it to read.
        base: The folder in it that is on Python's path: names start there.
    """
    found = (_module(root, path, base) for path in sorted((root / folder).rglob("*.py")))
    return {module.name: module for module in found}


def _module(root: Path, path: Path, base: str) -> Module:
    text = path.read_text()
    parts = path.relative_to(root / base).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, path.relative_to(root), text, _parse(text), is_package)


# Most files are the same in every project.
@functools.cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


@functools.cache
def _nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


@functools.cache
def _imports(tree: ast.Module) -> tuple[Statement, ...]:
    return tuple(_statements(tree))


def edges_of(modules: Modules) -> list[Edge]:
    """Return every import of one of these modules by another, at any depth of a file.

    An import of something that should be among them, and is not, is an edge too.
    """
    edges: dict[Edge, None] = {}
    for module in modules.values():
        direct = [*_written(module, modules), *_by_name(module, modules)]
        for edge in (*direct, *_around(direct, modules)):
            if edge.imported != module.name:
                edges[edge] = None
    return list(edges)


def _written(module: Module, modules: Modules) -> Iterator[Edge]:
    for statement in _imports(module.tree):
        for name in _targets(module, statement.node, modules):
            yield Edge(module.name, name, module.path, statement.node.lineno, statement.where)


def _statements(node: ast.AST, where: Where = "module") -> Iterator[Statement]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield Statement(child, where)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _statements(child, "function")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _statements(child, "type checking")
        else:
            yield from _statements(child, where)


def _targets(module: Module, node: ast.Import | ast.ImportFrom, modules: Modules) -> Iterator[str]:
    """Return the names of the modules that a statement imports, as far as they are ours."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _ours(module, alias.name, modules)
        return
    base = _base(module, node)
    for alias in node.names:
        whole = f"{base}.{alias.name}"
        yield from [whole] if whole in modules else _ours(module, base, modules, node.level > 0)


def _base(module: Module, node: ast.ImportFrom) -> str:
    """Return what `from ... import` names, as an absolute name."""
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def _ours(module: Module, name: str, modules: Modules, relative: bool = False) -> Iterator[str]:
    """Return a name if it is one of ours, or that of a neighbour, as scripts import those."""
    neighbour = f"{module.package}.{name}"
    if relative or name in modules or name.partition(".")[0] in modules:
        yield name
    elif neighbour in modules:
        yield neighbour


def _around(edges: Iterable[Edge], modules: Modules) -> Iterator[Edge]:
    """Return the packages around what is imported, but not those around the importer too."""
    for edge in edges:
        package = edge.imported.rpartition(".")[0]
        while package and not f"{edge.importer}.".startswith(f"{package}."):
            if package in modules:
                yield Edge(edge.importer, package, edge.path, edge.line, "package")
            package = package.rpartition(".")[0]


def _by_name(module: Module, modules: Modules) -> Iterator[Edge]:
    """Return what a file loads through the loader of optional parts."""
    top = module.name.partition(".")[0]
    for call, part in _loaded(module):
        wanted = re.compile(rf"{re.escape(top)}\.{part}")
        for name in modules:
            if part is not None and wanted.fullmatch(name):
                yield Edge(module.name, name, module.path, call.lineno, "by name")


def _loaded(module: Module) -> Iterator[tuple[ast.Call, str | None]]:
    """Return the calls of the loader, each with a pattern of the names it can be given.

    None instead of a pattern is a name that cannot be read from the file.
    """
    if LOADER not in module.text:
        return
    constants = {
        target.id: node.value.value
        for node in module.tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    functions = _loader_names(module)
    for node in _nodes(module.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in functions:
            yield node, _pattern(node.args[0], constants) if node.args else None


def _loader_names(module: Module) -> set[str]:
    """Return what the loader's functions are called in a file."""
    names = {f"{LOADER}.{function}" for function in LOADING}
    for statement in _imports(module.tree):
        node = statement.node
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(LOADER):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            renamed = [alias.asname for alias in node.names if alias.name == LOADER]
            names |= {f"{name}.{function}" for name in renamed if name for function in LOADING}
    return names


def _pattern(node: ast.expr, constants: Mapping[str, object]) -> str | None:
    """Return a pattern for a text: what is put into an f-string may be any one name."""
    if isinstance(node, ast.JoinedStr):
        pieces = [_pattern(value, constants) or r"[^.]+" for value in node.values]
        return "".join(pieces) if pieces and pieces[0] != r"[^.]+" else None
    if isinstance(node, ast.FormattedValue):
        return _pattern(node.value, constants)
    value = constants.get(node.id) if isinstance(node, ast.Name) else None
    value = node.value if isinstance(node, ast.Constant) else value
    return re.escape(value) if isinstance(value, str) else None


# Rules. Each returns a line for each finding: file:line: what: why.


def circles(edges: Iterable[Edge]) -> list[str]:
    """Return every import that is part of a circle, with a shortest way back."""
    edges = list(edges)
    below: dict[str, list[str]] = {}
    for edge in edges:
        below.setdefault(edge.importer, []).append(edge.imported)
    return [
        edge.because(f"comes back through {' -> '.join(way)}")
        for edge in edges
        if (way := _way(edge.imported, edge.importer, below))
    ]


def _way(start: str, end: str, below: Mapping[str, list[str]]) -> list[str]:
    """Return a shortest way from one module to another; nothing if there is none."""
    ways = {start: [start]}
    waiting = [start]
    for name in waiting:
        if name == end:
            return ways[name]
        for other in below.get(name, ()):
            if other not in ways:
                ways[other] = [*ways[name], other]
                waiting.append(other)
    return []


def arrows_up(
    edges: Iterable[Edge], layers: list[list[str]], room_of: Callable[[str], str]
) -> list[str]:
    """Return every import that does not point down.

    Args:
        edges: The imports.
        layers: Rooms, top to bottom; those on one line do not know each other.
        room_of: Returns the room of a module.
    """
    depth = {room: line for line, rooms in enumerate(layers) for room in rooms}
    found = []
    for edge in edges:
        above, below = room_of(edge.importer), room_of(edge.imported)
        if edge.where == "package" or above == below:
            continue
        if homeless := {above, below} - set(depth):
            found.append(edge.because(f"no layer for {' and '.join(sorted(homeless))}"))
        elif depth[above] >= depth[below]:
            relation = "beside" if depth[above] == depth[below] else "below"
            found.append(edge.because(f"{above} is {relation} {below}"))
    return found


def dead_ends(edges: Iterable[Edge], modules: Modules) -> list[str]:
    """Return every import of a module that is not there."""
    return [edge.because("no such module") for edge in edges if edge.imported not in modules]


def imports_by_string(modules: Modules, loaders: Iterable[str] = ()) -> list[str]:
    """Return every import of a module that a string names.

    Args:
        modules: The files to look at.
        loaders: The names of the files that may do so.
    """
    found = []
    for module in modules.values():
        if module.name in loaders:
            continue
        found += [
            f"{module.path}:{node.lineno}: {module.name} -> {ast.unparse(node)[:60]}: "
            "an import by a string"
            for node in _nodes(module.tree)
            if isinstance(node, ast.Call | ast.ImportFrom) and _imports_a_string(node)
        ]
        found += [
            f"{module.path}:{call.lineno}: {module.name} -> {ast.unparse(call)[:60]}: "
            "what it loads cannot be read here"
            for call, part in _loaded(module)
            if part is None
        ]
    return found


def _imports_a_string(node: ast.Call | ast.ImportFrom) -> bool:
    if isinstance(node, ast.ImportFrom):
        # Under another name a call would not be recognised.
        return not IMPORTERS.isdisjoint(alias.name for alias in node.names if alias.asname)
    called = node.func
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    if name in RUNNERS and isinstance(called, ast.Name):
        return bool(IMPORT_STATEMENT.search(" ".join(map(ast.unparse, node.args))))
    return name in IMPORTERS


def named_like(modules: Modules, taken: Iterable[str], allowed: Iterable[str] = ()) -> list[str]:
    """Return every file or folder with a name that is taken.

    Args:
        modules: The files to look at.
        taken: Names of modules of somebody else.
        allowed: Full names of modules that may keep theirs.
    """
    taken = {name for name in taken if not name.startswith("__")}
    found: dict[str, None] = {}
    for module in modules.values():
        if module.name in allowed:
            continue
        folders = module.path.parts if module.is_package else (*module.path.parts, module.path.stem)
        for part in sorted(taken.intersection(folders)):
            found[f"{module.path}:1: {module.name}: {part} is a standard-library module"] = None
    return list(found)


def same_names(modules: Modules, allowed: Iterable[str] = ()) -> list[str]:
    """Return every two files or folders of one name in different places.

    Args:
        modules: The files to look at.
        allowed: Patterns for names of modules that may share theirs.
    """
    patterns = [re.compile(pattern) for pattern in allowed]
    places: dict[str, list[Module]] = {}
    for module in modules.values():
        if not any(pattern.fullmatch(module.name) for pattern in patterns):
            places.setdefault(module.name.rpartition(".")[2], []).append(module)
    return [
        f"{module.path}:1: {module.name}: also the name of {_others(module, shared)}"
        for shared in places.values()
        if len(shared) > 1
        for module in shared
    ]


def _others(module: Module, shared: list[Module]) -> str:
    return ", ".join(other.name for other in shared if other is not module)


def words(root: Path, paths: Iterable[Path], pattern: str) -> list[str]:
    """Return every line of text with a word in it, comments and docstrings too."""
    return [
        f"{path.relative_to(root)}:{number}: {found[0]}: {line.strip()[:80]}"
        for path in sorted(paths)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (found := re.search(pattern, line, re.IGNORECASE))
    ]


def long_functions(modules: Modules, limit: int, allowed: Iterable[str] = ()) -> list[str]:
    """Return every function with more lines than the limit, its docstring not counted."""
    return [
        f"{module.path}:{node.lineno}: {module.name}.{node.name}: {lines} lines"
        for module in modules.values()
        for node in _nodes(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in allowed
        if (lines := _lines(node) - _docstring_lines(node)) > limit
    ]


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return _lines(node.body[0]) if ast.get_docstring(node) else 0


def undocumented(modules: Modules) -> list[str]:
    """Return every file without a docstring."""
    return [
        f"{module.path}:1: {module.name}: no docstring"
        for module in modules.values()
        if not ast.get_docstring(module.tree)
    ]
