"""Ours: the platform's own batch over its own ledger, drawn and then released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from bench.settlement.plain import DAY, amounts
from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement_batches.batches import draw_batch, open_batch, release_batch
from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.infra.http import Anywhere, HttpClient
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import BUSINESS_ZONE, Clock, real_now
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.queries import caught_up
from tongbao.ledger.rules import posting
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentReads
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.contract.orders import ChannelAccount

CHANNEL = UUID(int=0xC4A)
PIECE = 2_000
WAIT_S = 60.0


class House(Struct, frozen=True):
    """The platform without its doors, and the batch to be settled."""

    db: Db
    clearing: Clearing
    batch_id: UUID
    merchants: int
    owed: int


@asynccontextmanager
async def opened(dsn: str, folder: Path, merchants: int, payments: int) -> AsyncIterator[House]:
    """A platform whose merchants were all paid yesterday."""
    db = await connect(dsn, Clock(), connections_max=10)
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    try:
        await migrate(db, Licence.PAYMENT_INSTITUTION, "bench")
        await ledger.open_book(SANDBOX_BOOK, actor="bench")
        ids = [new_id() for _ in range(merchants)]
        await _open_merchants(db, ids)
        _at(db, 12)
        for gross, fee in amounts(payments):
            await _capture(ledger, ids, gross, fee)
        _at(db, 36)
        await _balanced(db)
        await db.execute("vacuum analyze", ())
        await db.execute("checkpoint", ())
        flow = Flow(
            db=db,
            commits=Commits(db, "payments"),
            reads=PaymentReads(db),
            ledger=ledger,
            channels={},
            account=_no_account,
            licence=Licence.PAYMENT_INSTITUTION,
            nudge=lambda: None,
        )
        bank = BankTransfer(HttpClient(Anywhere()))
        keyring = Keyring.from_file(folder / "kek")
        clearing = Clearing(flow=flow, bank=bank, keyring=keyring, folder=folder)
        async with db.begin("bench") as tx:
            batch = await open_batch(tx, Mode.SANDBOX)
        owed = sum(gross - fee for gross, fee in amounts(payments))
        yield House(db, clearing, batch.id, merchants, owed)
    finally:
        await ledger.close()
        await db.close()


async def draw(house: House) -> None:
    """Draw everybody's day."""
    await draw_batch(house.clearing, house.batch_id)


async def release(house: House) -> None:
    """Close what was drawn."""
    await release_batch(house.clearing, house.batch_id)


async def check(house: House) -> None:
    """Raise unless every merchant is settled to the fen and the ledger proves itself."""
    await _balanced(house.db)
    [found] = await house.db.fetch(
        """select (select count(*) from payout where amount = $1) as paid,
                  (select count(*) from settlement where state <> 'closed') as open,
                  (select count(*) from ledger_account
                    where kind = 'merchant_payable' and credits_posted <> debits_posted) as left""",
        (house.owed,),
    )
    if tuple(found) != (house.merchants, 0, 0):
        raise RuntimeError(f"ours came out wrong: {dict(found)}")
    report = await verify(house.db)
    if not report.is_sound:
        raise RuntimeError(f"the ledger is broken: {report.broken}")


async def _balanced(db: Db) -> None:
    """Wait until the balances have followed the journal, however far behind they are."""
    while True:
        try:
            return await caught_up(db, SANDBOX_BOOK)
        except Busy:
            await asyncio.sleep(0.1)


def _at(db: Db, hours: int) -> None:
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=BUSINESS_ZONE)
    db.clock.offset = start + timedelta(hours=hours) - real_now()


async def _open_merchants(db: Db, ids: list[UUID]) -> None:
    await db.execute(
        """insert into merchant (id, name, state, live_book, sandbox_book, late_success,
                                 settlement_delay_days, opened_at)
           select id, 'shop', 'active', $2, $3, 'refund', 1, $4 from unnest($1::uuid[]) as id""",
        (ids, LIVE_BOOK, SANDBOX_BOOK, db.clock.now()),
    )


async def _capture(ledger: Ledger, ids: list[UUID], gross: int, fee: int) -> None:
    channel = AccountKey("channel_receivable", "CNY", CHANNEL)
    money = {"gross": Money(gross, "CNY"), "fee": Money(fee, "CNY")}
    for start in range(0, len(ids), PIECE):
        groups = []
        for merchant in ids[start : start + PIECE]:
            payable = AccountKey("merchant_payable", "CNY", merchant)
            its = posting.transfers(
                "payment.captured",
                reference=new_id(),
                accounts={"merchant_payable": payable, "channel_receivable": channel},
                amounts=money,
            )
            groups.append(Group(new_id(), SANDBOX_BOOK, its))
        results = await ledger.submit(groups, deadline_s=WAIT_S)
        if not all(result.happened for result in results):
            raise RuntimeError("a payment was refused")


async def _no_account(_account_id: UUID) -> ChannelAccount:
    raise LookupError
