"""Payments at a terminal: counted with its limits in their own commit, and told to it when paid."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.stage import Stage, new_number
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.terminals import inventory, limits
from tongbao.parties.terminals.limits import meter_of
from tongbao.parties.terminals.model import Limits, Meter, Terminal
from tongbao.payments.checkouts import queries as checkouts
from tongbao.payments.checkouts.checkouts import Visitor, try_paying
from tongbao.payments.checkouts.model import Offer
from tongbao.payments.terminal_notices.notices import latest_notices
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.surfaces.demo.stage import Shop
from tongbao_sdk import Refused


async def terminal_at(stage: Stage, shop: Shop, **most: int) -> Terminal:
    """A new terminal of a shop, with limits."""
    serial, merchant = f"SN{new_number()[:20].upper()}", shop.merchant
    async with stage.db.begin("test") as tx:
        await inventory.import_serials(tx, f"serial\n{serial}".encode(), name="b", model="S1")
        found = await inventory.terminal_with_serial(tx, serial)
        bound = await inventory.assign_terminal(tx, found.id, merchant, Mode.SANDBOX)
        book, wanted = merchant.book(Mode.SANDBOX), Limits(**most)
        await limits.set_limits(tx, book, bound, wanted, currency="CNY")
    return bound


async def counted(stage: Stage, terminal: Terminal) -> tuple[int, int]:
    meter: Meter = await meter_of(stage.db, stage.shop.merchant.book(Mode.SANDBOX), terminal.id)
    return meter.used_count, meter.used_amount


@pytest.fixture
async def terminal(stage: Stage) -> Terminal:
    return await terminal_at(stage, stage.shop, amount=1000, count=4)


async def test_a_payment_from_a_wallet_counts_and_is_told(stage: Stage, terminal: Terminal) -> None:
    at: dict[str, Any] = {"terminal_id": show("trm", terminal.id)}
    payment = await stage.scan_code(await stage.wallet_code(), 600, **at)
    with pytest.raises(Refused) as refused:
        await stage.scan_code(await stage.wallet_code(), 600, **at)
    await stage.idle()

    assert (payment["status"], payment["metadata"]["terminal_id"]) == (
        "succeeded",
        at["terminal_id"],
    )
    assert (refused.value.code, refused.value.facts["limit"]) == ("terminal.limit_amount", 1000)
    assert await counted(stage, terminal) == (1, 600)
    [notice] = await latest_notices(stage.db, terminal)
    assert notice.body["payment_id"] == payment["id"]
    assert notice.body["speak"]["zh"] == "钱包收款 6.00 元"


async def test_of_many_payments_at_once_only_those_that_fit_happen(
    stage: Stage, terminal: Terminal
) -> None:
    at: dict[str, Any] = {"terminal_id": show("trm", terminal.id)}
    codes = [await stage.wallet_code() for _ in range(8)]

    ends = await asyncio.gather(
        *[stage.scan_code(code, 300, **at) for code in codes], return_exceptions=True
    )

    paid = [each for each in ends if not isinstance(each, BaseException)]
    refused = {each.code for each in ends if isinstance(each, Refused)}
    assert len(paid) == 3
    assert refused <= {"terminal.limit_amount", "payment.contended"}
    assert await counted(stage, terminal) == (3, 900)


async def test_a_payment_that_is_called_off_gives_its_place_back(
    stage: Stage, terminal: Terminal
) -> None:
    at: dict[str, Any] = {"terminal_id": show("trm", terminal.id)}
    waiting = await stage.show_qr("wechat_pay", 900, **at)
    before = await counted(stage, terminal)
    with pytest.raises(Refused):
        await stage.show_qr("alipay", 900, **at)

    await stage.close(waiting)
    again = await stage.show_qr("alipay", 900, **at)
    await stage.customer(again)
    await stage.idle()

    assert before == (1, 900)
    assert await counted(stage, terminal) == (1, 900)
    told = await latest_notices(stage.db, terminal)
    assert [each.body["payment_id"] for each in told] == [again["id"]]


async def test_a_wallet_without_money_uses_nothing_up(stage: Stage, terminal: Terminal) -> None:
    failed = await stage.scan_code(
        await stage.wallet_code(0), 600, terminal_id=show("trm", terminal.id)
    )

    assert failed["status"] == "failed"
    assert await counted(stage, terminal) == (0, 0)


async def test_the_same_order_again_counts_once(stage: Stage, terminal: Terminal) -> None:
    order: dict[str, Any] = {
        "merchant_order_no": new_number(),
        "terminal_id": show("trm", terminal.id),
    }
    one = await stage.show_qr("wechat_pay", 400, **order)
    again = await stage.show_qr("wechat_pay", 400, **order)

    assert one["id"] == again["id"]
    assert await counted(stage, terminal) == (1, 400)


async def test_nobody_collects_at_anothers_terminal(stage: Stage, terminal: Terminal) -> None:
    client = stage.client_of(await stage.open_shop())
    for shown in (show("trm", terminal.id), show("trm", UUID(int=7)), "trm_x"):
        with pytest.raises(Refused) as refused:
            await stage.show_qr("wechat_pay", 100, client=client, terminal_id=shown)
        assert refused.value.code in {"terminal.not_found", "id.unknown"}
    assert await counted(stage, terminal) == (0, 0)


async def test_a_speaker_by_a_plate_tells_what_is_paid_there(
    stage: Stage, terminal: Terminal
) -> None:
    client = stage.client
    plate = await stage.call(client.plates.create, name="bar", subject="tea")
    own = show("trm", terminal.id)
    await stage.call(client.terminals.place, own, name="bar", plate_id=plate["id"])
    revoked = await stage.call(client.plates.create, name="old", subject="tea")
    await stage.call(client.plates.revoke, revoked["id"])
    with pytest.raises(Refused) as refused:
        await stage.call(client.terminals.place, own, plate_id=revoked["id"])
    with pytest.raises(Refused) as no_store:
        await stage.call(client.terminals.place, own, store_id=show("sto", UUID(int=7)))

    payment = await stage.paid("alipay", 1250, metadata={"plate_id": plate["id"]})

    assert refused.value.code == no_store.value.code == "terminal.place_not_found"
    [notice] = await latest_notices(stage.db, terminal)
    assert notice.body["payment_id"] == payment["id"]
    placed = await stage.call(client.terminals.get, own)
    assert parse("plt", placed["plate_id"]) == parse("plt", plate["id"])


async def test_an_order_that_filled_its_terminal_is_found_again_under_a_new_key(
    stage: Stage, terminal: Terminal
) -> None:
    order: dict[str, Any] = {
        "merchant_order_no": new_number(),
        "terminal_id": show("trm", terminal.id),
    }
    first = await stage.scan_code(await stage.wallet_code(), 900, **order)

    again = await stage.scan_code(await stage.wallet_code(), 900, **order)
    with pytest.raises(Refused) as another:
        await stage.scan_code(await stage.wallet_code(), 901, **order)

    assert again["id"] == first["id"]
    assert another.value.code == "payment.order_no_used"
    assert await counted(stage, terminal) == (1, 900)


async def test_a_refund_is_told_where_its_payment_was_taken(
    stage: Stage, terminal: Terminal
) -> None:
    at: dict[str, Any] = {"terminal_id": show("trm", terminal.id)}
    payment = await stage.scan_code(await stage.wallet_code(), 600, **at)
    refund = await stage.refund(payment, 250)
    elsewhere = await stage.scan_code(await stage.wallet_code(), 300)
    await stage.refund(elsewhere, 300)
    await stage.idle()

    back, paid = [each.body for each in await latest_notices(stage.db, terminal)]

    assert (paid["kind"], back["kind"]) == ("money_received", "money_returned")
    assert (back["payment_id"], back["refund_id"]) == (payment["id"], refund["id"])
    assert back["speak"] == {"zh": "钱包退款 2.50 元", "en": "Wallet refunded 2.50 yuan"}
    assert {"kind": "text", "text": "退款凭证"}.items() <= back["print"][2].items()
    assert await counted(stage, terminal) == (1, 600)  # the terminal did take it


async def test_a_checkout_at_a_terminal_counts_and_is_told_there(
    stage: Stage, terminal: Terminal
) -> None:
    open_checkout, at = stage.client.checkouts.create, show("trm", terminal.id)
    number = new_number()
    shown = await stage.call(
        open_checkout, merchant_order_no=number, amount=700, subject="tea", terminal_id=at
    )
    again = await stage.call(
        open_checkout, merchant_order_no=number, amount=700, subject="tea", terminal_id=at
    )
    checkout = await checkouts.checkout(
        stage.db, stage.shop.merchant.book(Mode.SANDBOX), parse("cko", shown["id"])
    )
    offer = Offer("wechat_pay", PayMode.QR)
    payment, _ = await try_paying(stage.flow, checkout, offer, Visitor("127.0.0.1", "http://x/"))
    tried = await stage.call(stage.client.payments.get, show("pay", payment.id))
    with pytest.raises(Refused) as refused:
        await stage.call(
            open_checkout, merchant_order_no=new_number(), amount=700, subject="tea", terminal_id=at
        )
    await stage.customer(tried)
    await stage.idle()

    assert (shown["terminal_id"], again["id"]) == (at, shown["id"])
    assert tried["metadata"] == {"terminal_id": at, "checkout_id": shown["id"]}
    assert refused.value.code == "terminal.limit_amount"
    assert await counted(stage, terminal) == (1, 700)
    [notice] = await latest_notices(stage.db, terminal)
    assert notice.body["payment_id"] == tried["id"]


async def test_a_checkout_at_anothers_terminal_is_none(stage: Stage, terminal: Terminal) -> None:
    client = stage.client_of(await stage.open_shop())
    with pytest.raises(Refused) as refused:
        await stage.call(
            client.checkouts.create,
            merchant_order_no=new_number(),
            amount=100,
            subject="tea",
            terminal_id=show("trm", terminal.id),
        )
    assert refused.value.code == "terminal.not_found"
