"""Every line that the law draws on people's accounts: to its last fen, and when it begins anew."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.parties.test_e_accounts import (
    MakeAccount,
    agrees,
    left,
    make_account,
    now_is,
    send,
    somebody,
    teller,
    top_up,
    withdraw,
)
from tongbao.controls.limits.meters import count_writes, every_rule
from tongbao.controls.limits.model import Count, LimitExceeded, LimitRule, Period, in_force
from tongbao.infra.db import Db, write_all
from tongbao.kernel.licence import Licence
from tongbao.parties.e_accounts import opening, queries
from tongbao.parties.e_accounts.model import (
    AccountsTooMany,
    EAccount,
    EAccountFrozen,
    PayeeUnavailable,
    RealNameTooLow,
    kind_of,
)
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.e_accounts.queries import PaidCode
from tongbao.parties.people.model import Person

__all__ = ["make_account", "teller"]

FIRMS = (Licence.PAYMENT_INSTITUTION, Licence.BANK)
KINDS = {kind_of(firm, each): (firm, each) for firm in FIRMS for each in (1, 2, 3)}
SHANGHAI = timezone(timedelta(hours=8))
USED = {Period.DAY: "day_used", Period.YEAR: "year_used"}


async def seen(db: Db) -> Person:
    """Somebody who may open every class, a bank's first too, and all of them on one day."""
    await db.fetch(
        "delete from opening_rule where name = 'face_to_face' or name like 'openings_per_%'", ()
    )
    return await somebody(db)


async def pay_code(db: Db, account: EAccount, level: int, *, is_static: bool = False) -> None:
    """Count one fen paid at a merchant's code, as the payment's own commit does."""
    account, now = await now_is(db, account), db.clock.now()
    code = PaidCode(1, level, is_static)
    await queries.check_payment(db, account, code, now)
    async with db.begin("test") as tx:
        writes = await queries.payment_writes(tx, account, code, now)
        assert await write_all(tx, writes) is None


class Mover:
    """Moves one fen in the way that a meter counts."""

    def __init__(self, teller: Teller, account: EAccount, friend: EAccount, own: EAccount) -> None:
        self.teller, self.account, self.friend, self.own = teller, account, friend, own

    async def move(self, meter: str) -> Any:
        db, account = self.teller.db, self.account
        match meter:
            case "balance":
                return await top_up(self.teller, account, 1)
            case "in_others":
                return await send(self.teller, self.own, account, 1)
            case "code_one" | "code_two":
                return await pay_code(db, account, 1 if meter == "code_one" else 2)
            case "code_static":
                return await pay_code(db, account, 3, is_static=True)
        level = {"weak_one": 1, "weak_two": 2, "out_all": 3, "out_others": 3}[meter]
        return await send(self.teller, account, self.friend, 1, level=level)


def today_of(db: Db) -> date:
    return db.clock.now().astimezone(SHANGHAI).date()


def end_of(rule: LimitRule, today: date) -> datetime:
    """Midnight of Shanghai where the rule's period is over; of one without end, some New Year."""
    last = today if rule.period is Period.DAY else date(today.year, 12, 31)
    return datetime(last.year, last.month, last.day, 16, tzinfo=UTC)


async def all_but_one_fen(db: Db, account: EAccount, rule: LimitRule) -> None:
    """Let the meter of a rule have counted all but the last fen in the period that is now."""
    today = today_of(db)
    await db.fetch(
        f"""
        update limit_meter
           set day = $3, year = $4, {USED.get(rule.period, "used")} = $5
         where owner_id = $1 and meter = $2""",
        (account.person_id, rule.meter, today, today.year, (rule.most or 0) - 1),
    )


async def nothing_counted(db: Db, account: EAccount) -> None:
    """Let the meters begin anew, all but that of what is there."""
    await db.fetch(
        """
        update limit_meter
           set day_used = 0, year_used = 0, used = case when meter = 'balance' then $2 else 0 end
         where owner_id = $1""",
        (account.person_id, (await now_is(db, account)).balance),
    )


