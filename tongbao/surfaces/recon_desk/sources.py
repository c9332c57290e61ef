"""Statements of banks and partners in the console: files row by row, layouts and matching rules.

A file of up to a megabyte is brought in here; larger ones by ``tongbao sources take``. Layouts and
rules are proposed from a day on and count once somebody else has agreed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from tongbao.clearing.context import Clearing
from tongbao.clearing.matching.model import RULE_BYTES_MAX
from tongbao.clearing.matching.runs import rule_id
from tongbao.clearing.recon_rules.model import SET_LAYOUT, SET_RULE, RuleUnknown
from tongbao.clearing.recon_rules.rules import (
    Asked,
    decode_rule,
    propose_layout,
    propose_rule,
    rule_on,
    rules_on,
    versions_of_rule,
)
from tongbao.clearing.recon_rules.running import ask_to_match, bring_in
from tongbao.clearing.reconciliation.queries import latest_of_account
from tongbao.clearing.sources.ingest import (
    faults_shown,
    file_with_id,
    files,
    layout_on,
    layouts_of,
    rows_shown,
    source_named,
    sources,
)
from tongbao.clearing.sources.layouts import LAYOUT_BYTES_MAX, built_in, decode_layout
from tongbao.clearing.sources.model import FileRefused, FileSeenBefore, SourceFile
from tongbao.controls.approvals.queries import open_approval
from tongbao.infra import audit
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import base32, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import page_of
from tongbao.parties.identity.model import Permission
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect
from tongbao.surfaces.page_kit.requests import Sent

SOURCES: Final = f"{PREFIX}/sources"
MATCHING: Final = f"{PREFIX}/matching"
FILE: Final = "sfl"
ROWS: Final = 50
DAYS: Final = 31
_PLACE_MAX: Final = 10**9


class SourceFormWrong(Invalid):
    """A field of the form is missing or none of its values."""

    code = "console.source_form_wrong"
    advice = "Give a day as 2026-11-21, and choose a file of up to a megabyte that is not empty."
    advice_zh = "请填写日期（如 2026-11-21），并选择不超过 1 兆字节的非空文件。"


# Sources and their files


async def show_sources(visit: Visit) -> Reply:
    """Return every source with its newest file, and the form for another one."""
    db = visit.desk.db
    rows = []
    for each in await sources(db):
        newest = await files(db, source=each.name, limit=1)
        rows.append((each, decode_layout(each.layout).name, newest[0] if newest else None))
    facts = {
        "rows": rows,
        "built_in": sorted(built_in()),
        "modes": list(Mode),
        "today": _today(visit),
    }
    return await visit.page("sources.html", facts)


async def show_source(visit: Visit) -> Reply:
    """Return a source: its files, how they are read on which days, and what may be done.

    Raises:
        SourceUnknown, CursorInvalid
    """
    db, query = visit.desk.db, visit.request.query
    source = await source_named(db, visit.params["source"])
    before = parse(FILE, query["before"]) if query.get("before") else None
    page = page_of(
        await files(db, source=source.name, before=before, limit=ROWS + 1), ROWS, lambda row: row.id
    )
    own = f"{SOURCES}/{source.name}"
    last = page.items[-1].id if page.next_cursor else None
    layout = decode_layout(await layout_on(db, source, _today(visit)))
    facts = {
        "source": source,
        "own": own,
        "files": [(show(FILE, each.id), each) for each in page.items],
        "older": f"{own}?before={show(FILE, last)}" if last else None,
        "layout": _shown(msgspec.json.encode(layout)),
        "versions": await layouts_of(db, source.name),
        "asked": await open_approval(db, SET_LAYOUT, source.name),
        "today": _today(visit),
    }
    return await visit.page("source.html", facts)


async def send_file(clearing: Clearing, visit: Visit) -> Reply:
    """Take in the file that was sent; one that is refused is shown with what is wrong in it.

    Raises:
        SourceFormWrong, SourceUnknown, FileMoved
    """
    name, sent = visit.params["source"], visit.request.files.get("file")
    day = _day(visit.request.form.get("day", ""))
    if sent is None or not sent.content:
        raise SourceFormWrong(param="file")
    done = "source_taken"
    async with _kept(clearing, sent) as path:
        try:
            file = await bring_in(clearing, name, day, path, actor=visit.operator.actor)
            shown = show(FILE, file.id)
        except (FileRefused, FileSeenBefore) as refusal:
            shown = str(refusal.facts["file"])
            done = "source_refused" if isinstance(refusal, FileRefused) else "source_seen"
    return redirect(f"{SOURCES}/{name}/files/{shown}?done={done}")


async def show_file(visit: Visit) -> Reply:
    """Return one file row by row: what could be read, and what not, and why.

    Raises:
        UnknownId, FileUnknown, SourceFormWrong
    """
    db, query = visit.desk.db, visit.request.query
    file = await file_with_id(db, parse(FILE, visit.params["file_id"]))
    first, fault = _place(query.get("row", "0")), _place(query.get("fault", "0"))
    rows = await rows_shown(db, file.id, first, ROWS)
    own = f"{SOURCES}/{file.source}/files/{show(FILE, file.id)}"
    facts = {
        "file": file,
        "id": show(FILE, file.id),
        "rows": rows,
        "faults": await faults_shown(db, file.id, fault, ROWS),
        "more_rows": f"{own}?row={first + ROWS}" if _ends(file) > first + ROWS else None,
        "more_faults": f"{own}?fault={fault + ROWS}" if file.fault_count > fault + ROWS else None,
        "done": query.get("done"),
    }
    return await visit.page("source_file.html", facts)


async def propose_reading(visit: Visit) -> Reply:
    """Propose how a source's files are read from a day on; a new source begins with it.

    Raises:
        SourceFormWrong, LayoutWrong, RuleUnchanged, MakerNotAllowed, ReasonTooShort,
        TermsTooLarge, ApprovalWaiting
    """
    form = visit.request.form
    name = visit.params.get("source") or form.get("name", "").strip()
    written, mode = form.get("layout", ""), form.get("mode", Mode.LIVE.value)
    if len(written) > LAYOUT_BYTES_MAX or mode not in set(Mode):
        raise SourceFormWrong(param="layout")
    layout = built_in().get(form.get("built_in", ""))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_layout(tx, name, _asked(visit), layout=layout, mode=Mode(mode))
    return proposed(approval)


# Rules


async def show_matching(visit: Visit) -> Reply:
    """Return the rules that count today, and the form for another one."""
    facts = {"rules": await rules_on(visit.desk.db, _today(visit)), "today": _today(visit)}
    return await visit.page("matching.html", facts)


async def show_rule(visit: Visit) -> Reply:
    """Return a rule: how it matches now, what was said of it, and what its days came to.

    Raises:
        RuleUnknown
    """
    db, name = visit.desk.db, visit.params["rule"]
    versions = await versions_of_rule(db, name)
    if not versions:
        raise RuleUnknown(name=name[:64])
    try:
        rule = await rule_on(db, name, _today(visit))
    except RuleUnknown:  # it ended, or begins later
        rule = None
    account = rule_id(rule or decode_rule(next(each.rule for each in versions if each.rule)))
    facts = {
        "rule_name": name,
        "rule": rule,
        "written": _shown(msgspec.json.encode(rule)) if rule else "",
        "versions": versions,
        "bills": await latest_of_account(db, account, limit=DAYS),
        "asked": await open_approval(db, SET_RULE, name),
        "own": f"{MATCHING}/{name}",
        "today": _today(visit),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("matching_rule.html", facts)


async def propose_matching(visit: Visit) -> Reply:
    """Propose a rule from a day on.

    Raises:
        SourceFormWrong, RuleWrong, RuleUnchanged, MakerNotAllowed, ReasonTooShort, TermsTooLarge,
        ApprovalWaiting
    """
    if len(visit.request.form.get("layout", "")) > RULE_BYTES_MAX:
        raise SourceFormWrong(param="rule")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_rule(tx, _asked(visit))
    return proposed(approval)


async def propose_end(visit: Visit) -> Reply:
    """Propose that a rule matches nothing any more from a day on.

    Raises:
        SourceFormWrong, RuleUnknown, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_rule(tx, _asked(visit), ends=visit.params["rule"])
    return proposed(approval)


