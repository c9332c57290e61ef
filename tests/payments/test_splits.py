"""Splits: shares given once, held, released, returned with refunds, never more than there is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.conftest import MakeDb
from tests.payments.invariants import assert_money_is_conserved
from tests.stage import Stage, new_number, staged
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.web.idempotency import Idempotency
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.parties.identity.keys import KeysOnRecord
from tongbao.payments.splits.model import (
    PPM,
    PartAsked,
    ShareRow,
    ShareState,
    Split,
    SplitAsked,
    SplitState,
    amounts_of,
    back_of,
    next_share_step,
)
from tongbao.payments.splits.outcomes import ask_channel
from tongbao.payments.splits.receivers import ReceiverAsked, bind_receiver
from tongbao.payments.splits.records import splits_of_payment
from tongbao.payments.splits.returns import ask_for_return, request_return
from tongbao.payments.splits.splits import finish_sharing, release_split, request_split
from tongbao.rails.channels.accounts import replace_keys
from tongbao.rails.channels.capabilities.shares import ShareResult, SplitDone, SplitUnderWay
from tongbao.surfaces.demo.stage import Shop, account_orders
from tongbao.wiring import SECRETS
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

MERCHANT = {"kind": "channel", "channel": "wechat_pay", "channel_kind": "MERCHANT_ID"}
PERSON = {"kind": "channel", "channel": "wechat_pay", "channel_kind": "PERSONAL_OPENID"}
STATES: dict[str, Literal["pending", "succeeded", "failed"]] = {
    "pending": "pending",
    "succeeded": "succeeded",
    "failed": "failed",
}
AT_ALIPAY = {"kind": "channel", "channel": "alipay", "channel_kind": "userId"}


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """The accounts at both channels place every order so that it may be split."""
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        await may_be_split(ready, module_db, sandbox)
        yield ready
        await assert_shares_are_conserved(module_db)
        await assert_money_is_conserved(module_db)


async def may_be_split(stage: Stage, db: Db, sandbox: RunningSandbox) -> None:
    """Let the accounts at both channels place orders that may be split."""
    async with db.begin("operator") as tx:
        for order in account_orders(sandbox.url, sandbox.credentials)[:2]:
            keys = {**order.keys, "profit_sharing": True}
            account_id = stage.accounts[order.channel]
            await replace_keys(tx, stage.platform.keyring, SECRETS, account_id, keys)


_SHARED = """
    select p.id, p.captured, p.shared,
           coalesce((select sum(s.amount) from split_share s where s.payment_id = p.id
                      and s.state in ('held', 'pending', 'succeeded')), 0)
           - coalesce((select sum(r.amount) from split_return r where r.payment_id = p.id
                        and r.state = 'succeeded'), 0) as outstanding
      from payment p"""
_RETURNED = """
    select s.id, s.amount, s.returned,
           coalesce((select sum(r.amount) from split_return r
                      where r.share_id = s.id and r.state <> 'failed'), 0) as asked
      from split_share s"""
_BOOKED = """
    select t.reference, c.code, t.amount from ledger_transfer t
      join ledger_code c on c.number = t.code where c.code like 'split.%'"""


async def assert_shares_are_conserved(db: Db) -> None:
    """The totals on the rows are what the rows under them come to; each share is booked once."""
    for row in await db.fetch(_SHARED, ()):
        assert 0 <= row["shared"] == row["outstanding"] <= row["captured"]
    for row in await db.fetch(_RETURNED, ()):
        assert 0 <= row["returned"] == row["asked"] <= row["amount"]
    booked: dict[Any, list[str]] = {}
    for row in await db.fetch(_BOOKED, ()):
        booked.setdefault(row["reference"], []).append(row["code"])
    ends = {"split.given_at_once/amount", "split.given/amount", "split.channel_given/amount"}
    for row in await db.fetch("select id, state from split_share", ()):
        given = [code for code in booked.get(row["id"], []) if code in ends]
        assert len(given) == (row["state"] == "succeeded"), row["id"]
    backs = {"split.returned/amount", "split.channel_returned/amount"}
    for row in await db.fetch("select id, state from split_return", ()):
        assert len(booked.get(row["id"], [])) == (row["state"] == "succeeded")
        assert set(booked.get(row["id"], [])) <= backs


# The pure part


@given(
    st.integers(1, 10**12),
    st.lists(st.integers(0, 200_000), min_size=1, max_size=5),
    st.lists(st.integers(1, 10**6), max_size=3),
)
def test_ratios_come_to_what_they_come_to_together(
    captured: int, ratios: list[int], amounts: list[int]
) -> None:
    """Sum of parts = whole: no minor unit is lost or made, whatever the ratios round to."""
    parts = [PartAsked("rcv", ratio_ppm=ratio) for ratio in ratios]
    parts += [PartAsked("rcv", amount=amount) for amount in amounts]

    found = amounts_of(parts, captured)

    assert found is not None
    shares, said = found[: len(ratios)], found[len(ratios) :]
    assert said == amounts
    exact = captured * sum(ratios)
    assert abs(sum(shares) * PPM - exact) < PPM
    if sum(ratios) == PPM:
        assert sum(shares) == captured
    for share, ratio in zip(shares, ratios, strict=True):
        assert abs(share * PPM - captured * ratio) < PPM


def test_a_share_is_an_amount_or_a_ratio_and_ratios_are_no_more_than_all() -> None:
    assert amounts_of([PartAsked("rcv")], 100) is None
    assert amounts_of([PartAsked("rcv", 1, 1)], 100) is None
    assert amounts_of([PartAsked("rcv", ratio_ppm=600_000)] * 2, 100) is None


@given(
    st.integers(1, 10_000),
    st.lists(st.integers(1, 500), min_size=1, max_size=8),
    st.data(),
)
def test_refunds_take_a_share_back_in_its_proportion_and_all_of_it_in_the_end(
    amount: int, refunds: list[int], data: st.DataObject
) -> None:
    captured = sum(refunds)
    amount = data.draw(st.integers(1, captured)) if amount > captured else amount
    share = share_of(amount)
    back = 0
    for refund in refunds:
        back += refund
        part = back_of(share, captured, back)
        assert 0 <= part <= refund
        share = replace(share, returned=share.returned + part)
        assert abs(share.returned * captured - amount * back) < captured

    assert share.returned == amount


def share_of(amount: int) -> ShareRow:
    ids = (new_id(), new_id(), new_id(), new_id())
    return ShareRow(1, *ids, amount, ShareState.SUCCEEDED, None, None, 0, 1)


# In the book


async def receiver(stage: Stage, shop: Shop, **who: Any) -> str:
    made = await stage.call(stage.client_of(shop).splits.bind, **who)
    return str(made["id"])


async def wallet_receiver(stage: Stage, shop: Shop) -> tuple[str, str]:
    wallet = await stage.call(stage.client_of(shop).wallets.open, holder_name="李四")
    return await receiver(stage, shop, kind="wallet", account=wallet["id"]), str(wallet["id"])


async def balance(stage: Stage, shop: Shop, wallet: str) -> int:
    return int((await stage.call(stage.client_of(shop).wallets.get, wallet))["balance"])


async def bought(stage: Stage, shop: Shop, amount: int = 10_000) -> Payment:
    code = await stage.wallet_code(balance=amount)
    return await stage.scan_code(code, amount, client=stage.client_of(shop))


async def split(stage: Stage, shop: Shop, payment: Payment, *shares: Any, **more: Any) -> Any:
    terms = {"merchant_split_no": new_number(), **more}
    create = stage.client_of(shop).splits.create
    return await stage.call(create, payment["id"], shares=list(shares), **terms)


async def test_shares_are_given_in_one_commit_and_come_back_with_a_refund(stage: Stage) -> None:
    shop, other = await stage.open_shop(), await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    partner = await receiver(stage, shop, kind="merchant", account=show("mch", other.merchant.id))
    payment = await bought(stage, shop)

    made = await split(
        *(stage, shop, payment),
        {"receiver_id": friend, "amount": 1_000},
        {"receiver_id": partner, "ratio_ppm": 150_000},
    )
    got = await balance(stage, shop, wallet)
    refund = await stage.refund(payment, 3_333, client=stage.client_of(shop))
    half = await balance(stage, shop, wallet)
    rest = await stage.refund(payment, 6_667, client=stage.client_of(shop))
    shown = await stage.call(stage.client_of(shop).splits.of_payment, payment["id"])

    assert (made["status"], made["amount"]) == ("ended", 2_500)
    assert [each["status"] for each in made["shares"]] == ["succeeded"] * 2
    assert (got, half, await balance(stage, shop, wallet)) == (1_000, 1_000 - 333, 0)
    assert (refund["status"], rest["status"]) == ("succeeded", "succeeded")
    assert shown["amount_shared"] == 0
    assert sorted(each["amount"] for each in shown["returns"]) == [333, 499, 667, 1_001]
    assert await stage.events(made) == ["split.ended"]


async def test_the_merchant_bears_what_a_receiver_does_not_have_any_more(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment, other = await bought(stage, shop), await bought(stage, shop)
    await split(stage, shop, payment, {"receiver_id": friend, "amount": 1_000})
    code = await stage.call(stage.client_of(shop).wallets.payment_code, wallet)
    await stage.scan_code(str(code["code"]), 900, client=stage.client_of(shop))

    refund = await stage.refund(payment, 10_000, client=stage.client_of(shop))

    shown = await stage.call(stage.client_of(shop).splits.of_payment, payment["id"])
    assert refund["status"] == "succeeded"
    assert [each["amount"] for each in shown["returns"]] == [100]
    assert shown["amount_shared"] == 900
    assert other["status"] == "succeeded"


async def test_held_shares_are_released_by_a_word_or_a_day_or_called_off(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    splits = stage.client_of(shop).splits
    part = {"receiver_id": friend, "amount": 500}
    day = (stage.db.clock.now().replace(microsecond=0)).isoformat()

    later = await split(stage, shop, payment, part, releases="later")
    gone = await split(stage, shop, payment, part, releases="later")
    dated = await split(stage, shop, payment, part, releases="at", release_at=day)
    nothing = await balance(stage, shop, wallet)
    await stage.idle()
    by_day = await balance(stage, shop, wallet)
    released = await stage.call(splits.release, later["id"])
    cancelled = await stage.call(splits.cancel, gone["id"])

    assert [each["status"] for each in (later, gone, dated)] == ["held"] * 3
    assert (nothing, by_day, await balance(stage, shop, wallet)) == (0, 500, 1_000)
    assert (released["status"], cancelled["status"]) == ("ended", "cancelled")
    with pytest.raises(Refused, match=r"split\.not_held"):
        await stage.call(splits.release, gone["id"])
    assert (await stage.row_of(payment)).shared == 1_000


async def test_more_than_may_be_shared_is_refused_and_nothing_moves(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    await split(stage, shop, payment, {"receiver_id": friend, "amount": 2_000})

    with pytest.raises(Refused, match=r"split\.exceeds") as refused:
        await split(stage, shop, payment, {"receiver_id": friend, "amount": 1_001})

    assert refused.value.facts["left"] == 1_000
    assert await balance(stage, shop, wallet) == 2_000
    with pytest.raises(Exception, match="payment_shared"):
        await stage.db.execute(
            "update payment set shared = captured + 1 where id = $1", (parse("pay", payment["id"]),)
        )


async def test_a_repeat_is_harmless_and_another_content_is_refused(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment, number = await bought(stage, shop), new_number()
    part = {"receiver_id": friend, "amount": 700}

    one = await split(stage, shop, payment, part, merchant_split_no=number)
    two = await split(stage, shop, payment, part, merchant_split_no=number)
    with pytest.raises(Refused, match=r"split\.number_used"):
        await split(
            *(stage, shop, payment),
            {**part, "amount": 701},
            merchant_split_no=number,
        )

    assert one["id"] == two["id"]
    assert await balance(stage, shop, wallet) == 700


async def test_two_splits_and_a_refund_at_one_moment_never_share_too_much(stage: Stage) -> None:
    """The payment's row decides: whoever is late sees what is left."""
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    await bought(stage, shop)
    part = {"receiver_id": friend, "amount": 1_000}

    ended = await asyncio.gather(
        *[split(stage, shop, payment, part) for _ in range(5)],
        stage.refund(payment, 8_000, client=stage.client_of(shop)),
        return_exceptions=True,
    )

    row = await stage.row_of(payment)
    refused = [each for each in ended if isinstance(each, Exception)]
    assert all("split.exceeds" in str(each) for each in refused)
    assert row.refunded == 8_000
    assert row.shared <= 3_000
    assert row.shared == await balance(stage, shop, wallet)
    await assert_shares_are_conserved(stage.db)


