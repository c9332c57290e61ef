"""Routes of the wallet's app: look at a merchant's code, pay it, and take what came back."""

from __future__ import annotations

from typing import Final

from litestar import get, post

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse, show
from tongbao.kernel.pages import Page
from tongbao.parties.accounts.model import WalletCurrencyDiffers
from tongbao.parties.authentication.model import Act, ConfirmationUsed, Level, StepUpRequired
from tongbao.parties.authentication.step_up import level_for, require_step_up
from tongbao.parties.e_accounts import orders, queries
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.model import (
    EAccount,
    EAccountBalanceShort,
    EAccountBarred,
    EAccountFrozen,
    EAccountMoved,
    EAccountNotFound,
    EAccountStateWrong,
)
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.sessions import holder_of
from tongbao.payments.collecting.outcomes import Flow, StateContended
from tongbao.payments.e_account_payments import paying, returning
from tongbao.payments.e_account_payments import queries as payments
from tongbao.payments.e_account_payments.model import (
    EAccountPayment,
    EAccountPaymentNotFound,
    PayeeElsewhere,
    ReturnNotFound,
    ReturnTaken,
)
from tongbao.payments.own_wallet.confirming import code_scanned
from tongbao.payments.own_wallet.model import (
    Scanned,
    WalletDeclined,
    WalletQrEnded,
    WalletQrPaid,
    WalletQrUnknown,
)
from tongbao.surfaces.own_payments.wire import (
    CodeScanView,
    EAccountPaymentView,
    EAccountRefundView,
    ScanCode,
    WayView,
    view_payment,
    view_refund,
)
from tongbao.surfaces.wallet.desk import PREFIX, Desk, done_once

_AT: Final = f"{PREFIX}/e_accounts/{{account_id:str}}"
_EXAMPLE: Final = ScanCode("tongbao:pay/06b2c4rks8ttz2wq0d1xv5y7ne")
_STANDS: Final[list[type[Refusal]]] = [
    PayeeElsewhere,
    WalletCurrencyDiffers,
    EAccountStateWrong,
    EAccountFrozen,
    EAccountBarred,
    EAccountBalanceShort,
    LimitExceeded,
]


@post(
    f"{PREFIX}/code_scans",
    status_code=200,
    opt=needs(SELF, refuses=[WalletQrUnknown], request_example=_EXAMPLE),
)
async def scan_code(data: ScanCode, desk: Desk, flow: Flow, caller: DeviceCaller) -> CodeScanView:
    """Return what a merchant's code asks for, and which of one's accounts may pay it.

    Nothing changes by it. An account that may not pay says which rule stands against it, and what
    is left of it.
    """
    scanned = await code_scanned(flow, caller.mode, data.code)
    payment, now = scanned.payment, desk.db.clock.now()
    payee = await merchant_with_id(desk.db, payment.merchant_id)
    own = await queries.accounts_of_person(desk.db, caller.mode, caller.current.person_id)
    return CodeScanView(
        object="code_scan",
        payment_id=show("pay", payment.id),
        mode=payment.mode,
        payee=payee.name,
        subject=payment.subject,
        amount=payment.amount,
        currency=payment.currency,
        status=scanned.status(now).value,
        expires_at=payment.expires_at,
        ways=[
            await _way(desk, flow, caller, each, scanned) for each in own if each.closed_at is None
        ],
    )


@post(
    f"{_AT}/payments",
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, WalletQrUnknown, WalletQrPaid, WalletQrEnded),
            *(WalletDeclined, StateContended, StepUpRequired, ConfirmationUsed),
            *_STANDS,
        ],
        request_example=_EXAMPLE,
    ),
)
async def pay_from_e_account(
    account_id: str, data: ScanCode, desk: Desk, flow: Flow, caller: DeviceCaller
) -> EAccountPaymentView:
    """Pay a merchant's code out of an account: the money has moved when this answers.

    A code is paid once: the same account again is answered with the payment it made, and needs no
    new confirmation. A refusal changes nothing, and the code stays payable.
    """
    account = await _account(desk, caller, account_id)
    scanned = await paying.scanned_for(flow, account, data.code)

    async def pay() -> EAccountPayment:
        now = desk.db.clock.now()
        scanned.check_payable(now)
        holder = await holder_of(desk.db, desk.checks.keyring, caller)
        act = await _act(desk, account, scanned)
        level = await level_for(desk.checks, holder, act)
        await paying.check_pays(flow, account, scanned.payment, level, now)
        confirmed = await require_step_up(desk.checks, holder, act)
        level = confirmed.level  # what was proved: what is asked for may have changed since
        return await paying.pay(flow, account, data.code, level=level, confirmed=confirmed)

    made = await done_once(lambda: paying.payment_by(flow, account, scanned), pay)
    backs = await payments.refunds_of(desk.db, [made])
    return view_payment(made, backs[made.payment_id])


