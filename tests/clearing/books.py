"""A merchant's account and what may happen to it, without channels and without a bank."""

from __future__ import annotations

import random
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.clearing.settling import settle_day
from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts.payouts import record_payout_news
from tongbao.clearing.payouts.queries import open_payouts
from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.http import HttpClient, LoopbackAllowed
from tongbao.kernel.clock import BUSINESS_ZONE, business_date, real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.queries import balance_of
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK, open_merchant
from tongbao.parties.merchants.model import Merchant
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentReads
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.contract.outcomes import Declined, Exchange, Succeeded

FIRST_DAY = date(2026, 11, 2)
CHANNEL = UUID(int=0xC4A)
SEEN = Exchange("POST", "bank", "order", 200, "status", 1)


class Books:
    """A merchant's account and what may happen to it."""

    def __init__(self, db: Db, clearing: Clearing, merchant: Merchant) -> None:
        self.db = db
        self.clearing = clearing
        self.ledger = clearing.flow.ledger
        self.merchant = merchant
        self.payable = AccountKey("merchant_payable", "CNY", merchant.id)
        self.due = AccountKey("settlement_due", "CNY", merchant.id)
        self.held: list[tuple[UUID, int, int]] = []
        self.mode = Mode.SANDBOX

    @property
    def book(self) -> int:
        return self.merchant.book(self.mode)

    @property
    def now(self) -> datetime:
        return self.db.clock.now()

    @property
    def today(self) -> date:
        return business_date(self.db.clock.now())

    def at(self, day: date, hour: int, minute: int = 0) -> None:
        """Put the business clock to a moment."""
        moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=BUSINESS_ZONE)
        self.db.clock.offset = moment - real_now()

    async def post(self, rule: str, reference: UUID, **amounts: int) -> bool:
        group = Group(
            id=new_id(),
            book=self.book,
            transfers=posting.transfers(
                rule,
                reference=reference,
                accounts={
                    "merchant_payable": self.payable,
                    "channel_receivable": AccountKey("channel_receivable", "CNY", CHANNEL),
                },
                amounts={name: Money(amount, "CNY") for name, amount in amounts.items()},
            ),
        )
        [result] = await self.ledger.submit([group])
        return result.happened

    async def capture(self, gross: int, fee: int) -> None:
        assert await self.post("payment.captured", new_id(), gross=gross, fee=fee)

    async def hold(self, gross: int, fee_back: int) -> bool:
        reference = new_id()
        if not await self.post("refund.held", reference, gross=gross, fee_back=fee_back):
            return False
        self.held.append((reference, gross, fee_back))
        return True

    async def end_refund(self, place: int, *, succeeds: bool) -> None:
        reference, _, fee_back = self.held.pop(place)
        rule = "refund.succeeded" if succeeds else "refund.failed"
        await self.post(rule, reference, fee_back=fee_back)

    async def settle(self, day: date) -> list[Any]:
        return await settle_day(self.clearing, day, merchant_id=self.merchant.id, mode=self.mode)

    async def end_payouts(self, chance: random.Random) -> None:
        for payout in await open_payouts(self.db, merchant_id=self.merchant.id):
            paid = Succeeded("ref", payout.money, self.db.clock.now())
            news = chance.choice([paid, Declined("AC03")])
            await record_payout_news(self.clearing, payout, "query", news, SEEN)

    async def posted(self, key: AccountKey) -> int:
        return (await balance_of(self.db, self.book, key)).posted

    async def another(self, name: str) -> Books:
        """One more merchant of the same house."""
        async with self.db.begin("tests") as tx:
            merchant = await open_merchant(tx, self.clearing.keyring, name=name)
        made = Books(self.db, self.clearing, merchant)
        made.mode = self.mode
        return made

    async def rows(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.db.fetch(sql, args)]


async def open_books(db: Db, folder: Path) -> Books:
    """A merchant with an empty account, on the morning of the first day."""
    keyring = Keyring.from_file(folder / "kek")
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    for book in (LIVE_BOOK, SANDBOX_BOOK):
        await ledger.open_book(book, actor="tests")

    async def no_account(_: UUID) -> Any:
        raise LookupError

    flow = Flow(
        db=db,
        commits=Commits(db, "payments"),
        reads=PaymentReads(db),
        ledger=ledger,
        channels={},
        account=no_account,
        licence=Licence.PAYMENT_INSTITUTION,
        nudge=lambda: None,
    )
    bank = BankTransfer(HttpClient(LoopbackAllowed()))
    clearing = Clearing(flow=flow, bank=bank, keyring=keyring, folder=folder)
    async with db.begin("tests") as tx:
        merchant = await open_merchant(tx, keyring, name="shop")
    made = Books(db, clearing, merchant)
    made.at(FIRST_DAY, 9)
    return made
