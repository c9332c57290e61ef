"""Take a merchant's request to collect money, end a payment that nobody paid, close its cases.

Collecting commits the intention, calls the channel, commits its answer. Ending asks the channel
first, and does what it says. A case is closed by a person, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from tongbao.infra import audit
from tongbao.infra.db import Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group, Result, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.model import ScannedCode, WalletCurrencyDiffers
from tongbao.parties.accounts.wallets import spend_write
from tongbao.parties.merchants.model import ChannelNotOpened
from tongbao.parties.offline_codes.codes import code_writes
from tongbao.payments.collecting import _store as store
from tongbao.payments.collecting.chase import chase_write, collect, look_at, next_move
from tongbao.payments.collecting.decisions import begun, counted_writes
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    NewPayment,
    Payment,
    PaymentCase,
    PaymentState,
    view_payment,
)
from tongbao.payments.collecting.outcomes import Flow, StateContended, change_write, end_event
from tongbao.payments.collecting.queries import last_attempt
from tongbao.payments.routing.model import PLACE_TAKEN, PlaceTaken
from tongbao.payments.uses.counting import REFUSED
from tongbao.rails.channels.capabilities.authorisations import Authorising
from tongbao.rails.channels.contract.orders import PayMode

EXPIRES_DEFAULT: Final = timedelta(minutes=30)
EXPIRES_MAX: Final = timedelta(hours=2)  # a WeChat Native code lives two hours

ORDER_TAKEN: Final = "payment.order_no_taken"
RESOLUTION_LENGTH_MIN: Final = 4
RESOLUTION_LENGTH_MAX: Final = 500


class OrderNumberUsed(Conflict):
    """The merchant order number belongs to another request, for ever."""

    code = "payment.order_no_used"
    advice = "Use a new merchant_order_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_order_no，或原样重复首次请求。"


class ModeNotOffered(Rejected):
    """The channel does not take this currency or this way of paying."""

    code = "payment.mode_not_offered"
    advice = "Choose a channel and mode that the merchant has, in a currency they take."
    advice_zh = "请选择商户已开通且支持该币种的渠道与支付方式。"


class CaptureNotOffered(Rejected):
    """The channel collects at once; it cannot set money aside to be captured later."""

    code = "payment.capture_not_offered"
    advice = "Leave capture out, or choose a channel and mode that authorise first."
    advice_zh = "该渠道不支持预授权，请勿传 capture，或改用支持预授权的渠道与方式。"


class NotClosable(Conflict):
    """The payment was authorised, or has ended; there is nothing to close."""

    code = "payment.not_closable"
    advice = "Void what is authorised, refund what succeeded; a failed payment needs nothing."
    advice_zh = "已预授权的支付请撤销；已成功的支付请发起退款；已失败的支付无需关闭。"


class WalletNeedsCode(Rejected):
    """The own wallet takes payment codes, codes that it scans itself, and agreements."""

    code = "payment.wallet_needs_code"
    advice = "Send the customer's wallet payment code as auth_code, or use mode qr or agreement."
    advice_zh = "请传入顾客钱包付款码 auth_code，或改用 qr、agreement 支付方式。"


class CaseUnknown(NotFound):
    """There is no such case."""

    code = "payment.case_unknown"
    advice = "List the cases to find its id."
    advice_zh = "请通过待办列表查找正确的标识。"


class CaseClosed(Conflict):
    """Somebody closed the case before; the first reason stands."""

    code = "payment.case_closed"
    advice = "Nothing to do; the case shows who closed it and why."
    advice_zh = "无需处理：该待办已由他人关闭，首次填写的原因保留不变。"


class ResolutionMissing(Invalid):
    """A case is closed with a reason that others can understand later."""

    code = "payment.case_resolution_missing"
    advice = "Write what was found and done, in 4 to 500 characters."
    advice_zh = "请填写查明的情况与处理结果，4 至 500 个字符。"


Taking = Callable[[UUID, datetime], Write]
"""How a request takes its idempotency key, for the commit that makes its payment."""


class UseRefused(Exception):
    """A limit that was free a moment ago is not any more; nothing was written."""


class OrderTaken(Exception):
    """The order number was there first."""


async def create_payment(
    flow: Flow, asked: NewPayment, take: Taking, payment_id: UUID
) -> tuple[Payment, Attempt]:
    """Collect a payment: commit the intention, call the channel, commit its answer.

    The same order number with the same content returns the payment it already made.

    Raises:
        OrderNumberUsed, ModeNotOffered, CaptureNotOffered, ChannelNotOpened, StateContended,
        PlaceTaken, UseRefused
    """
    if asked.channel == WALLET and asked.pay_mode is PayMode.AGREEMENT:
        return await _pay_under_agreement(flow, asked, take, payment_id)
    await check_offered(flow, asked)
    payment, attempt = begun(asked, payment_id, flow.db.clock.now(), PaymentState.CREATED)
    try:
        await commit_intention(flow, payment, attempt, asked, take)
    except OrderTaken:
        return await _earlier(flow, asked, take)
    return await collect(flow, payment, attempt, asked)


async def check_offered(flow: Flow, asked: NewPayment) -> None:
    """Raise ModeNotOffered, CaptureNotOffered or ChannelNotOpened where it takes it not."""
    channel = flow.channels.get(asked.channel)
    if asked.channel == WALLET and asked.pay_mode is PayMode.QR and flow.licence.may_hold_funds:
        return  # any currency that a price was agreed in; who pays has a wallet in it or has not
    if (
        channel is None
        or asked.pay_mode not in channel.modes
        or asked.money.currency not in channel.currencies
    ):
        raise ModeNotOffered(channel=asked.channel, mode=asked.pay_mode)
    if asked.capture_within_s is not None and not isinstance(channel, Authorising):
        raise CaptureNotOffered(channel=asked.channel)
    if not (await flow.account(asked.account_id)).is_open:
        raise ChannelNotOpened(channel=asked.channel)


async def commit_intention(
    flow: Flow, payment: Payment, attempt: Attempt, asked: NewPayment, take: Taking
) -> None:
    """Write down what is about to be asked of the channel, where it counts, and who will look.

    Raises:
        InFlight, PlaceTaken, UseRefused, OrderTaken
    """
    now = payment.created_at
    failpoint("payments.before_intention")
    placed = flow.router.writes(asked.decision, attempt.id, now) if asked.decision else ()
    refused = await flow.commits.write(
        (
            *asked.stands,
            take(payment.id, now),
            Write(store.INSERT_PAYMENT, store.payment_row(payment), refusal=ORDER_TAKEN),
            Write(store.INSERT_ATTEMPT, store.attempt_row(attempt)),
            change_write("new", payment, payment.version, "asked by the merchant", now),
            chase_write(attempt, now),
            *placed,
            *asked.uses,
        )
    )
    if refused is None:
        failpoint("payments.after_intention")
        return
    named = {InFlight.code: InFlight, ORDER_TAKEN: OrderTaken, PLACE_TAKEN: PlaceTaken}
    raise named.get(refused, UseRefused)


async def _earlier(flow: Flow, asked: NewPayment, take: Taking) -> tuple[Payment, Attempt]:
    found = await earlier_payment(flow, asked, take)
    if found is None:
        raise StateContended  # the order number was taken by what has not happened after all
    return found


async def earlier_payment(
    flow: Flow, asked: NewPayment, take: Taking
) -> tuple[Payment, Attempt] | None:
    """Return the payment that already has this order number, if the request is the same.

    Raises:
        OrderNumberUsed
    """
    payment = await store.FIND_PAYMENT_BY_ORDER.first(
        flow.db, asked.book, asked.merchant_id, asked.mode, asked.merchant_order_no
    )
    if payment is None:
        return None
    if payment.request_hash != asked.fingerprint:
        raise OrderNumberUsed(merchant_order_no=asked.merchant_order_no)
    attempt = await last_attempt(flow.db, payment)
    async with flow.db.begin("payments") as tx:
        await take(payment.id, tx.now).run(tx)
    return payment, attempt


async def resume_payment(flow: Flow, payment: Payment) -> tuple[Payment, Attempt]:
    """Carry on where a request was broken off: a QR that nobody has seen is made now.

    Raises:
        StateContended
    """
    attempt = await last_attempt(flow.db, payment)
    now = flow.db.clock.now()
    if payment.state.is_open and next_move(payment, attempt, now) == "offer":
        return await look_at(flow, payment, attempt)
    return payment, attempt


async def pay_by_wallet(
    flow: Flow,
    asked: NewPayment,
    take: Taking,
    *,
    payment_id: UUID,
    code: ScannedCode,
) -> tuple[Payment, Attempt]:
    """Collect a payment from the platform's own wallet: everything is one commit.

    A wallet that refuses (no money, code used, over its limit) makes a failed payment, and
    nothing moves.

    Raises:
        WalletCurrencyDiffers, UseRefused, OrderNumberUsed, InFlight, StateContended
    """
    if asked.money.currency != code.currency:
        raise WalletCurrencyDiffers(currency=code.currency)
    now = flow.db.clock.now()
    verdict = await flow.risk(asked, code.wallet_id)
    if verdict.declined is not None:
        return await _record_wallet_refusal(flow, asked, take, verdict.declined)
    payment, attempt = paid_rows(asked, payment_id, code, now)
    event = event_write(end_event(payment, view_payment(payment, attempt)), now=now)
    first = (take(payment.id, now), *verdict.meters, *asked.uses)
    [result] = await submit_paid(flow, [paid_group(payment, attempt, code, (*first, event))])
    return (payment, attempt) if result.happened else await _refused(flow, asked, take, result)


async def _pay_under_agreement(
    flow: Flow, asked: NewPayment, take: Taking, payment_id: UUID
) -> tuple[Payment, Attempt]:
    """Collect from the own wallet as its owner has signed, counted there: all of it is one commit.

    Raises:
        CaptureNotOffered, UseRefused, OrderNumberUsed, InFlight, StateContended
    """
    if asked.capture_within_s is not None:
        raise CaptureNotOffered(channel=asked.channel)
    if asked.how is None or asked.how.payer_id is None:
        raise ValueError("an agreement with the own wallet names the wallet")
    wallet_id, now = UUID(asked.how.payer_id), flow.db.clock.now()
    verdict = await flow.risk(asked, wallet_id)
    if verdict.declined is not None:
        return await _record_wallet_refusal(flow, asked, take, verdict.declined)
    payment, attempt = _paid_from(wallet_id, asked, payment_id, now)
    companions = (
        take(payment.id, now),
        *verdict.meters,
        *birth_writes(payment, attempt),
        *asked.uses,
        spend_write(payment.book, wallet_id, payment.money, now),
    )
    # A use that is refused may be tried again as the same payment, which is then another group.
    transfers = wallet_transfers(payment, wallet_id)
    [result] = await submit_paid(flow, [Group(new_id(), payment.book, transfers, companions)])
    return (payment, attempt) if result.happened else await _refused(flow, asked, take, result)


async def _refused(
    flow: Flow, asked: NewPayment, take: Taking, result: Result
) -> tuple[Payment, Attempt]:
    """Return what became of a payment whose group did not happen.

    Raises:
        UseRefused, OrderNumberUsed, InFlight, StateContended
    """
    if result.code in REFUSED:
        raise UseRefused
    if result.code == ORDER_TAKEN:
        return await _earlier(flow, asked, take)
    if result.code == InFlight.code:
        raise InFlight
    if result.status == "in_flight":
        raise StateContended
    return await _record_wallet_refusal(flow, asked, take, result.code or "wallet.declined")


def paid_rows(
    asked: NewPayment, payment_id: UUID, code: ScannedCode, now: datetime
) -> tuple[Payment, Attempt]:
    """Return the rows of a payment that the own wallet makes at this moment."""
    return _paid_from(code.wallet_id, asked, payment_id, now)


def _paid_from(
    wallet_id: UUID, asked: NewPayment, payment_id: UUID, now: datetime
) -> tuple[Payment, Attempt]:
    return begun(asked, payment_id, now, PaymentState.SUCCEEDED, own_wallet=wallet_id)


def paid_group(
    payment: Payment, attempt: Attempt, code: ScannedCode, companions: tuple[Write, ...]
) -> Group:
    """Return a payment of the own wallet with its money, and more, as one group of the ledger."""
    now, transfers = payment.created_at, wallet_transfers(payment, code.wallet_id)
    return Group(
        id=transfers[0].id,
        book=payment.book,
        transfers=transfers,
        companions=(
            *companions,
            *_paid_writes(payment, attempt),
            *code_writes(code, payment.id, payment.money, now),
        ),
    )


def wallet_transfers(payment: Payment, wallet_id: UUID) -> tuple[Transfer, ...]:
    """Return the transfers that pay a payment, with the merchant's fee, from an own wallet."""
    currency = payment.currency
    return posting.transfers(
        "payment.captured_by_wallet",
        reference=payment.id,
        accounts={
            "wallet": AccountKey("wallet", currency, wallet_id),
            "merchant_payable": AccountKey("merchant_payable", currency, payment.merchant_id),
        },
        amounts={"gross": payment.money, "fee": Money(payment.fee, currency)},
    )


