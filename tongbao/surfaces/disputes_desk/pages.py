"""Disputes for operators: what waits and until when, one with its story, its files and its steps.

Mounted into the console by wiring, whose templates and texts it uses.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from tongbao.clearing.complaints import queries as complaints
from tongbao.clearing.complaints.model import ComplaintState
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.chargebacks import DisputeAsked, move_dispute, open_dispute
from tongbao.clearing.disputes.debts import debts, propose_write_off
from tongbao.clearing.disputes.evidence import content_of, file_with_id
from tongbao.clearing.disputes.model import (
    NEXT,
    Dispute,
    DisputeNotFound,
    DisputeState,
    EvidenceNotFound,
    Move,
)
from tongbao.clearing.disputes.queries import DisputeFilter
from tongbao.infra import audit
from tongbao.infra.blobs.store import Blobs
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.money import positive
from tongbao.kernel.papers.sheets import csv_line
from tongbao.parties.identity.model import ROLES, Permission
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.queries import timeline
from tongbao.surfaces.disputes_desk.complaints import routes as complaint_pages
from tongbao.surfaces.operator_console.payments import FilterMalformed
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Route, Visit
from tongbao.surfaces.page_kit.replies import CSV, Reply, file_reply, redirect

ROWS: Final = 50
EXPORTED_MAX: Final = 10_000
_COLUMNS: Final = (
    *("dispute", "scheme", "scheme_ref", "reason_code", "status", "merchant", "mode"),
    *("payment", "amount", "currency", "opened_at", "deadline_at"),
)
SCHEMES: Final = ("unionpay", "visa", "mastercard", "jcb", "other")
BY_OPERATORS: Final = (
    Move.SEND_ON,
    Move.CHARGE_BACK,
    Move.TAKE_AGAIN,
    Move.WIN,
    Move.LOSE,
    Move.CLOSE,
)


class DisputeFormMalformed(Invalid):
    """A field of the form is missing or cannot be read."""

    code = "console.dispute_malformed"
    advice = "Give the payment, the scheme's number, a reason of 4 to 200 letters and whole fen."
    advice_zh = "请填写支付单、卡组织案件号、4 至 200 字的原因，金额以分为单位。"


async def show_disputes(visit: Visit) -> Reply:
    """Return the disputes, filtered, the complaints nobody has answered, and what is owed.

    Raises:
        FilterMalformed, CursorInvalid
    """
    desk, query = visit.desk, visit.request.query
    chosen = {name: query.get(name, "").strip() for name in ("q", "status", "scheme", "due")}
    if found := await _searched(desk, chosen["q"]):
        return redirect(f"{PREFIX}/disputes/{show('dsp', found)}")
    page = await queries.list_disputes(
        desk.db, _wanted(desk, chosen), cursor=query.get("cursor"), limit=ROWS
    )
    waiting = [
        each
        for state in (ComplaintState.PENDING, ComplaintState.PROCESSING)
        for each in (
            await complaints.list_complaints(desk.db, ComplaintFilter(status=state), limit=20)
        ).items
    ]
    owed = await debts(desk.flow)
    names = await merchants_with_ids(
        desk.db,
        [
            *(each.merchant_id for each in page.items),
            *(each.merchant_id for each in waiting),
            *(owing.merchant_id for owing, _ in owed),
        ],
    )
    given = {name: value for name, value in chosen.items() if value}
    older = urlencode({**given, "cursor": page.next_cursor}) if page.next_cursor else None
    facts = {
        "chosen": chosen,
        "states": list(DisputeState),
        "schemes": SCHEMES,
        "rows": [(show("dsp", each.id), each, names[each.merchant_id].name) for each in page.items],
        "complaints": [
            (show("cpl", each.id), each, names[each.merchant_id].name) for each in waiting
        ],
        "owed": [(owing, names[owing.merchant_id].name, money) for owing, money in owed],
        "older": f"{PREFIX}/disputes?{older}" if older else None,
        "export": f"{PREFIX}/disputes.csv?{urlencode(given)}",
        "done": query.get("done"),
    }
    return await visit.page("disputes.html", facts)


async def export_disputes(visit: Visit) -> Reply:
    """Return the disputes of a filter as a file, at most ten thousand of them.

    Raises:
        FilterMalformed
    """
    desk, query = visit.desk, visit.request.query
    chosen = {name: query.get(name, "").strip() for name in ("q", "status", "scheme", "due")}
    wanted, cursor, lines = _wanted(desk, chosen), None, [csv_line(_COLUMNS)]
    while len(lines) <= EXPORTED_MAX:
        page = await queries.list_disputes(desk.db, wanted, cursor=cursor, limit=100)
        names = await merchants_with_ids(desk.db, [each.merchant_id for each in page.items])
        lines += [_line(each, names[each.merchant_id].name) for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    async with desk.db.begin(visit.operator.actor) as tx:
        facts = {name: value for name, value in chosen.items() if value}
        await audit.record(tx, "disputes.exported", "disputes", {**facts, "rows": len(lines) - 1})
    return file_reply(("\ufeff" + "".join(lines)).encode(), CSV, name="disputes.csv")


def _line(dispute: Dispute, merchant: str) -> str:
    until = "" if dispute.deadline_at is None else local_text(dispute.deadline_at)
    return csv_line(
        (
            show("dsp", dispute.id),
            dispute.scheme,
            dispute.scheme_ref,
            dispute.reason_code,
            dispute.state.value,
            merchant,
            dispute.mode.value,
            show("pay", dispute.payment_id),
            dispute.money.decimal_text(),
            dispute.currency,
            local_text(dispute.opened_at),
            until,
        )
    )


def local_text(moment: datetime) -> str:
    """Return a moment as people in Shanghai write it."""
    return moment.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")


async def show_dispute(visit: Visit) -> Reply:
    """Return one dispute: how it stands, until when, what was handed in, who did what.

    Raises:
        UnknownId, DisputeNotFound
    """
    desk = visit.desk
    dispute = await _dispute(visit)
    names = await merchants_with_ids(desk.db, [dispute.merchant_id])
    facts = {
        "dispute": dispute,
        "own": f"{PREFIX}/disputes/{show('dsp', dispute.id)}",
        "merchant": names[dispute.merchant_id].name,
        "changes": await queries.changes_of_dispute(desk.db, dispute),
        "files": [
            (show("evf", each.id), each)
            for each in await queries.files_of(desk.db, dispute.book, dispute.id)
        ],
        "moves": [move for move in BY_OPERATORS if (dispute.state, move) in NEXT],
        "done": visit.request.query.get("done"),
    }
    return await visit.page("dispute.html", facts)


async def open_by_hand(visit: Visit) -> Reply:
    """Write down a dispute that a scheme has told of on paper or in its own console.

    Raises:
        DisputeFormMalformed, PaymentNotFound, DisputeExceedsLeft, DisputeRefUsed
    """
    form, desk = visit.request.form, visit.desk
    payment = await _payment(desk, form.get("payment", "").strip())
    reason = _reason(form.get("reason", ""))
    scheme, ref = form.get("scheme", ""), form.get("scheme_ref", "").strip()
    if scheme not in SCHEMES or not 1 <= len(ref) <= 64:
        raise DisputeFormMalformed(param="scheme_ref")
    is_retrieval = form.get("stage") == "retrieval"
    asked = DisputeAsked(
        scheme=scheme,
        scheme_ref=ref,
        reason_code=form.get("reason_code", "").strip()[:16],
        reason=reason,
        money=positive(_fen(form.get("amount", "")), payment.currency),
        stage=DisputeState.RETRIEVAL if is_retrieval else DisputeState.CHARGEBACK,
        fee=_fen(form.get("fee", "") or "0"),
    )
    async with desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "dispute.entered", show("pay", payment.id), {"ref": ref})
    made = await open_dispute(
        desk.flow, payment, asked, actor=visit.operator.actor, why="entered by hand"
    )
    return redirect(f"{PREFIX}/disputes/{show('dsp', made.id)}?done=dispute_opened")


async def take_step(move: Move, visit: Visit) -> Reply:
    """Take a step of a dispute, with the reason that others will read.

    Raises:
        UnknownId, DisputeNotFound, DisputeMoved, DisputeFormMalformed
    """
    dispute = await _dispute(visit)
    reason, shown = _reason(visit.request.form.get("reason", "")), show("dsp", dispute.id)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, f"dispute.{move}", shown, {"reason": reason})
    await move_dispute(visit.desk.flow, dispute, move, actor=visit.operator.actor, why=reason)
    return redirect(f"{PREFIX}/disputes/{shown}?done=dispute_moved")


async def show_file(blobs: Blobs, visit: Visit) -> Reply:
    """Return a file that was handed in, as a download, and note who took it.

    Raises:
        UnknownId, EvidenceNotFound, BlobNotFound, BlobDamaged
    """
    dispute = await _dispute(visit)
    file = await file_with_id(visit.desk.db, parse("evf", visit.params["file_id"]))
    if file.subject_id != dispute.id:
        raise EvidenceNotFound
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "evidence.read", show("evf", file.id), {"sha256": file.sha256})
    return file_reply(await content_of(blobs, file), file.media_type, name=_file_name(file.name))


async def ask_write_off(visit: Visit) -> Reply:
    """Propose that a merchant's debt is given up; somebody else approves it.

    Raises:
        UnknownId, DisputeNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    merchant = parse("mch", visit.params["merchant_id"])
    mode, currency = visit.request.form.get("mode", ""), visit.request.form.get("currency", "")
    for owing, money in await debts(visit.desk.flow):
        if (owing.merchant_id, owing.mode.value, owing.currency) == (merchant, mode, currency):
            async with visit.desk.db.begin(visit.operator.actor) as tx:
                await propose_write_off(
                    tx,
                    owing,
                    money.amount,
                    reason=visit.request.form.get("reason", ""),
                    may=ROLES[visit.operator.role],
                )
            return redirect(f"{PREFIX}/disputes?done=write_off_proposed")
    raise DisputeNotFound


