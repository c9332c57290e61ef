"""What asks a person for more proof than the amount does: signals by dated row, and why."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parties.test_e_accounts import somebody
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.parties.authentication import passwords
from tongbao.parties.authentication.model import Act, Level, StepUpRequired
from tongbao.parties.authentication.passkeys import Site
from tongbao.parties.authentication.step_up import (
    ByPassword,
    Checks,
    Holder,
    confirm,
    confirmation_of,
    knows_payee,
    prune_challenges,
    require_step_up,
)
from tongbao.parties.people.model import Person
from tongbao.parties.step_up_risk import deciding
from tongbao.parties.step_up_risk._store import SIGNALS
from tongbao.parties.step_up_risk.deciding import (
    RiskBySignals,
    contributor,
    decisions_of,
    prune_decisions,
)
from tongbao.parties.step_up_risk.model import (
    FAILURES_MIN,
    Seen,
    Signal,
    StepUpSignal,
    decide,
    in_force,
)

SMALL, SOME, MUCH = 1_000, 60_000, 100_001
PASSWORD = "Violet-otter-42"


def transfer(amount: int, payee: str = "eac_1", number: int = 1) -> Act:
    return Act("transfer", f"transfer {number}", amount, "CNY", payee)


@pytest.fixture
async def person(module_db: Db) -> Person:
    return await somebody(module_db)


async def phone(db: Db, person: Person, *, days: int = 30) -> UUID:
    made = new_id()
    await db.execute(
        "insert into person_device (id, person_id, name, key_kind, public_key, state, bound_at)"
        " values ($1, $2, 'phone', 'ed25519', $3, 'active', $4)",
        (made, person.id, made.bytes * 2, real_now() - timedelta(days=days)),
    )
    return made


async def asked(db: Db, person: Person, device: UUID, act: Act) -> tuple[Level, list[str]]:
    """Return the level and the reasons that were written down for it."""
    level = await RiskBySignals(db).level_for(person.id, device, act)
    kept = [each for each in await decisions_of(db, person.id, 9) if each.act_digest == act.digest]
    return level, sorted(kept[0].reasons)


async def refused_logins(db: Db, person: Person, count: int) -> None:
    for _ in range(count):
        async with db.begin("test") as tx:
            await audit.record(tx, "person.login_refused", person.actor, {})


async def test_of_many_refused_logins_no_more_are_read_than_decide(
    module_db: Db, person: Person
) -> None:
    await refused_logins(module_db, person, FAILURES_MIN + 2)
    since = real_now() - timedelta(hours=1)
    said = (module_db, person.actor, "person.login_refused")

    every = await audit.latest_of_subject(*said, since=since, limit=99)
    latest = await audit.latest_of_subject(*said, since=since, limit=FAILURES_MIN)

    assert latest == every[:FAILURES_MIN] == sorted(latest, key=lambda each: each.id, reverse=True)
    assert len(every) == FAILURES_MIN + 2
    assert await audit.latest_of_subject(*said, since=real_now() + timedelta(1), limit=9) == []


async def test_nothing_speaks_against_a_small_sum_from_an_old_phone(
    module_db: Db, person: Person
) -> None:
    device = await phone(module_db, person)

    assert await asked(module_db, person, device, transfer(SMALL)) == (Level.SESSION, [])


async def test_a_new_phone_and_a_new_payee_ask_for_two_factors_from_an_amount_on(
    module_db: Db, person: Person
) -> None:
    new, old = await phone(module_db, person, days=2), await phone(module_db, person)

    assert await asked(module_db, person, new, transfer(SMALL)) == (Level.SESSION, [])
    assert await asked(module_db, person, new, transfer(20_000, number=2)) == (
        Level.TWO,
        ["new_device>2"],
    )
    assert await asked(module_db, person, old, transfer(SOME, number=3)) == (
        Level.TWO,
        ["new_payee>2"],
    )
    unknown = await asked(module_db, person, new_id(), transfer(20_000, number=4))
    assert unknown == (Level.SESSION, []), "a phone that is bound to nobody has no session"


async def test_failures_count_from_the_third_and_for_a_day(module_db: Db, person: Person) -> None:
    device = await phone(module_db, person)
    await refused_logins(module_db, person, FAILURES_MIN - 1)
    assert await asked(module_db, person, device, transfer(SMALL)) == (Level.SESSION, [])
    await refused_logins(module_db, person, 1)

    assert await asked(module_db, person, device, transfer(SMALL)) == (Level.TWO, ["failures>2"])
    much = await asked(module_db, person, device, transfer(MUCH))
    assert much == (Level.SIGNED, ["failures>3", "new_payee>2"])
    personal = await asked(module_db, person, device, Act("personal", "export"))
    assert personal == (Level.TWO, ["failures>2"])


async def test_a_changed_password_or_phone_number_is_remembered_for_days(
    module_db: Db, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, device = module_db, await phone(module_db, person)
    for hashed in ("first", "second"):
        before = await asked(db, person, device, transfer(SMALL))
        async with db.begin("test") as tx:
            await passwords.keep_password(tx, person.id, hashed)
    assert before == (Level.SESSION, []), "a first password is no change"
    assert await asked(db, person, device, transfer(SMALL)) == (Level.TWO, ["changed>2"])

    other = await somebody(db)
    device = await phone(db, other)
    await db.execute(
        "update person set created_at = created_at - interval '90 days' where id = $1", (other.id,)
    )
    await db.execute(
        "insert into person_contact (person_id, mode, kind, blind, masked, sealed, proved_at)"
        " values ($1, 'sandbox', 'phone', $2, '138****0000', 'x', $3)",
        (other.id, other.id.bytes * 2, db.clock.now() - timedelta(hours=70)),
    )
    assert await asked(db, other, device, transfer(SMALL)) == (Level.TWO, ["changed>2"])
    assert (await asked(db, other, device, transfer(MUCH)))[1] == ["new_payee>2"], "it was Monday"
    later = real_now() + timedelta(hours=3)
    monkeypatch.setattr(deciding, "real_now", lambda: later)
    db.clock.offset += timedelta(hours=3)
    assert await asked(db, other, device, transfer(SMALL)) == (Level.SESSION, [])


async def test_a_recovered_account_is_a_changed_one(module_db: Db, person: Person) -> None:
    device = await phone(module_db, person)
    async with module_db.begin("test") as tx:
        await audit.record(tx, "person.recovered", person.actor, {})

    assert await asked(module_db, person, device, transfer(MUCH)) == (
        Level.SIGNED,
        ["changed>3", "new_payee>2"],
    )


async def test_a_payee_is_known_once_something_was_confirmed_and_done(
    module_db: Db, person: Person, keyring: Keyring
) -> None:
    db, device = module_db, await phone(module_db, person)
    hashed = await passwords.choose_password(db, person.id, PASSWORD, "mlps3")
    async with db.begin("test") as tx:
        await passwords.keep_password(tx, person.id, hashed)
    checks = Checks(db, keyring, Site("example.org", "x", ()), "mlps3", RiskBySignals(db))
    bound = db.clock.now() - timedelta(days=30)
    holder = Holder(person.id, person.id.bytes * 2, device, bound, frozenset(), "per_x", keyring)
    act = transfer(SMALL)
    with pytest.raises(StepUpRequired) as needed:
        await require_step_up(checks, holder, act)
    waiting = await confirmation_of(checks, holder, str(needed.value.facts["confirmation"]))
    await confirm(checks, holder, waiting, ByPassword(PASSWORD))
    assert not await knows_payee(db, person.id, act.payee), "asked and proved is not done"
    async with db.begin("test") as tx:
        await (await require_step_up(checks, holder, act)).take(tx)

    assert await knows_payee(db, person.id, act.payee)
    await prune_challenges(db, real_now() + timedelta(days=2))
    assert await knows_payee(db, person.id, act.payee), "for longer than the confirmation"
    assert not await knows_payee(db, new_id(), act.payee), "and to nobody else"
    assert (await asked(db, person, device, transfer(SOME, number=5)))[1] == []


async def test_decisions_are_the_persons_to_see_and_to_have_erased(
    module_db: Db, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, device = module_db, await phone(module_db, person)
    for _ in range(2):
        await asked(db, person, device, transfer(SOME))
    [shown] = await contributor().show(db, person.id)
    assert (shown["reasons"], shown["level"], shown["times"]) == (["new_payee>2"], 2, 2)
    await prune_decisions(db)
    assert await decisions_of(db, person.id, 9)

    async with db.begin("test") as tx:
        assert await contributor().erase(tx, person.id) == []

    assert await decisions_of(db, person.id, 9) == []
    await asked(db, person, device, transfer(SOME))
    later = real_now() + deciding.KEPT
    monkeypatch.setattr(deciding, "real_now", lambda: later)
    await prune_decisions(db)
    assert await decisions_of(db, person.id, 9) == []


async def test_rows_are_dated_and_the_highest_amount_below_counts(module_db: Db) -> None:
    rows = await SIGNALS.all(module_db, "transfer", "CNY")

    assert in_force(rows, transfer(MUCH), date(2025, 12, 31)) == []
    levels = {
        amount: {each.signal: each.level for each in in_force(rows, transfer(amount), date.max)}
        for amount in (SMALL, MUCH)
    }
    assert levels[SMALL] == {Signal.FAILURES: Level.TWO, Signal.CHANGED: Level.TWO}
    assert levels[MUCH][Signal.CHANGED] is Level.SIGNED
    day = transfer(SMALL, number=9)
    as_day = Act(day.kind, day.subject, SMALL, "CNY", day.payee, day_total=MUCH)
    assert in_force(rows, as_day, date.max) == in_force(rows, transfer(MUCH), date.max)


NOW = datetime(2026, 11, 22).astimezone()
RULES = st.lists(
    st.builds(
        StepUpSignal,
        st.sampled_from(Signal),
        st.just("transfer"),
        st.just("CNY"),
        st.integers(0, 100),
        st.integers(0, 48),
        st.sampled_from([Level.ONE, Level.TWO, Level.SIGNED]),
        st.just(date(2026, 1, 1)),
        st.just("a rule"),
    ),
    max_size=8,
)
MOMENTS = st.dictionaries(
    st.sampled_from(Signal),
    st.lists(st.integers(0, 72).map(lambda hours: NOW - timedelta(hours=hours)), max_size=4),
)


@given(RULES, MOMENTS, st.integers(0, 120))
def test_more_signals_and_more_money_never_ask_for_less(
    rules: list[StepUpSignal], moments: dict[Signal, list[datetime]], amount: int
) -> None:
    act = transfer(amount)
    counted = in_force(rules, act, NOW.date())
    level, reasons = decide(counted, Seen(moments), NOW)

    assert len(counted) == len({each.signal for each in counted})
    assert all(each.at_least <= amount for each in counted)
    assert (level is Level.SESSION) == (not reasons)
    assert decide(counted, Seen({}), NOW) == (Level.SESSION, [])
    more = {signal: [*moments.get(signal, []), *[NOW] * FAILURES_MIN] for signal in Signal}
    assert decide(counted, Seen(more), NOW)[0] >= level
