"""Operators: the first one, good passwords, two factors, lock-out, and sessions that end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pyotp
import pytest
from argon2 import Type, extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.clock import real_now
from tongbao.parties.identity import _store as store
from tongbao.parties.identity import operators, sessions
from tongbao.parties.identity.model import (
    ROLES,
    CsrfTokenWrong,
    LoginMalformed,
    LoginRefused,
    LoginTaken,
    NotTheFirst,
    OperatorNotFound,
    PasswordWeak,
    Permission,
    PermissionMissing,
    Role,
    SessionEnded,
    check_password,
)
from tongbao.parties.identity.operators import Enrolment
from tongbao.parties.identity.queries import list_operators
from tongbao.parties.identity.sessions import OpenedSession, log_in, log_out, session_of

PASSWORD = "violet-otter-42-harbour"
REAL_HASHER = operators._HASHER


class Wrist:
    """A watch that only the test turns: the step of a code does not change between two logins."""

    def __init__(self) -> None:
        self.stopped_at = real_now()
        self.ahead = timedelta()

    def now(self) -> object:
        return self.stopped_at + self.ahead

    def next_step(self) -> None:
        self.ahead += timedelta(seconds=30)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Wrist:
    wrist = Wrist()
    monkeypatch.setattr(sessions, "real_now", wrist.now)
    return wrist


@pytest.fixture
async def alice(db: Db, keyring: Keyring) -> Enrolment:
    async with db.begin("cli") as tx:
        return await operators.create_first_operator(
            tx, keyring, login="alice", name="Alice", password=PASSWORD
        )


def code_of(enrolment: Enrolment, watch: Wrist) -> str:
    return pyotp.TOTP(enrolment.totp_secret.reveal()).at(watch.now())


async def opened(db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist) -> OpenedSession:
    code = code_of(alice, watch)
    return await log_in(db, keyring, login="alice", password=PASSWORD, code=code)


async def test_the_first_operator_is_an_administrator(alice: Enrolment) -> None:
    assert alice.operator.role is Role.ADMIN
    assert alice.operator.is_first
    assert alice.totp_uri.reveal().startswith("otpauth://totp/Tongbao:alice?secret=")


async def test_there_is_one_first_operator(db: Db, keyring: Keyring, alice: Enrolment) -> None:
    async with db.begin("cli") as tx:
        with pytest.raises(NotTheFirst):
            await operators.create_first_operator(
                tx, keyring, login="mallory", name="M", password=PASSWORD
            )


async def test_of_two_installers_at_once_one_is_first(db: Db, keyring: Keyring) -> None:
    """Forced interleaving: both saw an empty table."""

    async def second() -> None:
        async with db.begin("cli") as tx:
            await operators.create_first_operator(
                tx, keyring, login="bob", name="B", password=PASSWORD
            )

    async with db.begin("cli") as tx:
        await operators.create_first_operator(
            tx, keyring, login="alice", name="A", password=PASSWORD
        )
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.1)
        assert not waiting.done()

    with pytest.raises(NotTheFirst):
        await waiting
    assert [each.login for each in await list_operators(db)] == ["alice"]


async def test_login_names_are_unique_and_plain(db: Db, keyring: Keyring, alice: Enrolment) -> None:
    async def add(login: str) -> None:
        async with db.begin("alice") as tx:
            await operators.create_operator(
                tx, keyring, login=login, name="B", role=Role.VIEWER, password=PASSWORD
            )

    with pytest.raises(LoginTaken):
        await add("alice")
    for login in ("al", "Alice", "a b c", "a" * 65, "爱丽丝", "alice\n"):
        with pytest.raises(LoginMalformed):
            await add(login)
    await add("bob.2@shop")


@pytest.mark.parametrize(
    "password",
    ["", "short-one-1", "aaaaaaaaaaaaaaaa", "abababababab", "alice-is-my-name", "x" * 129],
)
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(PasswordWeak):
        check_password(password, "alice")


@given(st.text(min_size=12, max_size=128).filter(lambda text: len(set(text)) >= 5))
def test_any_long_varied_password_will_do(password: str) -> None:
    if "alice" not in password.lower():
        check_password(password, "alice")


async def test_password_and_seed_are_not_stored_readable(db: Db, alice: Enrolment) -> None:
    [row] = await db.fetch("select * from operator", ())

    assert row["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in str(dict(row))
    assert alice.totp_secret.reveal().encode() not in row["totp_sealed"]
    assert alice.totp_secret.reveal() not in repr(alice)


async def test_password_and_code_open_a_session(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    new = await opened(db, keyring, alice, watch)

    session = await session_of(db, keyring, new.token.reveal())

    assert session.operator.login == "alice"
    session.operator.check_may(Permission.OPERATORS_ACT)
    session.check_csrf(new.session.csrf_token)
    [row] = await db.fetch("select token_hash from operator_session", ())
    assert new.token.reveal().encode() not in row["token_hash"]


async def test_every_refusal_of_a_login_is_the_same(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    tries = [
        ("alice", "wrong-password-123", code_of(alice, watch)),
        ("alice", PASSWORD, "000000"),
        ("alice", PASSWORD, "not a code €"),
        ("alice", PASSWORD, ""),
        ("nobody", PASSWORD, code_of(alice, watch)),
        ("", "", ""),
        ("al\0ice", PASSWORD, "123456"),
        ("\ud800", "\ud800", "\ud800"),
        ("alice", "\ud800", "\ud800"),
    ]

    for login, password, code in tries:
        with pytest.raises(LoginRefused) as refused:
            await log_in(db, keyring, login=login, password=password, code=code)
        assert refused.value.facts == {}
    assert not await db.fetch("select opened_at from operator_session", ())


async def test_a_code_works_once(db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist) -> None:
    await opened(db, keyring, alice, watch)
    with pytest.raises(LoginRefused):
        await opened(db, keyring, alice, watch)
    watch.next_step()
    watch.next_step()

    await opened(db, keyring, alice, watch)


async def test_of_two_logins_with_one_code_one_gets_in(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    both = await asyncio.gather(
        *[opened(db, keyring, alice, watch) for _ in range(2)], return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in both) == ["LoginRefused", "OpenedSession"]


async def test_a_waiting_login_sees_the_code_used_by_the_one_it_waited_for(
    db: Db, alice: Enrolment
) -> None:
    """Forced interleaving on the operator's row."""
    async with db.begin("first") as tx:
        assert await store.USE_CODE.first(tx, alice.operator.id, 100) is not None
        second = asyncio.create_task(store.USE_CODE.first(db, alice.operator.id, 100))
        await asyncio.sleep(0.05)
        assert not second.done()

    assert await second is None


