"""The route of a merchant's own profile."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from litestar import get
from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries
from tongbao.parties.merchants.model import LateSuccess, MerchantState
from tongbao.parties.price_plans.api import PricePlanView, view_plan
from tongbao.parties.price_plans.queries import price_plan_at


class BankAccountView(Struct, frozen=True):
    """Where settlements are paid to."""

    holder: str
    number_masked: str


class MerchantView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A merchant as it sees itself, in the mode of its key."""

    id: str
    object: Literal["merchant"]
    name: str
    mode: Mode
    status: MerchantState
    late_success: LateSuccess
    settlement_delay_days: int
    channels: list[str]
    created_at: datetime
    bank_account: BankAccountView | UnsetType = UNSET
    price_plan: PricePlanView | UnsetType = UNSET


@get("/v1/merchant", opt=needs("merchant:read"))
async def get_merchant(db: Db, caller: Caller) -> MerchantView:
    """Return the merchant's own profile: channels, prices in force, bank account."""
    merchant = await queries.merchant_with_id(db, caller.merchant_id)
    plan = await price_plan_at(db, merchant.id, caller.mode, db.clock.now())
    channels = await queries.channels_of(db, merchant.id, caller.mode)
    bank_account: BankAccountView | UnsetType = UNSET
    if merchant.bank_holder is not None and merchant.bank_account_masked is not None:
        bank_account = BankAccountView(merchant.bank_holder, merchant.bank_account_masked)
    return MerchantView(
        id=show("mch", merchant.id),
        object="merchant",
        name=merchant.name,
        mode=caller.mode,
        status=merchant.state,
        late_success=merchant.late_success,
        settlement_delay_days=merchant.settlement_delay_days,
        bank_account=bank_account,
        channels=sorted(channels),
        price_plan=view_plan(plan) if plan else UNSET,
        created_at=merchant.opened_at,
    )


ROUTES = [get_merchant]
