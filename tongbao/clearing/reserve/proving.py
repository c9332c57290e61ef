"""Prove a day: put customers' money beside what lies for them, keep it, and open what is a gap.

A proof keeps everything it was worked out from, with a digest: how far the vouchers of each book
went and which signed checkpoint covers them, and which paper of which bank. So anybody can work it
out again, years later, from the books and the papers.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Final

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Gauge

from tongbao.clearing.reserve import _store as store
from tongbao.clearing.reserve.model import (
    GAP,
    BookInput,
    CustodyAccount,
    Figures,
    Inputs,
    ProofContended,
    ProofState,
    ReserveDayNotOver,
    ReserveProof,
    ReserveRule,
    ReserveRuleMissing,
    StatementInput,
    digest_of,
    lines_of,
    work_out,
)
from tongbao.clearing.suspense.desk import mode_of_book
from tongbao.controls.calendar.queries import is_working_day
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.ledger.general.queries import sums_through
from tongbao.ledger.general.vouchers import build_vouchers, coverage
from tongbao.ledger.proofs.checkpoints import last_checkpoint, prove_now
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.queries import books

PROVED_AT: Final = timedelta(hours=12, minutes=30)
"""When the day before is proved, by the business clock: banks' papers of a day come in by then."""
RESERVE_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000,  # it is tried again until it works: nobody else starts the next day
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 10)),
)
_MAKES_UP_FOR: Final = timedelta(days=31)

_SHORTFALL = Gauge(
    "tongbao_reserve_shortfall",
    "Minor units that custody lacked on the last day",
    ["mode", "currency"],
)
_OPEN = Gauge(
    "tongbao_reserve_gaps_open", "Gaps of the reserve that nobody has explained", ["mode"]
)
_log = structlog.get_logger()


class ReserveGapFound(Event, frozen=True, kw_only=True, tag="reserve.gap_found"):
    """Customers' money is not covered, banks and books differ, or a bank is silent.

    Between our own domains: no merchant is told.
    """

    day: date
    currency: str
    kind: str
    amount: int


class ProveReserve(Task, frozen=True, tag="reserve.prove"):
    """Prove every day that is over and has no proof yet, and come again tomorrow."""


class Reserve(Struct, frozen=True):
    """What proving works with."""

    db: Db
    proofs: Proofs


async def seed(tx: Tx, licence: Licence) -> None:
    """Start the daily round where customers' money is held, unless it runs already."""
    if licence.may_hold_funds:
        await enqueue(tx, ProveReserve(), run_at=_next_round(tx.now), key="daily")


async def run_prove_reserve(reserve: Reserve, _task: ProveReserve, _lease: Lease) -> Again:
    """Prove what is due in both modes; in the sandbox only where somebody has opened an account."""
    db = reserve.db
    yesterday = business_date(db.clock.now()) - timedelta(days=1)
    for mode in Mode:
        if mode is Mode.SANDBOX and not await store.ACCOUNTS.all(db, mode):
            continue
        last = await store.LAST_DAY.first(db, mode)
        first = yesterday if last is None else last.day + timedelta(days=1)
        first = max(first, yesterday - _MAKES_UP_FOR)
        for n in range((yesterday - first).days + 1):
            await prove_day(reserve, mode, first + timedelta(days=n), actor="reserve")
    now = db.clock.now()
    return Again(_next_round(now) - now)


async def prove_day(reserve: Reserve, mode: Mode, day: date, *, actor: str) -> list[ReserveProof]:
    """Prove a day in every currency in which money is owed or in custody.

    A proof that says what the last one said is not written again.

    Raises:
        ReserveDayNotOver, ReserveRuleMissing, ProofContended, TreeBroken, JournalIncomplete
    """
    db = reserve.db
    if day >= business_date(db.clock.now()):
        raise ReserveDayNotOver(day=day.isoformat())
    rule = await store.RULE_ON.first(db, day)
    if rule is None:
        raise ReserveRuleMissing(day=day.isoformat())
    by_currency = await _books(reserve, mode, day)
    accounts = [each for each in await store.ACCOUNTS.all(db, mode) if each.is_open_on(day)]
    currencies = {*by_currency, *(each.currency for each in accounts)}
    proofs = []
    for currency in sorted(currencies):
        theirs = [each for each in accounts if each.currency == currency]
        statements, missing = await _statements(db, theirs, day)
        inputs = Inputs(
            mode=mode,
            currency=currency,
            day=day,
            rule=rule,
            books=tuple(by_currency.get(currency, ())),
            statements=statements,
            missing=tuple(each.id for each in missing),
        )
        proofs.append(await _keep(db, inputs, actor))
    await _measure(db, mode, proofs)
    return proofs


