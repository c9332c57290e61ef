"""What a developer reads: examples with their own key, refusals by code, what has changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Final

from msgspec import Struct

import tongbao
from tongbao.infra.web.problem import RouteUnknown
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import show
from tongbao.parties.identity.queries import keys_of_merchant
from tongbao.surfaces import docs_site
from tongbao.surfaces.api.versions import API_VERSIONS
from tongbao.surfaces.developer_portal.visit import Visit
from tongbao.surfaces.docs_site.reference import OperationPage, catalogue
from tongbao.surfaces.docs_site.snippets import with_key
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.page_kit.texts import Texts, load_texts

_SEARCH_MAX: Final = 64
_CHANGELOG: Final = "CHANGELOG.md"
_HEADING: Final = re.compile(r"^(#{2,3}) \[?([^\]\n]+)\]?(.*)$")


class Change(Struct, frozen=True):
    """One release of the changelog: its sections, each with its entries."""

    name: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]


class WithKey(Struct, frozen=True):
    """An operation with examples that name the developer's own key."""

    operation: OperationPage
    examples: tuple[tuple[str, str], ...]


async def show_docs(visit: Visit) -> Reply:
    """Show what the API does, by what it is about."""
    facts = {
        "groups": visit.desk.groups.values(),
        "key_id": await _key_id(visit),
        "tag_name": _tags(visit),
    }
    return visit.page("docs.html", facts)


async def show_group(visit: Visit) -> Reply:
    """Show the operations about one thing, each ready to be run with the developer's own key.

    Raises:
        RouteUnknown
    """
    group = visit.desk.groups.get(visit.params["tag"])
    if group is None:
        raise RouteUnknown
    key_id = await _key_id(visit)
    filled = [
        WithKey(
            operation,
            tuple(
                (each.name, with_key(each.name, each.text, key_id)) for each in operation.examples
            ),
        )
        for operation in group.operations
    ]
    facts = {
        "groups": visit.desk.groups.values(),
        "group": group,
        "operations": filled,
        "key_id": key_id,
        "tag_name": _tags(visit),
    }
    return visit.page("group.html", facts)


async def show_errors(visit: Visit) -> Reply:
    """Show every refusal by its code, or those that a word is in."""
    word = visit.request.query.get("q", "").strip().lower()[:_SEARCH_MAX]
    found = [
        each
        for each in catalogue()
        if word in f"{each.code} {each.status} {each.title} {each.advice} {each.advice_zh}".lower()
    ]
    areas = groupby(found, key=lambda each: each.code.partition(".")[0])
    facts = {
        "areas": [(area, list(refusals)) for area, refusals in areas],
        "word": word,
        "count": len(found),
    }
    return visit.page("errors.html", facts)


async def show_changelog(visit: Visit) -> Reply:
    """Show what changed: the versions of the API by date, and every release of the program."""
    versions = [(change.version, change.what) for change in reversed(API_VERSIONS.changes)]
    facts = {"versions": versions, "oldest": API_VERSIONS.oldest, "releases": releases()}
    return visit.page("changelog.html", facts)


@cache
def releases() -> tuple[Change, ...]:
    """Return what the changelog says, newest first; nothing where the file was left out."""
    beside = Path(tongbao.__path__[0]).parent
    for path in (beside / _CHANGELOG, Path(sys.prefix) / "share" / "tongbao" / _CHANGELOG):
        if path.is_file():
            return tuple(read_changelog(path.read_text("utf-8")))
    return ()


def read_changelog(text: str) -> Iterator[Change]:
    """Yield the releases of a file in the form of Keep a Changelog 1.1.0."""
    release, sections, entries = "", list[tuple[str, tuple[str, ...]]](), list[str]()
    section = ""

    def close() -> None:
        if section and entries:
            sections.append((section, tuple(entries)))
        entries.clear()

    for line in text.splitlines():
        if heading := _HEADING.match(line):
            close()
            if heading[1] == "##":
                if release:
                    yield Change(release, tuple(sections))
                release, section = f"{heading[2]}{heading[3]}".strip(), ""
                sections.clear()
            else:
                section = heading[2].strip()
        elif line.startswith("- "):
            entries.append(line[2:].strip())
        elif line.startswith("  ") and entries:
            entries[-1] += f" {line.strip()}"
    close()
    if release:
        yield Change(release, tuple(sections))


def _tags(visit: Visit) -> Callable[[object], str]:
    """Return what a group is called, as the public reference calls it."""
    return partial(_reference_texts()[visit.request.language].named, "tag")


@cache
def _reference_texts() -> Mapping[str, Texts]:
    return load_texts(Path(docs_site.__path__[0]) / "texts")


async def _key_id(visit: Visit) -> str:
    """Return the newest key that is good, for examples; where there is none, what stands for it."""
    page = await keys_of_merchant(visit.desk.db, *visit.whose, cursor=None, limit=100)
    now = real_now()
    return next((show("key", key.id) for key in page.items if key.is_good(now)), "")
