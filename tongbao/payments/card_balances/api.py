"""The route that asks what a card has."""

from __future__ import annotations

from typing import Final

from litestar import post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import base32, new_id
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened, MerchantSuspended
from tongbao.payments.card_balances.model import (
    BalanceDeclined,
    BalanceNotOffered,
    BalanceUnanswered,
    CardBalancesView,
    view_balances,
)
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.methods.asked import CardReading
from tongbao.rails.channels.capabilities.payers import BalanceKnown, TellingBalances
from tongbao.rails.channels.contract.outcomes import Declined

_CHANNEL: Final = "cards"


class AskBalance(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask what a card has that a terminal has just read."""

    card: CardReading


@post(
    "/v1/card_balances",
    status_code=200,
    opt=needs(
        "payments:write",
        refuses=[
            MerchantSuspended,
            ChannelNotOpened,
            BalanceNotOffered,
            BalanceDeclined,
            BalanceUnanswered,
        ],
    ),
)
async def ask_card_balance(data: AskBalance, flow: Flow, caller: Caller) -> CardBalancesView:
    """Ask a card's issuer what the card has.

    The card and the answer are kept nowhere, and no evidence is: it is the customer's business.
    """
    merchant = await merchants.merchant_with_id(flow.db, caller.merchant_id)
    merchant.check_active()
    where = (flow.db, merchant.id, caller.mode, _CHANNEL)
    account = await flow.account(await merchants.channel_account_of(*where))
    channel: object = flow.channels.get(account.channel)
    if not account.is_open:
        raise ChannelNotOpened(channel=account.channel)
    if not isinstance(channel, TellingBalances):
        raise BalanceNotOffered(channel=account.channel)
    answer = await channel.balance(account, base32(new_id()), data.card.read)
    match answer.outcome:
        case BalanceKnown(balances=balances):
            return view_balances(balances)
        case Declined(code=code, message=message):
            raise BalanceDeclined(reason=code, text=message)
        case _:
            raise BalanceUnanswered


ROUTES: Final[list[HTTPRouteHandler]] = [ask_card_balance]
