"""The house rules that a machine can check, applied to the whole tree.

Each test lists every breach at once. The limits are rules, not averages: what does not fit is two
things.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import grimp
import pytest

from tools import house
from tools.house import ROOT, module_name, source_files

MODULE_LINES_MAX: Final = 400
LINES_OF_ONE_FILE: Final = {
    "tongbao.ledger.proofs.verifier": 450,  # given to others as a program of one file
    "sdk.python.tongbao_sdk.replies": 2_000,  # made of the API's description, and read by no head
}
FUNCTION_LINES_MAX: Final = 70
POSITIONAL_MAX: Final = 5
DOMAIN_MODULES_MAX: Final = 8
LINE_LENGTH_MAX: Final = 100
BLOB_BYTES_MAX: Final = 200_000

ENTRANCES: Final = {"tongbao_sandbox.launch"}
"""Imported by nobody in here: what other people's programs and tests begin with."""

EVERYTHING: Final = (*house.PACKAGES, "sdk/python/tongbao_sdk", "tools")

SHARED_FLOORS: Final = {"tongbao", "tongbao/infra", "tongbao/kernel", "tongbao_sandbox"}
"""Folders that are no domain: the machine, the pure values, the simulated world."""

VAGUE: Final = {"utils", "util", "helpers", "helper", "manager", "service", "base", "data", "info"}
VAGUE_VERBS: Final = ("process_", "handle_")
LATER: Final = "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3])
UNFINISHED: Final = re.compile(rf'(#|//|--|/[*]|<!--|""").*\b({LATER})\b')
TEXT_SUFFIXES: Final = {
    ".py", ".md", ".toml", ".sql", ".sh", ".txt", ".css", ".js", ".ts", ".html", ".svg", ".json",
}  # fmt: skip
FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_modules_fit_in_a_head() -> None:
    """Docstrings count; blank lines and comments do not."""
    assert none_of(
        f"{name} has {count} lines of code, {MODULE_LINES_MAX} are allowed"
        for name, count in sizes()
        if count > LINES_OF_ONE_FILE.get(name, MODULE_LINES_MAX)
    )