async def submit_paid(flow: Flow, paid: Sequence[Group]) -> list[Result]:
    """Write payments of the own wallet and move their money; return what became of each."""
    failpoint("payments.before_wallet")
    results = await flow.ledger.submit(paid)
    failpoint("payments.after_wallet")
    if any(result.happened for result in results):
        flow.nudge()
    return results


def _paid_writes(payment: Payment, attempt: Attempt) -> tuple[Write, ...]:
    """Return the writes of a payment by wallet, its attempt and its change of state."""
    if payment.price_volume is not None or payment.card_kind is not None:
        # Such a row has what those that are only appended never have.
        return (*begun_writes(payment, attempt), *counted_writes(payment))
    return (
        Write(store.APPEND_PAYMENT, (store.paid_payment_row(payment),), refusal=ORDER_TAKEN),
        Write(store.APPEND_ATTEMPT, (store.paid_attempt_row(attempt),), refusal=ORDER_TAKEN),
        Write(store.APPEND_CHANGE, (store.paid_change_row(payment),), refusal=ORDER_TAKEN),
    )


def begun_writes(payment: Payment, attempt: Attempt, why: str = "own wallet") -> tuple[Write, ...]:
    """Return the writes that make a payment and its attempt; nobody is set to chase it."""
    return (
        Write(store.INSERT_PAYMENT, store.payment_row(payment), refusal=ORDER_TAKEN),
        Write(store.INSERT_ATTEMPT, store.attempt_row(attempt)),
        change_write("new", payment, payment.version, why, payment.created_at),
    )


