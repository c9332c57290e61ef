"""Terminals: the stock, where they stand, their keys, their heartbeats and what they may take."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dying import dying
from tests.infra.signed_client import SignedClient
from tests.parties.conftest import new_merchant
from tongbao.infra import failpoints
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, write_all
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.parties.identity.keys import KeysOnRecord, create_key
from tongbao.parties.identity.model import scopes_under
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.terminals import api, inventory, limits, model, parameters, watch
from tongbao.parties.terminals.devices import Activated, Beat, Heartbeats, activate, give_code
from tongbao.parties.terminals.inventory import Place, TerminalFilter
from tongbao.parties.terminals.limits import USE_REFUSED
from tongbao.parties.terminals.model import (
    CODE_MISSES_MAX,
    OFFLINE_AFTER,
    ActivationRefused,
    LimitAmountExceeded,
    LimitCountExceeded,
    LimitCurrencyDiffers,
    LimitEachExceeded,
    Limits,
    Meter,
    Parameters,
    ParametersVersionUnknown,
    PlaceNotFound,
    SerialsMalformed,
    SerialsTaken,
    Terminal,
    TerminalNotFound,
    TerminalState,
    TerminalStateWrong,
    TerminalSuspended,
)

LICENCE = Licence.PAYMENT_INSTITUTION
KEYRING = Keyring([b"k" * 32])


class OnePlate:
    """The house of a merchant with one plate."""

    def __init__(self, plate_id: UUID) -> None:
        self.plate_id = plate_id

    async def check(self, _on: Any, place: Place, _merchant: UUID, _mode: Mode) -> None:
        if place.plate_id not in {None, self.plate_id}:
            raise PlaceNotFound


class Shop:
    """A merchant, its terminals, and its way in."""

    def __init__(self, db: Db, merchant: Merchant, client: SignedClient) -> None:
        self.db = db
        self.merchant = merchant
        self.client = client
        self.owner = (merchant.id, Mode.SANDBOX)
        self.book = merchant.book(Mode.SANDBOX)

    async def terminal(self) -> Terminal:
        """A new terminal at this merchant's."""
        [serial] = await stocked(self.db, 1)
        async with self.db.begin("test") as tx:
            found = await inventory.terminal_with_serial(tx, serial)
            return await inventory.assign_terminal(tx, found.id, self.merchant, Mode.SANDBOX)

    async def activated(self) -> Activated:
        """A terminal that has its key."""
        terminal = await self.terminal()
        async with self.db.begin("test") as tx:
            code = await give_code(tx, terminal.id, self.owner)
        return await activate(self.db, KEYRING, terminal.serial_number, code.reveal())


PLATE = new_id()


@pytest.fixture(scope="module")
def app(module_db: Db) -> App:
    return App(
        api.ROUTES,
        db=module_db,
        keys=KeysOnRecord(module_db, KEYRING),
        facts=ApiFacts(
            title="Tongbao",
            version="1",
            description="",
            public_url="https://pay.example",
            docs_url="https://pay.example/docs/refusals",
            scopes=scopes_under(LICENCE),
        ),
        provides={"places": OnePlate(PLATE)},
    )


@pytest.fixture(scope="module")
async def shop(module_db: Db, app: App) -> Shop:
    return await shop_of(module_db, app, "Corner Shop")


async def shop_of(db: Db, app: App, name: str) -> Shop:
    merchant = await new_merchant(db, KEYRING, name)
    async with db.begin("test") as tx:
        scopes = ["terminals:read", "terminals:write"]
        new = await create_key(
            tx, KEYRING, merchant.id, Mode.SANDBOX, licence=LICENCE, name="t", scopes=scopes
        )
    return Shop(db, merchant, SignedClient(app, show("key", new.key.id), new.secret.reveal()))


