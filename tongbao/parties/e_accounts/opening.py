"""Open, activate and close electronic accounts, and let those that nobody uses fall asleep.

Whoever opens locks a row of their own and one of their phone, in this order, and counts in later
statements; so two who open at once on one phone are counted one after the other.
"""

from __future__ import annotations

import hashlib
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.controls.limits.meters import open_meters
from tongbao.controls.opening.model import EVERY, OpeningRule
from tongbao.controls.opening.rules import rules_in_force
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts.model import (
    CURRENCY,
    METERS,
    AccountsTooMany,
    EAccount,
    EAccountNotEmpty,
    EAccountNotFound,
    EAccountOpeningBarred,
    EAccountStateWrong,
    RealNameTooLow,
    ReverificationNeeded,
    kind_of,
)
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.parties.people.dossier import check_not_barred
from tongbao.parties.people.model import Person
from tongbao.parties.people.real_names import checks_of, identity_row

_EVERY: Final = timedelta(hours=6)
_TOGETHER_MAX: Final = 200
DORMANT_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(timedelta(minutes=5), _EVERY))
"""It is the only task of its kind and never gives up."""


class FindDormant(Task, frozen=True, tag="e_accounts.find_dormant"):
    """Let the accounts that nobody has used fall asleep."""


def book_of(mode: Mode) -> int:
    """Return the book that people's accounts of a mode are kept in."""
    return LIVE_BOOK if mode is Mode.LIVE else SANDBOX_BOOK


def device_of(public_key: bytes) -> UUID:
    """Return what a phone is counted by, whoever holds it: a digest of its key."""
    return UUID(bytes=hashlib.sha256(b"e_account device\n" + public_key).digest()[:16])


async def open_account(
    tx: Tx, licence: Licence, person: Person, account_class: int, *, public_key: bytes
) -> EAccount:
    """Open an account of a class for somebody, on the phone with this key.

    One phone number is one person's already where people are kept (银发〔2016〕261号 七).

    Raises:
        EAccountOpeningBarred, EAccountClassUnknown, RealNameTooLow, AccountsTooMany
    """
    await check_not_barred(tx, person.id, EAccountOpeningBarred)
    kind, book, device = (
        kind_of(licence, account_class),
        book_of(person.mode),
        device_of(public_key),
    )
    rules = await rules_in_force(tx, kind, business_date(tx.now))
    await _check_real_name(tx, person, rules)
    for subject in (person.id, device):
        await store.KNOW_OPENER.run(tx, book, subject)
        await store.LOCK_OPENER.one(tx, book, subject)
    today = day_bounds(business_date(tx.now))[0]
    counted = {
        "accounts_max": await store.OF_KIND.one(tx, book, person.id, kind),
        "openings_per_person_day_max": await store.OPENED_BY_PERSON.one(tx, book, person.id, today),
        "openings_per_device_day_max": await store.OPENED_ON_DEVICE.one(tx, book, device, today),
        "persons_per_device_max": await store.OTHERS_ON_DEVICE.one(tx, book, device, person.id),
    }
    for name, there in counted.items():
        rule = rules.get(name)
        if rule is not None and there + 1 > rule.figure:
            raise AccountsTooMany(rule=name, most=rule.figure, instrument=rule.instrument)
    rest = rules.get("hours_after_closing")
    if rest is not None:
        since = tx.now - timedelta(hours=rest.figure)
        if await store.CLOSED_SINCE.one(tx, book, person.id, kind, since):
            raise AccountsTooMany(rule=rest.name, most=rest.figure, instrument=rest.instrument)
    account = await store.INSERT_ACCOUNT.one(
        tx, book, new_id(), person.id, person.mode, kind, CURRENCY, device, tx.now
    )
    await open_meters(tx, account.metered, METERS)
    facts = {"kind": kind, "mode": person.mode.value}
    await audit.record(tx, "e_account.opened", account.shown_id, facts)
    failpoint("e_accounts.before_open_commit")
    return account


async def account_for(
    tx: Tx, licence: Licence, person: Person, account_class: int, *, public_key: bytes
) -> EAccount:
    """Return somebody's account of a class, active, and open one where they have none.

    Two that ask at once for one person get the same.

    Raises:
        EAccountOpeningBarred, EAccountClassUnknown, RealNameTooLow, AccountsTooMany,
        ReverificationNeeded
    """
    await check_not_barred(tx, person.id, EAccountOpeningBarred)
    kind, book = kind_of(licence, account_class), book_of(person.mode)
    await store.KNOW_OPENER.run(tx, book, person.id)
    await store.LOCK_OPENER.one(tx, book, person.id)
    known = await store.OF_PERSON.all(tx, book, person.id)
    mine = [each for each in known if each.kind == kind and each.state != "closed"]
    if not mine:
        mine = [await open_account(tx, licence, person, account_class, public_key=public_key)]
    return await activate(tx, mine[0])


