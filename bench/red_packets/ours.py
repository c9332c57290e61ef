"""Ours: the queue of one process over the ledger, as the route calls it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from msgspec import Struct

from bench.red_packets.figures import Burst
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import connect
from tongbao.infra.migrate import migrate
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import use_of
from tongbao.kernel.clock import Clock, monotonic
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import Group
from tongbao.ledger.rules import posting
from tongbao.ledger.verify import verify
from tongbao.parties.accounts.model import Wallet
from tongbao.parties.accounts.wallets import account_of, open_wallet
from tongbao.parties.merchants.merchants import BankAccount, open_merchant
from tongbao.products.red_packets.grabbing import Grabbers
from tongbao.products.red_packets.hall import Hall
from tongbao.products.red_packets.model import Kind, RedPacket, RedPacketAsked
from tongbao.products.red_packets.sending import send_red_packet

_LICENCE: Final = Licence.PAYMENT_INSTITUTION
_FUNDED_TOGETHER: Final = 1000


class Bench(Struct, frozen=True):
    """A merchant whose customers have wallets, used before, with a fen in each."""

    hall: Hall
    caller: Caller
    sender: Wallet
    wallets: Sequence[Wallet]


@asynccontextmanager
async def opened(dsn: str, people: int, amount: int) -> AsyncIterator[Bench]:
    """Open a database of its own with so many wallets, and one more that will send."""
    db = await connect(dsn, Clock(), connections_max=8)
    ledger = Ledger(db, _LICENCE)
    try:
        await migrate(db, _LICENCE, "bench")
        async with db.begin("bench") as tx:
            account = BankAccount("Bench Ltd", Secret("6222021234567890128"))
            keyring = Keyring([b"k" * 32])
            merchant = await open_merchant(tx, keyring, name="Bench", bank_account=account)
            book = merchant.book(Mode.SANDBOX)
            caller = Caller(new_id(), merchant.id, Mode.SANDBOX, book, frozenset())
            sender = await open_wallet(tx, caller, holder_name="张三", daily_limit=amount)
            wallets = [await open_wallet(tx, caller, holder_name="李四") for _ in range(people)]
        await ledger.open_book(book, actor="bench")
        await _fund(ledger, [sender], amount)
        for begin in range(0, people, _FUNDED_TOGETHER):
            await _fund(ledger, wallets[begin : begin + _FUNDED_TOGETHER], 1)
        await db.execute("vacuum analyze", ())
        await db.execute("checkpoint", ())
        yield Bench(Hall(db, ledger), caller, sender, wallets)
    finally:
        await ledger.close()
        await db.close()


async def _fund(ledger: Ledger, wallets: Sequence[Wallet], amount: int) -> None:
    groups = []
    for wallet in wallets:
        reference = new_id()
        transfers = posting.transfers(
            "wallet.topped_up",
            reference=reference,
            accounts={"wallet": account_of(wallet)},
            amounts={"amount": Money(amount, wallet.currency)},
        )
        groups.append(Group(reference, wallet.book, transfers))
    results = await ledger.submit(groups)
    if not all(each.happened for each in results):
        raise AssertionError("a wallet was not funded")


async def run(bench: Bench, *, amount: int, parts: int) -> Burst:
    """Let every wallet grab at once."""
    asked = RedPacketAsked(Kind.LUCKY, Money(amount, "CNY"), parts)
    use = use_of(bench.caller, "POST /v1/red_packets", str(new_id()), b"")
    packet = await send_red_packet(bench.hall, bench.sender, asked, use)
    grabbers = Grabbers(bench.hall)
    before, waits = await _commits(bench), list[float]()
    begins = monotonic()

    async def person(wallet: Wallet) -> int:
        grab = await grabbers.grab(wallet, packet.id)
        waits.append(monotonic() - begins)
        return 0 if grab is None else grab.amount

    taken = await asyncio.gather(*[person(wallet) for wallet in bench.wallets])
    seconds = monotonic() - begins
    commits = await _commits(bench) - before
    grabbed = sum(1 for each in taken if each)
    await _check(bench, packet, taken)
    return Burst(grabbed, len(taken) - grabbed, seconds, waits, commits)


async def _commits(bench: Bench) -> int:
    sql = "select count(*) from ledger_batch where book = $1"
    return int((await bench.hall.db.fetch(sql, (bench.caller.book,)))[0][0])


async def _check(bench: Bench, packet: RedPacket, taken: Sequence[int]) -> None:
    """Read it all again: who has what, the row, the book; and verify the ledger."""
    db, place = bench.hall.db, (packet.book, packet.id)
    [grabs] = await db.fetch(
        "select count(distinct part) as parts, count(distinct wallet_id) as people,"
        " sum(amount)::bigint as total from red_packet_grab where book = $1 and red_packet_id = $2",
        place,
    )
    [row] = await db.fetch(
        "select state, grabbed, taken from red_packet where book = $1 and id = $2", place
    )
    report = await verify(db)
    held = await _held(bench, packet.id)
    found = (grabs["parts"], grabs["people"], grabs["total"], row["state"], row["taken"], held)
    expected = (packet.parts, packet.parts, packet.amount, "emptied", packet.amount, 0)
    if found != expected or sum(taken) != packet.amount or not report.is_sound:
        raise AssertionError(f"{found}, told {sum(taken)}, {report.broken}")


async def _held(bench: Bench, owner: UUID) -> int:
    [row] = await bench.hall.db.fetch(
        "select credits_posted - debits_posted as held from ledger_account"
        " where book = $1 and kind = 'subsidy' and owner = $2",
        (bench.caller.book, owner),
    )
    return int(row["held"])