async def test_a_return_by_hand_is_never_more_than_the_share(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, wallet = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    made = await split(stage, shop, payment, {"receiver_id": friend, "amount": 900})
    give_back = stage.client_of(shop).splits.give_back

    first = await stage.call(
        give_back, made["id"], receiver_id=friend, amount=400, merchant_return_no=new_number()
    )
    with pytest.raises(Refused, match=r"split\.return_exceeds"):
        await stage.call(
            give_back, made["id"], receiver_id=friend, amount=501, merchant_return_no=new_number()
        )

    assert first["status"] == "succeeded"
    assert await balance(stage, shop, wallet) == 500
    assert (await stage.row_of(payment)).shared == 500


async def test_nobody_shares_what_is_another_merchants(stage: Stage) -> None:
    shop, stranger = await stage.open_shop(), await stage.open_shop()
    friend, _ = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    made = await split(stage, shop, payment, {"receiver_id": friend, "amount": 100})
    theirs = await bought(stage, stranger)

    for attempt in (
        split(stage, stranger, payment, {"receiver_id": friend, "amount": 1}),
        split(stage, stranger, theirs, {"receiver_id": friend, "amount": 1}),
        stage.call(stage.client_of(stranger).splits.get, made["id"]),
        stage.call(stage.client_of(stranger).splits.of_payment, payment["id"]),
    ):
        with pytest.raises(Refused, match="not_found"):
            await attempt


async def test_after_the_finish_nothing_more_is_shared(stage: Stage) -> None:
    shop = await stage.open_shop()
    friend, _ = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    finish = stage.client_of(shop).splits.finish

    done = await stage.call(finish, payment["id"], merchant_split_no=new_number())
    with pytest.raises(Refused, match=r"split\.exceeds"):
        await split(stage, shop, payment, {"receiver_id": friend, "amount": 1})

    assert (done["kind"], done["status"]) == ("finish", "ended")


@pytest.mark.parametrize(
    "place",
    [
        "splits.before_request",
        "splits.after_request",
        "splits.before_return",
        "splits.after_return",
    ],
)
async def test_whoever_dies_in_between_finds_it_done_once(stage: Stage, place: str) -> None:
    """A caller that dies at a failpoint and asks again under its numbers moves money once."""
    shop, sharing = await stage.open_shop(), stage.platform.sharing
    friend, wallet = await wallet_receiver(stage, shop)
    payment, number, back = await bought(stage, shop), new_number(), new_number()
    asked = SplitAsked(number, [(parse("rcv", friend), 800)], "now", None)

    async def life() -> None:
        row = await stage.row_of(payment)
        take = key_of(shop).write
        made, [share] = await request_split(sharing, row, asked, take=take, split_id=new_id())
        take = key_of(shop).write
        await request_return(sharing, made, share, (back, 300), take=take)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await life()
    failpoints.arm(None)
    await life()
    await life()

    assert await balance(stage, shop, wallet) == 500
    await assert_shares_are_conserved(stage.db)


def key_of(shop: Shop) -> Idempotency:
    keyed = (os.urandom(32), os.urandom(32), real_now() + timedelta(seconds=30))
    return Idempotency(shop.merchant.id, Mode.SANDBOX, "POST /by-hand", *keyed)


# At a channel


async def at_wechat(stage: Stage, shop: Shop, account: str = "1900000999") -> str:
    return await receiver(stage, shop, **MERCHANT, account=account, name="分账伙伴")


async def test_a_channel_gives_shares_and_the_book_follows(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    partner = await at_wechat(stage, shop)
    person = await receiver(stage, shop, **PERSON, account="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o")
    payment = await stage.paid("wechat_pay", 10_000, client=client)

    made = await split(
        *(stage, shop, payment),
        {"receiver_id": partner, "amount": 1_000},
        {"receiver_id": person, "amount": 500},
    )
    await stage.advance(seconds=30)
    done = await stage.call(client.splits.get, made["id"])
    finish = await stage.call(client.splits.finish, payment["id"], merchant_split_no=new_number())
    await stage.advance(seconds=30)

    assert made["status"] in {"pending", "requested"}
    assert done["status"] == "ended"
    assert [each["status"] for each in done["shares"]] == ["succeeded"] * 2
    assert (await stage.row_of(payment)).shared == 1_500
    assert (await stage.call(client.splits.get, finish["id"]))["status"] == "ended"
    assert await stage.events(done) == ["split.ended"]
    await assert_shares_are_conserved(stage.db)


async def test_a_share_that_fails_is_the_merchants_again(stage: Stage) -> None:
    shop = await stage.open_shop()
    partner = await at_wechat(stage, shop)
    payment = await stage.paid("wechat_pay", 10_000, client=stage.client_of(shop))
    stage.fault("wechat_pay", "split", "share_failed")

    made = await split(stage, shop, payment, {"receiver_id": partner, "amount": 1_000})
    await stage.advance(seconds=30)
    done = await stage.call(stage.client_of(shop).splits.get, made["id"])

    assert done["status"] == "ended"
    assert [(each["status"], each["code"]) for each in done["shares"]] == [
        ("failed", "ACCOUNT_ABNORMAL")
    ]
    assert (await stage.row_of(payment)).shared == 0


@pytest.mark.parametrize(
    "fault",
    ["time_out_done", "time_out_not_done", "http_500_done", "http_502_not_done",
     "bad_signature_done", "reset", "http_429"],
)  # fmt: skip
async def test_an_answer_nobody_heard_is_chased_and_gives_once(stage: Stage, fault: str) -> None:
    shop = await stage.open_shop()
    partner = await at_wechat(stage, shop)
    payment = await stage.paid("wechat_pay", 10_000, client=stage.client_of(shop))
    stage.fault("wechat_pay", "split", fault)

    made = await split(stage, shop, payment, {"receiver_id": partner, "amount": 1_000})
    for _ in range(3):
        await stage.advance(seconds=40)
    done = await stage.call(stage.client_of(shop).splits.get, made["id"])

    assert done["status"] == "ended", done
    assert [each["status"] for each in done["shares"]] == ["succeeded"]
    await assert_shares_are_conserved(stage.db)


async def test_shares_come_back_before_the_refund_is_sent(stage: Stage) -> None:
    """A merchant's share is taken back first; a person's cannot be, and the merchant bears it."""
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    partner = await at_wechat(stage, shop)
    person = await receiver(stage, shop, **PERSON, account="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o")
    payment = await stage.paid("wechat_pay", 10_000, client=client)
    await stage.paid("wechat_pay", 10_000, client=client)
    await split(
        *(stage, shop, payment),
        {"receiver_id": partner, "amount": 1_000},
        {"receiver_id": person, "amount": 500},
    )
    await stage.advance(seconds=30)
    stage.fault("wechat_pay", "split_return", "time_out_not_done")

    asked = await stage.refund(payment, 5_000, client=client)
    for _ in range(3):
        await stage.advance(seconds=40)
    refund = await stage.read(asked, client=client)
    shown = await stage.call(client.splits.of_payment, payment["id"])

    assert asked["status"] == "requested"
    assert refund["status"] == "succeeded"
    assert [(each["amount"], each["status"]) for each in shown["returns"]] == [(500, "succeeded")]
    assert shown["returns"][0]["refund_id"] == refund["id"]
    assert shown["amount_shared"] == 1_000
    calls = await asyncio.to_thread(stage.sandbox.get, "requests", last=500)
    order = [
        "back" if "return-orders" in each["target"] else "refund"
        for each in calls
        if "return-orders" in each["target"] or "refund/domestic" in each["target"]
    ]
    assert order[0] == "back"
    assert order.index("refund") > 0
    await assert_shares_are_conserved(stage.db)


async def test_alipay_takes_shares_back_with_the_refund(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    partner = await receiver(stage, shop, **AT_ALIPAY, account="2088102146225135")
    payment = await stage.paid("alipay", 10_000, client=client)
    await stage.paid("alipay", 10_000, client=client)
    made = await split(stage, shop, payment, {"receiver_id": partner, "amount": 1_000})
    await stage.advance(seconds=30)
    with pytest.raises(Refused, match=r"split\.return_not_offered"):
        await stage.call(
            client.splits.give_back,
            made["id"],
            receiver_id=partner,
            amount=1,
            merchant_return_no=new_number(),
        )

    asked = await stage.refund(payment, 10_000, client=client)
    for _ in range(3):
        await stage.advance(seconds=40)
    shown = await stage.call(client.splits.of_payment, payment["id"])

    assert (await stage.read(asked, client=client))["status"] == "succeeded"
    assert [(each["amount"], each["status"]) for each in shown["returns"]] == [(1_000, "succeeded")]
    assert shown["amount_shared"] == 0
    await assert_shares_are_conserved(stage.db)


@pytest.mark.parametrize(
    "place",
    ["splits.after_request", "splits.after_channel_call", "splits.before_outcome",
     "splits.after_outcome"],
)  # fmt: skip
async def test_a_death_on_the_way_to_the_channel_gives_once(stage: Stage, place: str) -> None:
    shop, sharing = await stage.open_shop(), stage.platform.sharing
    partner = await at_wechat(stage, shop)
    payment = await stage.paid("wechat_pay", 10_000, client=stage.client_of(shop))
    row, number = await stage.row_of(payment), new_number()
    asked = SplitAsked(number, [(parse("rcv", partner), 700)], "now", None)

    async def life() -> None:
        take = key_of(shop).write
        made, _ = await request_split(sharing, row, asked, take=take, split_id=new_id())
        await ask_channel(sharing, made)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await life()
    failpoints.arm(None)
    for _ in range(3):
        await stage.advance(seconds=40)
    row = await stage.row_of(payment)
    await life()

    [(made, [share])] = await splits_of_payment(stage.db, row.book, row.id)
    assert (made.state, share.state) == (SplitState.ENDED, ShareState.SUCCEEDED)
    assert row.shared == 700
    await assert_shares_are_conserved(stage.db)


async def test_a_receiver_whose_binding_nobody_heard_of_is_bound(stage: Stage) -> None:
    shop = await stage.open_shop()
    one = await at_wechat(stage, shop, "1900000123")
    again = await at_wechat(stage, shop, "1900000123")
    client = stage.client_of(shop)

    gone = await stage.call(client.splits.unbind, one)
    new = await at_wechat(stage, shop, "1900000123")
    listed = await stage.call(lambda: list(client.splits.receivers()))

    assert one == again != new
    assert gone["status"] == "unbound"
    assert {each["id"]: each["status"] for each in listed} == {one: "unbound", new: "active"}
    assert all("1900000123" not in str(each) for each in listed)


def test_shares_may_end_one_by_one_and_the_last_ends_the_split() -> None:
    """What a channel says of a share that has ended, or of another sum, is nothing."""
    ids = [new_id() for _ in range(6)]
    now = real_now()
    split = Split(
        *(1, ids[0], ids[1], ids[2], Mode.SANDBOX, "S-1", b"", "CNY", 300, "channel", "shares"),
        *(ids[3], "4200", "now", None, SplitState.UNKNOWN, None, None, now, None, 1, 1),
    )
    first, second = (
        ShareRow(1, share, ids[0], ids[1], who, 150, ShareState.PENDING, None, None, 0, 1)
        for share, who in ((new_id(), ids[4]), (new_id(), ids[5]))
    )
    accounts = {ids[4]: "a", ids[5]: "b"}

    def told(**states: str) -> list[ShareResult]:
        return [ShareResult(who, Money(150, "CNY"), STATES[said]) for who, said in states.items()]

    under_way = SplitUnderWay("3008", told(a="succeeded", b="pending"))
    step = next_share_step(split, [first, second], accounts, under_way, now)
    assert step is not None
    [given] = step.given
    assert (step.split.state, given.id, step.failed) == (SplitState.PENDING, first.id, [])

    wrong = SplitDone("3008", [ShareResult("b", Money(151, "CNY"), "succeeded")])
    assert next_share_step(step.split, [given, second], accounts, wrong, now) is None
    done = SplitDone("3008", told(a="failed", b="failed"))
    end = next_share_step(step.split, [given, second], accounts, done, now)
    assert end is not None
    assert (end.split.state, list(end.given)) == (SplitState.ENDED, [])
    assert [each.id for each in end.failed] == [second.id]
    assert next_share_step(end.split, [given, *end.failed], accounts, done, now) is None


async def test_an_aggregator_only_instructs_channels(
    make_db: MakeDb, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    """Nothing of it is in its book, and nobody of the house can be a receiver."""
    db = await make_db(licence=Licence.AGGREGATOR)
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox, licence=Licence.AGGREGATOR) as stage:
        await may_be_split(stage, db, sandbox)
        shop = stage.shop
        other = await stage.open_shop()
        with pytest.raises(Refused, match=r"split\.receiver_not_offered"):
            await receiver(stage, shop, kind="merchant", account=show("mch", other.merchant.id))
        partner = await at_wechat(stage, shop)
        payment = await stage.paid("wechat_pay", 10_000)
        made = await split(stage, shop, payment, {"receiver_id": partner, "amount": 1_000})
        await stage.advance(seconds=30)
        refund = await stage.refund(payment, 10_000)
        for _ in range(2):
            await stage.advance(seconds=30)

        shown = await stage.call(stage.client.splits.of_payment, payment["id"])
        assert (await stage.call(stage.client.splits.get, made["id"]))["status"] == "ended"
        assert (await stage.read(refund))["status"] == "succeeded"
        assert [each["status"] for each in shown["returns"]] == ["succeeded"]
        assert shown["amount_shared"] == 0
        assert await db.fetch("select 1 from ledger_transfer", ()) == []


async def dies(place: str, life: Awaitable[object]) -> None:
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await life
    failpoints.arm(None)


@pytest.mark.parametrize("place", ["splits.before_let_go", "splits.after_let_go"])
async def test_a_death_at_the_release_gives_once(stage: Stage, place: str) -> None:
    shop, sharing = await stage.open_shop(), stage.platform.sharing
    friend, wallet = await wallet_receiver(stage, shop)
    payment = await bought(stage, shop)
    held = await split(
        stage, shop, payment, {"receiver_id": friend, "amount": 600}, releases="later"
    )
    row = await stage.row_of(payment)
    [(before, _)] = await splits_of_payment(stage.db, row.book, row.id)

    await dies(place, release_split(sharing, before))
    [(after, _)] = await splits_of_payment(stage.db, row.book, row.id)
    if after.state is SplitState.HELD:
        await release_split(sharing, after)

    assert held["status"] == "held"
    assert await balance(stage, shop, wallet) == 600


@pytest.mark.parametrize(
    "place", ["splits.before_receiver", "splits.after_receiver", "splits.after_receiver_call"]
)
async def test_a_death_while_a_receiver_is_bound_binds_it_once(stage: Stage, place: str) -> None:
    shop = await stage.open_shop()
    account = f"19{new_number()[:8]}"
    asked = ReceiverAsked("channel", account, "PARTNER", "wechat_pay", "MERCHANT_ID", "伙伴")
    key = KeysOnRecord(stage.db, stage.platform.keyring)
    found = await key.find(parse("key", shop.key_id))
    assert found is not None
    take, sharing = key_of(shop).write, stage.platform.sharing

    await dies(place, bind_receiver(sharing, found.caller, asked, take=take, receiver_id=new_id()))
    await stage.advance(seconds=60)
    await receiver(stage, shop, **MERCHANT, account=account, name="伙伴")

    listed = await stage.call(lambda: list(stage.client_of(shop).splits.receivers()))
    assert [each["status"] for each in listed] == ["active"]


@pytest.mark.parametrize(
    "place",
    ["splits.after_finish_request", "splits.after_query", "splits.after_return_call",
     "splits.after_return_query", "splits.before_return_outcome"],
)  # fmt: skip
async def test_a_death_at_a_channels_other_calls_is_made_good(stage: Stage, place: str) -> None:
    """A share is given, a part comes back and the rest is freed, whatever dies in between."""
    shop, sharing = await stage.open_shop(), stage.platform.sharing
    partner = await at_wechat(stage, shop)
    payment = await stage.paid("wechat_pay", 10_000, client=stage.client_of(shop))
    if place == "splits.after_query":
        stage.fault("wechat_pay", "split", "time_out_done")
    if place == "splits.after_return_query":
        stage.fault("wechat_pay", "split_return", "time_out_done")
    await split(stage, shop, payment, {"receiver_id": partner, "amount": 700})
    row = await stage.row_of(payment)

    async def give_back() -> None:
        [(made, [share]), *_] = await splits_of_payment(stage.db, row.book, row.id)
        asked = (new_number(), 300)
        back = await request_return(sharing, made, share, asked, take=key_of(shop).write)
        await ask_for_return(sharing, back)

    if place == "splits.after_query":
        [(made, _)] = await splits_of_payment(stage.db, row.book, row.id)
        await dies(place, ask_channel(sharing, made))
    await stage.advance(seconds=60)
    if "return" in place:
        await dies(place, give_back())
    else:
        await give_back()
    await stage.advance(seconds=60)
    finish = finish_sharing(
        sharing, await stage.row_of(payment), "F", take=key_of(shop).write, split_id=new_id()
    )
    if place == "splits.after_finish_request":
        await dies(place, finish)
    else:
        await finish
    for _ in range(2):
        await stage.advance(seconds=60)

    found = await splits_of_payment(stage.db, row.book, row.id)
    assert [made.state for made, _ in found] == [SplitState.ENDED] * 2
    assert (await stage.row_of(payment)).shared == 400
    await assert_shares_are_conserved(stage.db)


async def test_the_channel_says_how_much_may_still_be_shared(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 10_000)
    ask = stage.client.splits.unsplit
    left = await stage.call(ask, payment["id"])
    assert (left["amount"], left["amount_shared"], left["currency"]) == (10_000, 0, "CNY")

    stranger = stage.client_of(await stage.open_shop())
    unpaid, at_alipay = await stage.show_qr("wechat_pay"), await stage.paid("alipay", 100)
    for client, whose, code in (
        (stranger, payment, "payment.not_found"),
        (stage.client, unpaid, "split.payment_not_shareable"),
        (stage.client, at_alipay, "split.payment_not_shareable"),
    ):
        with pytest.raises(Refused) as refused:
            await stage.call(client.splits.unsplit, whose["id"])
        assert refused.value.code == code
