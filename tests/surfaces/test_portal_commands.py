"""The developer's commands: events brought to a program, things made to happen, the log's tail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.commands import Cli, command_line
from tests.surfaces.receiver import receiving
from tongbao.kernel.ids import base32, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.surfaces.demo.stage import SHOP_FEES, further_orders, open_accounts
from tongbao.surfaces.portal.following import follow
from tongbao.surfaces.portal.happenings import read_override
from tongbao.surfaces.portal.theatre import OverrideUnreadable
from tongbao_sdk import Refused, verify_webhook


@pytest.fixture
async def stage(shared_stage: Stage) -> Stage:
    return shared_stage


@pytest.fixture
def cli(stage: Stage) -> Iterator[Cli]:
    environment = {
        "TONGBAO_URL": stage.url,
        "TONGBAO_KEY": stage.shop.key_id,
        "TONGBAO_SECRET": stage.shop.secret.reveal(),
        "TONGBAO_SANDBOX_URL": stage.sandbox.url,
    }
    with command_line(environment) as run:
        yield run


@pytest.mark.parametrize(
    "event", ["payment.succeeded", "payment.failed", "payment.closed", "refund.succeeded"]
)
async def test_what_is_triggered_really_happens(stage: Stage, cli: Cli, event: str) -> None:
    said = await cli("trigger", event, "--override", "metadata.table=4", "--override", "amount=700")
    await stage.advance(minutes=1)  # a refund over WeChat Pay takes a while

    assert said.code == 0, said.err
    made = said.out.split()
    assert event in await stage.events({"id": made[-1]})
    payment = await stage.call(stage.client.payments.get, made[0])
    assert payment["amount"] == 700
    assert payment["metadata"] == {"table": "4"}


async def with_unionpay(stage: Stage) -> None:
    """Let the shop take UnionPay too, which can set money aside."""
    [order, _] = further_orders(stage.sandbox.url, "127.0.0.1:1", stage.sandbox.credentials)
    platform = stage.platform
    made = await open_accounts(stage.db, platform.keyring, platform.secret_types, [order])
    ways = [PriceLine("unionpay", "payment_code", 6000), *SHOP_FEES]
    merchant_id = stage.shop.merchant.id
    async with stage.db.begin("tests") as tx:
        await set_price_plan(tx, merchant_id, Mode.SANDBOX, ways)
        await connect_channel(tx, merchant_id, Mode.SANDBOX, "unionpay", made["unionpay"])


async def with_agreements(stage: Stage) -> None:
    """Let the shop collect under agreements."""
    ways = [PriceLine(each, "agreement", 7000) for each in ("wechat_pay", "alipay")]
    async with stage.db.begin("tests") as tx:
        await set_price_plan(tx, stage.shop.merchant.id, Mode.SANDBOX, [*ways, *SHOP_FEES])


@pytest.mark.parametrize("event", ["payment.authorised", "payment.captured", "payment.voided"])
async def test_money_is_set_aside_taken_and_let_go(stage: Stage, cli: Cli, event: str) -> None:
    await with_unionpay(stage)
    running = asyncio.ensure_future(cli("trigger", event, "--channel", "unionpay"))
    while not running.done():  # it waits for the channel's word
        await stage.idle()
    said = await running
    await stage.idle()

    assert said.code == 0, said.err
    assert event in await stage.events({"id": said.out.split()[-1]})


@pytest.mark.parametrize(
    "event", ["dispute.opened", "dispute.closed", "checkout.closed", "wallet.topped_up"]
)
async def test_what_is_no_payment_is_triggered_too(stage: Stage, cli: Cli, event: str) -> None:
    said = await cli("trigger", event)
    await stage.idle()

    assert said.code == 0, said.err
    assert event in await stage.events({"id": said.out.split()[-1]})


@pytest.mark.parametrize(
    ("event", "channel"),
    [
        ("agreement.signed", "alipay"),
        ("agreement.ended", "wechat_pay"),
        ("split.ended", "wechat_pay"),
        ("split.cancelled", "wechat_pay"),
        ("split_return.succeeded", "wechat_pay"),
        ("settlement.closed", "wechat_pay"),
        ("payout.succeeded", "wechat_pay"),
        ("complaint.opened", "wechat_pay"),
        ("complaint.updated", "wechat_pay"),
    ],
)
async def test_what_comes_after_a_payment_is_triggered_too(
    stage: Stage, cli: Cli, event: str, channel: str
) -> None:
    await with_agreements(stage)
    running = asyncio.ensure_future(cli("trigger", event, "--channel", channel))
    while not running.done():  # it waits for the channel's word, and the bank for its two seconds
        await stage.advance(seconds=3)
    said = await running
    await stage.idle()

    assert said.code == 0, said.err
    assert event in await stage.events({"id": said.out.split()[-1]})


async def test_a_bank_refuses_a_payout_that_it_had_taken(stage: Stage, cli: Cli) -> None:
    running = asyncio.ensure_future(cli("trigger", "payout.failed"))
    while not running.done():  # the bank's two seconds go by once it has refused, and not before
        await stage.idle()
        rows = await stage.db.fetch("select id from payout where state = 'pending'", ())
        held = [await at_bank(stage, show("pyo", each["id"])) for each in rows]
        if any(report["status"] == "RJCT" for each in held for report in each["reports"]):
            await stage.advance(minutes=1)
    said = await running
    await stage.idle()

    assert said.code == 0, said.err
    assert "payout.failed" in await stage.events({"id": said.out.split()[-1]})


async def at_bank(stage: Stage, payout_id: str) -> Any:
    """How the bank holds a payout."""
    number = base32(parse("pyo", payout_id))
    return await asyncio.to_thread(stage.sandbox.get, f"bank/payments/{number}")


async def test_a_channel_without_agreements_is_said_to_be(cli: Cli) -> None:
    said = await cli("trigger", "agreement.signed", "--channel", "unionpay")

    assert said.code == 1
    assert "trigger.channel_without" in said.err


async def test_a_sandbox_is_settled_without_anything_agreed_and_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = stage.client_of(shop)
    await stage.paid("alipay", 10_000, client=client)
    settle = client.settlements.settle_in_sandbox

    made = await asyncio.gather(*(stage.call(settle) for _ in range(3)), return_exceptions=True)

    done = [each for each in made if not isinstance(each, BaseException)]
    assert [each["payable"] for each in done] == [9_920]
    assert {each.code for each in made if isinstance(each, Refused)} <= {
        *("settlement.nothing_payable", "settlement.contended", "settlement.in_batch"),
    }
    with pytest.raises(Refused, match=r"settlement\.nothing_payable"):
        await stage.call(settle)


async def test_endpoints_are_told_of_a_test(stage: Stage, cli: Cli) -> None:
    async with receiving() as receiver:
        made = await stage.call(stage.client.webhook_endpoints.create, receiver.url)
        said = await cli("trigger", "webhook.test")
        await stage.idle()
        await stage.call(stage.client.webhook_endpoints.delete, made["id"])

    assert said.out.split() == [made["id"]]
    tested = [each for each in receiver.received if b'"webhook.test"' in each.body]
    assert len(tested) == 1


async def test_a_dispute_is_raised_once_and_of_ones_own_payments_alone(stage: Stage) -> None:
    payment = await stage.paid("alipay")
    stranger = stage.client_of(await stage.open_shop())
    raise_it = stage.client.disputes.raise_in_sandbox

    made = await asyncio.gather(*(stage.call(raise_it, payment["id"]) for _ in range(4)))
    with pytest.raises(Refused, match=r"payment\.not_found"):
        await stage.call(stranger.disputes.raise_in_sandbox, payment["id"])
    with pytest.raises(Refused, match=r"dispute\.ref_used"):
        await stage.call(raise_it, payment["id"], 1)
    waiting = await stage.show_qr("alipay")
    with pytest.raises(Refused, match=r"dispute\.payment_unfit"):
        await stage.call(raise_it, waiting["id"])

    assert len({each["id"] for each in made}) == 1
    assert made[0]["amount"] == payment["amount"]
    assert (await stage.events(made[0])).count("dispute.opened") == 1


async def test_what_is_refused_is_told(cli: Cli) -> None:
    said = await cli("trigger", "payment.succeeded", "--override", "amount=0")
    assert said.code == 1
    assert "money.amount_out_of_range" in said.err
    said = await cli("trigger", "payment.succeeded", "--override", "amount")
    assert "trigger.override_unreadable" in said.err
    said = await cli("trigger", "payment.succeeded", "--sandbox-url", "http://127.0.0.1:1")
    assert "trigger.sandbox_not_there" in said.err


async def test_events_are_brought_signed(stage: Stage, cli: Cli) -> None:
    await cli("trigger", "payment.succeeded")
    await stage.idle()
    async with receiving() as receiver:
        said = await cli(
            *("listen", "--forward-to", receiver.url, "--past", "20", "--count", "1"),
            *("--type", "payment.succeeded"),
        )

    assert said.code == 0, said.err
    first, brought = said.out.splitlines()
    secret, public_key = (each.partition("=")[2] for each in first.split("  "))
    [heard] = receiver.received
    for secrets, public_keys in (([secret], []), ([], [public_key])):
        event = verify_webhook(heard.headers, heard.body, secrets=secrets, public_keys=public_keys)
        assert event["type"] == "payment.succeeded"
        assert brought.split("  ") == [event["id"], "payment.succeeded", "204"]
    assert event == await stage.call(stage.client.events.get, event["id"])


async def test_a_program_that_is_not_there_is_said_to_be(stage: Stage, cli: Cli) -> None:
    await cli("trigger", "payment.succeeded")
    await stage.idle()
    words = ("--forward-to", "http://127.0.0.1:1/", "--past", "5", "--count", "1")
    said = await cli("listen", *words)

    assert said.code == 0
    assert "no answer" in said.out


async def test_the_logs_tail_shows_requests_and_not_itself(stage: Stage, cli: Cli) -> None:
    await asyncio.gather(*(stage.call(stage.client.balance) for _ in range(2)))
    said = await cli("--json", "logs", "tail", "--no-follow", "--past", "2")
    filtered = await cli("logs", "tail", "--no-follow", "--status", "418")

    assert said.code == 0, said.err
    assert said.out.count("/v1/balance") == 2
    assert "request_log" not in said.out
    assert (filtered.code, filtered.out) == (0, "")


def test_a_list_is_followed_each_thing_once_and_in_order() -> None:
    listed = [{"id": str(number)} for number in range(3)]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        grown = len(listed)
        listed.extend({"id": str(grown + more)} for more in range(150))
        listed.insert(1, {"id": f"late {grown}"})  # told after a newer one

    def newest() -> Iterator[Any]:
        return reversed(listed[-250:])

    followed = follow(newest, past=1, pause=pause)
    found = [next(followed)["id"] for _ in range(152)]

    assert found[0] == "2"
    assert found[1] == "late 3"
    assert found[2:] == [str(3 + each) for each in range(150)]
    assert pauses == [1.0]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a=1", (["a"], 1)),
        ("metadata.a=1", (["metadata", "a"], "1")),
        ("a.b=c", (["a", "b"], "c")),
        ('a={"b":2}', (["a"], {"b": 2})),
    ],
)
def test_an_override_is_a_path_and_a_value(text: str, wanted: Any) -> None:
    assert read_override(text) == wanted


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".a=1"])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(OverrideUnreadable):
        read_override(text)
