"""Applications, merchants and terminals, and what waits for somebody, as files."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.queries import list_approvals
from tongbao.kernel.ids import show
from tongbao.parties.agents.agents import PREFIX as AGENT
from tongbao.parties.agents.agents import list_agents
from tongbao.parties.merchants.queries import list_merchants, merchants_with_ids
from tongbao.parties.onboarding.model import PREFIX as APPLICATION
from tongbao.parties.onboarding.queries import list_applications
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.payments.callbacks.queries import list_aside
from tongbao.payments.collecting.model import PaymentCase
from tongbao.payments.collecting.queries import closed_cases, open_cases
from tongbao.surfaces.four_eyes import inbox
from tongbao.surfaces.list_files.sending import PAGE, ListFile, Part, when
from tongbao.surfaces.onboarding_desk import applications
from tongbao.surfaces.operator_console.actions import notices_wanted
from tongbao.surfaces.operator_console.payments import Filters
from tongbao.surfaces.operator_console.visit import Visit, mode_of
from tongbao.surfaces.terminals.pages import Chosen

_OPEN_CASES_MAX: Final = 10_000


async def _applications(visit: Visit, cursor: str | None) -> Part:
    db, wanted = visit.desk.db, applications.wanted(Filters.of(visit.request.query))
    page = await list_applications(db, wanted, cursor=cursor, limit=PAGE)
    names = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    rows = [
        (show(APPLICATION, each.id), each.application_no, names[each.merchant_id].name,
         each.mode.value, each.state.value, len(each.findings), when(each.created_at),
         when(each.submitted_at), when(each.ended_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _merchants(visit: Visit, cursor: str | None) -> Part:
    page = await list_merchants(visit.desk.db, cursor=cursor, limit=PAGE)
    rows = [
        (show("mch", each.id), each.name, each.state.value, each.settlement_delay_days,
         when(each.opened_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _agents(visit: Visit, cursor: str | None) -> Part:
    db, mode = visit.desk.db, mode_of(visit.request.query.get("mode"))
    page = await list_agents(db, mode=mode, cursor=cursor, limit=PAGE)
    rows = [
        (show(AGENT, each.id), each.name, show("mch", each.merchant_id), each.mode.value,
         show(AGENT, each.parent_id) if each.parent_id else "", each.depth, each.share_ppm,
         each.state, when(each.created_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _terminals(visit: Visit, cursor: str | None) -> Part:
    db, query = visit.desk.db, visit.request.query
    given = {name: query.get(name, "").strip()[:64] for name in Chosen.__struct_fields__}
    wanted, now = Chosen(**given).wanted(), db.clock.now()
    page = await inventory.list_terminals(db, wanted, now=now, cursor=cursor, limit=PAGE)
    beats = await inventory.heartbeats_of(db, page.items)
    names = await merchants_with_ids(db, [e.merchant_id for e in page.items if e.merchant_id])
    rows = []
    for each in page.items:
        beat, owner = beats.get(each.id), each.merchant_id and names.get(each.merchant_id)
        rows.append(
            (show(TERMINAL, each.id), each.serial_number, each.model, each.state.value,
             owner.name if owner else "", each.mode.value if each.mode else "", each.name,
             "" if beat is None else "offline" if beat.is_silent(now) else "online",
             beat.firmware if beat else "", when(beat.seen_at if beat else None),
             each.parameters_version, beat.parameters_version if beat else 0)
        )  # fmt: skip
    return Part(rows, page.next_cursor)


async def _inbox(visit: Visit, cursor: str | None) -> Part:
    chosen = {name: visit.request.query.get(name, "") for name in ("state", "act", "mine")}
    found = inbox.wanted(visit, chosen)
    page = await list_approvals(visit.desk.db, found, cursor=cursor, limit=PAGE)
    rows = [
        (each.shown_id, each.act, each.subject, each.state.value, each.reason, each.maker,
         each.checker or "", each.note or "", when(each.made_at), when(each.expires_at),
         when(each.decided_at), when(each.ended_at), each.code or "")
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _cases(visit: Visit, cursor: str | None) -> Part:
    """Read the open cases with the first of the closed ones."""
    db = visit.desk.db
    waiting = [] if cursor else await open_cases(db, _OPEN_CASES_MAX)
    page = await closed_cases(db, cursor=cursor, limit=PAGE)
    found: list[PaymentCase] = [*waiting, *page.items]
    names = await merchants_with_ids(db, [each.merchant_id for each in found])
    rows = [
        (show("cas", each.id), show("pay", each.payment_id), names[each.merchant_id].name,
         each.mode.value, each.kind.value, each.detail, when(each.opened_at),
         when(each.closed_at), each.resolution or "")
        for each in found
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _notices(visit: Visit, cursor: str | None) -> Part:
    wanted = notices_wanted(visit.request.query)
    page = await list_aside(visit.desk.db, wanted, cursor=cursor, limit=PAGE)
    rows = [
        (show("chn", each.account_id), each.channel, each.notification_id,
         each.kind.value if each.kind else "", each.number, each.state.value, each.copies,
         when(each.received_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


LISTS: Final = (
    ListFile(
        "applications",
        ("application", "application_no", "applicant", "mode", "status", "findings", "created_at",
         "submitted_at", "ended_at"),
        _applications,
    ),
    ListFile(
        "merchants",
        ("merchant", "name", "status", "settlement_delay_days", "opened_at"),
        _merchants,
    ),
    ListFile(
        "agents",
        ("agent", "name", "merchant", "mode", "over", "level", "share_ppm", "status", "since"),
        _agents,
    ),
    ListFile(
        "terminals",
        ("terminal", "serial", "model", "status", "merchant", "mode", "name", "line", "firmware",
         "seen_at", "parameters_version", "parameters_version_there"),
        _terminals,
    ),
    ListFile(
        "inbox",
        ("approval", "act", "subject", "status", "reason", "maker", "checker", "note", "made_at",
         "expires_at", "decided_at", "ended_at", "code"),
        _inbox,
    ),
    ListFile(
        "cases",
        ("case", "payment", "merchant", "mode", "kind", "detail", "opened_at", "closed_at",
         "resolution"),
        _cases,
    ),
    ListFile(
        "notices",
        ("account", "channel", "notification", "kind", "number", "status", "copies",
         "received_at"),
        _notices,
    ),
)  # fmt: skip
"""Lists that every firm has."""
