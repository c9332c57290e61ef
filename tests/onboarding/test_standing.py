"""What a merchant may do: changed by two people, said with a stable code, respected by money."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from tests.onboarding.applicants import CHECKER, MAKER, MAY
from tests.stage import Stage
from tongbao.acts import approvals
from tongbao.clearing.payouts.payouts import NewPayout, pay, payout_writes
from tongbao.clearing.payouts.queries import payout_with_id
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra.db import write_all
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.identity.queries import keys_of_merchant
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.parties.merchants.model import MerchantStandsOtherwise, MerchantState
from tongbao.parties.merchants.queries import merchant_with_id, standings_of
from tongbao.parties.standing.standing import (
    ReserveDayWrong,
    StandingUnchanged,
    propose_standing,
)
from tongbao.surfaces.demo.stage import Shop
from tongbao_sdk import Refused


async def propose(stage: Stage, shop: Shop, after: str, until: date | None = None) -> Any:
    async with stage.db.begin(MAKER) as tx:
        return await propose_standing(
            tx,
            shop.merchant.id,
            MerchantState(after),
            reason="for a test",
            may=MAY,
            reserve_until=until,
        )


async def decided(stage: Stage, proposed: Any) -> None:
    acts = approvals(stage.platform.flow, stage.platform.clearing).acts
    async with stage.db.begin(CHECKER) as tx:
        await approve(tx, acts, proposed.id, digest=proposed.digest.hex(), may=MAY)
    await stage.platform.worker.run_until_idle(raise_failures=True)


async def becomes(stage: Stage, shop: Shop, after: str, until: date | None = None) -> None:
    await decided(stage, await propose(stage, shop, after, until))


async def refusal(stage: Stage, call: Any, *args: Any, **more: Any) -> str:
    with pytest.raises(Refused) as refused:
        await call(*args, **more)
    return str(refused.value.code)


@pytest.mark.parametrize(
    ("standing", "payment", "refund"),
    [
        ("suspended", "merchant.suspended", None),
        ("held", None, "merchant.held"),
        ("stopped", "merchant.suspended", "merchant.held"),
        ("leaving", "merchant.suspended", None),
    ],
)
async def test_a_standing_stops_what_it_says_and_nothing_else(
    stage: Stage, standing: str, payment: str | None, refund: str | None
) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    paid = await stage.paid("wechat_pay", 1000, client=client)
    until = business_date(stage.db.clock.now()) if standing == "leaving" else None

    await becomes(stage, shop, standing, until)

    if payment is None:
        await stage.show_qr("wechat_pay", client=client)
    else:
        assert await refusal(stage, stage.show_qr, "wechat_pay", client=client) == payment
    if refund is None:
        assert (await stage.refund(paid, 100, client=client))["object"] == "refund"
    else:
        assert await refusal(stage, stage.refund, paid, 100, client=client) == refund


@pytest.mark.parametrize(
    ("standing", "goes_out"), [("suspended", True), ("held", False), ("leaving", False)]
)
async def test_a_payout_waits_while_the_money_is_held(
    stage: Stage, standing: str, goes_out: bool
) -> None:
    shop = await stage.open_shop()
    today = business_date(stage.db.clock.now())
    await becomes(stage, shop, standing, today if standing == "leaving" else None)
    payout_id, book = new_id(), shop.merchant.book(Mode.SANDBOX)
    asked = NewPayout(book, new_id(), shop.merchant.id, Mode.SANDBOX, Money(100, "CNY"))
    async with stage.db.begin("test") as tx:
        later = tx.now + timedelta(days=900)
        await write_all(tx, payout_writes(payout_id, asked, now=tx.now, pay_at=later))

    payout = await pay(stage.platform.clearing, await payout_with_id(stage.db, payout_id))

    assert (payout.sends > 0) is goes_out


async def test_who_leaves_is_gone_when_the_day_is_over_and_its_keys_with_it(stage: Stage) -> None:
    shop = await stage.open_shop()
    today = business_date(stage.db.clock.now())
    await becomes(stage, shop, "leaving", today + timedelta(days=1))
    await stage.advance(days=1)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.LEAVING

    await stage.advance(days=1)

    gone = await merchant_with_id(stage.db, shop.merchant.id)
    assert gone.state is MerchantState.GONE
    assert gone.is_paid_out
    keys = await keys_of_merchant(stage.db, shop.merchant.id, Mode.SANDBOX, cursor=None, limit=None)
    assert all(key.revoked_at for key in keys.items)
    with pytest.raises(StandingUnchanged):
        await propose(stage, shop, "active")


async def test_who_stays_after_all_is_not_let_go(stage: Stage) -> None:
    """The task of an exit that was taken back ends without doing anything."""
    shop = await stage.open_shop()
    await becomes(stage, shop, "leaving", business_date(stage.db.clock.now()))
    await becomes(stage, shop, "active")

    await stage.advance(days=2)

    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.ACTIVE
    lines = await standings_of(stage.db, shop.merchant.id)
    assert [line.state for line in lines] == ["active", "leaving"]
    assert {line.because for line in lines} == {"for a test"}


async def test_a_change_of_what_has_changed_is_not_made(stage: Stage) -> None:
    shop = await stage.open_shop()
    proposed = await propose(stage, shop, "held")
    async with stage.db.begin("cli") as tx:
        await set_suspended(tx, shop.merchant.id, suspended=True, because="at once")

    await decided(stage, proposed)

    assert (await approval_with_id(stage.db, proposed.id)).code == "merchant.standing_moved"
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.SUSPENDED


async def test_one_person_changes_nothing_that_two_have_set(stage: Stage) -> None:
    shop = await stage.open_shop()
    await becomes(stage, shop, "stopped")

    async with stage.db.begin("cli") as tx:
        with pytest.raises(MerchantStandsOtherwise):
            await set_suspended(tx, shop.merchant.id, suspended=False, because="I say so")


@pytest.mark.parametrize(("after", "days"), [("leaving", None), ("held", 1), ("leaving", 541)])
async def test_a_reserve_has_a_day_and_only_who_leaves_has_one(
    stage: Stage, after: str, days: int | None
) -> None:
    shop = await stage.open_shop()
    today = business_date(stage.db.clock.now())

    with pytest.raises(ReserveDayWrong):
        await propose(stage, shop, after, None if days is None else today + timedelta(days=days))
