"""What may import what: in the project of every scaffold, in the benchmarks and in the tests."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from ..support import imports
from ..support.imports import Edge, Modules

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
SCAFFOLDS = sorted((ROOT / "scaffolds").glob("*.yml"))
# One name in every project, so that the same finding in several reads the same.
PACKAGE = "flight_delays"

ENGINES = ("airflow", "dagster", "prefect", "kubeflow")
ENGINE_FOLDERS = ("dags", "flows", "pipelines")

# Top to bottom: an import may only point to a line further down. Rooms on one line do not know
# each other. `orchestration/*` is the engine's folder, `orchestration` the files beside it, and
# `__init__` the package's own, which imports nothing.
LAYERS = [
    ["cli", *ENGINE_FOLDERS],
    ["orchestration/*"],
    ["definitions"],
    ["defs"],
    ["orchestration", "serving"],
    ["pipeline"],
    ["stages"],
    ["sources"],
    ["interface"],
    ["domain", "reporting"],
    ["ml", "alerts"],
    ["core"],
    ["__init__"],
]
# Neither these nor what lies below knows which engine there is.
NO_ENGINE = [
    "serving",
    "pipeline",
    "stages",
    "interface",
    "domain",
    "reporting",
    "ml",
    "alerts",
    "sources",
]
NO_ENGINE += ["core", "__init__"]
ENGINE_WORDS = r"airflow|dagster|prefect|kubeflow|kfp"

LOADER = f"{PACKAGE}.core.optional"
STDLIB = sys.stdlib_module_names
# Named by DESIGN: the stages are the pipeline's verbs.
STDLIB_ALLOWED = [f"{PACKAGE}.stages.select"]
SAME_NAME_ALLOWED = [
    # A folder's own file.
    r".*\.__main__",
    # The folder says which: an engine's part of what every engine has.
    rf"{PACKAGE}\.orchestration\.\w+\.(local|tasks|checks|workers)",
    # A service's own settings, read like those of the project.
    rf"{PACKAGE}\.serving\.settings",
    # The two pipelines, in each place where an engine wants them.
    r".*\.(training|inference)",
]
LINES = 45
# An application, and a command, most of whose lines are its options and their help.
FACTORIES = ["create_app", "onboard"]

# Twelve projects are rendered before the first test: time enough on a busy machine.
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Project:
    """A rendered project: its package with the engine's files, their imports, and its tests."""

    folder: Path
    modules: Modules
    edges: list[Edge]
    tests: Modules


@pytest.fixture(scope="module")
def projects(render: Callable[..., Path]) -> dict[str, Project]:
    """Return the project of every scaffold, by the scaffold's name."""
    found = {}
    for path in SCAFFOLDS:
        answers = yaml.safe_load(path.read_text()) | {"package_name": PACKAGE}
        found[path.stem] = read_project(render(**answers))
    return found


@pytest.fixture(scope="module")
def ours() -> Modules:
    """Return this repository's benchmarks and tests."""
    return imports.read(ROOT, "benchmarks") | imports.read(ROOT, "tests")


def read_project(folder: Path) -> Project:
    """Read a rendered project."""
    modules = imports.read(folder, "src", base="src")
    for name in ENGINE_FOLDERS:
        modules |= imports.read(folder, name)
    tests = imports.read(folder, "tests", base="tests")
    return Project(folder, modules, imports.edges_of(modules), tests)


def room_of(name: str) -> str:
    """Return the room of a module: a folder or a file of the package, or a folder beside it."""
    package, *parts = name.split(".")
    if package != PACKAGE:
        return package
    if parts[:1] == ["orchestration"] and parts[1:2] and parts[1] in ENGINES:
        return "orchestration/*"
    return parts[0] if parts else "__init__"


def code_of(project: Project) -> Modules:
    """Return the modules in src/."""
    return {
        name: module for name, module in project.modules.items() if module.path.parts[0] == "src"
    }


def files_without_engine(project: Project) -> list[Path]:
    """Return the files, templates of pages too, in rooms that know no engine."""
    source = project.folder / "src" / PACKAGE
    return [
        path
        for path in source.rglob("*")
        if path.is_file()
        and room_of(".".join([PACKAGE, *path.relative_to(source).with_suffix("").parts]))
        in NO_ENGINE
    ]


