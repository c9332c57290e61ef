"""What is measured: N trades on all three sides, and a bill with differences planted in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.http import HttpClient, LoopbackAllowed
from tongbao.kernel.clock import BUSINESS_ZONE, day_bounds
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import share_half_up
from tongbao.ledger.book import Ledger
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentReads
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.contract.bills import BillFile
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, Exchange
from tongbao.rails.channels.wechat_pay.bills import TERMS, parse_trade_bill

DAY = date(2026, 11, 20)
FEE_PPM = 6_000
PLANTED = 30  # in turn dropped, with another amount, with another fee; spread over the day
KINDS = ("dropped", "amount", "fee")
ACCOUNT = UUID(int=0xACC)
MERCHANT = UUID(int=0x3E7C)
RECEIVABLE, PAYABLE = (SANDBOX_BOOK << 40) + 1_000_001, (SANDBOX_BOOK << 40) + 1_000_002
CHUNK = 20_000
CODE = 1
HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,"
    "退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMMARY = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)


class NoKeys(Struct, frozen=True):
    """The bill is there already, so nothing is signed."""


class Made:
    """The N trades, worked out again whenever they are needed."""

    def __init__(self, count: int, planted: int = PLANTED) -> None:
        self.count = count
        self.planted = planted
        self.start, _ = day_bounds(DAY)

    def __iter__(self) -> Iterator[tuple[int, UUID, UUID, int, datetime]]:
        """Yield place, attempt id, payment id, amount and time of every trade."""
        begins = int(self.start.timestamp() * 1000)
        for place in range(self.count):
            at = self.start + timedelta(seconds=place * 86_000 / self.count)
            tick = begins + place * 86_000_000 // self.count
            value = tick << 80 | 0x7 << 76 | 0b10 << 62 | place
            yield place, UUID(int=value), UUID(int=value | 1 << 61), 100 + place % 9_900, at


def planted(made: Made) -> dict[int, str]:
    """What is done to which trade."""
    step = made.count // (made.planted + 1)
    return {step * (n + 1): KINDS[n % 3] for n in range(made.planted)}


class Prepared:
    """A channel that hands out the bill that was made."""

    name = "wechat_pay"
    currencies = frozenset({"CNY"})
    bill_terms = TERMS

    def __init__(self, bill: Path) -> None:
        self._bill = bill

    async def download_bill(self, _account: Any, _day: date, folder: Path) -> Answer[BillFile]:
        copy = folder / "bill.csv"
        os.link(self._bill, copy)
        found = BillFile(copy, sha256="0" * 64, size=self._bill.stat().st_size)
        return Answer(found, Exchange("GET", "bench", "", 200, "", 0))

    def parse_bill(self, path: Path) -> Any:
        return parse_trade_bill(path)


def write_bill(path: Path, made: Made) -> None:
    """Write the bill with its planted differences."""
    rows = paid = fees = 0
    wrong = planted(made)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"\ufeff{HEADER}\r\n")
        for place, attempt, _, amount, at in made:
            fault = wrong.get(place)
            if fault == "dropped":
                continue
            told = amount + (fault == "amount")
            fee = share_half_up(amount, FEE_PPM) + (fault == "fee")
            rows, paid, fees = rows + 1, paid + told, fees + fee
            when = at.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")
            yuan, cost = f"{told / 100:.2f}", f"{fee / 100:.5f}"
            file.write(
                f"`{when},`wx1234567890abcdef,`1900000109,`0,`,`4200000891{place:018d},"
                f"`{base32(attempt)},`oEGFkkxiPNBmm8UrcrP0cJESuYQ_,`NATIVE,`SUCCESS,`OTHERS,`CNY,"
                f"`{yuan},`0.00,`0,`0,`0.00,`0.00,`,`,`tea,`,`{cost},`0.60%,`{yuan},`0.00,`\r\n"
            )
        total, cost = f"{paid / 100:.2f}", f"{fees / 100:.5f}"
        file.write(f"{SUMMARY}\r\n`{rows},`{total},`0.00,`0.00,`{cost},`{total},`0.00\r\n")


async def fill(db: Db, made: Made) -> None:
    """Write what payments and the ledger would have written."""
    account = (SANDBOX_BOOK, RECEIVABLE, "channel_receivable", ACCOUNT, "CNY", "debit")
    payable = (SANDBOX_BOOK, PAYABLE, "merchant_payable", MERCHANT, "CNY", "credit")
    for place, floor in ((account, None), (payable, 0)):
        await db.execute(
            "insert into ledger_account values"
            " ($1, $2, $3, $4, $5, $6, $7, null, 'open', 0, 1000000000000, 0, 1000000000000,"
            " 0, null, $8)",
            (*place, floor, made.start),
        )
    await db.execute("alter table payment alter column metadata set default '{}'", ())
    await db.execute("insert into ledger_code values ($1, 'payment.captured/gross')", (CODE,))
    chunk = []
    for trade in made:
        chunk.append(trade)
        if len(chunk) == CHUNK:
            await fill_chunk(db, chunk)
            chunk = []
    await fill_chunk(db, chunk)
    for head in (
        "update ledger_book set last_seq = $2 where book = $1",
        "update ledger_watermark set seq = $2 where book = $1",
    ):
        await db.execute(head, (SANDBOX_BOOK, made.count))
    await db.execute("analyze", ())


async def fill_chunk(db: Db, chunk: list[tuple[int, UUID, UUID, int, datetime]]) -> None:
    book, who = SANDBOX_BOOK, (MERCHANT, "sandbox")
    async with db.begin("bench") as tx:
        await tx.copy(
            "payment",
            (
                "book", "id", "merchant_id", "mode", "merchant_order_no", "request_hash", "amount",
                "currency", "subject", "channel", "pay_mode", "state", "captured", "refunded",
                "fee", "fee_returned", "refund_returns_fee", "late_success", "created_at",
                "expires_at", "succeeded_at", "ended_at", "version",
            ),
            [
                (
                    book, payment, *who, str(place), b"", amount, "CNY", "tea", "wechat_pay", "qr",
                    "succeeded", amount, 0, 0, 0, True, "refund", at, at, at, at, 3,
                )
                for place, _, payment, amount, at in chunk
            ],
        )  # fmt: skip
        await tx.copy(
            "attempt",
            (
                "book", "id", "payment_id", "merchant_id", "mode", "channel", "account_id",
                "pay_mode", "amount", "currency", "state", "channel_ref", "client_ip",
                "created_at", "paid_at", "queries",
            ),
            [
                (
                    book, attempt, payment, *who, "wechat_pay", ACCOUNT, "qr", amount, "CNY",
                    "succeeded", f"4200000891{place:018d}", "127.0.0.1", at, at, 1,
                )
                for place, attempt, payment, amount, at in chunk
            ],
        )  # fmt: skip
        await tx.copy(
            "ledger_transfer",
            (
                "book", "id", "seq", "debit_account", "credit_account", "amount", "kind", "flags",
                "code", "reference", "debit_after", "credit_after", "biz_date", "value_date", "at",
            ),
            [
                (
                    book, attempt, place + 1, RECEIVABLE, PAYABLE, amount, 1, 0,
                    CODE, payment, 0, 0, DAY, DAY, at,
                )
                for place, attempt, payment, amount, at in chunk
            ],
        )  # fmt: skip


def clearing_on(db: Db, folder: Path, bill: Path) -> Clearing:
    account = ChannelAccount(
        id=ACCOUNT,
        channel="wechat_pay",
        mode=Mode.SANDBOX,
        gateway="",
        merchant_number="1900000109",
        app_id="",
        notify_url="",
        fee_ppm=FEE_PPM,
        secrets=NoKeys(),
    )

    async def the_account(_id: UUID) -> ChannelAccount:
        return account

    channel: Any = Prepared(bill)
    flow = Flow(
        db=db,
        commits=Commits(db, "payments"),
        reads=PaymentReads(db),
        ledger=Ledger(db, Licence.PAYMENT_INSTITUTION),
        channels={"wechat_pay": channel},
        account=the_account,
        licence=Licence.PAYMENT_INSTITUTION,
        nudge=lambda: None,
    )
    bank = BankTransfer(HttpClient(LoopbackAllowed()))
    return Clearing(
        flow=flow, bank=bank, keyring=Keyring.from_file(folder / "kek"), folder=folder / "bills"
    )
