"""Whose money moved hears of it, and of nothing that did not happen: the task is in its commit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.parties.test_e_account_freezes import lift
from tests.parties.test_e_accounts import (
    MakeAccount,
    approved,
    crash_at,
    make_account,
    run,
    send,
    teller,
    top_up,
    withdraw,
)
from tongbao.infra.db import Db
from tongbao.kernel.licence import Mode
from tongbao.parties.e_accounts import freezes
from tongbao.parties.e_accounts.model import Direction, EAccount, EAccountBalanceShort
from tongbao.parties.e_accounts.orders import Teller

__all__ = ["make_account", "teller"]


class Heard:
    """What people are to be told, in the order in which it was asked for."""

    def __init__(self, db: Db) -> None:
        self._db = db

    async def of(self, account: EAccount) -> list[str]:
        rows = await self._db.fetch(
            "select args->>'notice' as notice from task"
            " where type = 'people.tell' and args->>'person_id' = $1 order by id",
            (str(account.person_id),),
        )
        return [row["notice"] for row in rows]


async def test_both_sides_of_a_transfer_hear_of_it_and_nobody_of_a_refused_one(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    mine, other, heard = await make_account(), await make_account(), Heard(db)
    await top_up(teller, mine, 1_000)
    await send(teller, mine, other, 300)
    await withdraw(teller, mine, 200)
    with pytest.raises(EAccountBalanceShort):
        await send(teller, mine, other, 501)
    assert await heard.of(mine) == ["money_in", "money_out", "money_out"]
    assert await heard.of(other) == ["money_in"]


async def test_a_death_before_the_commit_tells_nobody(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    mine, other, heard = await make_account(fill=10), await make_account(), Heard(db)
    before = await heard.of(mine)
    with crash_at("e_accounts.before_order"):
        await send(teller, mine, other, 1)
    assert (await heard.of(mine), await heard.of(other)) == (before, [])


async def test_who_waits_for_an_order_hears_how_it_ended(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    mine, other, heard = await make_account(fill=10), await make_account(), Heard(db)
    later = db.clock.now() + timedelta(hours=1)
    good = await send(teller, mine, other, 4, timing="scheduled", run_at=later)
    bad = await send(teller, mine, other, 9, timing="scheduled", run_at=later)
    before = await heard.of(mine)
    db.clock.offset += timedelta(hours=2)
    for each in (good, bad, bad):
        await run(teller, each)
    assert await heard.of(mine) == [*before, "money_out", "order_failed"]
    assert await heard.of(other) == ["money_in"]


@pytest.mark.parametrize("kind", ["operational", "judicial"])
async def test_our_own_freeze_is_told_and_a_courts_is_not(
    db: Db, make_account: MakeAccount, kind: Any
) -> None:
    account, heard = await make_account(), Heard(db)
    terms = freezes.FreezeTerms(account.shown_id, Mode.SANDBOX, kind, Direction.ALL, "(2026) 1")
    async with db.begin("test") as tx:
        made = await freezes.freeze(tx, approved(db), terms)
    await lift(db, account, made)
    assert await heard.of(account) == (["frozen", "unfrozen"] if kind == "operational" else [])