def assert_none(projects: dict[str, Project], rule: Callable[[Project], list[str]]) -> None:
    """Fail with each finding of a rule, and the scaffolds it is in."""
    scaffolds: dict[str, list[str]] = {}
    for name, project in projects.items():
        for line in rule(project):
            scaffolds.setdefault(line, []).append(name)
    report = [
        f"{line} [{'every scaffold' if len(names) == len(projects) else ', '.join(names)}]"
        for line, names in sorted(scaffolds.items())
    ]
    assert_empty(report)


def assert_empty(findings: Iterable[str]) -> None:
    """Fail with each finding on a line of its own."""
    lines = list(findings)
    if lines:
        pytest.fail("\n".join([f"{len(lines)} found:", *lines]), pytrace=False)


def test_every_scaffold_is_read_whole(projects: dict[str, Project]) -> None:
    """What is not read is not judged."""
    assert len(projects) == len(SCAFFOLDS) > 10
    for project in projects.values():
        rooms = {room_of(name) for name in project.modules}
        assert {"cli", "orchestration/*", "pipeline", "stages", "domain", "core"} <= rooms
        assert rooms & {*ENGINE_FOLDERS, "defs"}
        assert {edge.where for edge in project.edges} >= {"module", "function", "by name"}
        assert project.tests
    assert {room_of(name) for project in projects.values() for name in project.modules} >= {
        room for line in LAYERS for room in line
    }


def test_no_import_circle(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.circles(project.edges))


def test_no_arrow_points_up(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.arrows_up(project.edges, LAYERS, room_of))


def test_no_import_of_what_an_answer_left_out(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.dead_ends(project.edges, project.modules))


def test_nothing_below_orchestration_names_an_engine(projects: dict[str, Project]) -> None:
    assert_none(
        projects,
        lambda project: imports.words(project.folder, files_without_engine(project), ENGINE_WORDS),
    )


def test_no_import_by_a_string_but_the_loader_of_optional_parts(
    projects: dict[str, Project],
) -> None:
    assert_none(projects, lambda project: imports.imports_by_string(project.modules, [LOADER]))


def test_no_module_is_named_like_one_of_the_standard_library(
    projects: dict[str, Project],
) -> None:
    assert_none(
        projects, lambda project: imports.named_like(project.modules, STDLIB, STDLIB_ALLOWED)
    )


def test_no_two_files_have_one_name(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.same_names(code_of(project), SAME_NAME_ALLOWED))


def test_functions_are_short(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.long_functions(project.modules, LINES, FACTORIES))


def test_every_file_says_what_it_is(projects: dict[str, Project]) -> None:
    assert_none(projects, lambda project: imports.undocumented(code_of(project)))


def test_the_projects_own_tests(projects: dict[str, Project]) -> None:
    assert_none(
        projects,
        lambda project: [
            *imports.circles(imports.edges_of(project.tests)),
            *imports.imports_by_string(project.tests),
            *imports.named_like(project.tests, STDLIB),
        ],
    )


def test_benchmarks_and_tests_have_no_import_circle(ours: Modules) -> None:
    edges = imports.edges_of(ours)
    assert len(edges) > len(SCAFFOLDS)
    assert_empty(imports.circles(edges))


def test_benchmarks_and_tests_import_nothing_by_a_string(ours: Modules) -> None:
    assert_empty(imports.imports_by_string(ours))


def test_benchmarks_and_tests_take_no_name_of_the_standard_library(ours: Modules) -> None:
    assert_empty(imports.named_like(ours, STDLIB))


def test_the_page_on_architecture_shows_the_layers() -> None:
    page = PAGE.read_text()
    diagram = page.split("```mermaid")[1].split("```")[0]
    shown = [label.split(" · ") for label in re.findall(r'\["(.+?)"\]', diagram)]
    rooms = {room for line in LAYERS[:-1] for room in line} - {"orchestration/*"}

    assert [[room.replace("&lt;engine&gt;", "*") for room in line] for line in shown] == LAYERS[:-1]
    for room in rooms:
        assert re.search(rf"^\| .*`{room}(/|\.py)`.*\|", page, re.MULTILINE), room