async def match_again(visit: Visit) -> Reply:
    """Have the worker match a day by a rule; it doubles nothing.

    Raises:
        SourceFormWrong, RuleUnknown
    """
    name, day = visit.params["rule"], _day(visit.request.form.get("day", ""))
    if not _today(visit) - timedelta(days=3660) < day < _today(visit):
        raise SourceFormWrong(param="day")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await ask_to_match(tx, name, day)
        await audit.record(tx, "matching.asked", name, {"day": day.isoformat()})
    visit.desk.flow.nudge()
    return redirect(f"{MATCHING}/{name}?done=queued")


def source_pages(clearing: Clearing) -> tuple[Route, ...]:
    """Return the console's routes of this room."""
    view, act = Permission.VIEW, Permission.BREAKS_ACT
    routes: tuple[tuple[str, str, Callable[[Visit], Awaitable[Reply]], Permission], ...] = (
        ("GET", "/sources", show_sources, view),
        ("POST", "/sources", propose_reading, act),
        ("GET", "/sources/{source}", show_source, view),
        ("POST", "/sources/{source}/layout", propose_reading, act),
        ("POST", "/sources/{source}/files", partial(send_file, clearing), act),
        ("GET", "/sources/{source}/files/{file_id}", show_file, view),
        ("GET", "/matching", show_matching, view),
        ("POST", "/matching", propose_matching, act),
        ("GET", "/matching/{rule}", show_rule, view),
        ("POST", "/matching/{rule}/end", propose_end, act),
        ("POST", "/matching/{rule}/again", match_again, act),
    )
    return tuple(Route(*each) for each in routes)


def _asked(visit: Visit) -> Asked:
    form = visit.request.form
    return Asked(
        written=form.get("layout", "").replace("\r\n", "\n"),
        valid_from=_day(form.get("valid_from", "")),
        reason=form.get("reason", ""),
        may=permissions_of(visit),
    )


@asynccontextmanager
async def _kept(clearing: Clearing, sent: Sent) -> AsyncIterator[Path]:
    """Put what was sent into a file of a folder of its own, for as long as it is read."""
    folder = clearing.folder / f"sent-{base32(new_id())}"
    path = folder / (re.sub(r"[^\w.-]", "_", sent.name)[-100:].lstrip(".") or "file")

    def put() -> None:
        folder.mkdir(parents=True)
        path.write_bytes(sent.content)

    try:
        await asyncio.to_thread(put)
        yield path
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _shown(text: bytes) -> str:
    return msgspec.json.format(text, indent=2).decode()


def _ends(file: SourceFile) -> int:
    """Return behind which place a file has no row; unreadable lines have places too."""
    return file.row_count + file.fault_count


def _place(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text[:12]) > _PLACE_MAX:
        raise SourceFormWrong(param="row")
    return int(text)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SourceFormWrong(param="day") from None


def _today(visit: Visit) -> date:
    return business_date(visit.desk.db.clock.now())