async def stocked(db: Db, count: int) -> list[str]:
    serials = [f"SN{new_id().hex[-20:].upper()}" for _ in range(count)]
    content = "serial\n" + "".join(f"{each}\n" for each in serials)
    async with db.begin("test") as tx:
        await inventory.import_serials(tx, content.encode(), name="box", model="S1")
    return serials


# --- the stock ------------------------------------------------------------------------------------


async def test_a_file_of_serials_is_taken_whole_and_once(module_db: Db) -> None:
    one, two = new_id().hex[-12:].upper(), new_id().hex[-12:].upper()
    content = f"\ufeffmodel,serial\r\nS1, {one.lower()}\r\nS1,{two}\r\n".encode()

    async with module_db.begin("test") as tx:
        first = await inventory.import_serials(tx, content, name="box 1", model="S1")
    async with module_db.begin("test") as tx:
        again = await inventory.import_serials(tx, content, name="box 1", model="S1")
    more = f"serial\nNEW{new_id().hex[-8:].upper()}\n{two}\n".encode()
    with pytest.raises(SerialsTaken):
        async with module_db.begin("test") as tx:
            await inventory.import_serials(tx, more, name="box 2", model="S1")

    assert (first.terminals, again.terminals) == (2, 0)
    found = await inventory.terminal_with_serial(module_db, f" {one.lower()}")
    assert (found.state, found.model) == (TerminalState.STOCK, "S1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"number\nAB12\n",
        b"serial\n",
        b"serial\nAB12\nab12\n",
        b"serial\n=1+1\n",
        b"serial\nA B 1 2\n",
        b"serial\n\xff\xfe\n",
        b'serial\n"AB12\n',
        b"serial\n" + b"A" * 33 + b"\n",
    ],
)
def test_a_file_that_is_not_one_of_serials_is_refused(content: bytes) -> None:
    with pytest.raises(SerialsMalformed):
        inventory.read_serials(content)


@given(st.sampled_from(TerminalState), st.sampled_from(TerminalState))
def test_what_is_retired_never_comes_back(one: TerminalState, other: TerminalState) -> None:
    if one is TerminalState.RETIRED:
        assert other not in model.MOVES[one]
    if one is TerminalState.STOLEN:
        assert model.MOVES[one] == {TerminalState.RETIRED}


async def test_a_terminal_leaves_with_its_key_and_its_history_stays(shop: Shop) -> None:
    made = await shop.activated()
    async with shop.db.begin("test") as tx:
        await inventory.place_terminal(
            tx, made.terminal.id, shop.owner, Place("bar", plate_id=PLATE), OnePlate(PLATE)
        )

    async with shop.db.begin("test") as tx:
        taken = await inventory.move_terminal(
            tx, made.terminal.id, TerminalState.STOLEN, because="gone"
        )

    assert (taken.merchant_id, taken.key_sealed, taken.plate_id) == (None, None, None)
    stood = await inventory.bindings_of(shop.db, taken.id)
    assert [(each.name, each.plate_id) for each in stood] == [("bar", PLATE), ("", None)]
    assert all(each.ended_at is not None for each in stood)
    with pytest.raises(TerminalStateWrong):
        async with shop.db.begin("test") as tx:
            await inventory.assign_terminal(tx, taken.id, shop.merchant, Mode.SANDBOX)


async def test_two_merchants_that_want_one_terminal_do_not_both_get_it(
    shop: Shop, app: App, module_db: Db
) -> None:
    other = await shop_of(module_db, app, "Other")
    [serial] = await stocked(module_db, 1)
    wanted = await inventory.terminal_with_serial(module_db, serial)

    async def take(of: Shop) -> None:
        async with module_db.begin("test") as tx:
            await inventory.assign_terminal(tx, wanted.id, of.merchant, Mode.SANDBOX)

    ends = await asyncio.gather(take(shop), take(other), return_exceptions=True)

    assert {type(each) for each in ends} == {type(None), TerminalStateWrong}
    assert len(await inventory.bindings_of(module_db, wanted.id)) == 1


