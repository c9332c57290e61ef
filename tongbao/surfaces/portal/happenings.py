"""What can be made to happen in the sandbox, by the same way as in earnest: ask, pay, give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, cast
from uuid import uuid4

import msgspec

from tongbao.surfaces.portal.theatre import NAME, OverrideUnreadable, Theatre, until
from tongbao_sdk.replies import Complaint, Split

_OPEN: Final = frozenset({"requested", "pending", "unknown"})
"""How a payout stands of which the bank has not said the last word."""


def _succeeded(theatre: Theatre) -> Iterator[str]:
    yield theatre.pay("pay")["id"]


def _failed(theatre: Theatre) -> Iterator[str]:
    yield theatre.pay("decline")["id"]


def _closed(theatre: Theatre) -> Iterator[str]:
    payment = theatre.show_qr()
    yield payment["id"]
    theatre.shop.payments.close(payment["id"])


def _refunded(theatre: Theatre) -> Iterator[str]:
    payment = theatre.pay("pay")
    yield payment["id"]
    yield theatre.shop.payments.refund(
        payment["id"], merchant_refund_no=uuid4().hex, amount=payment["amount"]
    )["id"]


def _authorised(theatre: Theatre) -> Iterator[str]:
    """The money is set aside and waits: over the channels that can do so."""
    yield theatre.set_aside()["id"]


def _captured(theatre: Theatre) -> Iterator[str]:
    payment = theatre.set_aside()
    yield payment["id"]
    theatre.shop.payments.capture(payment["id"])


def _voided(theatre: Theatre) -> Iterator[str]:
    payment = theatre.set_aside()
    yield payment["id"]
    theatre.shop.payments.void(payment["id"])


def _disputed(theatre: Theatre) -> Iterator[str]:
    payment = theatre.pay("pay")
    yield payment["id"]
    yield theatre.shop.disputes.raise_in_sandbox(payment["id"])["id"]


def _dispute_closed(theatre: Theatre) -> Iterator[str]:
    made = list(_disputed(theatre))
    yield from made
    theatre.shop.disputes.accept(made[-1], NAME)


def _checkout_closed(theatre: Theatre) -> Iterator[str]:
    checkout = theatre.shop.checkouts.create(
        merchant_order_no=uuid4().hex, amount=1999, subject=NAME
    )
    yield checkout["id"]
    theatre.shop.checkouts.close(checkout["id"])


def _topped_up(theatre: Theatre) -> Iterator[str]:
    wallet = theatre.shop.wallets.open(holder_name=NAME)
    yield wallet["id"]
    yield theatre.shop.wallets.top_up(wallet["id"], amount=1999)["id"]


def _agreed(theatre: Theatre) -> Iterator[str]:
    yield theatre.sign_agreement()["id"]


def _agreement_ended(theatre: Theatre) -> Iterator[str]:
    agreement = theatre.sign_agreement()
    yield agreement["id"]
    theatre.shop.agreements.end(agreement["id"])


def _share(theatre: Theatre, releases: Literal["now", "later"]) -> tuple[Split, str]:
    """Share a payment with a new wallet; return the split and who has the share."""
    payment = theatre.pay_from_wallet()
    friend = theatre.shop.wallets.open(holder_name=NAME)
    receiver = theatre.shop.splits.bind(kind="wallet", account=friend["id"])["id"]
    made = theatre.shop.splits.create(
        payment["id"],
        merchant_split_no=uuid4().hex,
        shares=[{"receiver_id": receiver, "ratio_ppm": 200_000}],
        releases=releases,
    )
    return made, receiver


def _shared(theatre: Theatre) -> Iterator[str]:
    """A fifth of a payment from a wallet goes to another wallet."""
    made, _ = _share(theatre, "now")
    yield from (made["payment_id"], made["id"])


def _share_called_off(theatre: Theatre) -> Iterator[str]:
    made, _ = _share(theatre, "later")
    yield made["id"]
    theatre.shop.splits.cancel(made["id"])


def _share_given_back(theatre: Theatre) -> Iterator[str]:
    made, receiver = _share(theatre, "now")
    yield made["id"]
    yield theatre.shop.splits.give_back(
        made["id"], receiver_id=receiver, amount=made["amount"], merchant_return_no=uuid4().hex
    )["id"]


def _settled(theatre: Theatre) -> Iterator[str]:
    """What the shop has is settled, and the bank is told to pay it."""
    yield theatre.pay("pay")["id"]
    yield theatre.shop.settlements.settle_in_sandbox()["id"]


def _paid_out(theatre: Theatre) -> Iterator[str]:
    """And the bank has paid."""
    made = _payout(theatre)
    yield from made
    _until_bank_said(theatre, made[-1], _OPEN)


def _refused_by_bank(theatre: Theatre) -> Iterator[str]:
    """And the bank, which has taken the order already, refuses it before the money has gone."""
    made = _payout(theatre)
    yield from made
    _until_bank_said(theatre, made[-1], _OPEN - {"pending"})
    theatre.at_bank(made[-1], "reject")
    _until_bank_said(theatre, made[-1], _OPEN)


def _payout(theatre: Theatre) -> tuple[str, str]:
    """Return a settlement and its payout."""
    settlement = theatre.shop.settlements.get(list(_settled(theatre))[-1])
    return settlement["id"], settlement["payout_id"]


def _until_bank_said(theatre: Theatre, payout_id: str, before: AbstractSet[str]) -> None:
    until(lambda: theatre.shop.payouts.get(payout_id), lambda it: it["status"] not in before)


def _complained(theatre: Theatre) -> Iterator[str]:
    """The customer complains to the channel, which tells us."""
    payment, number = theatre.paid_by_scan()
    yield payment["id"]
    theatre.complain(number, "东西没收到")
    yield _complaint_about(theatre, payment["id"])["id"]


def _complained_again(theatre: Theatre) -> Iterator[str]:
    payment, number = theatre.paid_by_scan()
    theatre.complain(number, "东西没收到")
    complaint = _complaint_about(theatre, payment["id"])
    yield complaint["id"]
    theatre.complain(number, "还是没收到")


def _complaint_about(theatre: Theatre, payment_id: str) -> Complaint:
    listed: list[Complaint] = until(
        lambda: list(theatre.shop.complaints.list(payment_id=payment_id)), bool
    )
    return listed[0]


def _webhook_tested(theatre: Theatre) -> Iterator[str]:
    for endpoint in theatre.shop.webhook_endpoints.list():
        yield endpoint["id"]
        theatre.shop.webhook_endpoints.test(endpoint["id"])


HAPPENINGS: Final[Mapping[str, Callable[[Theatre], Iterator[str]]]] = {
    "payment.succeeded": _succeeded,
    "payment.failed": _failed,
    "payment.closed": _closed,
    "payment.authorised": _authorised,
    "payment.captured": _captured,
    "payment.voided": _voided,
    "refund.succeeded": _refunded,
    "dispute.opened": _disputed,
    "dispute.closed": _dispute_closed,
    "agreement.signed": _agreed,
    "agreement.ended": _agreement_ended,
    "split.ended": _shared,
    "split.cancelled": _share_called_off,
    "split_return.succeeded": _share_given_back,
    "settlement.closed": _settled,
    "payout.succeeded": _paid_out,
    "payout.failed": _refused_by_bank,
    "complaint.opened": _complained,
    "complaint.updated": _complained_again,
    "checkout.closed": _checkout_closed,
    "wallet.topped_up": _topped_up,
    "webhook.test": _webhook_tested,
}
"""What can be made to happen, by the event that tells of it."""


def read_override(text: str) -> tuple[list[str], Any]:
    """Return the path and the value of ``a.b=c``; the value is JSON, or text as it stands.

    Raises:
        OverrideUnreadable
    """
    path, is_set, value = text.partition("=")
    names = path.split(".")
    if not is_set or not all(names):
        raise OverrideUnreadable
    if names[0] == "metadata":  # which has texts only
        return names, value
    try:
        return names, cast("Any", msgspec.json.decode(value.encode()))
    except msgspec.DecodeError:
        return names, value
