"""The house rules that no other tool checks. Each message says what to do instead."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(__file__).parents[2] / "reactive_orch"
FUNCTION_LINES_MAX = 50
METHODS_MAX, ATTRIBUTES_MAX = 20, 12

_CLOCK = "take the time as an argument: the snapshot brings the database's clock"
_ASYNC = "decide in a plain function; the runtime performs the decision"
_VALUE = "return the fact in a value; the runtime reports it"
_IMPORT = "write an import at the top, where the import contracts see it"

BANNED_ATTRIBUTES_IN_CORE = {"now": _CLOCK, "utcnow": _CLOCK, "today": _CLOCK}

BANNED_NAMES_IN_CORE = {
    "open": "take the content as an argument",
    "print": _VALUE,
    "hash": "use hashlib, or compare and sort: hash() of a string differs between processes",
    "importlib": _IMPORT,
    "__import__": _IMPORT,
}

BANNED_SYNTAX_IN_CORE: dict[type[ast.AST], tuple[str, str]] = {
    ast.AsyncFunctionDef: ("async def", _ASYNC),
    ast.AsyncFor: ("async for", _ASYNC),
    ast.AsyncWith: ("async with", _ASYNC),
    ast.Await: ("await", _ASYNC),
    ast.Global: ("global", "pass the state in and return the new one"),
}

_SQL = re.compile(
    r"""\s*(
        (SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WITH)\s      # as one writes it
        | select\s.*\sfrom\s | select\s+[\w.]+\( | insert\s+into\s | update\s+\S+\s+set\s | delete\s+from\s
        | with\s+(recursive\s+)?\w+\s*(\([^)]*\)\s*)?as\s
    )""",
    re.VERBOSE | re.DOTALL,
)


def core_names(tree: ast.Module) -> Iterator[str]:
    """Yield what the core may not use."""
    for node in ast.walk(tree):
        banned = BANNED_ATTRIBUTES_IN_CORE if isinstance(node, ast.Attribute) else BANNED_NAMES_IN_CORE
        for name in banned.keys() & _names(node):
            yield f"{_line(node)}: {name} in the core: {banned[name]}"
        if type(node) in BANNED_SYNTAX_IN_CORE:
            what, instead = BANNED_SYNTAX_IN_CORE[type(node)]
            yield f"{_line(node)}: {what} in the core: {instead}"


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.Import(names=names):
            return [alias.name.partition(".")[0] for alias in names]
        case ast.ImportFrom(module=module):
            return [(module or "").partition(".")[0]]
        case _:
            return []


def long_functions(tree: ast.Module) -> Iterator[str]:
    """Yield the functions that are too long; a docstring does not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _lines(node) - sum(_lines(docstring) for docstring in _docstring(node))
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}: name its steps"


def large_classes(tree: ast.Module) -> Iterator[str]:
    """Yield the classes with too many methods, or with too much that they remember; values have what they have."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            attributes = {name for each in ast.walk(node) for name in _set_on_self(each)}
            if len(methods) > METHODS_MAX or len(attributes) > ATTRIBUTES_MAX:
                found = f"{len(methods)} methods and {len(attributes)} attributes"
                yield f"{node.lineno}: {node.name} has {found}: find the second reason to change and give it a name"


def _set_on_self(node: ast.AST) -> list[str]:
    match node:
        case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
            return [name]
        case _:
            return []


def sql_literals(tree: ast.Module) -> Iterator[str]:
    """Yield the strings that are SQL."""
    prose = {id(docstring.value) for node in ast.walk(tree) for docstring in _docstring(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose and _SQL.match(text):
                yield f"{node.lineno}: SQL in Python: put it under `-- name:` into the .sql file beside the module"


def environment(tree: ast.Module) -> Iterator[str]:
    """Yield the uses of the process's environment."""
    for node in ast.walk(tree):
        names = {"environ", "environb", "getenv"}.intersection(_imported_from_os(node) or _names(node))
        if names:
            yield f"{_line(node)}: {names.pop()} used here: cli.py reads it, or a test's plugin; take it as an argument"


