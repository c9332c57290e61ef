"""Tell a customer through the channel what will be taken under an agreement, before it is.

The channel knows no number of ours for it, and each call is a message to the customer: so it is
called once for each request, and who died before writing down the answer does not know it.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol, runtime_checkable
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Rejected
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.payments.agreements import _store as store
from tongbao.payments.agreements.agreements import Reach, Taking
from tongbao.payments.agreements.model import Agreement
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import Announced

Said = Literal["announced", "refused", "unknown"]
_SAID: Final[dict[str, Said]] = {
    "announced": "announced",
    "declined": "refused",
    "notsent": "refused",
    "unknown": "unknown",
}


@runtime_checkable
class Announcing(Protocol):
    """Tells a customer what will be taken under an agreement, before it is (扣费前通知).

    The channel knows no number of ours for it: each call is a message to the customer.
    """

    async def announce(
        self, account: ChannelAccount, agreement_ref: str, money: Money
    ) -> Answer[Announced | Declined | NotSent | Unknown]:
        """Tell the customer."""


class AnnouncingNotOffered(Rejected):
    """The channel tells customers nothing before a deduction."""

    code = "agreement.announcing_not_offered"
    advice = "Take the money without: this channel wants no announcement."
    advice_zh = "该渠道无需扣费前通知，可直接扣款。"


class AnnouncementView(Struct, frozen=True, omit_defaults=True):
    """What became of telling a customer. ``unknown``: they may have been told."""

    object: Literal["agreement_announcement"]
    agreement_id: str
    amount: int
    currency: str
    status: Said
    code: str | UnsetType = UNSET


async def announce_deduction(
    reach: Reach, agreement: Agreement, money: Money, take: Taking
) -> AnnouncementView:
    """Tell the customer, once; the answer is kept with what else was asked about the agreement.

    Raises:
        AnnouncingNotOffered, InFlight, and what `Agreement.check_usable` raises
    """
    channel: object = reach.channels.get(agreement.channel)
    if not isinstance(channel, Announcing):
        raise AnnouncingNotOffered(channel=agreement.channel)
    exchange_id = new_id()
    async with reach.db.begin("agreements") as tx:
        if await write_all(tx, (take(exchange_id, tx.now),)) is not None:
            raise InFlight
    failpoint("agreements.before_announcement")
    account = await reach.account(agreement.account_id)
    answer = await channel.announce(account, agreement.agreement_ref or "", money)
    failpoint("agreements.after_announcement")
    await _keep(reach, agreement, exchange_id, answer)
    return _view(agreement, money, answer.outcome)


async def _keep(
    reach: Reach,
    agreement: Agreement,
    exchange_id: UUID,
    answer: Answer[Announced | Declined | NotSent | Unknown],
) -> None:
    seen, outcome = answer.exchange, type(answer.outcome).__name__.lower()
    async with reach.db.begin("agreements") as tx:
        await store.INSERT_EXCHANGE.run(
            tx, agreement.book, exchange_id, agreement.id, "announce", seen.method, seen.url,
            seen.request, seen.status, seen.reply, seen.duration_ms, outcome, tx.now,
        )  # fmt: skip


async def earlier_announcement(
    reach: Reach, agreement: Agreement, money: Money, exchange_id: UUID
) -> AnnouncementView:
    """Return what became of an announcement whose request was broken off."""
    outcome = await store.OUTCOME_OF_EXCHANGE.first(reach.db, agreement.book, exchange_id)
    shown = show("agr", agreement.id)
    said = _SAID[outcome or "unknown"]
    return AnnouncementView("agreement_announcement", shown, money.amount, money.currency, said)


def _view(
    agreement: Agreement, money: Money, outcome: Announced | Declined | NotSent | Unknown
) -> AnnouncementView:
    code: str | UnsetType = UNSET
    if isinstance(outcome, Declined):
        code = outcome.code
    elif isinstance(outcome, NotSent):
        code = "channel.not_reached"
    return AnnouncementView(
        object="agreement_announcement",
        agreement_id=show("agr", agreement.id),
        amount=money.amount,
        currency=money.currency,
        status=_SAID[type(outcome).__name__.lower()],
        code=code,
    )