# --- keys -----------------------------------------------------------------------------------------


async def test_a_code_gives_one_key_and_five_guesses_kill_it(shop: Shop) -> None:
    terminal = await shop.terminal()
    async with shop.db.begin("test") as tx:
        code = (await give_code(tx, terminal.id, shop.owner)).reveal()

    made = await activate(
        shop.db, KEYRING, terminal.serial_number.lower(), f"{code[:6]}-{code[6:]}"
    )
    with pytest.raises(ActivationRefused):
        await activate(shop.db, KEYRING, terminal.serial_number, code)
    async with shop.db.begin("test") as tx:
        second = (await give_code(tx, terminal.id, shop.owner)).reveal()
    for _ in range(CODE_MISSES_MAX):
        with pytest.raises(ActivationRefused):
            await activate(shop.db, KEYRING, terminal.serial_number, "0" * 12)
    with pytest.raises(ActivationRefused):
        await activate(shop.db, KEYRING, terminal.serial_number, second)

    assert made.terminal.key_number == 1
    assert made.secret.reveal() not in repr(made)


async def test_a_code_is_over_after_a_day(shop: Shop) -> None:
    terminal = await shop.terminal()
    async with shop.db.begin("test") as tx:
        code = (await give_code(tx, terminal.id, shop.owner)).reveal()
    found = await inventory.terminal_with_id(shop.db, terminal.id)
    now = shop.db.clock.now()

    assert model.code_fits(found, code, now + timedelta(hours=23))
    assert not model.code_fits(found, code, now + timedelta(hours=25))
    assert not model.code_fits(terminal, "", now)  # one that has no code fits none


# --- heartbeats -----------------------------------------------------------------------------------


def beat(at: int, **more: Any) -> Beat:
    said = {"firmware": "1.2", "battery": 80, "signal": 60, "parameters_version": 0, "heard": 0}
    return Beat(at, **{**said, **more})


async def test_a_thousand_heartbeats_are_a_few_statements(module_db: Db) -> None:
    serials = await stocked(module_db, 1000)
    ids = [
        row["id"]
        for row in await module_db.fetch(
            "select id from terminal where serial_number = any($1::text[])", (serials,)
        )
    ]
    counting: Any = Counting(module_db)
    beats = Heartbeats(counting)

    answers = await asyncio.gather(*[beats.beat(each, beat(1)) for each in ids])

    assert {answer and answer.state for answer in answers} == {TerminalState.STOCK}
    assert counting.statements <= 4
    written = await module_db.fetch(
        "select count(*) as n from terminal_heartbeat where terminal_id = any($1::uuid[])", (ids,)
    )
    assert written[0]["n"] == 1000
    # No index is touched by the next ones: nothing but the key has one.
    indexed = await module_db.fetch(
        "select count(*) as n from pg_indexes where tablename = 'terminal_heartbeat'", ()
    )
    assert indexed[0]["n"] == 1