def _imported_from_os(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(module="os", names=names):
            return [alias.name for alias in names]
        case _:
            return []


def unexplained_statements(text: str) -> Iterator[str]:
    """Yield what is wrong with a file of named SQL statements."""
    before, *statements = re.split(r"^-- name:", text, flags=re.MULTILINE)
    if any(line and not line.startswith("--") for line in before.splitlines()):
        yield "SQL before the first `-- name:`: give it a name"
    for statement in statements:
        name, *lines = statement.rstrip().splitlines()
        if not re.fullmatch(r" [a-z][a-z0-9_]*", name):
            yield f"`-- name:{name}`: write one space and a name in snake case"
        if not lines or not re.match(r"-- \S", lines[0]):
            yield f"{name.strip()}: say its purpose in a `-- ` line directly below its name"
        if not lines or not lines[-1].endswith(";"):
            yield f"{name.strip()}: end it with `;`"


def _docstring(node: ast.AST) -> list[ast.Expr]:
    match node:
        case (
            ast.Module(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
            | ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
            | ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
            | ast.AsyncFunctionDef(body=[ast.Expr(value=ast.Constant(value=str())) as first, *_])
        ):
            return [first]
        case _:
            return []


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _broken(rule: Callable[[ast.Module], Iterator[str]], pattern: str, *but: str) -> list[str]:
    return [
        f"{path.relative_to(PACKAGE.parent)}:{complaint}"
        for path in sorted(PACKAGE.glob(pattern))
        if path.name not in but
        for complaint in rule(ast.parse(path.read_text()))
    ]


def test_the_core_is_pure() -> None:
    assert not _broken(core_names, "core/**/*.py")


def test_functions_are_short() -> None:
    assert not _broken(long_functions, "**/*.py")


def test_classes_have_one_reason_to_change() -> None:
    assert not _broken(large_classes, "**/*.py")


def test_sql_is_in_sql_files() -> None:
    assert not _broken(sql_literals, "**/*.py")


def test_only_the_cli_reads_the_environment() -> None:
    assert not _broken(environment, "**/*.py", "cli.py", "plugin.py")


def test_sql_statements_are_named_and_explained() -> None:
    files = [path for path in sorted(PACKAGE.glob("**/*.sql")) if "schema" not in path.parts]
    assert not [f"{path.name}: {what}" for path in files for what in unexplained_statements(path.read_text())]


@pytest.mark.parametrize(
    "code",
    [
        "moment = datetime.now()",
        "from datetime import date\ndate.today()",
        "open('x')",
        "hash('x')",
        "import importlib.metadata",
        "from importlib import metadata",
        "__import__('time')",
        "async def f(): ...",
        "async def f():\n    await g()",
        "def f():\n    global x",
    ],
)
def test_impurity_is_found(code: str) -> None:
    assert [*core_names(ast.parse(code))]


@pytest.mark.parametrize("code", ["opened = 1", "def f(now: float) -> float:\n    return now", "self.hashes()"])
def test_purity_is_left_alone(code: str) -> None:
    assert not [*core_names(ast.parse(code))]


@pytest.mark.parametrize(
    ("body_lines", "docstring_lines", "is_long"), [(49, 0, False), (50, 0, True), (49, 9, False), (50, 9, True)]
)
def test_a_docstring_does_not_make_a_function_long(body_lines: int, docstring_lines: int, *, is_long: bool) -> None:
    docstring = '    """' + "\n" * (docstring_lines - 1) + '"""\n' if docstring_lines else ""
    code = "def f():\n" + docstring + "    x = 1\n" * body_lines
    assert bool([*long_functions(ast.parse(code))]) is is_long


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "\n  WITH a AS (SELECT 1)",
        "select x from y",
        "select pg_notify($1)",
        "update t set x = 1",
        "insert into t values (1)",
        "with a as (select 1) select",
    ],
)
def test_sql_is_found(text: str) -> None:
    assert [*sql_literals(ast.parse(repr(text) + " + x"))]
    assert [*sql_literals(ast.parse(f"f{text + '{x}'!r}"))]


@pytest.mark.parametrize("text", ["select the partitions to move", "update the schema", "with care", "SELECTED"])
def test_prose_is_left_alone(text: str) -> None:
    assert not [*sql_literals(ast.parse(f"x = {text!r}"))]


def test_a_docstring_may_quote_sql() -> None:
    assert not [*sql_literals(ast.parse("'''SELECT is what this does.'''"))]


@pytest.mark.parametrize("code", ["os.environ['X']", "os.getenv('X')", "from os import path, environ"])
def test_a_read_of_the_environment_is_found(code: str) -> None:
    assert [*environment(ast.parse(code))]


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("-- About the file.\n\n-- name: one\n-- Why.\nSELECT 1;\n\n-- name: two\n-- Why.\n-- More.\nSELECT 2;\n", 0),
        ("SELECT 0;\n-- name: one\n-- Why.\nSELECT 1;\n", 1),
        ("-- name: One-by-one\n-- Why.\nSELECT 1;\n", 1),
        ("-- name: one\nSELECT 1;\n", 1),
        ("-- name: one\n--\nSELECT 1;\n", 1),
        ("-- name: one\n-- Why.\nSELECT 1\n", 1),
        ("-- name: one\n", 2),
    ],
)
def test_statements_without_name_or_purpose_are_found(text: str, complaints: int) -> None:
    assert len([*unexplained_statements(text)]) == complaints