def frozen_paths() -> list[str]:
    """Return the paths in the table of frozen ones."""
    table = PAGE.read_text().split("## Frozen paths")[1].split("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    paths = [path for row in rows for path in re.findall("`(.+?)`", row)]
    return [path.replace("<package>", PACKAGE).rstrip("/") for path in paths]


def test_frozen_paths_exist(projects: dict[str, Project]) -> None:
    folders = [project.folder for project in projects.values()]
    assert_empty(
        f"{path}: in no scaffold"
        for path in frozen_paths()
        if not any(any(folder.glob(path)) for folder in folders)
    )


def test_what_a_team_edits_imports_frozen_paths_only(projects: dict[str, Project]) -> None:
    """A DAG or a domain that a team has changed must find what it imports after an update."""
    patterns = [pattern for path in frozen_paths() for pattern in (path, f"{path}/*")]

    def rule(project: Project) -> list[str]:
        return [
            edge.because("not among the frozen paths of docs/architecture.md")
            for edge in project.edges
            if room_of(edge.importer) in ("domain", *ENGINE_FOLDERS) and edge.where != "package"
            if edge.imported in project.modules
            and not any(
                fnmatch(f"{project.modules[edge.imported].path}", pattern) for pattern in patterns
            )
        ]

    assert_none(projects, rule)


# The rules themselves, on trees of a few lines.

Tree = Callable[[dict[str, str]], Modules]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Return `tree(files)`, which reads a package of these files, given by their paths in it."""

    def tree(files: dict[str, str]) -> Modules:
        for name, text in files.items():
            path = tmp_path / "src" / PACKAGE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return imports.read(tmp_path, "src", base="src")

    return tree


def short(name: str) -> str:
    """Return a module's name in the package."""
    return name.removeprefix(f"{PACKAGE}.")


def arrows(modules: Modules) -> set[tuple[str, str, str]]:
    """Return the edges of a tree: importer, imported, and where the import stands."""
    return {
        (short(edge.importer), short(edge.imported), edge.where)
        for edge in imports.edges_of(modules)
    }


def up(modules: Modules) -> list[str]:
    """Return the arrows up of a tree."""
    return imports.arrows_up(imports.edges_of(modules), LAYERS, room_of)


def test_an_import_is_found_wherever_it_stands(tree: Tree) -> None:
    modules = tree(
        {
            "core/refs.py": "",
            "core/logs.py": "from . import refs",
            "core/late.py": "def f():\n    class C:\n        from .refs import Ref\n",
            "stages/a.py": "try:\n    from ..core import refs as r\nexcept ImportError:\n    pass",
            "stages/b.py": f"import json, {PACKAGE}.core.refs",
            "stages/c.py": "import typing\nif typing.TYPE_CHECKING:\n    from .a import A",
            "stages/d.py": f"async def f():\n    from {PACKAGE}.stages.a import A",
        }
    )

    assert arrows(modules) == {
        ("core.logs", "core.refs", "module"),
        ("core.late", "core.refs", "function"),
        ("stages.a", "core.refs", "module"),
        ("stages.b", "core.refs", "module"),
        ("stages.c", "stages.a", "type checking"),
        ("stages.d", "stages.a", "function"),
    }


def test_what_a_package_offers_is_imported_from_the_package(tree: Tree) -> None:
    modules = tree(
        {
            "alerts/__init__.py": "from .event import Event",
            "alerts/event.py": "",
            "stages/a.py": "from ..alerts import Event",
            "stages/b.py": "from ..alerts.event import Event",
        }
    )

    assert arrows(modules) == {
        ("alerts", "alerts.event", "module"),
        ("stages.a", "alerts", "module"),
        ("stages.b", "alerts.event", "module"),
        ("stages.b", "alerts", "package"),
    }
    assert imports.circles(imports.edges_of(modules)) == []


def test_a_script_imports_its_neighbour(tree: Tree) -> None:
    assert arrows(tree({"cli/a.py": "import b", "cli/b.py": ""})) == {("cli.a", "cli.b", "module")}


@pytest.mark.parametrize(
    "call",
    [
        "from .core import optional\noptional.load('ml.drift')",
        "from .core import optional as o\no.load('ml.drift')",
        "from .core.optional import load as l\nl('ml.drift')",
        "from .core import optional\nROOM = 'ml'\ndef f(x): optional.load(f'{ROOM}.{x}')",
        "from .core import optional\ndef f(x): optional.load(f'{\"ml\"}.{x}')",
    ],
)
def test_what_the_loader_is_given_is_an_import(tree: Tree, call: str) -> None:
    modules = tree({"core/optional.py": "", "ml/drift.py": "", "ml/deep/er.py": "", "a.py": call})

    assert {(a, b) for a, b, where in arrows(modules) if where == "by name"} == {("a", "ml.drift")}
    assert imports.imports_by_string(modules) == []


@pytest.mark.parametrize(
    "back",
    [
        "from . import a",
        "def f():\n    from . import a",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import A",
        "from . import optional\noptional.load('a')",
        "from .package.inner import x",
    ],
)
def test_a_circle_is_found(tree: Tree, back: str) -> None:
    modules = tree(
        {
            "a.py": "from . import b",
            "b.py": "from . import c",
            "c.py": back,
            "alone.py": "from . import a",
            "package/__init__.py": "from .. import a",
            "package/inner.py": "",
        }
    )
    lines = imports.circles(imports.edges_of(modules))

    assert any(line.startswith(f"src/{PACKAGE}/a.py:1: {PACKAGE}.a -> ") for line in lines)
    assert any("b -> " in line and f"/c.py:{back.count(chr(10)) + 1}" in line for line in lines)
    assert not any("alone" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("core/x.py", "from ..stages import y", "core is below stages"),
        ("core/x.py", "def f():\n    from ..cli import app", "core is below cli"),
        ("reporting/x.py", "from ..domain import y", "reporting is beside domain"),
        ("serving/x.py", "from ..orchestration import runs", "serving is beside orchestration"),
        (
            "orchestration/runs.py",
            "from .airflow import y",
            "orchestration is below orchestration/*",
        ),
        ("orchestration/airflow/x.py", "from ...cli import app", "orchestration/* is below cli"),
        (
            "alerts/x.py",
            "from ..core import optional\noptional.load('ml.y')",
            "alerts is beside ml",
        ),
        ("misc/x.py", "from ..core import y", "no layer for misc"),
    ],
)
def test_an_arrow_up_is_found(tree: Tree, path: str, text: str, why: str) -> None:
    rooms = ["cli/app", "stages/y", "domain/y", "ml/y", "core/y", "core/optional"]
    rooms += ["orchestration/runs", "orchestration/airflow/y"]
    modules = tree({f"{room}.py": "" for room in rooms} | {path: text})

    (line,) = up(modules)
    assert line.startswith(f"src/{PACKAGE}/{path}:{text.count(chr(10)) + 1}: {PACKAGE}.")
    assert line.endswith(f": {why}")