async def check_real_name(tx: Tx, licence: Licence, person: Person, account_class: int) -> None:
    """Raise unless somebody's name is known well enough for an account of a class.

    Raises:
        EAccountClassUnknown, RealNameTooLow
    """
    kind = kind_of(licence, account_class)
    await _check_real_name(tx, person, await rules_in_force(tx, kind, business_date(tx.now)))


async def lock_account(tx: Tx, account: EAccount) -> EAccount:
    """Return an account as it is now, and hold its row against whatever else changes it."""
    return await store.LOCK_ACCOUNT.one(tx, account.book, account.id)


async def activate(tx: Tx, account: EAccount) -> EAccount:
    """Let an account take part; one that fell asleep only once a register has agreed again.

    An account that is active already stays as it is.

    Raises:
        EAccountStateWrong, ReverificationNeeded
    """
    now_is = await store.LOCK_ACCOUNT.one(tx, account.book, account.id)
    if now_is.state == "active":
        return now_is
    if now_is.dormant_at is not None:
        agreed = [
            each.answered_at
            for each in await checks_of(tx, account.person_id)
            if each.verdict == "same" and each.answered_at is not None
        ]
        if not any(at > now_is.dormant_at for at in agreed):
            raise ReverificationNeeded
    changed = await store.ACTIVATE.first(tx, account.book, account.id, tx.now)
    if changed is None:
        raise EAccountStateWrong(status=now_is.state.value)
    await audit.record(tx, "e_account.activated", account.shown_id, {"from": now_is.state.value})
    return changed


async def close_account(tx: Tx, account: EAccount) -> EAccount:
    """Close an account that is empty, not frozen and has nothing waiting; again changes nothing.

    Raises:
        EAccountNotFound, EAccountNotEmpty
    """
    now_is = await store.LOCK_ACCOUNT.first(tx, account.book, account.id)
    if now_is is None:
        raise EAccountNotFound
    if now_is.state == "closed":
        return now_is
    waiting = await store.WAITING.one(tx, account.book, account.id)
    closed = None
    if not waiting:
        closed = await store.CLOSE.first(tx, account.book, account.id, tx.now)
    if closed is None:
        raise EAccountNotEmpty(waiting=waiting, frozen=now_is.frozen)
    await audit.record(tx, "e_account.closed", account.shown_id, {})
    failpoint("e_accounts.before_close_commit")
    return closed


async def bar_accounts(tx: Tx, person: Person, until: datetime | None) -> None:
    """Bar every account of a person until a moment, or no longer; the caller holds the person."""
    await store.BAR_ACCOUNTS.run(tx, book_of(person.mode), person.id, until)


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, FindDormant(), key="always")


async def run_find_dormant(db: Db, _task: FindDormant, _lease: Lease) -> Again:
    """Do one round over both modes and come back."""
    for mode in Mode:
        while await put_to_sleep(db, mode) == _TOGETHER_MAX:
            pass
    return Again(_EVERY)


async def put_to_sleep(db: Db, mode: Mode) -> int:
    """Let as many accounts fall asleep as fit into one commit, and say how many."""
    book = book_of(mode)
    async with db.begin("e_accounts") as tx:
        rules = await rules_in_force(tx, EVERY, business_date(tx.now))
        rule = rules.get("dormant_after_months")
        if rule is None:
            return 0
        before = _months_before(tx.now, rule.figure)
        quiet = await store.QUIET.all(tx, book, before, _TOGETHER_MAX)
        for account in quiet:
            await store.FALL_ASLEEP.run(tx, book, account.id, tx.now)
            facts = {"instrument": rule.instrument}
            await audit.record(tx, "e_account.dormant", account.shown_id, facts)
        failpoint("e_accounts.before_sleep_commit")
    return len(quiet)


async def _check_real_name(tx: Tx, person: Person, rules: dict[str, OpeningRule]) -> None:
    least = rules.get("real_name_level_min")
    if least is not None and person.real_name_level < least.figure:
        raise RealNameTooLow(needs=f"level {least.figure}", instrument=least.instrument)
    seen = rules.get("face_to_face")
    if seen is not None and seen.figure:
        identity = await identity_row(tx, person.id)
        if identity is None or not identity.face_to_face or person.real_name_level < 1:
            raise RealNameTooLow(needs="face_to_face", instrument=seen.instrument)


def _months_before(at: datetime, months: int) -> datetime:
    """Return the beginning of the business day so many calendar months before."""
    today = business_date(at)
    number = today.year * 12 + today.month - 1 - months
    first = date(number // 12, number % 12 + 1, 1)
    after = (first.replace(day=28) + timedelta(days=4)).replace(day=1)
    day = min(today.day, (after - timedelta(days=1)).day)
    return day_bounds(first.replace(day=day))[0]
