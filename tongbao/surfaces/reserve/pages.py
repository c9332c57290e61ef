"""The reserve in the console: a month of days, green or not, one day's proofs, and open gaps."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

import msgspec

from tongbao.clearing.reserve import custody, proving, queries
from tongbao.clearing.reserve.custody import (
    BALANCE,
    EXPLAIN,
    OPEN,
    BalanceTerms,
    ExplainTerms,
)
from tongbao.clearing.reserve.model import ACCOUNT, GAP, PROOF, Inputs, Purpose, ReserveProof
from tongbao.clearing.reserve.proving import Reserve
from tongbao.controls.approvals.approvals import propose
from tongbao.controls.approvals.model import Act
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import exponent_of, from_decimal_text
from tongbao.ledger.general.accounts import GL_ACCOUNTS
from tongbao.ledger.proofs.model import Proofs
from tongbao.parties.identity.model import Permission
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect

_DAYS: Final = 31


class ReserveFormWrong(Invalid):
    """A field of the form, or of the address, names no day, account or amount."""

    code = "console.reserve_form_wrong"
    advice = "Give days like 2026-11-18, amounts like 500.00, and the last four digits."
    advice_zh = "日期格式如 2026-11-18，金额格式如 500.00，账号填写末四位。"


async def show_reserve(visit: Visit) -> Reply:
    """Return the last month day by day, what is open, and the accounts.

    Raises:
        ReserveFormWrong
    """
    db, query = visit.desk.db, visit.request.query
    mode, first, until = days_shown(visit)
    yesterday = business_date(db.clock.now()) - timedelta(days=1)
    proofs = await queries.proofs_between(db, mode, first, until)
    accounts = await custody.custody_accounts(db, mode)
    facts = {
        "mode": mode,
        "modes": list(Mode),
        "currencies": sorted({each.currency for each in proofs}),
        "days": [until - timedelta(days=n) for n in range(_DAYS)],
        "proofs": {(each.day, each.currency): each for each in proofs},
        "gaps": [(show(GAP, each.id), each) for each in await queries.open_gaps(db, mode)],
        "accounts": [
            (show(ACCOUNT, each.id), each, await custody.balances_of(db, each.id, 1))
            for each in accounts
        ],
        "earlier": first - timedelta(days=1),
        "until": until,
        "yesterday": yesterday,
        "rule": await proving.rule_on(db, until),
        "purposes": list(Purpose),
        "done": query.get("done"),
    }
    return await visit.page("reserve.html", facts)


def days_shown(visit: Visit) -> tuple[Mode, date, date]:
    """Return the mode, and the first and last day, that the page shows.

    Raises:
        ReserveFormWrong
    """
    query = visit.request.query
    yesterday = business_date(visit.desk.db.clock.now()) - timedelta(days=1)
    until = min(_day(query["until"]), yesterday) if query.get("until") else yesterday
    return mode_of(query.get("mode")) or Mode.LIVE, until - timedelta(days=_DAYS - 1), until


async def show_day(visit: Visit) -> Reply:
    """Return a day's proofs with everything they were worked out from.

    Raises:
        ReserveFormWrong
    """
    db, (mode, day) = visit.desk.db, _place(visit)
    proofs = await queries.proofs_between(db, mode, day, day)
    accounts = {each.id: each for each in await custody.custody_accounts(db, mode)}
    facts = {
        "mode": mode,
        "day": day,
        "proofs": [
            (show(PROOF, each.id), each, _inputs(each), await queries.verify_proof(db, each))
            for each in proofs
        ],
        "accounts": accounts,
        "gl": GL_ACCOUNTS,
        "gaps": [(show(GAP, each.id), each) for each in await queries.gaps_of_day(db, mode, day)],
        "done": visit.request.query.get("done"),
    }
    return await visit.page("reserve_day.html", facts)


async def prove_again(visit: Visit) -> Reply:
    """Prove a day now; where nothing has changed the last proof stands.

    Raises:
        ReserveFormWrong, ReserveDayNotOver, ReserveRuleMissing, ProofContended
    """
    mode, day = _place(visit)
    reserve = _reserve(visit.desk.db, visit.desk.keyring)
    await proving.prove_day(reserve, mode, day, actor=visit.operator.actor)
    return redirect(f"{CONSOLE}/reserve/{mode.value}/{day}?done=proved")


async def propose_balance(visit: Visit) -> Reply:
    """Propose a closing balance that a person has read.

    Raises:
        ReserveFormWrong, UnknownId, CustodyAccountNotFound, AmountMalformed, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    form, db = visit.request.form, visit.desk.db
    account = await custody.custody_account(db, parse(ACCOUNT, form.get("account", "")))
    amount = from_decimal_text(form.get("amount", ""), account.currency).amount
    reference = form.get("reference", "").strip()[:100]
    if not reference:
        raise ReserveFormWrong(param="reference")
    terms = BalanceTerms(show(ACCOUNT, account.id), _day(form.get("day", "")), amount, reference)
    return await _propose(visit, BALANCE, f"{terms.account}/{terms.day}", terms)


