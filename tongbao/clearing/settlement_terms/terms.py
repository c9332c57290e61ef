"""Agree terms and lift holds, both by four eyes; a hold is placed at once, by anybody who may."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from tongbao.clearing.settlement_terms import _store as store
from tongbao.clearing.settlement_terms.model import (
    REASON_MAX,
    REASON_MIN,
    SettlementHold,
    SettlementHoldInvalid,
    SettlementHoldLifted,
    SettlementTermsPast,
    TermFigures,
    check_figures,
    in_force,
)
from tongbao.clearing.settlement_terms.queries import hold_with_id, terms_of_merchant
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.parties.identity.model import Permission


class NewTerms(Struct, frozen=True):
    """What is to be agreed with a merchant from a day on."""

    merchant_id: UUID
    mode: Mode
    valid_from: date
    figures: TermFigures


class HoldToLift(Struct, frozen=True):
    """Which hold is to keep nothing back any more."""

    hold_id: UUID


SET_TERMS: Final = Act(
    name="settlement.set_terms",
    en="Agree settlement terms with a merchant",
    zh="设定商户结算条款",
    terms=NewTerms,
    maker=Permission.SETTLEMENT_ACT.value,
    checker=Permission.SETTLEMENT_ACT.value,
)
LIFT_HOLD: Final = Act(
    name="settlement.lift_hold",
    en="Lift what holds a merchant's settlement back",
    zh="解除商户结算冻结",
    terms=HoldToLift,
    maker=Permission.SETTLEMENT_ACT.value,
    checker=Permission.SETTLEMENT_ACT.value,
    lasts=timedelta(days=7),
)


async def propose_terms(tx: Tx, wanted: NewTerms, *, reason: str) -> Approval:
    """Put new terms before other eyes.

    Raises:
        SettlementTermsInvalid, SettlementTermsPast, ReasonTooShort, ApprovalWaiting
    """
    check_figures(wanted.figures)
    if wanted.valid_from < business_date(tx.now):
        raise SettlementTermsPast(param="$.valid_from")
    return await propose(
        tx,
        SET_TERMS,
        f"{show('mch', wanted.merchant_id)}/{wanted.mode}",
        wanted,
        reason=reason,
        merchant_id=wanted.merchant_id,
        mode=wanted.mode,
    )


async def set_terms(tx: Tx, wanted: NewTerms) -> None:
    """Agree terms now: what was approved, or what a new merchant begins with.

    Raises:
        SettlementTermsInvalid
    """
    check_figures(wanted.figures)
    version = 1 + await store.LAST_VERSION.one(tx, wanted.merchant_id, wanted.mode)
    figures = asdict(wanted.figures)
    await store.INSERT_TERM.run(
        tx,
        new_id(),
        wanted.merchant_id,
        wanted.mode,
        version,
        wanted.valid_from,
        *figures.values(),
        tx.now,
        tx.actor,
    )
    facts = {name: str(value) for name, value in figures.items()}
    facts |= {"mode": str(wanted.mode), "valid_from": wanted.valid_from.isoformat()}
    await audit.record(tx, "settlement.terms_set", show("mch", wanted.merchant_id), facts)


async def place_hold(
    tx: Tx,
    merchant_id: UUID,
    mode: Mode,
    *,
    amount: int | None,
    reason: str,
    until_day: date | None = None,
) -> UUID:
    """Keep everything back from a merchant, or so many minor units of each currency.

    What is drawn already is met by `settlement.closing.hold_back`, which people's desks call.

    Raises:
        SettlementHoldInvalid
    """
    why = " ".join(reason.split())
    is_past = until_day is not None and until_day <= business_date(tx.now)
    is_odd = amount is not None and not 0 < amount <= AMOUNT_MAX
    if is_past or is_odd or not REASON_MIN <= len(why) <= REASON_MAX:
        raise SettlementHoldInvalid
    hold_id = new_id()
    await store.INSERT_HOLD.run(
        tx, hold_id, merchant_id, mode, amount, why, until_day, tx.actor, tx.now, None, None
    )
    facts = {"hold": show("shd", hold_id), "amount": amount, "reason": why, "mode": str(mode)}
    await audit.record(tx, "settlement.held", show("mch", merchant_id), facts)
    return hold_id


async def propose_lift(tx: Tx, hold_id: UUID, *, reason: str) -> Approval:
    """Put before other eyes that a hold is over.

    Raises:
        SettlementHoldNotFound, SettlementHoldLifted, ReasonTooShort, ApprovalWaiting
    """
    hold = await hold_with_id(tx, hold_id)
    if hold.lifted_at is not None:
        raise SettlementHoldLifted
    return await propose(
        tx,
        LIFT_HOLD,
        show("shd", hold_id),
        HoldToLift(hold_id),
        reason=reason,
        merchant_id=hold.merchant_id,
        mode=hold.mode,
    )


async def lift_hold(tx: Tx, hold: SettlementHold) -> None:
    """Let a hold keep nothing back any more.

    Raises:
        SettlementHoldLifted
    """
    if not await store.LIFT_HOLD.run(tx, hold.id, tx.actor, tx.now):
        raise SettlementHoldLifted
    facts = {"hold": show("shd", hold.id)}
    await audit.record(tx, "settlement.hold_lifted", show("mch", hold.merchant_id), facts)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this domain with what does them."""

    async def agree(tx: Tx, _approval: Approval, wanted: NewTerms) -> None:
        await set_terms(tx, wanted)

    async def lift(tx: Tx, _approval: Approval, wanted: HoldToLift) -> None:
        await lift_hold(tx, await hold_with_id(tx, wanted.hold_id))

    return (
        Bound(SET_TERMS, in_transaction(db, agree), show=_show_terms),
        Bound(LIFT_HOLD, in_transaction(db, lift)),
    )


async def _show_terms(db: Db, _approval: Approval, wanted: NewTerms) -> list[Change]:
    """Tell what changes, figure by figure."""
    before = in_force(
        await terms_of_merchant(db, wanted.merchant_id, wanted.mode), wanted.valid_from
    )
    old: dict[str, Any] = {} if before is None else asdict(before.figures)
    new = asdict(wanted.figures)
    changes = [
        Change(en=name, zh=_ZH[name], before=str(old[name]) if name in old else None,
               after=str(value))
        for name, value in new.items()
        if name not in old or old[name] != value
    ]  # fmt: skip
    return [*changes, Change(en="valid_from", zh="生效日期", before=None,
                             after=wanted.valid_from.isoformat())]  # fmt: skip


_ZH: Final = {
    "delay_days": "T+N 天数",
    "counts": "按自然日或工作日",
    "cut_off_minute": "日切时间（零点起分钟）",
    "payable_min": "起付金额",
    "reserve_ppm": "保证金比例（百万分之）",
    "reserve_days": "保证金天数",
    "quick_allowed": "开通 D+0",
    "quick_ppm": "D+0 费率（百万分之）",
    "quick_fee_min": "D+0 最低手续费",
    "pays_by": "付款方式",
}