def test_functions_fit_on_a_screen() -> None:
    assert none_of(
        f"{where}: {function.name} has {length} lines, {FUNCTION_LINES_MAX} are allowed"
        for where, function in functions()
        if (length := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_calls_can_be_read() -> None:
    """What comes after the star is named at the call and is not counted."""
    assert none_of(
        f"{where}: {function.name} takes {count} positional parameters, not {POSITIONAL_MAX}"
        for where, function in functions()
        if (count := len(positional(function))) > POSITIONAL_MAX
    )


def test_a_domain_is_a_flat_folder_of_few_modules() -> None:
    folders: dict[str, int] = {}
    for path in source_files("tongbao"):
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix()
            folders[folder] = folders.get(folder, 0) + 1

    assert none_of(
        f"{folder} has {count} modules: two domains" if count > DOMAIN_MODULES_MAX else folder
        for folder, count in folders.items()
        if (count > DOMAIN_MODULES_MAX and folder not in SHARED_FLOORS)
        or folder.count("/") > (4 if folder.startswith("tongbao/rails/channels/") else 2)
    )


def test_names_say_something() -> None:
    named: list[tuple[str, set[str]]] = []
    for path in source_files(*EVERYTHING):
        named.append((module_name(path), set(path.stem.split("_"))))
        named += [
            (
                f"{module_name(path)}:{node.lineno} {node.name}",
                {word.lower() for word in re.findall("[A-Z][a-z]*", node.name)},
            )
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.ClassDef)
        ]

    assert none_of(
        f"{where}: {', '.join(words & VAGUE)} says nothing"
        for where, words in named
        if words & VAGUE
    )
    assert none_of(
        f"{where}: {function.name} could do anything"
        for where, function in functions()
        if function.name.lstrip("_").startswith(VAGUE_VERBS)
    )


def test_everything_public_says_what_it_is_for() -> None:
    """Modules, classes and functions; what is nested or magic speaks through its owner."""
    assert none_of(missing_docstrings())


def test_packages_hold_a_docstring_and_nothing_else() -> None:
    """The underscore is the boundary, and there is one path to each name."""
    assert none_of(
        f"{module_name(path)} has code in __init__.py"
        for path in source_files()
        if path.name == "__init__.py"
        and not (len(tree_of(path).body) == 1 and ast.get_docstring(tree_of(path)))
    )


def test_nobody_prints() -> None:
    """Logs are structured, and the command line writes through click."""
    assert none_of(
        f"{module_name(path)}:{node.lineno} prints"
        for path in source_files("tongbao")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    )


def test_the_type_checker_is_not_argued_with() -> None:
    allowed = ROOT / "tongbao" / "infra"
    assert none_of(
        f"{module_name(path)}:{line} {text}"
        for path in source_files(*EVERYTHING)
        if allowed not in path.parents and "ignore" in path.read_text("utf-8")
        for line, text in comments(path)
        if re.search(r"type:\s*ignore|mypy:\s*ignore", text)
    )
    assert none_of(
        f"{module_name(path)} has a TYPE_CHECKING block: move the shared name down"
        for path in source_files()
        if "TYPE_CHECKING" in path.read_text("utf-8")
        for node in ast.walk(tree_of(path))
        if (isinstance(node, ast.Name) and node.id == "TYPE_CHECKING")
        or (isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING")
    )


def test_every_package_is_type_checked() -> None:
    """A package that stands in the tree and not in the list would be checked by nobody."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    checked = re.search(r"\[tool\.mypy\].*?^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert checked is not None
    present = {path.parent.name for path in ROOT.glob("sdk/python/*/__init__.py")}

    assert present <= set(re.findall(r'"(\w+)"', checked[1]))


def test_nothing_is_left_for_later() -> None:
    assert none_of(
        f"{relative(path)}:{number} {line.strip()}"
        for path in text_files()
        if "vectors" not in path.parts
        for number, line in enumerate(lines_of(path), 1)
        if UNFINISHED.search(line)
    )


def test_lines_end_where_they_end() -> None:
    assert none_of(
        f"{relative(path)}:{number} has blanks at its end"
        for path in text_files()
        if "vectors" not in path.parts
        for number, line in enumerate(lines_of(path), 1)
        if line != line.rstrip()
    )
    assert none_of(
        f"{relative(path)}:{number} has {len(line)} characters"
        for path in text_files()
        if path.suffix in {".sql", ".sh"}  # ruff sees to Python
        for number, line in enumerate(lines_of(path), 1)
        if len(line) > LINE_LENGTH_MAX
    )


def test_no_blob_hides_in_the_tree() -> None:
    assert none_of(
        f"{relative(path)} is binary and has {size} bytes"
        for path in tracked_files()
        if (size := path.stat().st_size) > BLOB_BYTES_MAX and b"\0" in path.read_bytes()[:8192]
    )


def test_python_files_parse() -> None:
    """Tests, tools and benchmarks too, which no import reaches."""
    for path in tracked_files():
        if path.suffix == ".py":
            ast.parse(path.read_bytes(), filename=str(path))


def test_every_module_can_be_imported() -> None:
    failures = [(name, got) for name, got in house.imports() if isinstance(got, Exception)]
    if not house.is_wired():
        failures = [
            (name, failure)
            for name, failure in failures
            if not (isinstance(failure, ImportError) and str(failure.name).startswith("tongbao"))
        ]

    assert none_of(f"{name}: {failure!r}" for name, failure in failures)


def test_no_module_is_dead() -> None:
    """Whatever nobody imports and nothing starts is either forgotten or not wired."""
    if not house.is_wired():
        pytest.skip("the rooms are not wired yet, so most wait for a user")
    graph = grimp.build_graph(*house.PACKAGES, cache_dir=None)
    alive = {name for name in graph.modules if graph.find_modules_that_directly_import(name)}
    packages = {module_name(path) for path in source_files() if path.name == "__init__.py"}

    assert none_of(
        f"{name} is imported by nobody"
        for name in sorted(graph.modules - alive - packages - ENTRANCES)
        if not name.endswith("__main__")
    )


def test_the_changelog_keeps_its_form() -> None:
    """Keep a Changelog: newest first, known headings, Unreleased on top."""
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    kinds = [line for line in lines if line.startswith("### ")]
    dates = re.findall(r"\d{4}-\d{2}-\d{2}$", "\n".join(releases), re.MULTILINE)

    assert releases[0] == "## [Unreleased]"
    assert all(
        re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", each) for each in releases[1:]
    )
    assert dates == sorted(dates, reverse=True)
    assert {each[4:] for each in kinds} <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"
    }  # fmt: skip


def test_scripts_can_be_started() -> None:
    """A script that lost its mode works for its author only."""
    assert none_of(
        f"{relative(path)} begins with #! and is not executable"
        for path in tracked_files()
        if path.read_bytes()[:2] == b"#!" and not path.stat().st_mode & 0o111
    )


def none_of(breaches: Iterator[str] | list[str]) -> bool:
    """Whether there are no breaches; otherwise fail with all of them."""
    found = list(breaches)
    if found:
        pytest.fail("\n" + "\n".join(found), pytrace=False)
    return True


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def sizes() -> Iterator[tuple[str, int]]:
    for path in source_files(*EVERYTHING):
        lines = (line.strip() for line in lines_of(path))
        yield module_name(path), sum(1 for line in lines if line and not line.startswith("#"))


def functions() -> Iterator[tuple[str, Function]]:
    for path in source_files(*EVERYTHING):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, FUNCTIONS):
                yield f"{module_name(path)}:{node.lineno}", node


def positional(function: Function) -> list[str]:
    names = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def missing_docstrings() -> Iterator[str]:
    for path in source_files(*EVERYTHING):
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            yield f"{module_name(path)} has no docstring"
        owners: list[ast.Module | ast.ClassDef] = [tree]
        owners += [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for owner in owners:
            for node in owner.body:
                if not isinstance(node, (*FUNCTIONS, ast.ClassDef)) or node.name.startswith("_"):
                    continue
                if isinstance(owner, ast.ClassDef) and owner.name.startswith("_"):
                    continue
                if not ast.get_docstring(node):
                    yield f"{module_name(path)}:{node.lineno} {node.name} has no docstring"


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tracked_files() -> tuple[Path, ...]:
    """Every file of the project: git's list, or a walk where the tree came as an archive."""
    command = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, capture_output=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        hidden = re.compile(r"/(\.venv|\.clients|\.tongbao|\.\w+_cache|\.hypothesis|__pycache__)/")
        paths = [path for path in ROOT.rglob("*") if not hidden.search(path.as_posix())]
    return tuple(sorted(path for path in paths if path.is_file()))


def text_files() -> list[Path]:
    named = {"Makefile", "run", ".gitignore"}
    return [path for path in tracked_files() if path.suffix in TEXT_SUFFIXES or path.name in named]