@get(f"{_AT}/payments", opt=needs(SELF, refuses=[EAccountNotFound]))
async def list_e_account_payments(
    account_id: str,
    desk: Desk,
    caller: DeviceCaller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[EAccountPaymentView]:
    """Return what an account has paid to merchants, newest first, and what was given back."""
    account = await _account(desk, caller, account_id)
    page = await payments.payments_of_account(desk.db, account, cursor=cursor, limit=limit)
    backs = await payments.refunds_of(desk.db, page.items)
    shown = [view_payment(each, backs[each.payment_id]) for each in page.items]
    return Page(shown, page.next_cursor)


@get(
    f"{_AT}/payments/{{payment_id:str}}",
    opt=needs(SELF, refuses=[EAccountNotFound, EAccountPaymentNotFound]),
)
async def get_e_account_payment(
    account_id: str, payment_id: str, desk: Desk, caller: DeviceCaller
) -> EAccountPaymentView:
    """Return one payment of an account, and what was given back of it."""
    account = await _account(desk, caller, account_id)
    made = await payments.payment_of_account(desk.db, account, parse("pay", payment_id))
    backs = await payments.refunds_of(desk.db, [made])
    return view_payment(made, backs[made.payment_id])


@get(f"{PREFIX}/returned_money", opt=needs(SELF))
async def list_returned_money(desk: Desk, caller: DeviceCaller) -> list[EAccountRefundView]:
    """Return what merchants gave back and an account could not take: it waits to be taken."""
    waiting = await payments.waiting_of_person(desk.db, caller.mode, caller.current.person_id)
    return [view_refund(each) for each in waiting]


@post(
    f"{_AT}/returned_money/{{refund_id:str}}/take",
    status_code=200,
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, ReturnNotFound, ReturnTaken, EAccountStateWrong, EAccountFrozen),
            *(LimitExceeded, EAccountMoved),
        ],
    ),
)
async def take_returned_money(
    account_id: str, refund_id: str, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountRefundView:
    """Take what waits into one of one's own accounts; again changes nothing."""
    account = await _account(desk, caller, account_id)
    return view_refund(await returning.take(teller, account, parse("ref", refund_id)))


ROUTES: Final = (
    scan_code,
    pay_from_e_account,
    list_e_account_payments,
    get_e_account_payment,
    list_returned_money,
    take_returned_money,
)


async def _account(desk: Desk, caller: DeviceCaller, account_id: str) -> EAccount:
    wanted = parse(ACCOUNT, account_id)
    return await queries.account_of_person(desk.db, caller.mode, caller.current.person_id, wanted)


async def _act(desk: Desk, account: EAccount, scanned: Scanned) -> Act:
    """Return the act as it is confirmed: this payment of this account, its amount and its payee."""
    payment = scanned.payment
    payee = await merchant_with_id(desk.db, payment.merchant_id)
    return Act(
        "payment",
        f"pay {account.shown_id} {show('pay', payment.id)}",
        payment.amount,
        payment.currency,
        payee.name,
        await orders.weak_total(desk.db, account, payment.amount),
    )


async def _way(
    desk: Desk, flow: Flow, caller: DeviceCaller, account: EAccount, scanned: Scanned
) -> WayView:
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    level = Level(await level_for(desk.checks, holder, await _act(desk, account, scanned)))
    stands: Refusal | None = None
    try:
        now = desk.db.clock.now()
        await paying.check_pays(flow, account, scanned.payment, level, now)
    except tuple(_STANDS) as refusal:
        stands = refusal
    return WayView(
        account_id=account.shown_id,
        kind=account.kind,
        available=account.available,
        currency=account.currency,
        level=int(level),
        code=None if stands is None else stands.code,
        facts={} if stands is None else dict(stands.facts),
    )
