"""Money between a person's wallet and their electronic account: both ways, now or later, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.parties.phones import PHONE
from tests.parties.test_e_accounts import Held, agrees, crash_at, left, now_is, somebody
from tests.payments.test_e_account_payments import account_of, enter, teller_of
from tests.payments.test_own_wallet import balance_of, wallet_with
from tests.stage import Stage
from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.tasks import Again
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.parties.accounts.model import (
    DailyLimitExceeded,
    WalletCurrencyDiffers,
    WalletFrozen,
    WalletNotFound,
)
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.consents.holdings import ClaimedWallets
from tongbao.parties.e_accounts import orders, queries
from tongbao.parties.e_accounts.model import EAccount, EAccountBalanceShort, WalletShort
from tongbao.parties.e_accounts.orders import RunOrder, Teller, Wanted

NOTHING = Confirmed(None)


def teller(stage: Stage) -> Teller:
    plain = teller_of(stage)
    return Teller(plain.db, plain.ledger, None, ClaimedWallets())


async def claim(stage: Stage, wallet: Any, person_id: UUID) -> UUID:
    wallet_id = parse("wal", wallet["id"])
    await stage.db.fetch(
        "insert into person_wallet (book, wallet_id, person_id, claimed_at)"
        " select book, id, $2, opened_at from wallet where id = $1",
        (wallet_id, person_id),
    )
    return wallet_id


async def move(
    stage: Stage, account: EAccount, wallet_id: UUID, kind: Any, amount: int, **more: Any
) -> Any:
    request_id = more.pop("request_id", None) or str(new_id())
    wanted = Wanted(kind, Money(amount, "CNY"), request_id, wallet_id, **more)
    return await orders.order(teller(stage), account, wanted, level=3, confirmed=NOTHING)


async def test_money_goes_both_ways_in_one_commit_and_is_counted(stage: Stage) -> None:
    account, wallet = await account_of(stage, fill=5_000), await wallet_with(stage, 5_000)
    wallet_id = await claim(stage, wallet, account.person_id)

    into, again = [
        await move(stage, account, wallet_id, "from_wallet", 700, request_id="r1") for _ in "12"
    ]
    out = await move(stage, account, wallet_id, "to_wallet", 200)

    assert (into.id, into.state, out.state) == (again.id, "done", "done")
    assert await balance_of(stage, wallet) == 4_500
    assert (await now_is(stage.db, account)).balance == 5_500
    assert (await left(stage.db, account))["out_others/year"] == 20_000_000 - 200
    [row] = await stage.db.fetch("select spent from wallet where id = $1", (wallet_id,))
    assert row["spent"] == 700, "the wallet's own limit of the day counts too"
    lines = await queries.statement_of(stage.db, account, cursor=None, limit=2)
    assert [each.code for each in lines.items] == [
        "e_account.went_to_wallet/amount", "e_account.came_from_wallet/amount",
    ]  # fmt: skip
    await agrees(stage.db, account)


async def test_a_refusal_names_its_side_and_nobody_elses_wallet_is_there(stage: Stage) -> None:
    account = await account_of(stage, 3, fill=100, licence=Licence.BANK)
    wallet, dollars = await wallet_with(stage, 2_000_000), await wallet_with(stage, 0, "USD")
    mine, foreign = [await claim(stage, each, account.person_id) for each in (wallet, dollars)]
    other = await wallet_with(stage)
    theirs = await claim(stage, other, (await somebody(stage.db)).id)

    async def refused(kind: str, wallet_id: UUID, amount: int) -> type[Refusal]:
        with pytest.raises(Refusal) as refusal:
            await move(stage, account, wallet_id, kind, amount)
        return type(refusal.value)

    assert await refused("from_wallet", theirs, 1) is WalletNotFound
    assert await refused("to_wallet", theirs, 1) is WalletNotFound
    assert await refused("from_wallet", new_id(), 1) is WalletNotFound
    assert await refused("from_wallet", foreign, 1) is WalletCurrencyDiffers
    assert await refused("to_wallet", mine, 101) is EAccountBalanceShort
    assert await refused("from_wallet", mine, 200_000) is LimitExceeded  # no room above 2000 yuan
    assert await refused("from_wallet", mine, 1_000_001) is DailyLimitExceeded
    await stage.call(stage.client.wallets.freeze, wallet["id"])
    assert await refused("from_wallet", mine, 1) is WalletFrozen
    poor = await claim(stage, await wallet_with(stage, 0), account.person_id)
    assert await refused("from_wallet", poor, 1) is WalletShort
    await agrees(stage.db, account)
    assert (await now_is(stage.db, account)).balance == 100


@pytest.mark.parametrize("name", ["e_accounts.before_order", "e_accounts.after_order"])
async def test_a_crash_moves_all_or_nothing_and_the_repeat_once(stage: Stage, name: str) -> None:
    account, wallet = await account_of(stage, fill=0), await wallet_with(stage, 1_000)
    wallet_id = await claim(stage, wallet, account.person_id)
    with crash_at(name):
        await move(stage, account, wallet_id, "from_wallet", 300, request_id="r1")

    done = await move(stage, account, wallet_id, "from_wallet", 300, request_id="r1")

    assert done.state == "done"
    assert await balance_of(stage, wallet) == 700
    assert (await now_is(stage.db, account)).balance == 300
    await agrees(stage.db, account)


async def test_tomorrows_order_runs_once_or_says_why_it_failed(stage: Stage) -> None:
    account, wallet = await account_of(stage, fill=0), await wallet_with(stage, 1_000)
    wallet_id = await claim(stage, wallet, account.person_id)
    gone = await claim(stage, await wallet_with(stage), account.person_id)
    at = stage.db.clock.now() + timedelta(hours=1)
    terms: dict[str, Any] = {"timing": "scheduled", "run_at": at}
    first, second, third = [
        await move(stage, account, wallet_id, "from_wallet", 400, **terms),
        await move(stage, account, wallet_id, "from_wallet", 601, timing="next_day"),
        await move(stage, account, gone, "from_wallet", 1, **terms),
    ]
    assert {each.state for each in (first, second, third)} == {"waiting"}
    await stage.db.fetch("delete from person_wallet where wallet_id = $1", (gone,))
    await stage.db.fetch("update e_account_order set run_at = made_at where state = 'waiting'", ())

    for each in (first, first, second, third):
        task = RunOrder(each.book, each.id)
        answer = await orders.run_order(teller(stage), task, Held(new_id(), 1))
        assert not isinstance(answer, Again)

    ends = [await queries.order_of_account(stage.db, account, each.id)
            for each in (first, second, third)]  # fmt: skip
    assert [(each.state, each.code) for each in ends] == [
        ("done", None), ("failed", "e_account.wallet_short"), ("failed", "wallet.not_found"),
    ]  # fmt: skip
    assert await balance_of(stage, wallet) == 600
    await agrees(stage.db, account)


async def test_thirty_at_once_never_pass_the_wallets_limit_nor_the_laws(stage: Stage) -> None:
    account = await account_of(stage, 2, fill=2_000_000, licence=Licence.BANK)
    wallet = await wallet_with(stage, 0)
    wallet_id = await claim(stage, wallet, account.person_id)
    amounts = [59_989 + 17 * n for n in range(30)]

    async def try_one(amount: int) -> int:
        while True:
            try:
                await move(stage, account, wallet_id, "to_wallet", amount)
            except LimitExceeded:
                return 0
            except Refusal as refusal:
                if refusal.code != "ledger.in_flight":
                    raise
            else:
                return amount

    sent = sum(await asyncio.gather(*(try_one(amount) for amount in amounts)))

    assert 0 <= 1_000_000 - sent < min(amounts)
    assert (await left(stage.db, account))["out_others/day"] == 1_000_000 - sent
    assert await balance_of(stage, wallet) == sent
    await agrees(stage.db, account)


async def test_somebody_moves_money_by_their_phone(stage: Stage) -> None:
    alice, at = await enter(stage, PHONE), "/v1/me/e_accounts"
    mine = (await alice.confirmed(at, account_class=3)).json["id"]
    await alice.confirmed(f"{at}/{mine}/activate")
    wallet = await wallet_with(stage, 5_000)
    person_id = parse("per", (await alice.get("/v1/me")).json["id"])
    wanted = {"wallet": wallet["id"], "direction": "in", "amount": 900, "request_id": "r1"}
    stranger = await alice.confirmed(f"{at}/{mine}/wallet_transfers", **wanted)
    assert stranger.code == "wallet.not_found"
    await claim(stage, wallet, person_id)

    asked = await alice.post(f"{at}/{mine}/wallet_transfers", **wanted)
    done = await alice.confirmed(f"{at}/{mine}/wallet_transfers", **{**wanted, "request_id": "r2"})

    assert asked.status == 201, "what was confirmed and refused is confirmed still"
    assert (done.status, done.json["kind"], done.json["payee"]) == (
        201, "from_wallet", wallet["id"],
    ), done.body  # fmt: skip
    assert (await alice.get(f"{at}/{mine}")).json["balance"] == 1_800