async def test_a_neighbouring_code_is_taken_an_older_one_is_not(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    totp = pyotp.TOTP(alice.totp_secret.reveal())
    old = totp.at(watch.now() - timedelta(seconds=90))
    previous = totp.at(watch.now() - timedelta(seconds=30))

    with pytest.raises(LoginRefused):
        await log_in(db, keyring, login="alice", password=PASSWORD, code=old)
    await log_in(db, keyring, login="alice", password=PASSWORD, code=previous)


async def test_five_failures_lock_for_a_quarter_of_an_hour(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    for _ in range(5):
        with pytest.raises(LoginRefused):
            await log_in(db, keyring, login="alice", password="wrong-password", code="123456")
    with pytest.raises(LoginRefused):  # right, and locked
        await opened(db, keyring, alice, watch)
    watch.ahead += timedelta(minutes=14)
    with pytest.raises(LoginRefused):
        await opened(db, keyring, alice, watch)
    watch.ahead += timedelta(minutes=2)

    await opened(db, keyring, alice, watch)


async def test_a_burst_of_guesses_gets_no_more_than_five(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = []

    def judge(password: str, password_hash: str) -> bool:
        judged.append(password_hash == alice.operator.password_hash)
        return False

    monkeypatch.setattr(sessions, "password_matches", judge)
    await asyncio.gather(
        *[
            log_in(db, keyring, login="alice", password=f"guess-{n}", code="123456")
            for n in range(20)
        ],
        return_exceptions=True,
    )

    assert sum(judged) == 5


async def test_success_forgets_the_failures(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    for _ in range(3):
        for _ in range(3):
            with pytest.raises(LoginRefused):
                await log_in(db, keyring, login="alice", password="wrong-password", code="1")
        await opened(db, keyring, alice, watch)
        watch.next_step()
        watch.next_step()


async def test_an_unlocked_operator_may_try_again(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    for _ in range(5):
        with pytest.raises(LoginRefused):
            await log_in(db, keyring, login="alice", password="wrong-password", code="123456")
    async with db.begin("cli") as tx:
        await operators.unlock(tx, "alice")

    await opened(db, keyring, alice, watch)


async def test_a_session_ends_when_idle_and_in_the_end_anyway(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    token = (await opened(db, keyring, alice, watch)).token.reveal()
    for _ in range(25):
        watch.ahead += timedelta(minutes=28)
        await session_of(db, keyring, token)
    watch.ahead += timedelta(minutes=28)
    with pytest.raises(SessionEnded):  # 12 hours and 8 minutes
        await session_of(db, keyring, token)
    watch.next_step()

    idle = (await opened(db, keyring, alice, watch)).token.reveal()
    watch.ahead += timedelta(minutes=30, seconds=1)
    with pytest.raises(SessionEnded):
        await session_of(db, keyring, idle)


async def test_business_time_ends_no_session(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    token = (await opened(db, keyring, alice, watch)).token.reveal()
    db.clock.offset = timedelta(days=2)

    assert (await session_of(db, keyring, token)).operator.login == "alice"


async def test_log_out_ends_the_session(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    token = (await opened(db, keyring, alice, watch)).token.reveal()

    for _ in range(2):
        await log_out(db, keyring, token)

    with pytest.raises(SessionEnded):
        await session_of(db, keyring, token)


async def test_a_made_up_token_is_no_session(db: Db, keyring: Keyring) -> None:
    for token in ("", "a", "€"):
        with pytest.raises(SessionEnded):
            await session_of(db, keyring, token)


async def test_the_csrf_token_belongs_to_its_session(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    one = await opened(db, keyring, alice, watch)
    watch.next_step()
    watch.next_step()
    other = await opened(db, keyring, alice, watch)

    for wrong in (other.session.csrf_token, "", one.token.reveal(), "€"):
        with pytest.raises(CsrfTokenWrong):
            one.session.check_csrf(wrong)


@pytest.mark.parametrize("act", ["password", "second_factor", "disable"])
async def test_whatever_locks_an_operator_out_ends_their_sessions(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist, act: str
) -> None:
    token = (await opened(db, keyring, alice, watch)).token.reveal()
    async with db.begin("cli") as tx:
        match act:
            case "password":
                await operators.set_password(tx, "alice", "another-good-password-7")
            case "second_factor":
                await operators.reset_second_factor(tx, keyring, "alice")
            case _:
                await operators.set_disabled(tx, "alice", disabled=True)
    watch.next_step()
    watch.next_step()

    with pytest.raises(SessionEnded):
        await session_of(db, keyring, token)
    with pytest.raises(LoginRefused):
        await opened(db, keyring, alice, watch)


async def test_a_new_second_factor_works_at_once(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    await opened(db, keyring, alice, watch)
    async with db.begin("cli") as tx:
        again = await operators.reset_second_factor(tx, keyring, "alice")

    await opened(db, keyring, again, watch)


async def test_nobody_is_nobody(db: Db, keyring: Keyring) -> None:
    async with db.begin("cli") as tx:
        with pytest.raises(OperatorNotFound):
            await operators.unlock(tx, "nobody")
        with pytest.raises(OperatorNotFound):
            await operators.set_disabled(tx, "nobody", disabled=True)
        with pytest.raises(OperatorNotFound):
            await operators.set_password(tx, "nobody", PASSWORD)
        with pytest.raises(OperatorNotFound):
            await operators.reset_second_factor(tx, keyring, "nobody")


def test_roles_are_data_and_only_the_administrator_may_everything() -> None:
    assert ROLES.keys() == set(Role)
    assert ROLES[Role.ADMIN] == set(Permission)
    assert all(Permission.VIEW in allowed for allowed in ROLES.values())
    assert ROLES[Role.VIEWER] == {Permission.VIEW}
    assert Permission.SETTLEMENT_ACT not in ROLES[Role.OPERATOR]


async def test_a_role_bounds_what_an_operator_may(db: Db, keyring: Keyring) -> None:
    async with db.begin("cli") as tx:
        made = await operators.create_operator(
            tx, keyring, login="vera", name="V", role=Role.VIEWER, password=PASSWORD
        )

    made.operator.check_may(Permission.VIEW)
    with pytest.raises(PermissionMissing):
        made.operator.check_may(Permission.PAYMENTS_ACT)


async def test_logins_and_refusals_are_in_the_audit_log(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    with pytest.raises(LoginRefused):
        await log_in(db, keyring, login="alice", password="wrong-password", code="123456")
    await opened(db, keyring, alice, watch)

    entries = await audit.entries_of_subject(db, alice.operator.actor)

    assert [entry.action for entry in entries] == [
        "operator.created",
        "operator.login_refused",
        "operator.logged_in",
    ]
    assert PASSWORD not in str(entries)


def test_the_real_hash_is_costly() -> None:
    """RFC 9106 §4, the second recommended option."""
    parameters = extract_parameters(REAL_HASHER.hash(PASSWORD))

    assert parameters.type is Type.ID
    assert (parameters.time_cost, parameters.memory_cost, parameters.parallelism) == (3, 65536, 4)


async def test_the_sixth_session_ends_the_oldest(
    db: Db, keyring: Keyring, alice: Enrolment, watch: Wrist
) -> None:
    tokens = []
    for _ in range(sessions.SESSIONS_MAX + 1):
        tokens.append((await opened(db, keyring, alice, watch)).token.reveal())
        watch.next_step()

    with pytest.raises(SessionEnded):
        await sessions.session_of(db, keyring, tokens[0])
    for token in tokens[1:]:
        assert (await sessions.session_of(db, keyring, token)).operator.login == "alice"


@pytest.mark.parametrize(
    "password", ["tongbao-4-ever-and-a-day", "my 通宝 horse battery", "Console staple horse"]
)
async def test_words_of_the_place_are_refused(db: Db, alice: Enrolment, password: str) -> None:
    async with db.begin("cli") as tx:
        with pytest.raises(PasswordWeak):
            await operators.set_password(tx, "alice", password)