async def test_the_lines_are_those_of_every_class(db: Db) -> None:
    assert {each.kind for each in await every_rule(db)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
async def test_every_line_gives_its_last_fen_and_begins_anew_in_shanghai(
    db: Db, teller: Teller, make_account: MakeAccount, kind: str
) -> None:
    """Thirty seconds before its period ends in Shanghai, at that very moment, and after it."""
    (licence, account_class), person = KINDS[kind], await seen(db)
    account = await make_account(account_class, licence=licence, person=person, fill=50)
    own = account
    if licence is Licence.BANK:
        own = await make_account(1, licence=licence, person=await seen(db), fill=50)
    mover = Mover(teller, account, await make_account(1), own)
    rules = in_force(
        [each for each in await every_rule(db) if each.kind == kind],
        today_of(db),
    )
    assert rules
    for rule in sorted(rules, key=lambda each: (each.meter, each.period)):
        await nothing_counted(db, account)
        line = f"{rule.meter}/{rule.period}"
        before = end_of(rule, today_of(db)) - timedelta(seconds=30)
        db.clock.offset += before - db.clock.now()
        await all_but_one_fen(db, account, rule)

        await mover.move(rule.meter)

        assert (await left(db, account))[line] == 0, line
        await refused(mover, rule)
        db.clock.offset += timedelta(seconds=30)
        if rule.period in USED:
            await mover.move(rule.meter)
            assert (await left(db, account))[line] == (rule.most or 0) - 1, line
        else:
            db.clock.offset += timedelta(days=800)
            await refused(mover, rule)


async def refused(mover: Mover, rule: LimitRule) -> None:
    """One fen more is refused by this rule, and by the commit's own write, whoever has looked.

    Its person hears which rule it is; who sends to them does not.
    """
    db = mover.teller.db
    more = [Count(mover.account.metered, rule.meter, 1)]
    async with db.begin("test") as tx:
        writes = await count_writes(tx, more, db.clock.now())
        assert await write_all(tx, writes) == LimitExceeded.code
    if rule.meter == "in_others":
        with pytest.raises(PayeeUnavailable):
            await mover.move(rule.meter)
        return
    with pytest.raises(LimitExceeded) as found:
        await mover.move(rule.meter)
    facts = found.value.facts
    assert (facts["meter"], facts["period"]) == (rule.meter, rule.period.value)
    assert (facts["limit"], facts["left"]) == (rule.most, 0)
    assert facts["instrument"] == rule.instrument


@pytest.mark.parametrize("account_class", [2, 3])
async def test_what_goes_to_ones_own_bank_is_under_no_line_of_what_goes_to_others(
    db: Db, teller: Teller, make_account: MakeAccount, account_class: int
) -> None:
    """43号 articles 11 and 24 leave it out; of a first class alone it counts (article 11)."""
    account = await make_account(account_class, fill=1_000)
    rules = [
        each for each in in_force(await every_rule(db), today_of(db)) if each.kind == account.kind
    ]
    for rule in rules:
        await all_but_one_fen(db, account, rule)

    await withdraw(teller, account, 1_000)

    assert set((await left(db, account)).values()) == {1}


async def test_between_own_accounts_of_a_bank_each_side_counts_on_its_class(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    """302号 leaves out the bound account alone, and another of one's own is no such."""
    person = await seen(db)
    first, second, third, other = [
        await make_account(each, licence=Licence.BANK, person=person) for each in (1, 2, 3, 3)
    ]
    await top_up(teller, first, 3_000_000)

    await send(teller, first, second, 1_000_000)
    with pytest.raises(LimitExceeded) as full:
        await send(teller, first, second, 1)
    await send(teller, second, third, 200_000)
    with pytest.raises(LimitExceeded) as capped:
        await send(teller, second, other, 1)

    assert (full.value.facts["meter"], full.value.facts["left"]) == ("in_others", 0)
    assert (capped.value.facts["meter"], capped.value.facts["limit"]) == ("in_others", 200_000)
    assert (await left(db, second))["out_others/day"] == 1_000_000 - 200_000
    db.clock.offset += timedelta(days=1)
    with pytest.raises(LimitExceeded) as brimful:
        await send(teller, second, other, 1)
    assert brimful.value.facts["meter"] == "balance"
    await send(teller, third, other, 50_000)  # what is in the class stays what it was
    assert (await left(db, other)) | {"balance/moment": 0, "in_others/day": 150_000} == (
        await left(db, third)
    )
    await db.fetch("update e_account set in_stops = 1 where id = $1", (other.id,))
    with pytest.raises(EAccountFrozen):
        await send(teller, second, other, 1)
    stranger = await make_account(2, licence=Licence.BANK, fill=10)
    with pytest.raises(PayeeUnavailable):  # to others it is nobody's business
        await send(teller, stranger, other, 1)
    await agrees(db, first, second, third, other)


@pytest.mark.parametrize(("account_class", "level"), [(1, 1), (2, 2), (3, 3)])
async def test_a_payment_accounts_class_asks_for_one_three_or_five_registers(
    db: Db, make_account: MakeAccount, account_class: int, level: int
) -> None:
    """The levels are how many registers agreed (43号 article 11); no less opens the class."""
    with pytest.raises(RealNameTooLow) as too_low:
        await make_account(account_class, person=await somebody(db, level - 1))
    assert "43号 第十一条" in str(too_low.value.facts["instrument"])
    made = await make_account(account_class, person=await somebody(db, level))
    assert made.account_class == account_class


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_opens_more_accounts_of_a_class_than_its_row_says_however_they_hurry(
    db: Db, teller: Teller, kind: str
) -> None:
    (licence, account_class), person = KINDS[kind], await seen(db)
    [row] = await db.fetch(
        "select figure, instrument from opening_rule where kind = $1 and name = 'accounts_max'",
        (kind,),
    )

    async def open_one() -> EAccount:
        async with db.begin("test") as tx:
            return await opening.open_account(
                tx, licence, person, account_class, public_key=person.id.bytes
            )

    done = await asyncio.gather(*(open_one() for _ in range(8)), return_exceptions=True)

    refusals = [each for each in done if not isinstance(each, EAccount)]
    assert len(done) - len(refusals) == row["figure"]
    for each in refusals:
        assert isinstance(each, AccountsTooMany)
        assert each.facts["rule"] == "accounts_max"
        assert each.facts["instrument"] == row["instrument"]
    opened = [each for each in done if isinstance(each, EAccount)]
    assert (await now_is(db, opened[0])).state == "opened"
