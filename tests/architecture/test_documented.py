"""Whatever has a public name is in the reference, and the reference is what the code says.

The pages are made by ``make docs``; a page that differs from the code fails here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tongbao.infra.settings import SETTINGS, Settings
from tongbao.kernel.errors import Refusal
from tools import house, reference
from tools.house import ROOT, module_name, source_files

DOTTED = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
CHINESE = re.compile("[\u4e00-\u9fff]")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    path = reference.DOCS / name

    assert path.read_text("utf-8") == reference.PAGES[name](), "run `make docs`"


def test_the_index_lists_every_page() -> None:
    assert (reference.DOCS / "README.md").read_text("utf-8") == reference.index(), "run `make docs`"


def test_every_refusal_has_a_code_of_its_own_and_says_what_to_do() -> None:
    refusals = house.refusals()
    used = Counter(refusal.code for refusal in refusals)

    assert not [code for code, count in used.items() if count > 1], "one code, one meaning"
    assert not [code for code in used if not DOTTED.fullmatch(code)]
    assert not [each.code for each in refusals if not house.one_line(each).endswith(".")]
    assert not [each.code for each in refusals if each.advice == Refusal.advice]
    assert not [each.code for each in refusals if not CHINESE.search(each.advice_zh)]
    assert not [each.code for each in refusals if each.advice_zh == Refusal.advice_zh]


def test_a_companion_write_refuses_with_a_documented_code() -> None:
    """``Write(…, refusal="…")`` is answered to callers like any other refusal."""
    known = {refusal.code for refusal in house.refusals()}

    unknown = [f"{where}: {code}" for where, code in literals_named("refusal") if code not in known]

    assert not unknown or not house.is_wired(), "\n".join(unknown)


def test_every_setting_says_what_it_means() -> None:
    assert {setting.name for setting in SETTINGS} == set(Settings.__struct_fields__)
    assert not [setting.name for setting in SETTINGS if len(setting.meaning.split()) < 3]


@pytest.mark.parametrize("kinds", [house.events, house.tasks], ids=["events", "tasks"])
def test_every_event_and_task_has_a_stable_name_and_a_sentence(kinds) -> None:
    tags = [house.tag_of(kind) for kind in kinds()]

    assert len(tags) == len(set(tags))
    assert not [tag for tag in tags if not DOTTED.fullmatch(tag)]
    assert not [house.tag_of(kind) for kind in kinds() if not house.one_line(kind).endswith(".")]


def test_every_metric_says_what_it_counts() -> None:
    metrics = [metric for metric, _ in reference.metrics()]

    assert not [metric.name for metric in metrics if not metric.name.startswith("tongbao_")]
    assert not [metric.name for metric in metrics if len(metric.documentation.split()) < 2]
    assert len({metric.name for metric in metrics}) == len(metrics)


def test_every_route_says_what_it_does() -> None:
    assert not [
        f"{method} {path}"
        for path, method, _, handler in reference.routes()
        if not house.one_line(handler.fn)
    ]


def test_failpoints_are_named_once_and_in_full() -> None:
    """A sweep that kills the process at each must know which place it killed it at."""
    names = [name for _, name in first_arguments_of("failpoint")]

    assert not [name for name, count in Counter(names).items() if count > 1]
    assert not [name for name in names if not DOTTED.fullmatch(name)]


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)} → {target}"
        for path in markdown_files()
        for target in links_of(path)
        if not (path.parent / target).exists()
    ]

    assert not broken, "\n".join(broken)


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "docs" / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md" or not path.exists():
            continue
        reached.add(path)
        waiting += [(path.parent / target).resolve() for target in links_of(path)]

    assert not set((ROOT / "docs").rglob("*.md")) - reached


def test_the_glossary_has_every_word_once() -> None:
    words = [
        word.strip()
        for row in (ROOT / "docs/reference/glossary.md").read_text("utf-8").splitlines()
        if row.startswith("| ") and not row.startswith(("| word", "| ---"))
        for word in row.split("|")[1].split(",")
    ]

    assert not [word for word, count in Counter(words).items() if count > 1]


def markdown_files() -> list[Path]:
    roots = [ROOT / "docs", ROOT / "sdk", ROOT / "tongbao_sandbox"]
    return [*ROOT.glob("*.md"), *(path for root in roots for path in root.rglob("*.md"))]


def links_of(path: Path) -> Iterator[str]:
    """Return the relative links of a page, without code blocks and without anchors."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in LINK.findall(text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.partition("#")[0]


def literals_named(keyword: str) -> Iterator[tuple[str, str]]:
    """Return every string literal given to a keyword of this name anywhere in the platform."""
    for where, call in calls_with(keyword):
        for given in call.keywords:
            if given.arg == keyword and isinstance(given.value, ast.Constant) and given.value.value:
                yield where, str(given.value.value)


def first_arguments_of(function: str) -> Iterator[tuple[str, str]]:
    for where, call in calls_with(function):
        if isinstance(call.func, ast.Name) and call.func.id == function:
            assert isinstance(call.args[0], ast.Constant), f"{where}: not a literal"
            yield where, str(call.args[0].value)


def calls_with(word: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the files of the platform that have the word."""
    texts = ((path, path.read_text("utf-8")) for path in source_files("tongbao"))
    for path, text in texts:
        for node in ast.walk(ast.parse(text)) if word in text else ():
            if isinstance(node, ast.Call):
                yield f"{module_name(path)}:{node.lineno}", node
