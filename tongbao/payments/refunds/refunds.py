"""Give money back: hold it and write the order down, ask the channel, write down the answer.

How much may still be given back is a running total on the payment's row, raised by a guarded
update inside the same commit as the hold; the table's CHECK says it again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec

from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import base32, derived_id, new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import (
    AccountFrozen,
    AccountKey,
    BookFrozen,
    ExceedsBalance,
    Group,
    GroupInFlight,
    Transfer,
)
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.price_plans.model import fee_back
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import WALLET, Attempt, Payment, PaymentState
from tongbao.payments.collecting.outcomes import (
    Flow,
    LateMoneyReceived,
    StateContended,
    refunded_write,
)
from tongbao.payments.collecting.payments import Taking
from tongbao.payments.e_account_payments.model import account_of_payer
from tongbao.payments.e_account_payments.returning import CHANGED, GivenBack, Placed, place
from tongbao.payments.refunds import _store as store
from tongbao.payments.refunds.model import Refund, RefundState
from tongbao.payments.refunds.outcomes import SubmitRefund, end_event, refund_transfers
from tongbao.payments.taking_back.model import SHARES_MOVED, RefundAsked, TakenBack

EXCEEDS_CAPTURED: Final = "refund.exceeds_captured"
NUMBER_TAKEN: Final = "refund.number_taken"

_CALLER_ASKS_FIRST: Final = timedelta(seconds=10)
_TRIES_MAX: Final = 8


class RefundExceedsCaptured(Rejected):
    """More would be given back than came in, refunds on their way included."""

    code = EXCEEDS_CAPTURED
    advice = "Ask for no more than what is left; the payment shows amount_refunded."
    advice_zh = "退款金额不得超过可退余额，请查看支付的 amount_refunded。"


class PaymentNotCaptured(Conflict):
    """Only a payment that succeeded can be refunded."""

    code = "refund.payment_not_captured"
    advice = "Wait until the payment has succeeded, or close it if it is unpaid."
    advice_zh = "支付成功后方可退款；未支付的请关闭。"


class RefundCurrencyDiffers(Rejected):
    """A refund is in the payment's own currency."""

    code = "refund.currency_differs"
    advice = "Send the payment's currency."
    advice_zh = "退款币种必须与支付币种一致。"


class RefundNumberUsed(Conflict):
    """The merchant refund number belongs to another request, for ever."""

    code = "refund.number_used"
    advice = "Use a new merchant_refund_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_refund_no，或原样重复首次请求。"


class MerchantBalanceTooLow(Rejected):
    """The merchant's balance does not cover the refund."""

    code = "refund.balance_too_low"
    advice = "Wait for new payments or top the balance up, then refund under a new key."
    advice_zh = "商户待结算余额不足，请待入账后使用新的幂等键重新退款。"


class RefundRequest(msgspec.Struct, frozen=True):
    """A merchant's request to give money back."""

    merchant_refund_no: str
    money: Money
    reason: str
    staff_id: UUID | None = None  # who asks, where a person does


async def request_refund(
    flow: Flow, payment: Payment, asked: RefundRequest, *, take: Taking, refund_id: UUID
) -> Refund:
    """Hold the merchant's money and write the order down; the channel is asked right after.

    The same refund number with the same content returns the refund it already made. From the own
    wallet the money is back in the same commit.

    Raises:
        MerchantHeld, PaymentNotCaptured, RefundCurrencyDiffers, RefundExceedsCaptured,
        RefundNumberUsed, MerchantBalanceTooLow, AccountFrozen, StateContended
    """
    (await merchants.merchant_with_id(flow.db, payment.merchant_id)).check_may_refund()
    for _ in range(_TRIES_MAX):
        if payment.state is not PaymentState.SUCCEEDED:
            raise PaymentNotCaptured(status=payment.state)
        if asked.money.currency != payment.currency:
            raise RefundCurrencyDiffers(expected=payment.currency)
        attempt = await payments.paid_attempt(flow.db, payment)
        now = flow.db.clock.now()
        refund = _row(payment, attempt, asked, refund_id, kind="merchant", now=now)
        taking = (take(refund.id, now),)
        failpoint("refunds.before_request")
        code = await _commit_request(flow, payment, attempt, refund, taking)
        failpoint("refunds.after_request")
        if code is None:
            flow.nudge()
            return refund
        current = await payments.payment(flow.db, payment.book, payment.id)
        overtaken = code == EXCEEDS_CAPTURED and current.version != payment.version
        overtaken = overtaken or code == SHARES_MOVED or code in CHANGED
        if not overtaken:
            return await _refused_request(flow, current, asked, take, code)
        payment = current
    raise StateContended


async def _refused_request(
    flow: Flow, payment: Payment, asked: RefundRequest, take: Taking, code: str
) -> Refund:
    if code == NUMBER_TAKEN:
        earlier = await store.FIND_REFUND_BY_NUMBER.one(
            flow.db, payment.book, payment.merchant_id, payment.mode, asked.merchant_refund_no
        )
        if (earlier.payment_id, earlier.money) != (payment.id, asked.money):
            raise RefundNumberUsed(merchant_refund_no=asked.merchant_refund_no)
        async with flow.db.begin("refunds") as tx:
            await take(earlier.id, tx.now).run(tx)
        return earlier
    if code == EXCEEDS_CAPTURED:
        raise RefundExceedsCaptured(left=payment.left)
    if code == ExceedsBalance.code:
        raise MerchantBalanceTooLow
    if code == AccountFrozen.code:
        raise AccountFrozen
    if code == InFlight.code:
        raise InFlight
    if code in {BookFrozen.code, GroupInFlight.code}:
        raise StateContended
    raise RuntimeError(f"the ledger refused a refund: {code} for payment {payment.id}")