def console_routes(blobs: Blobs) -> tuple[Route, ...]:
    """Return the pages and acts, for wiring to hand to the console."""
    view, act = Permission.VIEW, Permission.SETTLEMENT_ACT
    return (
        Route("GET", "/disputes", show_disputes, view, is_licensed=True),
        Route("GET", "/disputes.csv", export_disputes, view, is_licensed=True),
        Route("POST", "/disputes/open", open_by_hand, act, is_licensed=True),
        Route("GET", "/disputes/{dispute_id}", show_dispute, view, is_licensed=True),
        Route(
            "GET",
            "/disputes/{dispute_id}/files/{file_id}",
            partial(show_file, blobs),
            view,
            is_licensed=True,
        ),
        *(
            Route(
                "POST",
                f"/disputes/{{dispute_id}}/{move}",
                partial(take_step, move),
                act,
                is_licensed=True,
            )
            for move in BY_OPERATORS
        ),
        *complaint_pages(blobs),
        Route("POST", "/debts/{merchant_id}/write-off", ask_write_off, act, is_licensed=True),
    )


def _wanted(desk: Desk, chosen: dict[str, str]) -> DisputeFilter:
    try:
        status = DisputeState(chosen["status"]) if chosen["status"] else None
        days = int(chosen["due"]) if chosen["due"] else None
    except ValueError:
        raise FilterMalformed from None
    if days is not None and not 0 <= days <= 366:
        raise FilterMalformed
    return DisputeFilter(
        status=status,
        scheme=chosen["scheme"] or None,
        scheme_ref=chosen["q"] or None,
        due_before=None if days is None else desk.db.clock.now() + timedelta(days=days),
    )


async def _searched(desk: Desk, text: str) -> UUID | None:
    """Return the one dispute whose id was given, if it is one."""
    try:
        found = parse("dsp", text) if text.startswith("dsp_") else None
    except UnknownId:
        return None
    return None if found is None else (await queries.dispute_with_id(desk.db, found)).id


async def _dispute(visit: Visit) -> Dispute:
    return await queries.dispute_with_id(visit.desk.db, parse("dsp", visit.params["dispute_id"]))


async def _payment(desk: Desk, text: str) -> Payment:
    try:
        return (await timeline(desk.db, parse("pay", text))).payment
    except UnknownId:
        raise DisputeFormMalformed(param="payment") from None


def _reason(text: str) -> str:
    reason = " ".join(text.split())
    if not 4 <= len(reason) <= 200:
        raise DisputeFormMalformed(param="reason")
    return reason


def _fen(text: str) -> int:
    if not text.strip().isdecimal() or len(text.strip()) > 15:
        raise DisputeFormMalformed(param="amount")
    return int(text)


def _file_name(name: str) -> str:
    """Return a name that a header may hold and no shell minds."""
    plain = (each if (each.isascii() and each.isalnum()) or each in "._-" else "_" for each in name)
    return "".join(plain)[:100]