def birth_writes(payment: Payment, attempt: Attempt) -> tuple[Write, ...]:
    """Return the writes of a payment that is at its end the moment it begins."""
    now = payment.created_at
    return (
        *begun_writes(payment, attempt),
        *counted_writes(payment),
        event_write(end_event(payment, view_payment(payment, attempt)), now=now),
    )


async def _record_wallet_refusal(
    flow: Flow, asked: NewPayment, take: Taking, code: str
) -> tuple[Payment, Attempt]:
    now = flow.db.clock.now()
    payment, attempt = refused_rows(asked, code, now)
    async with flow.db.begin("payments") as tx:
        refused = await write_all(tx, (take(payment.id, now), *birth_writes(payment, attempt)))
    if refused == InFlight.code:
        raise InFlight
    if refused == ORDER_TAKEN:
        return await _earlier(flow, asked, take)
    flow.nudge()
    return payment, attempt


def refused_rows(asked: NewPayment, code: str, now: datetime) -> tuple[Payment, Attempt]:
    """Return the rows of a payment that the own wallet has refused for this reason.

    The ledger remembers the refused group under its own id, so these have ids of their own.
    """
    payment, attempt = begun(asked, new_id(), now, PaymentState.FAILED)
    return (
        msgspec.structs.replace(payment, failure_code=code),
        msgspec.structs.replace(attempt, code=code),
    )