class Counting:
    """A database that counts what it is asked."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.clock = db.clock
        self.statements = 0

    async def fetch(self, *args: Any) -> Any:
        self.statements += 1
        return await self.db.fetch(*args)

    async def execute(self, *args: Any) -> Any:
        self.statements += 1
        return await self.db.execute(*args)


async def test_a_repeated_heartbeat_changes_nothing(shop: Shop) -> None:
    made = await shop.activated()
    beats = Heartbeats(shop.db)

    await beats.beat(made.terminal.id, beat(1000, battery=50, heard=7))
    await beats.beat(made.terminal.id, beat(1000, battery=10))
    await beats.beat(made.terminal.id, beat(999, battery=11))
    await beats.beat(made.terminal.id, beat(1001, battery=49, heard=3))

    [found] = (await inventory.heartbeats_of(shop.db, [made.terminal])).values()
    assert (found.signed_at, found.battery, found.heard) == (1001, 49, 7)


async def test_silence_is_noticed_once_and_so_is_the_return(shop: Shop) -> None:
    made, db = await shop.activated(), shop.db
    quiet = await shop.activated()
    async with db.begin("test") as tx:
        await inventory.move_terminal(tx, quiet.terminal.id, TerminalState.SUSPENDED, because="-")
    beats, own = Heartbeats(db), show("trm", made.terminal.id)

    async def told() -> list[str]:
        rows = await db.fetch(
            "select type from event where resource_id = any($1::text[]) order by at, id",
            ([own, show("trm", quiet.terminal.id)],),
        )
        return [row["type"] for row in rows]

    try:
        db.clock.offset += OFFLINE_AFTER - timedelta(seconds=5)
        await watch.watch_some(db)
        assert await told() == []

        db.clock.offset += timedelta(seconds=10)
        with dying("terminals.before_watch_commit"):
            await watch.watch_some(db)
        assert await told() == []
        await asyncio.gather(watch.watch_some(db), watch.watch_some(db))
        await watch.watch_some(db)
        assert await told() == ["terminal.offline"]
        offline = TerminalFilter(shop.merchant.id, only_offline=True)
        page = await inventory.list_terminals(db, offline, now=db.clock.now())
        assert made.terminal.id in [each.id for each in page.items]

        await beats.beat(made.terminal.id, beat(2_000_000_000))
        await watch.watch_some(db)
        await watch.watch_some(db)
        assert await told() == ["terminal.offline", "terminal.online"]
        shown = await shop.client.get(f"/v1/terminals/{own}")
        assert (shown.json["online"], shown.json["battery"]) == (True, 80)
    finally:
        db.clock.offset = timedelta()


async def test_dying_before_the_watch_commits_tells_nobody_and_the_next_round_does(
    shop: Shop,
) -> None:
    made, db = await shop.activated(), shop.db
    own = show("trm", made.terminal.id)

    async def told() -> int:
        rows = await db.fetch("select id from event where resource_id = $1", (own,))
        return len(rows)

    try:
        db.clock.offset += OFFLINE_AFTER + timedelta(seconds=1)
        failpoints.arm("terminals.before_watch_commit:raise")
        with pytest.raises(SimulatedCrash):
            await watch.watch_some(db)
        failpoints.arm(None)
        before = await told()
        for _ in range(100):  # until the dead one's locks are gone, its rows are left alone
            await watch.watch_some(db)
            if await told():
                break
            await asyncio.sleep(0.02)
    finally:
        db.clock.offset = timedelta()

    assert (before, await told()) == (0, 1)


async def test_a_heartbeat_that_comes_while_the_watch_looks_keeps_the_terminal_online(
    shop: Shop,
) -> None:
    """Forced interleaving: the watch finds the row locked and leaves it to its next round."""
    made, db = await shop.activated(), shop.db
    try:
        db.clock.offset += OFFLINE_AFTER + timedelta(seconds=1)
        async with db.begin("terminal") as tx:
            await tx.execute(
                "update terminal_heartbeat set seen_at = $2 where terminal_id = $1",
                (made.terminal.id, tx.now),
            )
            await watch.watch_some(db)
        await watch.watch_some(db)
    finally:
        db.clock.offset = timedelta()

    [found] = (await inventory.heartbeats_of(db, [made.terminal])).values()
    assert not found.is_offline


# --- parameters -----------------------------------------------------------------------------------


async def test_a_template_tells_who_follows_it_and_a_terminals_own_wins(shop: Shop) -> None:
    db, one, other = shop.db, await shop.terminal(), await shop.terminal()
    name = f"speakers {new_id().hex}"
    async with db.begin("test") as tx:
        await parameters.set_template(tx, name, Parameters(volume=5), why="to begin")
        for each in (one, other):
            await parameters.follow_template(tx, each.id, name, why="new")
        await parameters.set_own_parameters(tx, one.id, Parameters(volume=9), why="noise")

    async with db.begin("test") as tx:
        told = Parameters(volume=3, language="en")
        template = await parameters.set_template(tx, name, told, why="quiet")

    assert template.version == 2
    for each, volume, version in ((one, 9, 3), (other, 3, 2)):
        found = await inventory.terminal_with_id(db, each.id)
        number, now = await parameters.parameters_of(db, found)
        assert (number, now["volume"], now["language"]) == (version, volume, "en")
        assert now["heartbeat_s"] == 60  # nobody said otherwise


async def test_going_back_makes_a_new_version(shop: Shop) -> None:
    db, terminal = shop.db, await shop.terminal()
    async with db.begin("test") as tx:
        await parameters.set_own_parameters(tx, terminal.id, Parameters(volume=2), why="night")
        await parameters.set_own_parameters(tx, terminal.id, Parameters(speaks=False), why="no")

    async with db.begin("test") as tx:
        back = await parameters.roll_back(tx, terminal.id, 1, owner=shop.owner)

    assert (await parameters.parameters_of(db, back))[0] == 3
    versions = await parameters.versions_of(db, terminal.id)
    assert [each.version for each in versions] == [3, 2, 1]
    assert versions[0].effective == versions[2].effective
    with pytest.raises(ParametersVersionUnknown):
        async with db.begin("test") as tx:
            await parameters.roll_back(tx, terminal.id, 9)


# --- limits ---------------------------------------------------------------------------------------


async def count(shop: Shop, terminal: Terminal, amount: int, payment: UUID | None = None) -> Any:
    """Count a payment as its own commit does; None when it was counted."""
    async with shop.db.begin("payments") as tx:
        money, paid = Money(amount, "CNY"), payment or new_id()
        return await write_all(tx, limits.count_writes(shop.book, terminal.id, paid, money, tx.now))


async def meter(shop: Shop, terminal: Terminal) -> Meter:
    return await limits.meter_of(shop.db, shop.book, terminal.id)


async def limited(shop: Shop, **most: int) -> Terminal:
    terminal = await shop.terminal()
    async with shop.db.begin("test") as tx:
        await limits.set_limits(tx, shop.book, terminal, Limits(**most), currency="CNY")
    return terminal


async def test_of_many_at_once_exactly_those_that_fit_are_counted(shop: Shop) -> None:
    terminal = await limited(shop, amount=1000, count=8)

    ends = await asyncio.gather(*[count(shop, terminal, 150) for _ in range(12)])

    assert sorted(ends, key=str) == [None] * 6 + [USE_REFUSED] * 6
    found = await meter(shop, terminal)
    assert (found.used_count, found.used_amount) == (6, 900)


async def test_a_payment_that_waits_sees_what_it_waited_for(shop: Shop) -> None:
    """Forced interleaving: the second counts on the row as the first has left it."""
    terminal = await limited(shop, amount=1000)
    async with shop.db.begin("payments") as tx:
        first = limits.count_writes(shop.book, terminal.id, new_id(), Money(600, "CNY"), tx.now)
        assert await write_all(tx, first) is None
        second = asyncio.create_task(count(shop, terminal, 600))
        await lock_waited_for(shop.db)

    assert await second == USE_REFUSED


async def lock_waited_for(db: Db) -> None:
    waiting = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock'"
    for _ in range(10_000):
        if (await db.fetch(f"{waiting} and datname = current_database()", ()))[0]["n"]:
            return
    raise AssertionError("nobody waits for a lock")


async def test_what_ends_unpaid_gives_its_place_back_once(shop: Shop) -> None:
    terminal, payment = await limited(shop, amount=1000), new_id()
    assert await count(shop, terminal, 700, payment) is None
    assert await count(shop, terminal, 700) == USE_REFUSED

    for _ in range(2):
        async with shop.db.begin("payments") as tx:
            await write_all(tx, limits.release_writes(shop.book, payment, tx.now))

    assert (await meter(shop, terminal)).used_amount == 0
    assert await count(shop, terminal, 700) is None


async def test_what_comes_late_from_the_day_before_counts_on_this_one(shop: Shop) -> None:
    """Who read the clock before midnight may write after somebody who read it later."""
    terminal, paid = await limited(shop, amount=1000, count=4), [new_id() for _ in range(4)]
    now = shop.db.clock.now()
    yesterday = now - timedelta(days=1)

    async def use(place: int, amount: int, at: datetime) -> str | None:
        money = Money(amount, "CNY")
        writes = limits.count_writes(shop.book, terminal.id, paid[place], money, at)
        async with shop.db.begin("test") as tx:
            return await write_all(tx, writes)

    taken = [await use(0, 700, now), await use(1, 200, yesterday), await use(2, 200, now)]
    assert taken == [None, None, USE_REFUSED]
    assert (await meter(shop, terminal)).used_at(business_date(now)) == (2, 900)
    assert await use(3, 100, now) is None


async def test_the_caps_of_the_platform_stand_over_the_merchants_limits(shop: Shop) -> None:
    terminal = await limited(shop, each=5000, count=10, amount=90_000)
    async with shop.db.begin("operator") as tx:
        await limits.set_caps(tx, shop.book, terminal, Limits(each=1000, count=1), currency="CNY")

    assert await count(shop, terminal, 1001) == USE_REFUSED
    assert await count(shop, terminal, 1000) is None
    assert await count(shop, terminal, 1) == USE_REFUSED


async def test_the_next_merchant_of_a_terminal_begins_with_nothing(
    shop: Shop, app: App, module_db: Db
) -> None:
    """Not even a payment of the one before, which ends unpaid now, is given back to it."""
    db, terminal, payment = shop.db, await limited(shop, each=500, amount=1000), new_id()
    async with db.begin("operator") as tx:
        await limits.set_caps(tx, shop.book, terminal, Limits(each=400), currency="CNY")
    assert await count(shop, terminal, 300, payment) is None
    other = await shop_of(module_db, app, "Next")
    async with db.begin("test") as tx:
        back = TerminalState.STOCK
        await inventory.move_terminal(tx, terminal.id, back, because="returned")
    async with db.begin("test") as tx:
        await inventory.assign_terminal(tx, terminal.id, other.merchant, Mode.SANDBOX)
    before = await meter(other, terminal)
    assert await count(other, terminal, 900) is None

    async with db.begin("payments") as tx:
        await write_all(tx, limits.release_writes(shop.book, payment, tx.now))

    assert (before.each, before.amount, before.used_count) == (None, None, 0)
    assert (await meter(other, terminal)).used_amount == 900


async def test_why_a_terminal_may_not_take_it_is_said(shop: Shop) -> None:
    db, terminal = shop.db, await limited(shop, each=500, count=2, amount=800)
    shown, now = show("trm", terminal.id), db.clock.now()

    async def ask(amount: int, currency: str = "CNY") -> Terminal:
        money = Money(amount, currency)
        return await limits.usable_terminal(
            db, shown, shop.owner, book=shop.book, money=money, now=now
        )

    with pytest.raises(LimitEachExceeded):
        await ask(501)
    with pytest.raises(LimitCurrencyDiffers):
        await ask(1, "USD")
    await count(shop, terminal, 500)
    with pytest.raises(LimitAmountExceeded):
        await ask(301)
    await count(shop, terminal, 100)
    with pytest.raises(LimitCountExceeded):
        await ask(1)
    async with db.begin("test") as tx:
        await inventory.move_terminal(tx, terminal.id, TerminalState.SUSPENDED, because="-")
    with pytest.raises(TerminalSuspended):
        await ask(1)


@given(
    st.lists(st.integers(1, 60), max_size=8),
    st.one_of(st.none(), st.integers(1, 60)),
    st.one_of(st.none(), st.integers(1, 5)),
    st.one_of(st.none(), st.integers(1, 150)),
)
def test_the_check_beforehand_says_what_the_commit_will(
    amounts: list[int], each: int | None, most: int | None, amount: int | None
) -> None:
    day = business_date(real_now())
    found = Meter(1, PLATE, "CNY", each, most, amount, None, None, None, day, 0, 0, real_now())
    for money in amounts:
        try:
            found.check(Money(money, "CNY"), day)
        except (LimitEachExceeded, LimitCountExceeded, LimitAmountExceeded):
            continue
        found = Meter(
            1, PLATE, "CNY", each, most, amount, None, None, None, day,
            found.used_count + 1, found.used_amount + money, found.since,
        )  # fmt: skip

    assert each is None or found.used_count * each >= found.used_amount
    assert most is None or found.used_count <= most
    assert amount is None or found.used_amount <= amount


# --- the merchant's routes ------------------------------------------------------------------------


async def test_a_merchant_looks_after_a_terminal(shop: Shop) -> None:
    terminal, client = await shop.terminal(), shop.client
    own = f"/v1/terminals/{show('trm', terminal.id)}"

    placed = await client.post(f"{own}/place", {"name": "bar", "plate_id": show("plt", PLATE)})
    wrong = await client.post(f"{own}/place", {"plate_id": show("plt", new_id())})
    code = await client.post(f"{own}/activation_codes")
    limit = await client.post(f"{own}/limits", {"each": 500})
    told = await client.post(f"{own}/parameters", {"parameters": {"volume": 9}, "reason": "noise"})
    bad = await client.post(f"{own}/parameters", {"parameters": {"volume": 11}, "reason": "x"})
    suspended = await client.post(f"{own}/suspend", {"reason": "closed"})
    resumed = await client.post(f"{own}/resume", {"reason": "open"})
    stolen = await client.post(f"{own}/report_stolen", {"reason": "gone"})

    assert (placed.json["name"], placed.json["online"]) == ("bar", False)
    assert (wrong.code, bad.code) == ("terminal.place_not_found", "request.invalid_value")
    assert len(code.json["code"]) == 12
    assert limit.json["limits"] == {"each": 500, "count": None, "amount": None}
    assert told.json["parameters_version"] == 1
    assert (suspended.json["status"], resumed.json["status"]) == ("suspended", "bound")
    assert (stolen.status, (await client.get(own)).code) == (204, "terminal.not_found")


async def test_a_strangers_terminal_is_as_unknown_as_none(
    shop: Shop, app: App, module_db: Db
) -> None:
    terminal, other = await shop.terminal(), await shop_of(module_db, app, "Stranger")
    own = f"/v1/terminals/{show('trm', terminal.id)}"

    answers = [
        await other.client.get(own),
        await other.client.get(f"{own}/limits"),
        await other.client.get(f"{own}/parameters"),
        await other.client.post(f"{own}/activation_codes"),
        await other.client.post(f"{own}/place", {"name": "mine"}),
        await other.client.post(f"{own}/suspend", {"reason": "mine"}),
        await other.client.post(f"{own}/resume", {"reason": "mine"}),
        await other.client.post(f"{own}/report_stolen", {"reason": "mine"}),
        await other.client.post(f"{own}/limits", {"each": 1}),
        await other.client.post(f"{own}/parameters", {"parameters": {}, "reason": "mine"}),
        await other.client.post(f"{own}/parameters/roll_back", {"version": 1}),
    ]

    assert {answer.code for answer in answers} == {TerminalNotFound.code}
    assert (await other.client.get("/v1/terminals")).json["items"] == []
    listed = await shop.client.get(f"/v1/terminals?serial={terminal.serial_number}")
    assert [parse("trm", each["id"]) for each in listed.json["items"]] == [terminal.id]