def test_arrows_down_are_welcome(tree: Tree) -> None:
    modules = tree(
        {
            "core/a.py": "from . import b",
            "core/b.py": "",
            "stages/a.py": "from ..core import b\nfrom ..domain import problem",
            "domain/problem.py": "from ..ml import drift",
            "ml/drift.py": "",
            "orchestration/runs.py": "from ..stages import a",
            "orchestration/dagster/local.py": "from .. import runs\nfrom ...defs import jobs",
            "defs/jobs.py": "from ..orchestration import runs",
            "cli/app.py": "from ..orchestration.dagster import local",
        }
    )

    assert len(imports.edges_of(modules)) > 7
    assert up(modules) == []


def test_an_import_of_nothing_is_found(tree: Tree) -> None:
    modules = tree(
        {"__init__.py": "", "a.py": f"import {PACKAGE}.gone", "b.py": "from .c import d"}
    )
    lines = imports.dead_ends(imports.edges_of(modules), modules)

    assert [line.split(": ")[1].split(" (")[0] for line in lines] == [
        f"{PACKAGE}.a -> {PACKAGE}.gone",
        f"{PACKAGE}.b -> {PACKAGE}.c",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module('json')",
        "from importlib import import_module\nimport_module(name)",
        "from importlib import import_module as load",
        "__import__('json')",
        "exec(f'import {name}')",
        "eval('__import__(name)')",
        "import runpy\nrunpy.run_module('json')",
        "import pytest\npytest.importorskip('json')",
        "from .core import optional\ndef f(name): optional.load(name)",
        "from .core import optional\ndef f(name): optional.load(f'{name}.checks')",
    ],
)
def test_an_import_by_a_string_is_found(tree: Tree, text: str) -> None:
    modules = tree({"a.py": text})

    (line,) = imports.imports_by_string(modules)
    assert line.startswith(f"src/{PACKAGE}/a.py:{text.count(chr(10)) + 1}: {PACKAGE}.a -> ")
    assert imports.imports_by_string(modules, [f"{PACKAGE}.a"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "import subprocess\nsubprocess.run(['python', '-m', 'json.tool'])",
        "from importlib.util import find_spec\nfind_spec('json')",
        "eval('1 + 1')",
        "import re\nre.compile('import x').exec('import x')",
    ],
)
def test_a_string_that_imports_nothing_is_none(tree: Tree, text: str) -> None:
    assert imports.imports_by_string(tree({"a.py": text})) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [("platform.py", "platform"), ("queue/__init__.py", "queue"), ("queue/x.py", "queue")],
)
def test_a_name_of_the_standard_library_is_found(tree: Tree, path: str, name: str) -> None:
    modules = tree({path: "", "stages/select.py": "", "__main__.py": ""})

    (line,) = imports.named_like(modules, STDLIB, STDLIB_ALLOWED)
    assert line.startswith(f"src/{PACKAGE}/{path}:1: ")
    assert line.endswith(f": {name} is a standard-library module")


