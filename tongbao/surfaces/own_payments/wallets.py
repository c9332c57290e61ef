"""Route of the wallet's app: money between one's own wallets and one's electronic accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from litestar import post
from msgspec import Struct

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import parse
from tongbao.kernel.money import AmountOutOfRange, UnknownCurrency, positive
from tongbao.parties.accounts.model import (
    DailyLimitExceeded,
    WalletBarred,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
)
from tongbao.parties.authentication.model import ConfirmationUsed, StepUpRequired
from tongbao.parties.e_accounts.model import (
    CURRENCY,
    EAccountBalanceShort,
    EAccountBarred,
    EAccountFrozen,
    EAccountMoved,
    EAccountNotFound,
    EAccountStateWrong,
    OrderKind,
    RequestDiffers,
    RunAtWrong,
    Timing,
    WalletShort,
)
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.orders import Teller, Wanted
from tongbao.parties.e_accounts.queries import account_of_person
from tongbao.surfaces.wallet.desk import PREFIX, Desk
from tongbao.surfaces.wallet.e_account_wire import EAccountOrderView, IdField, RequestField
from tongbao.surfaces.wallet.e_accounts import place_order

_KINDS: Final[dict[str, OrderKind]] = {"in": "from_wallet", "out": "to_wallet"}


class MoveWithWallet(Struct, frozen=True, forbid_unknown_fields=True):
    """Move money between an account and a wallet of one's own; ``in`` is into the account."""

    wallet: IdField
    direction: Literal["in", "out"]
    amount: int
    request_id: RequestField
    currency: str = CURRENCY
    timing: Timing = "now"
    run_at: datetime | None = None


@post(
    f"{PREFIX}/e_accounts/{{account_id:str}}/wallet_transfers",
    opt=needs(
        SELF,
        refuses=[
            *(EAccountNotFound, EAccountStateWrong, EAccountFrozen, EAccountMoved),
            EAccountBarred,
            *(EAccountBalanceShort, LimitExceeded, AmountOutOfRange, UnknownCurrency),
            *(WalletNotFound, WalletFrozen, WalletBarred, WalletCurrencyDiffers),
            DailyLimitExceeded,
            *(WalletShort, RunAtWrong, RequestDiffers, StepUpRequired, ConfirmationUsed),
        ],
    ),
)
async def move_with_wallet(
    account_id: str, data: MoveWithWallet, desk: Desk, teller: Teller, caller: DeviceCaller
) -> EAccountOrderView:
    """Move money between an account and a wallet one has made one's own, now or later.

    The limits of the law count a wallet as another's, and its own limit of the day counts too.
    """
    money = positive(data.amount, data.currency)
    if data.run_at is not None and data.run_at.tzinfo is None:
        raise RunAtWrong(param="$.run_at")
    person_id = caller.current.person_id
    account = await account_of_person(desk.db, caller.mode, person_id, parse(ACCOUNT, account_id))
    wanted = Wanted(
        _KINDS[data.direction],
        money,
        data.request_id,
        parse("wal", data.wallet),
        data.timing,
        data.run_at,
    )
    return await place_order(desk, teller, caller, account, wanted)


ROUTES: Final = (move_with_wallet,)
