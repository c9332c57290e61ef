"""Prices that other eyes must see first: the draft, the act, and what it does once approved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import exponent_of
from tongbao.parties.merchants.merchants import lock_merchant
from tongbao.parties.price_plans.model import (
    Charge,
    PriceInThePast,
    PriceLine,
    check_lines,
)
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.parties.price_plans.queries import price_plan_at


class PriceDraft(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices that nobody has agreed to yet.

    ``from_day`` is the business day (Asia/Shanghai) at whose midnight they begin; left out, they
    begin when they are approved.
    """

    lines: list[PriceLine]
    currency: str = "CNY"
    refund_returns_fee: bool = True
    from_day: date | None = None


class PriceTerms(Struct, frozen=True):
    """What is proposed: a draft, for one mode of a merchant."""

    mode: Mode
    draft: PriceDraft


CHANGE_PRICES = Act(
    "price_plan.change",
    "Change a merchant's prices",
    "变更商户价格方案",
    PriceTerms,
    maker="merchants_act",
    checker="settlement_act",
)


async def propose_prices(
    tx: Tx,
    merchant_id: UUID,
    terms: PriceTerms,
    *,
    reason: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Put new prices before other eyes, instead of what still waits for this merchant and mode.

    Raises:
        MerchantNotFound, UnknownCurrency, PriceLinesInvalid, PriceInThePast, MakerNotAllowed,
        ReasonTooShort, TermsTooLarge, ApprovalWaiting
    """
    draft = terms.draft
    exponent_of(draft.currency)
    check_lines(draft.lines)
    if draft.from_day is not None and draft.from_day < business_date(tx.now):
        raise PriceInThePast
    await lock_merchant(tx, merchant_id)
    return await propose(
        tx,
        CHANGE_PRICES,
        show("mch", merchant_id),
        terms,
        reason=reason,
        merchant_id=merchant_id,
        mode=terms.mode,
        may=may,
        supersede=True,
    )


def bound(db: Db) -> tuple[Bound, ...]:
    """Return the acts on prices, for the registry."""
    apply = in_transaction(db, _agree)
    return (Bound(CHANGE_PRICES, apply, _show, link=lambda found: f"/prices/{found.subject}"),)


async def _agree(tx: Tx, approval: Approval, terms: PriceTerms) -> None:
    draft = terms.draft
    starts = None if draft.from_day is None else max(day_bounds(draft.from_day)[0], tx.now)
    if draft.from_day is not None and draft.from_day < business_date(tx.now):
        raise PriceInThePast  # it waited for so long that its day is over
    await set_price_plan(
        tx,
        parse("mch", approval.subject),
        terms.mode,
        draft.lines,
        currency=draft.currency,
        refund_returns_fee=draft.refund_returns_fee,
        valid_from=starts,
    )


async def _show(db: Db, approval: Approval, terms: PriceTerms) -> Sequence[Change]:
    merchant_id, now = parse("mch", approval.subject), db.clock.now()
    plan = await price_plan_at(db, merchant_id, terms.mode, now)
    before = {} if plan is None else {line_name(line): line for line in plan.lines}
    after = {line_name(line): line for line in terms.draft.lines}
    starts = terms.draft.from_day.isoformat() if terms.draft.from_day else "when approved"
    changes = [
        Change("Mode", "环境", None, terms.mode.value),
        Change("Begins", "生效日", None, starts),
        Change(
            "A refund gives the fee back",
            "退款退还手续费",
            None if plan is None else _yes(plan.refund_returns_fee),
            _yes(terms.draft.refund_returns_fee),
        ),
    ]
    for name in sorted(before.keys() | after.keys()):
        old, new = (
            None if each.get(name) is None else line_words(each[name]) for each in (before, after)
        )
        if old != new:
            changes.append(Change(name, name, old, new or "—"))
    return changes


def line_name(line: PriceLine) -> str:
    """Return what a line prices, as people read it: ``cards card debit``."""
    card = "" if line.card == "any" else f" {line.card}"
    return f"{line.channel} {line.pay_mode}{card}"


def line_words(line: PriceLine) -> str:
    """Return all that a line may charge, as people read it."""
    parts = [charge_words(line.charge)]
    parts += [
        f"≥{step.amount_from}, month ≥{step.volume_from}: {charge_words(step)}"
        for step in line.steps
    ]
    parts += [
        f"{each.from_day} – {each.until_day}: {charge_words(each)}" for each in line.promotions
    ]
    return "; ".join([*parts, *([] if line.refund_fee == "plan" else [line.refund_fee])])


def charge_words(charge: Charge) -> str:
    """Return a charge as people read it: ``0.6%+10 [20,2000]``, sums in minor units."""
    whole, rest = divmod(charge.rate_ppm, 10_000)
    share = f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"
    fixed = f"+{charge.fixed}" if charge.fixed else ""
    if not charge.fee_min and charge.fee_max is None:
        return share + fixed
    return f"{share}{fixed} [{charge.fee_min},{'' if charge.fee_max is None else charge.fee_max}]"


def _yes(answer: object) -> str:
    return "yes 是" if answer else "no 否"


def draft_from(content: bytes, *, is_toml: bool) -> PriceDraft:
    """Return a draft as somebody wrote it down.

    Raises:
        msgspec.DecodeError
    """
    decode = msgspec.toml.decode if is_toml else msgspec.json.decode
    return decode(content, type=PriceDraft)