async def on_late_money(flow: Flow, event: LateMoneyReceived, _event_id: UUID) -> None:
    """Give back money that came after the payment's end; hearing of it twice gives once."""
    payment = await payments.payment(flow.db, event.book, event.payment_id)
    attempt = await payments.paid_attempt(flow.db, payment)
    refund_id = derived_id(event.attempt_id, "late refund")
    # A colon, because no merchant's refund number has one: nobody can take the number first.
    asked = RefundRequest(f"late:{base32(refund_id)}", payment.money, "paid after the end")
    refund = _row(payment, attempt, asked, refund_id, kind="late", now=flow.db.clock.now())
    code = await _commit_request(flow, payment, attempt, refund, ())
    if code not in {None, NUMBER_TAKEN}:
        raise RuntimeError(f"late money was not given back: {code} for payment {payment.id}")
    flow.nudge()


async def _commit_request(
    flow: Flow, payment: Payment, attempt: Attempt, refund: Refund, taking: tuple[Write, ...]
) -> str | None:
    """Commit the order and the hold; None when it is in the book, else why not."""
    now = refund.created_at
    if refund.state.is_open:
        # Whoever requests a refund asks the channel at once; the task is there in case it dies.
        run_at = now + (_CALLER_ASKS_FIRST if refund.kind == "merchant" else timedelta())
        task = SubmitRefund(refund.book, refund.id)
        follow_up = task_write(task, run_at=run_at, key=f"refund/{refund.id}")
    else:
        follow_up = event_write(end_event(refund), now=now)
    back = await _shares_back(flow, payment, refund)
    placed = await _placed(flow, payment, attempt, refund)
    writes = (
        *taking,
        # The number comes before the total: a repeat is told apart from a refund too many.
        Write(store.INSERT_REFUND, msgspec.structs.astuple(refund), refusal=NUMBER_TAKEN),
        refunded_write(payment, refund.amount, refund.fee_back, refusal=EXCEEDS_CAPTURED),
        *back.writes,
        follow_up,
        *(() if placed is None else placed.writes),
    )
    if refund.kind == "late" or not flow.licence.may_hold_funds:
        async with flow.db.begin("refunds") as tx:
            return await write_all(tx, writes)
    group = Group(
        id=new_id(),  # the ledger remembers a refusal for ever; being overtaken is not for ever
        book=refund.book,
        transfers=(*back.transfers, *_transfers(payment, attempt, refund, placed)),
        companions=writes,
    )
    [result] = await flow.ledger.submit([group])
    return None if result.happened else result.code or result.status


async def _placed(flow: Flow, payment: Payment, attempt: Attempt, refund: Refund) -> Placed | None:
    """Return where of ours a refund goes back to; None where its channel gives it back."""
    if payment.channel != WALLET:
        return None
    account_id = account_of_payer(attempt.payer)
    if account_id is None:
        wallet = AccountKey("wallet", payment.currency, UUID(attempt.payer))
        return Placed("refund.by_wallet", wallet, ())
    given = GivenBack(refund.book, refund.id, payment.id, refund.money, refund.created_at)
    return await place(flow.db, account_id, given)


def _transfers(
    payment: Payment, attempt: Attempt, refund: Refund, placed: Placed | None
) -> tuple[Transfer, ...]:
    if placed is None:
        return refund_transfers("refund.held", payment, attempt, refund)
    return refund_transfers(placed.rule, payment, attempt, refund, placed.to)


async def _shares_back(flow: Flow, payment: Payment, refund: Refund) -> TakenBack:
    """Return what of the payment's shares comes back with the refund; of late money, nothing."""
    if refund.kind == "late":
        return TakenBack()
    return await flow.shares.with_refund(
        RefundAsked(
            book=refund.book,
            refund_id=refund.id,
            payment_id=payment.id,
            captured=payment.captured,
            back_in_all=min(payment.refunded + refund.amount, payment.captured),
            shared=payment.shared,
            now=refund.created_at,
        )
    )


def _row(
    payment: Payment,
    attempt: Attempt,
    asked: RefundRequest,
    refund_id: UUID,
    *,
    kind: Literal["merchant", "late"],
    now: datetime,
) -> Refund:
    is_done = payment.channel == WALLET
    returned = 0
    if payment.refund_returns_fee and kind == "merchant":
        back_in_all = min(payment.refunded + asked.money.amount, payment.captured)
        returned = fee_back(payment.fee, payment.captured, back_in_all, payment.fee_returned)
        returned = min(returned, asked.money.amount)
    return Refund(
        book=payment.book,
        id=refund_id,
        payment_id=payment.id,
        attempt_id=attempt.id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        merchant_refund_no=asked.merchant_refund_no,
        amount=asked.money.amount,
        currency=payment.currency,
        fee_back=returned,
        kind=kind,
        reason=asked.reason,
        state=RefundState.SUCCEEDED if is_done else RefundState.REQUESTED,
        code=None,
        channel_ref=base32(refund_id) if is_done else None,
        channel_at=None,
        created_at=now,
        ended_at=now if is_done else None,
        queries=0,
        version=1,
        staff_id=asked.staff_id,
    )
