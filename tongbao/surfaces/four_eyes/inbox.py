"""The inbox: what waits for other eyes, what it would change, and what became of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import approve, reject, withdraw
from tongbao.controls.approvals.model import OPEN, PREFIX, Approval, ApprovalState
from tongbao.controls.approvals.queries import (
    ApprovalFilter,
    approval_with_id,
    changes_of,
    checkable,
    list_approvals,
)
from tongbao.infra import audit
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.ledger.general.days import REQUEST_PREFIX
from tongbao.ledger.general.model import RequestState
from tongbao.ledger.general.queries import day_requests
from tongbao.ledger.queries import books
from tongbao.parties.identity.model import ROLES
from tongbao.parties.identity.queries import list_operators
from tongbao.payments.routing.model import RuleSetState
from tongbao.payments.routing.rule_sets import RULE_SET_PREFIX, rule_sets
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Desk, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect

ROWS: Final = 30
_BOOKS_MAX: Final = 64
WAITING: Final = "waiting"
"""What the list shows first: everything that is not over."""


class InboxFilterMalformed(Invalid):
    """The address asks for a state or act that there is not."""

    code = "console.inbox_filter_malformed"
    advice = "Choose from the lists of the page."
    advice_zh = "请使用页面中的选项进行筛选。"


class Row(Struct, frozen=True):
    """One proposal as whoever looks at it may deal with it."""

    approval: Approval
    title: str
    maker: str
    checker: str
    is_own: bool
    is_expired: bool
    may_decide: bool
    link: str | None


class Elsewhere(Struct, frozen=True):
    """Something that waits for a second person and is decided on a page of its own."""

    kind: str
    subject: str
    maker: str
    is_own: bool
    link: str


def permissions_of(visit: Visit) -> frozenset[str]:
    """Return what the visitor may do, as acts name it."""
    return frozenset(each.value for each in ROLES[visit.operator.role])


async def show_inbox(visit: Visit) -> Reply:
    """Return proposals, newest first, and what waits for a second person elsewhere.

    Raises:
        InboxFilterMalformed, CursorInvalid
    """
    desk, query = visit.desk, visit.request.query
    chosen = {name: query.get(name, "") for name in ("state", "act", "mine")}
    found = wanted(visit, chosen)
    page = await list_approvals(desk.db, found, cursor=query.get("cursor"), limit=ROWS)
    people = await _people(desk)
    given = {name: value for name, value in chosen.items() if value}
    older = urlencode({**given, "cursor": page.next_cursor}) if page.next_cursor else None
    facts = {
        "rows": [_row(visit, each, people) for each in page.items],
        "elsewhere": await _elsewhere(visit, people) if not any(chosen.values()) else [],
        "chosen": chosen,
        "states": list(ApprovalState),
        "acts": sorted((name, _title(visit, name)) for name in desk.approvals.acts),
        "older": f"{CONSOLE}/inbox?{older}" if older else None,
        "done": query.get("done"),
    }
    return await visit.page("inbox.html", facts)


async def show_approval(visit: Visit) -> Reply:
    """Return one proposal: what it would change, why, and everything that happened to it.

    Raises:
        ApprovalNotFound
    """
    desk = visit.desk
    found = await approval_with_id(desk.db, _approval_id(visit))
    people = await _people(desk)
    facts = {
        "row": _row(visit, found, people),
        "changes": await changes_of(desk.approvals, found),
        "history": [
            (each, people.get(each.actor, each.actor))
            for each in await audit.entries_of_subject(desk.db, found.shown_id)
        ],
        "successor": show(PREFIX, found.superseded_by) if found.superseded_by else None,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("approval.html", facts)


async def approve_one(visit: Visit) -> Reply:
    """Agree to what a colleague proposed, as it was shown.

    Raises:
        ApprovalNotFound, ApprovalDecided, ApprovalExpired, ActUnknown, CheckerNotAllowed,
        OwnProposal, TermsDiffer, TermsTampered
    """
    form, desk = visit.request.form, visit.desk
    async with desk.db.begin(visit.operator.actor) as tx:
        await approve(
            tx,
            desk.approvals.acts,
            _approval_id(visit),
            digest=form.get("digest", ""),
            may=permissions_of(visit),
            note=form.get("note", ""),
        )
    desk.flow.nudge()
    return _decided(visit, "approved")


async def reject_one(visit: Visit) -> Reply:
    """Turn down what a colleague proposed.

    Raises:
        ApprovalNotFound, ApprovalDecided, ApprovalExpired, ActUnknown, CheckerNotAllowed,
        OwnProposal, ReasonTooShort
    """
    desk, reason = visit.desk, visit.request.form.get("reason", "")
    async with desk.db.begin(visit.operator.actor) as tx:
        acts, may = desk.approvals.acts, permissions_of(visit)
        await reject(tx, acts, _approval_id(visit), reason=reason, may=may)
    return _decided(visit, "rejected")


async def withdraw_one(visit: Visit) -> Reply:
    """Take one's own proposal back.

    Raises:
        ApprovalNotFound, ApprovalDecided, NotTheMaker
    """
    desk, reason = visit.desk, visit.request.form.get("reason", "")
    async with desk.db.begin(visit.operator.actor) as tx:
        await withdraw(tx, desk.approvals.acts, _approval_id(visit), reason=reason)
    return _decided(visit, "withdrawn")


def proposed(approval: Approval) -> Reply:
    """Return the way to a proposal that has just been made."""
    return redirect(f"{CONSOLE}/inbox/{approval.shown_id}?done=proposed")


def _decided(visit: Visit, done: str) -> Reply:
    return redirect(f"{CONSOLE}/inbox/{show(PREFIX, _approval_id(visit))}?done={done}")


def _approval_id(visit: Visit) -> UUID:
    return parse(PREFIX, visit.params["approval_id"])


def wanted(visit: Visit, chosen: Mapping[str, str]) -> ApprovalFilter:
    """Return what the page asks the list for.

    Raises:
        InboxFilterMalformed
    """
    state, act = chosen["state"], chosen["act"]
    states: Sequence[ApprovalState] = OPEN
    if state and state != "all":
        if state not in {each.value for each in ApprovalState}:
            raise InboxFilterMalformed(param="state")
        states = (ApprovalState(state),)
    if act and act not in visit.desk.approvals.acts:
        raise InboxFilterMalformed(param="act")
    return ApprovalFilter(
        states=None if state == "all" else states,
        act=act or None,
        maker=visit.operator.actor if chosen["mine"] else None,
    )


def _title(visit: Visit, name: str) -> str:
    bound = visit.desk.approvals.acts.get(name)
    if bound is None:
        return name
    return bound.act.zh if visit.request.language == "zh" else bound.act.en


def _row(visit: Visit, found: Approval, people: Mapping[str, str]) -> Row:
    acts, me = visit.desk.approvals.acts, visit.operator.actor
    bound = acts.get(found.act)
    path = bound.link(found) if bound is not None and bound.link is not None else None
    is_expired = found.is_expired(visit.desk.db.clock.now())
    is_open = found.state is ApprovalState.PROPOSED and not is_expired
    return Row(
        approval=found,
        title=_title(visit, found.act),
        maker=people.get(found.maker, found.maker),
        checker=people.get(found.checker, found.checker) if found.checker else "",
        is_own=found.maker == me,
        is_expired=is_expired,
        may_decide=is_open
        and found.maker != me
        and found.act in checkable(acts, permissions_of(visit)),
        link=f"{CONSOLE}{path}" if path else None,
    )


async def _people(desk: Desk) -> dict[str, str]:
    """Return the names of operators by the name transactions know them by."""
    return {each.actor: each.name for each in await list_operators(desk.db)}


async def _elsewhere(visit: Visit, people: Mapping[str, str]) -> list[Elsewhere]:
    db, me = visit.desk.db, visit.operator.actor
    found = [
        Elsewhere(
            kind="rules",
            subject=f"{show(RULE_SET_PREFIX, each.id)} · {each.name}",
            maker=people.get(each.maker, each.maker),
            is_own=each.maker == me,
            link=f"{CONSOLE}/channels",
        )
        for each in await rule_sets(db)
        if each.state is RuleSetState.DRAFT
    ]
    for head in (await books(db))[:_BOOKS_MAX]:
        found += [
            Elsewhere(
                kind=f"day_{each.action.value}",
                subject=f"{each.day.isoformat()} · {each.reason}",
                maker=people.get(each.maker, each.maker),
                is_own=each.maker == me,
                link=f"{CONSOLE}/ledger/{head.book}/days#{show(REQUEST_PREFIX, each.id)}",
            )
            for each in await day_requests(db, head.book)
            if each.state is RequestState.WAITING and each.expires_at > db.clock.now()
        ]
    return found
