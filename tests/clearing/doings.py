"""What merchants and people do beside selling: share, pay many, have payouts come back, adjust."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from tests.clearing.conftest import Day
from tests.clearing.test_payout_files import booked_back
from tests.clearing.test_settlement_batches import MAY
from tests.clearing.test_transfers import GOOD, row, table
from tests.stage import new_number
from tongbao.clearing.payouts.files import take_answer
from tongbao.clearing.payouts.queries import payout_with_id
from tongbao.clearing.suspense import desk
from tongbao.clearing.suspense.model import AdjustmentTerms, Side
from tongbao.clearing.transfers import transfers
from tongbao.clearing.transfers.model import TransferBalanceTooLow
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import Approval, acts_of
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.splits.model import PPM
from tongbao.surfaces.demo.stage import Shop
from tongbao_sdk import Refused, Tongbao

SOURCES = ("fee_income", "bank")
THERE: dict[str, dict[str, str]] = {
    "wechat_pay": {
        "kind": "channel",
        "channel": "wechat_pay",
        "channel_kind": "MERCHANT_ID",
        "account": "86693852",
        "name": "张三",
    }
}
"""Somebody at a channel who gets a share of what comes in there."""
AT_CHANNELS = (
    row("3", "alipay", "2088722000000201", "1.10"),
    row("4", "wechat_pay", "oPayee000000000000000000001", "1.30"),
)
"""Somebody at each channel whom merchants pay out of their balance."""
FOUR_EYES = {*MAY, "adjustments_act"}


class Doings(Struct):
    """The shops, with whom each shares, and what was done."""

    shops: list[Shop]
    receivers: dict[int, str] = field(default_factory=dict)
    there: dict[int, str] = field(default_factory=dict)  # with whom it shares at the channel
    wallets: dict[int, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


async def do_more(
    day: Day, doings: Doings, payments: list[tuple[Any, Any]], chance: random.Random
) -> None:
    """One day of it."""
    await _share(day, doings, payments, chance)
    await _pay_many(day, doings, chance)
    await _share_there(day, doings, payments, chance)
    await _send_back(day, doings, chance)
    await _adjust(day, doings, chance)
    await day.stage.idle()


async def _share(
    day: Day, doings: Doings, payments: list[tuple[Any, Any]], chance: random.Random
) -> None:
    """Merchants share some of what they took today with a neighbour."""
    late = payments[-len(doings.shops) :]
    for client, payment in chance.sample(late, -(-len(late) // 5)):
        merchant_id = (await day.stage.row_of(payment)).merchant_id
        place = next(n for n, s in enumerate(doings.shops) if s.merchant.id == merchant_id)
        if place not in doings.receivers:
            other = doings.shops[(place + 1) % len(doings.shops)].merchant.id
            doings.receivers[place] = await bound(day, client, other)
        ratio = chance.randint(10_000, 300_000)
        done = await share(day, client, payment, doings.receivers[place], ratio)
        doings.count("splits" if done else "splits refused")


async def _share_there(
    day: Day, doings: Doings, payments: list[tuple[Any, Any]], chance: random.Random
) -> None:
    """Merchants share with others at the channel, and some of it comes back."""
    late = payments[-2 * len(doings.shops) :]
    for client, payment in chance.sample(late, -(-len(late) // 5)):
        row_of = await day.stage.row_of(payment)
        if row_of.channel not in THERE or row_of.left < 100 or row_of.shared:
            continue
        place = next(n for n, s in enumerate(doings.shops) if s.merchant.id == row_of.merchant_id)
        if place not in doings.there:
            made = await day.stage.call(client.splits.bind, **THERE[row_of.channel])
            await day.stage.idle()
            doings.there[place] = str(made["id"])
        part = chance.randint(1, row_of.left // 10)
        shares = [{"receiver_id": doings.there[place], "amount": part}]
        create, number = client.splits.create, new_number()
        try:
            made = await day.stage.call(
                create, payment["id"], shares=shares, merchant_split_no=number
            )
        except Refused as refused:
            assert refused.code.startswith("split."), refused.code  # noqa: PT017
            doings.count("shares there refused")
            continue
        doings.count("shares there")
        await day.stage.advance(seconds=30)
        if chance.random() < 0.5:
            back = {"receiver_id": doings.there[place], "merchant_return_no": new_number()}
            await day.stage.call(
                client.splits.give_back, made["id"], amount=chance.randint(1, part), **back
            )
            doings.count("shares given back")
            await day.stage.advance(seconds=30)


async def bound(day: Day, client: Tongbao, merchant_id: UUID) -> str:
    """Make a merchant somebody whom another shares with."""
    account = show("mch", merchant_id)
    made = await day.stage.call(client.splits.bind, kind="merchant", account=account)
    return str(made["id"])


async def share(day: Day, client: Tongbao, payment: Any, receiver_id: str, ratio_ppm: int) -> bool:
    """Share a part of a payment; tell whether there was enough left of it."""
    shares = [{"receiver_id": receiver_id, "ratio_ppm": ratio_ppm}]
    create, number = client.splits.create, new_number()
    try:
        await day.stage.call(create, payment["id"], shares=shares, merchant_split_no=number)
    except Refused as refused:
        came_in = (await day.stage.row_of(payment)).captured
        part, _ = Money(came_in, "CNY").allocate([ratio_ppm, PPM - ratio_ppm])
        said = "split." if part.amount else "request.invalid_value"  # no share is of nothing
        assert refused.code.startswith(said), refused.code  # noqa: PT017
        return False
    return True


async def _pay_many(day: Day, doings: Doings, chance: random.Random) -> None:
    """Some merchants pay a card and a wallet out of their balance."""
    for place in chance.sample(range(len(doings.shops)), -(-len(doings.shops) // 12)):
        client = day.stage.client_of(doings.shops[place])
        if place not in doings.wallets:
            opened = await day.stage.call(client.wallets.open, holder_name="李四")
            doings.wallets[place] = str(opened["id"])
        amounts = chance.randint(100, 2_000), chance.randint(1, 900)
        done = await pay_many(day, client, doings.wallets[place], amounts, *AT_CHANNELS)
        doings.count("transfer batches" if done else "transfers refused")


async def pay_many(
    day: Day, client: Tongbao, wallet_id: str, fen: tuple[int, int], *more: dict[str, str]
) -> bool:
    """Pay a card, a wallet and whoever there is more; tell whether the balance covered all."""
    rows = [
        row("1", "bank", GOOD, f"{fen[0] // 100}.{fen[0] % 100:02}"),
        row("2", "wallet", wallet_id, f"{fen[1] // 100}.{fen[1] % 100:02}"),
        *more,
    ]
    sent = await day.stage.call(client.transfer_batches.send, new_number(), table(*rows))
    try:
        async with day.db.begin("operator:anna") as tx:
            batch_id = parse("trb", sent["batch"]["id"])
            asked = await transfers.propose_release(tx, batch_id, reason="pay day")
    except TransferBalanceTooLow:
        return False
    await _agree(day, asked)
    return True


async def _send_back(day: Day, doings: Doings, chance: random.Random) -> None:
    """A bank sends some payouts back that it had paid."""
    for payout_id in (await paid_payouts(day))[-2 * len(doings.shops) :]:
        if chance.random() < 0.04:
            await send_back(day, payout_id)
            doings.count("payouts returned")


async def paid_payouts(day: Day) -> list[UUID]:
    """Return the payouts that the bank has paid, the oldest first."""
    rows = await day.db.fetch("select id from payout where state = 'succeeded' order by id", ())
    return [each["id"] for each in rows]


async def send_back(day: Day, payout_id: UUID) -> None:
    """Have the bank's statement say that a payout came back."""
    payout = await payout_with_id(day.db, payout_id)
    assert payout.account_id is not None
    account = await day.clearing.flow.account(payout.account_id)
    content = booked_back(payout, str(getattr(account.secrets, "debtor_account", "")))
    found = await take_answer(day.clearing, payout.account_id, content, actor="operator:anna")
    assert found.applied == 1


async def _adjust(day: Day, doings: Doings, chance: random.Random) -> None:
    """Somebody is given something, of the house's fees or of what the bank has found."""
    owner = chance.choice(doings.shops).merchant.id
    await adjust(day, chance.choice(SOURCES), owner, chance.randint(1, 500))
    doings.count("adjustments")


async def adjust(day: Day, source: str, owner: UUID, fen: int) -> None:
    """Two people give a merchant something."""
    to = Side("merchant_payable", owner)
    terms = AdjustmentTerms(new_id(), SANDBOX_BOOK, "CNY", fen, Side(source), to)
    flow = day.stage.flow
    asked = await desk.propose_adjustment(flow, terms, reason="goodwill", actor="operator:anna")
    await _agree(day, asked)


async def _agree(day: Day, asked: Approval) -> None:
    acts = acts_of(*transfers.bound_acts(day.db), *desk.bound_acts(day.stage.flow))
    async with day.db.begin("operator:bert") as tx:
        await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=FOUR_EYES)