def test_two_files_of_one_name_are_found(tree: Tree) -> None:
    files = ["ml/metrics/__init__.py", "serving/metrics.py", "ml/__init__.py", "core/__init__.py"]
    allowed = ["core/checks.py", "orchestration/airflow/checks.py", "defs/training.py"]
    modules = tree(dict.fromkeys([*files, *allowed, "orchestration/training.py"], ""))
    lines = imports.same_names(modules, SAME_NAME_ALLOWED)

    assert [line.split(": ", 1)[1].replace(f"{PACKAGE}.", "") for line in lines] == [
        "ml.metrics: also the name of serving.metrics",
        "serving.metrics: also the name of ml.metrics",
    ]


@pytest.mark.parametrize("text", ["# As Airflow does", '"""For kfp."""', "KUBEFLOW_URL = 1"])
def test_an_engines_name_is_found(tree: Tree, tmp_path: Path, text: str) -> None:
    modules = tree({"core/x.py": f"x = 1\n{text}\n", "reporting/page.html": "", "cli/x.py": text})
    project = Project(tmp_path, modules, [], {})
    (tmp_path / f"src/{PACKAGE}/reporting/page.html").write_text(f"<!-- {text} -->")
    lines = imports.words(tmp_path, files_without_engine(project), ENGINE_WORDS)

    assert [line.split(": ")[0] for line in lines] == [
        f"src/{PACKAGE}/core/x.py:2",
        f"src/{PACKAGE}/reporting/page.html:1",
    ]


def test_a_long_function_is_found(tree: Tree) -> None:
    body = "    x = 1\n"
    docstring = '    """Say what.\n\n    At length.\n    """\n'
    modules = tree(
        {
            "a.py": f"def fits():\n{docstring}{body * (LINES - 1)}",
            "b.py": f"def create_app():\n{body * LINES}",
            "c.py": f"@decorated\nasync def long():\n{docstring}{body * LINES}",
        }
    )

    assert imports.long_functions(modules, LINES, FACTORIES) == [
        f"src/{PACKAGE}/c.py:2: {PACKAGE}.c.long: {LINES + 1} lines"
    ]


def test_a_file_without_a_docstring_is_found(tree: Tree) -> None:
    modules = tree({"a.py": '"""What it is."""', "b.py": "# What it is", "c/__init__.py": ""})

    assert [line.split(":")[0] for line in imports.undocumented(modules)] == [
        f"src/{PACKAGE}/b.py",
        f"src/{PACKAGE}/c/__init__.py",
    ]


def test_a_finding_is_told_with_its_scaffolds(tree: Tree, tmp_path: Path) -> None:
    bad = Project(tmp_path, tree({"a.py": ""}), [], {})
    good = Project(tmp_path, {}, [], {})

    def rule(project: Project) -> list[str]:
        return imports.undocumented(project.modules)

    with pytest.raises(pytest.fail.Exception, match=r"a: no docstring \[one\]"):
        assert_none({"one": bad, "two": good}, rule)
    with pytest.raises(pytest.fail.Exception, match=r"a: no docstring \[every scaffold\]"):
        assert_none({"one": bad, "two": bad}, rule)
    assert_none({"one": good, "two": good}, rule)
