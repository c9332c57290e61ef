"""Logins that fail, counted by where on the network they come from: at every door, for any name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from ipaddress import ip_address
from typing import Any

import httpx2 as httpx
import pytest

from tests.parties.test_person_locks import until_one_waits
from tests.stage import Stage, staged
from tests.surfaces.test_tills import till_of
from tests.surfaces.visitors import PASSWORD, Person, hire
from tongbao.infra import audit
from tongbao.infra.admission import _store as store
from tongbao.infra.admission.login_sources import LoginsTooMany, prefix_of, rules_in_force
from tongbao.infra.admission.rate_limits import LoginSourceRule
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode
from tongbao.parties.developers import entering
from tongbao.parties.developers.model import DeveloperLoginRefused, Entrance
from tongbao.parties.identity.model import LoginRefused
from tongbao.parties.identity.sessions import log_in
from tongbao_sandbox.launch import RunningSandbox

MOST = 3
OF_NETWORK = 5


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """From today three failures from an address and five from its network are the most."""
    await module_db.execute(
        "insert into login_source_rule"
        " (entrance, family, prefix_bits, period_s, valid_from, most, because)"
        " select entrance, family, prefix_bits, period_s, current_date - 1,"
        "        case when prefix_bits in (24, 48) then $2::int else $1::int end, 'test'"
        "   from login_source_rule",
        (MOST, OF_NETWORK),
    )
    folder = tmp_path_factory.mktemp("platform")
    async with staged(module_db, folder, sandbox, sandbox_sign_up=True) as ready:
        yield ready


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    await module_stage.db.execute("delete from login_source_use", ())
    return module_stage


async def at(source: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """Do something as a request from there would."""

    async def there() -> Any:
        audit.come_from(source, source)
        return await act()

    return await asyncio.create_task(there())


async def tries(stage: Stage, source: str, login: str = "nobody", code: str = "000000") -> str:
    """How a try at the console with a wrong password ends."""

    async def act() -> str:
        words = {"login": login, "password": "wrong", "code": code}
        try:
            await log_in(stage.db, stage.platform.keyring, **words)
        except (LoginRefused, LoginsTooMany) as refused:
            return refused.code
        return "in"

    return await at(source, act)


async def enters(stage: Stage, source: str, who: Person) -> str:
    async def act() -> str:
        try:
            await log_in(
                stage.db,
                stage.platform.keyring,
                login=who.login,
                password=PASSWORD,
                code=who.code,
            )
        except (LoginRefused, LoginsTooMany) as refused:
            return refused.code
        return "in"

    return await at(source, act)


REFUSED, TOO_MANY = LoginRefused.code, LoginsTooMany.code


async def test_who_tries_many_names_from_one_place_is_stopped(stage: Stage) -> None:
    amy = await hire(stage, login="amy")
    known = [await tries(stage, "203.0.113.5", "amy") for _ in range(2)]
    unknown = [await tries(stage, "203.0.113.5", f"nobody{each}") for each in range(3)]

    assert known + unknown == [REFUSED] * MOST + [TOO_MANY] * 2, (
        "whether there is an account or not"
    )
    assert await enters(stage, "203.0.113.5", amy) == TOO_MANY, "the right proof too"
    assert await enters(stage, "::ffff:203.0.113.5", amy) == TOO_MANY, "the same place"
    neighbour = [await tries(stage, "203.0.113.77") for _ in range(MOST)]
    assert neighbour == [REFUSED] * (OF_NETWORK - MOST) + [TOO_MANY], "its network is counted too"
    assert await enters(stage, "198.51.100.5", amy) == "in"


async def test_addresses_of_one_ipv6_network_are_one_place(stage: Stage) -> None:
    seen = [await tries(stage, f"2001:db8:1:2::{each:x}") for each in range(4)]

    assert seen == [REFUSED] * MOST + [TOO_MANY]
    assert await tries(stage, "2001:db8:1:3::1") == REFUSED


async def test_logins_that_succeed_count_nothing(stage: Stage) -> None:
    keyring = stage.platform.keyring
    async with stage.db.begin("tests") as tx:
        await tx.execute("delete from developer", ())
    entrance = Entrance(stage.db, keyring, "mlps3", Mode.SANDBOX)
    for _ in range(MOST - 1):
        with pytest.raises(DeveloperLoginRefused):
            await at("192.0.2.1", lambda: entering.log_in(entrance, "a@b.example", "wrong"))
    bob = await hire(stage, login="bob")
    await stage.db.execute("update operator set totp_last_step = 0", ())
    assert await enters(stage, "192.0.2.1", bob) == "in"

    rows = await stage.db.fetch("select used from login_source_use order by used", ())

    assert {row["used"] for row in rows} == {0, MOST - 1}, "each door counts by itself"


async def test_of_tries_at_the_same_moment_no_more_are_made(stage: Stage) -> None:
    seen = await asyncio.gather(*(tries(stage, "192.0.2.9", f"n{each}") for each in range(12)))

    assert sorted(seen) == sorted([REFUSED] * MOST + [TOO_MANY] * (12 - MOST))


async def test_a_try_that_waits_for_another_counts_it(stage: Stage) -> None:
    """Forced interleaving on the row of the place."""
    key = (b"s" * 32, 3600, real_now().replace(minute=0, second=0, microsecond=0))
    async with stage.db.begin("first") as tx:
        first = await store.COUNT_LOGIN.run(tx, *key, 1)
        second = asyncio.create_task(store.COUNT_LOGIN.run(stage.db, *key, 1))
        await until_one_waits(stage.db)

    assert (first, await second) == (1, 0)


async def test_the_place_is_what_a_trusted_proxy_says_and_nobody_else(stage: Stage) -> None:
    """A page's answer is 429 with Retry-After; a forged hop before the proxy's changes nothing."""

    async def post(client: httpx.AsyncClient, forwarded: str) -> httpx.Response:
        shown = await client.get(f"{stage.url}/portal/login")
        token = shown.text.partition('name="form_token" value="')[2].partition('"')[0]
        form = {"mail": "who@b.example", "password": "wrong", "form_token": token}
        headers = {"x-forwarded-for": forwarded, "origin": stage.url}
        return await client.post(f"{stage.url}/portal/login", data=form, headers=headers)

    async with httpx.AsyncClient(trust_env=False) as client:
        first = [await post(client, "198.18.7.1") for _ in range(MOST)]
        over = await post(client, "198.18.7.1")
        forged = await post(client, "8.8.8.8, 198.18.7.1")
        elsewhere = await post(client, "198.18.8.1")

    assert [each.status_code for each in first] == [401] * MOST, first[0].text
    assert (over.status_code, forged.status_code, elsewhere.status_code) == (429, 429, 401)
    assert 0 < int(over.headers["retry-after"]) <= 3600
    assert "another network" in over.text


async def test_a_header_of_anybody_else_is_no_place(stage: Stage) -> None:
    """The application itself believes its peer alone; and a till's refusal is a problem."""
    till = await till_of(stage, stage.shop)
    staff = await till.person()
    await stage.db.execute("delete from login_source_use", ())
    replies = [await till.try_to_sign_in(staff, "555123") for _ in range(MOST + 1)]

    assert [each.code for each in replies] == ["staff.pin_wrong"] * MOST + [TOO_MANY]
    assert replies[-1].status == 429
    assert 0 < int(replies[-1].headers["retry-after"]) <= 3600


def test_the_newest_row_that_has_begun_counts_and_may_end_a_limit() -> None:
    def row(bits: int, day: int, most: int | None) -> LoginSourceRule:
        return LoginSourceRule("person", 4, bits, 3600, date(2026, 1, day), most, "x")

    rows = [row(32, 5, 7), row(32, 1, 9), row(24, 1, 50), row(24, 2, None), row(32, 9, 1)]

    assert [each.most for each in rules_in_force(rows, date(2026, 1, 6))] == [7]
    assert [each.most for each in rules_in_force(rows, date(2026, 1, 1))] == [9, 50]


@pytest.mark.parametrize(
    ("address", "bits", "network"),
    [
        ("203.0.113.77", 24, "203.0.113.0/24"),
        ("203.0.113.77", 32, "203.0.113.77/32"),
        ("2001:db8:1:2:3::4", 64, "2001:db8:1:2::/64"),
    ],
)
def test_a_place_is_a_network(address: str, bits: int, network: str) -> None:
    assert prefix_of(ip_address(address), bits) == network