def check_closable(payment: Payment) -> None:
    """Raise unless closing the payment means anything; closing it twice does no harm.

    Raises:
        NotClosable
    """
    if not payment.state.is_open and payment.state is not PaymentState.CLOSED:
        raise NotClosable(status=payment.state)


async def close_payment(flow: Flow, payment: Payment) -> tuple[Payment, Attempt]:
    """End an unpaid payment, at the channel first; what the channel says is what happens.

    A customer who paid first wins: the payment comes back succeeded. When the channel does not
    answer the payment stays open, marked to be closed, and the chase goes on.

    Raises:
        StateContended
    """
    attempt = await last_attempt(flow.db, payment)
    if not payment.state.is_open:
        return payment, attempt  # it ended meanwhile, or was closed before
    await store.REQUEST_CLOSE.run(flow.db, payment.book, payment.id, flow.db.clock.now())
    failpoint("payments.after_close_request")
    payment = await store.GET_PAYMENT.one(flow.db, payment.book, payment.id)
    if not payment.state.is_open:
        return payment, await store.GET_ATTEMPT.one(flow.db, attempt.book, attempt.id)
    return await look_at(flow, payment, attempt)


async def close_case(tx: Tx, case_id: UUID, resolution: str) -> PaymentCase:
    """Close a case with the reason a person gives; a case that comes back opens anew.

    Raises:
        ResolutionMissing, CaseUnknown, CaseClosed
    """
    reason = " ".join(resolution.split())
    if not RESOLUTION_LENGTH_MIN <= len(reason) <= RESOLUTION_LENGTH_MAX:
        raise ResolutionMissing(param="resolution")
    closed = await store.CLOSE_CASE.first(tx, case_id, tx.now, reason)
    if closed is None:
        if await store.FIND_CASE.first(tx, case_id) is None:
            raise CaseUnknown
        raise CaseClosed
    facts = {"kind": closed.kind.value, "resolution": reason}
    await audit.record(tx, "payment.case_closed", show("pay", closed.payment_id), facts)
    return closed


def disputed_write(book: int, payment_id: UUID, amount: int, *, refusal: str) -> Write:
    """Return the write that raises what disputes hold or have taken, or lowers it again.

    It touches no row when more would be disputed than is left of what came in.
    """
    return Write(store.ADD_DISPUTED, (book, payment_id, amount), refusal=refusal)


def shared_write(
    book: int, payment_id: UUID, amount: int, most: int | None, *, refusal: str
) -> Write:
    """Return the write that raises what of a payment is shared, to ``most``, or lowers it again.

    It touches no row when more would be shared than is left of what came in.
    """
    return Write(store.ADD_SHARED, (book, payment_id, amount, most), refusal=refusal)


def shares_ended_write(book: int, payment_id: UUID, *, refusal: str) -> Write:
    """Return the write after which nothing more of a payment is shared; twice touches no row."""
    return Write(store.END_SHARES, (book, payment_id), refusal=refusal)