async def _books(reserve: Reserve, mode: Mode, day: date) -> dict[str, list[BookInput]]:
    """Return what every book of a mode says at the end of a day, by currency."""
    found: dict[str, list[BookInput]] = {}
    for book in [each.book for each in await books(reserve.db)]:
        if mode_of_book(book) is not mode:
            continue
        await build_vouchers(reserve.db, book)
        batch = (await coverage(reserve.db, book)).covered_batch
        await prove_now(reserve.proofs, book)
        point = await last_checkpoint(reserve.db, book)
        note = point.note if point is not None else ""
        lines: dict[str, list[tuple[str, int, int]]] = {}
        for each in await sums_through(reserve.db, book, day, batch):
            lines.setdefault(each.currency, []).append((each.name, each.debits, each.credits))
        for currency, sums in lines.items():
            entry = BookInput(book, batch, note, lines_of(sums))
            found.setdefault(currency, []).append(entry)
    return found


async def _statements(
    db: Db, accounts: Iterable[CustodyAccount], day: date
) -> tuple[tuple[StatementInput, ...], list[CustodyAccount]]:
    """Return what banks said of the accounts that counts on a day, and of which they said nothing.

    On a day that banks do not work the balance of the last working day goes on.
    """
    since = day
    while not await is_working_day(db, since):
        since -= timedelta(days=1)
    found, missing = [], []
    for account in accounts:
        last = await store.LAST_BALANCE.first(db, account.id, day)
        if last is None or last.day < max(since, account.opened_on):
            missing.append(account)
            continue
        paper = (last.day, last.version, last.amount, last.source, last.digest.hex())
        found.append(StatementInput(account.id, account.purpose, *paper))
    return tuple(found), missing


async def _keep(db: Db, inputs: Inputs, actor: str) -> ReserveProof:
    """Write a proof down, with a gap where it is not what it should be."""
    figures = work_out(inputs)
    digest = digest_of(inputs, figures)
    last = await store.LAST_PROOF.first(db, inputs.mode, inputs.currency, inputs.day)
    if last is not None and _says_the_same(last, inputs, figures):
        return last
    version = 1 if last is None else last.version + 1
    async with db.begin(actor) as tx:
        kept = await store.INSERT_PROOF.first(
            tx,
            new_id(),
            inputs.mode,
            inputs.currency,
            inputs.day,
            version,
            *msgspec.structs.astuple(figures),
            msgspec.to_builtins(inputs),
            digest,
            tx.now,
            tx.actor,
        )
        if kept is None:
            raise ProofContended
        facts = {"day": inputs.day.isoformat(), "state": kept.state, "digest": digest.hex()}
        await audit.record(tx, "reserve.proved", show("rsp", kept.id), facts)
        if kept.state is not ProofState.COVERED:
            await _open_gap(tx, kept)
        failpoint("reserve.before_proof_commit")
    return kept


def _says_the_same(last: ReserveProof, inputs: Inputs, figures: Figures) -> bool:
    """Whether nothing that counts has changed; that books have grown since changes nothing."""
    before = msgspec.convert(last.inputs, Inputs)
    return (
        before.rule == inputs.rule
        and before.statements == inputs.statements
        and before.missing == inputs.missing
        and [(each.book, each.lines) for each in before.books]
        == [(each.book, each.lines) for each in inputs.books]
        and work_out(before) == figures
    )


async def _open_gap(tx: Tx, proof: ReserveProof) -> None:
    """Open a gap, unless the day has one of the kind: it stays until two people explain it."""
    amount = proof.shortfall if proof.state is ProofState.SHORT else proof.difference
    gap_id = derived_id(proof.id, proof.state)
    row = (gap_id, proof.mode, proof.currency, proof.day, proof.state, amount, proof.id, tx.now)
    if not await store.OPEN_GAP.run(tx, *row):
        return
    _log.error(
        "reserve_gap_found",
        mode=proof.mode,
        day=proof.day.isoformat(),
        currency=proof.currency,
        kind=proof.state,
        amount=amount,
    )
    await publish(
        tx,
        ReserveGapFound(
            merchant_id=None,
            mode=proof.mode,
            resource_id=show(GAP, gap_id),
            day=proof.day,
            currency=proof.currency,
            kind=proof.state,
            amount=amount,
        ),
    )


async def _measure(db: Db, mode: Mode, proofs: Iterable[ReserveProof]) -> None:
    for proof in proofs:
        _SHORTFALL.labels(mode, proof.currency).set(proof.shortfall)
    _OPEN.labels(mode).set(len(await store.OPEN_GAPS.all(db, mode)))


async def rule_on(db: Db, day: date) -> ReserveRule | None:
    """Return how much must be covered on a day, and who says so."""
    return await store.RULE_ON.first(db, day)


def _next_round(now: datetime) -> datetime:
    at = day_bounds(business_date(now))[0] + PROVED_AT
    return at if at > now else at + timedelta(days=1)