async def propose_account(visit: Visit) -> Reply:
    """Propose that an account at a bank counts.

    Raises:
        ReserveFormWrong, UnknownCurrency, CustodyNumberMalformed, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    form, mode = visit.request.form, mode_of(visit.request.form.get("mode"))
    bank, purpose = form.get("bank", "").strip()[:128], form.get("purpose", "")
    if mode is None or not bank or purpose not in set(Purpose):
        raise ReserveFormWrong(param="account")
    currency = form.get("currency", "")
    exponent_of(currency)
    terms = custody.open_terms(
        visit.desk.keyring,
        form.get("number", ""),
        mode=mode,
        currency=currency,
        purpose=Purpose(purpose),
        bank=bank,
        opened_on=_day(form.get("opened_on", "")),
    )
    subject = f"{mode}/{currency}/{bank}/{terms.account_tail}"[:128]
    return await _propose(visit, OPEN, subject, terms)


async def propose_explanation(visit: Visit) -> Reply:
    """Propose the explanation of a gap.

    Raises:
        UnknownId, ReserveGapNotFound, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    gap = await queries.gap_with_id(visit.desk.db, parse(GAP, visit.params["gap_id"]))
    shown, said = show(GAP, gap.id), " ".join(visit.request.form.get("reason", "").split())[:500]
    return await _propose(visit, EXPLAIN, shown, ExplainTerms(shown, said))


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.SETTLEMENT_ACT
ROUTES: Final = tuple(
    Route(method, pattern, view, permission, is_licensed=True)
    for method, pattern, view, permission in (
        ("GET", "/reserve", show_reserve, _VIEW),
        ("POST", "/reserve/accounts", propose_account, _ACT),
        ("POST", "/reserve/balances", propose_balance, _ACT),
        ("POST", "/reserve/gaps/{gap_id}", propose_explanation, _ACT),
        ("GET", "/reserve/{mode}/{day}", show_day, _VIEW),
        ("POST", "/reserve/{mode}/{day}/prove", prove_again, _ACT),
    )
)


async def _propose(visit: Visit, act: Act, subject: str, terms: Any) -> Reply:
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        reason = visit.request.form.get("reason", "")
        approval = await propose(tx, act, subject, terms, reason=reason, may=permissions_of(visit))
    return proposed(approval)


def _reserve(db: Db, keyring: Keyring) -> Reserve:
    return Reserve(db, Proofs(db, keyring))


def _inputs(proof: ReserveProof) -> Inputs:
    return msgspec.convert(proof.inputs, Inputs)


def _place(visit: Visit) -> tuple[Mode, date]:
    mode = mode_of(visit.params["mode"])
    if mode is None:
        raise ReserveFormWrong(param="mode")
    return mode, _day(visit.params["day"])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ReserveFormWrong(param="day") from None
